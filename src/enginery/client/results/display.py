"""Shows what tasks have written: at once while it comes, or sorted when all of it is there.

What comes from several engines is tagged: ``[stdout:0] text``, with the tag on a line of its own before text
of several lines. What one engine wrote for a bare call is shown as it is.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from enginery.client.ipython import current_shell, shows_html
from enginery.client.results.execute_reply import ExecuteReply
from enginery.client.results.folding import Held, Item, Share, engine_list, fold, prompt_of
from enginery.client.results.metadata import Metadata
from enginery.client.results.outcome import Outcome
from enginery.client.results.said import Entry, Erased, Shown, Text, Updated
from enginery.ids import NO_ENGINE, EngineId

GROUPINGS = ("type", "engine", "order")


def show_text(stream: str, text: str, tag: str = "") -> None:
    """Write a task's text to this process's stream of that name, and end its last line."""
    if not text:
        return
    if tag:
        has_several = "\n" in text.rstrip("\n")
        text = f"{tag}\n{text}" if has_several and not text.startswith("\n") else f"{tag} {text}"
    file = sys.stderr if stream == "stderr" else sys.stdout
    file.write(text if text.endswith("\n") else text + "\n")
    file.flush()


def tag_of(kind: str, engines: Iterable[int | None]) -> str:
    """``[stdout:0]``, or ``[stdout:0-3]`` for what engines show alike."""
    names = engine_list(engines)
    return f"[{kind}:{names}]" if names else f"[{kind}]"


def show_outputs(
    tasks: Sequence[tuple[Metadata, Any]],
    *,
    groupby: str,
    result_only: bool,
    is_single: bool,
    is_folded: bool = False,
) -> None:
    """Show text, displays and values of tasks that have ended, each given as (metadata, value)."""
    for kinds in [("result",)] if result_only else _sections(tasks, groupby):
        shares = [Share(metadata["engine_id"], _items(metadata, value, kinds)) for metadata, value in tasks]
        for alike in fold(shares) if is_folded else ([share] for share in shares):
            show_alike(alike, is_tagged=not is_single)


def _sections(tasks: Sequence[tuple[Metadata, Any]], groupby: str) -> list[tuple[str | int, ...]]:
    """Which kinds of things are shown together, of one engine after the other; a number is one display."""
    if groupby == "engine":
        return [("stdout", "stderr", "outputs", "result")]
    if groupby == "type":
        return [("stdout",), ("stderr",), ("outputs",), ("result",)]
    longest = max((len(metadata["outputs"]) for metadata, _ in tasks), default=0)
    return [("stdout",), ("stderr",), *((number,) for number in range(longest)), ("result",)]


def _items(metadata: Metadata, value: Any, kinds: Sequence[str | int]) -> list[Item]:
    items: list[Item] = []
    for kind in kinds:
        if kind == "result":
            items.append(("result", value if isinstance(value, ExecuteReply) and value.data else None))
        elif isinstance(kind, int):
            items.append(("outputs", metadata["outputs"][kind : kind + 1]))
        else:
            items.append((kind, metadata[kind]))
    return [item for item in items if item[1]]


def show_alike(alike: Sequence[Share], *, is_tagged: bool = True) -> None:
    """Show what the first of these engines shows, with all of them in its tags."""
    engines = [share.engine for share in alike]
    for number, (kind, content) in enumerate(alike[0].items if alike else ()):
        if kind == "result":
            show_reply(content, prompt_of([share.items[number][1] for share in alike]))
        elif kind == "outputs":
            show_displays(content, _output_tag(engines, content, is_tagged=is_tagged))
        else:
            show_text(kind, content, tag_of(kind, engines) if is_tagged else "")


def _output_tag(
    engines: Sequence[int | None], outputs: Sequence[Mapping[str, Any]], *, is_tagged: bool
) -> str:
    """Pictures say where they come from, also if there is only one engine that could have made them."""
    has_picture = any(kind.startswith("image/") for output in outputs for kind in output["data"])
    return tag_of("output", engines) if is_tagged or has_picture else ""


def show_displays(outputs: Sequence[Any], tag: str) -> None:
    """Show displays again, each a dictionary with `data` and `metadata` by MIME type."""
    if not outputs:
        return
    if tag:
        show_text("stdout", tag)
    display = _rich_display()
    for output in outputs:
        if display is not None:
            display(output["data"], metadata=output.get("metadata"), raw=True)
        else:
            show_text("stdout", _plain(output["data"]))


def _plain(data: Mapping[str, Any]) -> str:
    text = data.get("text/plain")
    return f"[{', '.join(data)}: not to be shown as text]" if text is None and data else str(text or "")


def show_live(shown: Shown, tag: str, *, task: str, is_update: bool) -> None:
    """Show a display that may be updated later, or its update: where that can be done in its place."""
    display = _rich_display()
    data, metadata, _ = shown.bundle
    if not data:
        return  # it has been erased
    if display is None or shown.display_id is None:
        show_displays([shown.bundle._asdict()], tag)
        return
    own_id = f"{task}-{shown.engine}-{shown.display_id}"
    if is_update:
        display(data, metadata=metadata, raw=True, display_id=own_id, update=True)
        return
    if tag:
        show_text("stdout", tag)
    display(data, metadata=metadata, raw=True, display_id=own_id)


def show_reply(reply: ExecuteReply, prompt: str) -> None:
    display = _rich_display()
    if display is None:
        show_text("stdout", reply.as_text(prompt))
        return
    bundle, metadata = reply._repr_mimebundle_()
    if bundle and shows_html():
        show_text("stdout", prompt)  # the place of the text is taken by something richer
    text = reply.as_text(prompt)
    display({**bundle, "text/plain": text} if text else bundle, metadata=metadata, raw=True)


def _rich_display() -> Callable[..., Any] | None:
    """IPython's `display`, where this process runs in a shell of IPython's, which has imported it."""
    display = sys.modules.get("IPython.display")
    return None if display is None or current_shell() is None else display.display


class OutputStream:
    """Shows the text and the displays of tasks as they come.

    With several tasks each line is tagged, so a line is shown when it is whole. If it is folded, what comes
    is shown at each `flush`. `around` is entered whenever something is written.
    """

    def __init__(
        self,
        *,
        is_tagged: bool,
        is_folded: bool = False,
        around: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._around = around
        self._is_tagged = is_tagged
        self._held = Held() if is_tagged and is_folded else None
        self._lock = threading.Lock()
        self._shown: dict[Outcome, int] = {}  # entries of each task
        self._rests: dict[tuple[Outcome, str], str] = {}  # lines that have only begun
        self._is_open = True

    def __repr__(self) -> str:
        return f"<OutputStream of {len(self._shown)} tasks>"

    def add(self, outcome: Outcome) -> None:
        """Show this task's text, first what has come before."""
        outcome.watch = self.look
        self.look(outcome)

    def look(self, outcome: Outcome) -> None:
        """Something has come, or the end. Any thread may call it."""
        self._show(outcome, is_last=False)

    def close(self) -> None:
        """Show what is left, and nothing from now on."""
        for outcome in list(self._shown):
            outcome.watch = None
            self._show(outcome, is_last=True)
        self.flush()
        self._is_open = False

    @property
    def is_holding(self) -> bool:
        """Whether something was held to be folded."""
        return bool(self._held)

    def flush(self) -> None:
        """Show what was held."""
        with self._lock:
            if self._held:
                with self._around():
                    self._held.flush(show_alike)

    def _show(self, outcome: Outcome, *, is_last: bool) -> None:
        with self._lock:
            if not self._is_open:
                return
            has_all = outcome.has_all_output  # asked first: then nothing comes behind the entries
            entries, self._shown[outcome] = outcome.entries(self._shown.get(outcome, 0))
            if entries:
                with self._around():
                    for entry in entries:
                        self._show_entry(outcome, entry)
            rests = [stream for stream in ("stdout", "stderr") if (outcome, stream) in self._rests]
            if rests and (is_last or has_all):
                engine = outcome.target if outcome.result is None else outcome.result.engine
                with self._around():
                    for stream in rests:
                        self._write(outcome, stream, "", engine, is_last=True)

    def _show_entry(self, outcome: Outcome, entry: Entry) -> None:
        if isinstance(entry, Text):
            self._write(outcome, entry.stream, entry.text, entry.engine)
        elif isinstance(entry, Erased):
            if not self._is_tagged and shows_html():
                sys.modules["IPython.display"].clear_output(wait=entry.wait)
        else:
            shown = entry.shown if isinstance(entry, Updated) else entry
            if self._held is not None:
                if shown.display_id is None:
                    self._held.add("outputs", shown.engine, shown.bundle._asdict())
                    return
                self._held.flush(show_alike)  # what is updated in its place cannot be folded
            tag = _output_tag([shown.engine], [shown.bundle._asdict()], is_tagged=self._is_tagged)
            show_live(shown, tag, task=str(outcome.task), is_update=isinstance(entry, Updated))

    def _write(
        self, outcome: Outcome, stream: str, text: str, engine: EngineId | None, *, is_last: bool = False
    ) -> None:
        if not self._is_tagged:
            file = sys.stderr if stream == "stderr" else sys.stdout
            file.write(text)
            file.flush()
            return
        whole, newline, rest = (self._rests.pop((outcome, stream), "") + text).rpartition("\n")
        if rest and is_last:
            whole, newline, rest = whole + newline + rest, "\n", ""
        if rest:
            self._rests[outcome, stream] = rest
        share = Share(None if engine in (None, NO_ENGINE) else engine, [(stream, whole + newline)])
        if self._held is None:
            show_alike([share])
        elif whole + newline:
            self._held.add(stream, share.engine, whole + newline)
