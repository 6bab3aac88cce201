"""Where progress is drawn: lines of a terminal, or a place of its own in a notebook."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
from functools import cache
from typing import Any, ClassVar

from enginery.client.ipython import current_shell, shows_html
from enginery.client.results.bars import Screen
from enginery.client.snapshots import Standing
from enginery.frontends.faces.cards import card_of
from enginery.frontends.faces.notebook import Place
from enginery.frontends.faces.text import bar_tail, line_text
from enginery.frontends.faces.words import NAME_SHOWN, one_line


def open_screen(widget: bool | None = None) -> Screen:
    """A screen for one bar: a notebook's if `widget`, else a terminal's; None is what the place suggests."""
    is_rich = shows_html() if widget is None else widget and current_shell() is not None
    return NotebookScreen() if is_rich else TerminalScreen()


class TerminalScreen:
    """A bar of tqdm's, and on a terminal a line for each task that reports of itself."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._lines: list[Any] = []

    def __repr__(self) -> str:
        return f"<TerminalScreen with {len(self._lines)} lines>"

    def draw(self, standing: Standing) -> None:
        if sys.stderr is None:
            return  # a program without a terminal, and without a place for errors
        name = one_line(standing.name, NAME_SHOWN)
        tail = bar_tail(standing).replace("{", "{{").replace("}", "}}")
        if standing.total is not None:
            form = f"{{l_bar}}{{bar}}| {tail}"
        else:
            form = f"{{desc}}: {tail}" if name else tail
        if self._bar is None:
            made = {
                "total": standing.total,
                "initial": standing.done,
                "desc": name or None,
                "bar_format": form,
            }
            self._bar = _make_bar(dynamic_ncols=True, **made)
        else:
            self._bar.n, self._bar.total, self._bar.bar_format = standing.done, standing.total, form
        self._bar.refresh()
        if sys.stderr.isatty():
            self._draw_lines(_texts_of(standing))

    def _draw_lines(self, texts: list[str]) -> None:
        while len(self._lines) > len(texts):
            self._lines.pop().close()
        for number, text in enumerate(texts):
            if number < len(self._lines):
                self._lines[number].set_description_str(text)
            else:
                self._lines.append(_make_bar(desc=text, bar_format="{desc}", leave=False))
                self._lines[-1].refresh()

    def clear(self) -> None:
        for line in [*reversed(self._lines), self._bar]:
            if line is not None:
                line.clear()

    def close(self) -> None:
        with contextlib.ExitStack() as closing:  # all of them, also where the terminal is gone
            for bar in [*([] if self._bar is None else [self._bar]), *self._lines]:
                closing.callback(_put_away, bar)
        self._lines.clear()


def _texts_of(standing: Standing) -> list[str]:
    columns = shutil.get_terminal_size().columns - 1
    texts = [f"  {line_text(line)}"[:columns] for line in standing.lines]
    if standing.more_lines:
        texts.append(f"  and {standing.more_lines} more"[:columns])
    return texts


def _make_bar(**made: Any) -> Any:
    """A bar that is not drawn yet: if drawing it fails, there is one to put away."""
    bar = _terminal_bar()(file=sys.stderr, delay=1e-9, **made)
    bar.delay = 0
    return bar


def _put_away(bar: Any) -> None:
    try:
        bar.close()
    finally:
        # tqdm keeps one that could not be drawn among those for which the next ones leave a line.
        type(bar)._instances.discard(bar)


@cache
def _terminal_bar() -> type[Any]:
    from tqdm import tqdm  # 20 ms, and most calls show no bar

    class TerminalBar(tqdm):  # type: ignore[misc]
        # tqdm's defaults leave a thread behind and make a lock shared by processes; neither is needed here.
        monitor_interval: ClassVar[int] = 0

    TerminalBar.set_lock(threading.RLock())
    return TerminalBar


class NotebookScreen:
    """A place of the output that changes; no widgets are needed."""

    def __init__(self) -> None:
        self._place = Place()

    def __repr__(self) -> str:
        return f"<NotebookScreen {self._place!r}>"

    def draw(self, standing: Standing) -> None:
        self._place.show(card_of(standing))

    def clear(self) -> None:
        """What is written goes below."""

    def close(self) -> None:
        """The last state stays."""
