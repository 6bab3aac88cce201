"""Progress bars: how many items are done, how many failed, how long it will take."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar


class ProgressBar:
    """A bar that may be moved by several threads, in a terminal or a notebook."""

    def __init__(self, total: int | None, *, name: str, unit: str = "items") -> None:
        self._total = total
        self._done = self._failed = 0
        self._lock = threading.Lock()
        self._bar: Any = None
        with contextlib.suppress(OSError, ValueError):  # no screen, no bar
            self._bar = _bar_class()(
                total=total, desc=name or None, unit=f" {unit}", file=sys.stderr, dynamic_ncols=True
            )

    def __repr__(self) -> str:
        return f"<ProgressBar {self._done} of {self._total}, {self._failed} failed>"

    def move_to(self, done: int, failed: int = 0) -> None:
        """Show these numbers; a smaller one than before is late news and changes nothing."""
        with self._lock:
            if failed > self._failed:
                self._failed = failed
                self._draw(lambda bar: bar.set_postfix_str(f"{failed} failed", refresh=False))
            if done > self._done:
                step, self._done = done - self._done, done
                self._draw(lambda bar: bar.update(step))

    def set_total(self, total: int) -> None:
        with self._lock:
            self._total = total
            self._draw(self._refresh)

    def _refresh(self, bar: Any) -> None:
        bar.total = self._total
        bar.refresh()

    def close(self) -> None:
        """Leave the last state on the screen. Repeating it does nothing."""
        with self._lock:
            self._draw(lambda bar: bar.close())

    def _draw(self, step: Callable[[Any], object]) -> None:
        """A screen that is gone (a closed pipe) ends the bar, not the work that it shows."""
        if self._bar is None:
            return
        try:
            step(self._bar)
        except (OSError, ValueError):
            self._bar = None


def _bar_class() -> type[Any]:
    # Both are there only where a notebook can show widgets; a terminal must not pay for the import.
    if "ipykernel" in sys.modules and "ipywidgets" in sys.modules:
        from tqdm.notebook import tqdm as notebook_bar

        return notebook_bar  # type: ignore[no-any-return]
    return _terminal_bar()


@cache
def _terminal_bar() -> type[Any]:
    from tqdm import tqdm  # 20 ms, and most calls show no bar

    class TerminalBar(tqdm):  # type: ignore[misc]
        # tqdm's defaults leave a thread behind and make a lock shared by processes; neither is needed here.
        monitor_interval: ClassVar[int] = 0

    TerminalBar.set_lock(threading.RLock())
    return TerminalBar
