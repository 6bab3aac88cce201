"""What one task has said so far: text and displays in order, published values by name, within a bound.

Texts and displays are numbered (see `messages.Output`): what comes twice is taken once, and where something
is missing a sentence says so. Of what is beyond `KEPT_BYTES` the oldest goes, and a sentence stands for it.

Whoever hears something only notes it. It is sorted in outside of the session's lock, by the first who looks.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, NamedTuple

from enginery.client.results.assembling import DisplayAssembly, Whole
from enginery.ids import EngineId
from enginery.objects.displays import Bundle, unpack_display
from enginery.protocol.messages import RECORDED, Data, Display, Output, TaskResult, text_size

Heard = Output | Display | Data

_STREAMS = ("stdout", "stderr")
_NOTHING = Bundle({}, {}, {})
KEPT_BYTES = 64 << 20
ENTRY_BYTES = 100
"""What an entry weighs beside its content."""


class Text(NamedTuple):
    """A piece of text."""

    stream: str
    text: str
    engine: EngineId


class Shown:
    """A display as it is now; it may be updated."""

    __slots__ = ("bundle", "display_id", "engine", "size_bytes")

    def __init__(self, bundle: Bundle, engine: EngineId, size_bytes: int) -> None:
        self.bundle = bundle
        self.engine = engine
        self.size_bytes = size_bytes
        self.display_id = bundle.transient.get("display_id")

    def __repr__(self) -> str:
        return f"<Shown: {', '.join(self.bundle.data)}>"


class Updated(NamedTuple):
    """A display has changed."""

    shown: Shown


class Erased(NamedTuple):
    """All displays before this go: now, or when the next one comes."""

    engine: EngineId
    wait: bool


Entry = Text | Shown | Updated | Erased


class Said:
    """Noted by the thread that reads the connection, looked at by any."""

    __slots__ = (
        "_assembly",
        "_counted",
        "_entries",
        "_first",
        "_gone",
        "_has_last",
        "_is_erasing",
        "_lock",
        "_noted",
        "_shown",
        "_size_bytes",
        "_values",
        "heard_at",
        "last",
    )

    def __init__(self) -> None:
        self.last = (0, 0)
        """Attempt and number of the last that was heard."""
        self.heard_at = 0.0
        self._has_last = False
        self._noted: deque[Heard] = deque()
        self._lock = threading.Lock()  # around what follows
        self._entries: list[Entry | None] = []  # None: gone
        self._first = 0  # all before it are gone
        self._gone = {"stdout": 0, "stderr": 0, "displays": 0}  # characters, and displays
        self._size_bytes = 0
        self._counted: dict[int, int] = {}  # attempt: number of its last piece
        self._values: dict[str, bytes] = {}
        self._assembly = DisplayAssembly()
        self._shown: dict[Shown, None] = {}
        self._is_erasing = False

    def __repr__(self) -> str:
        return f"<Said: {len(self._entries)} entries, {self._size_bytes} bytes>"

    def note(self, saying: Heard) -> None:
        """Something was heard, in order."""
        self._noted.append(saying)
        self.heard_at = time.time()
        if not isinstance(saying, Data):
            self.last = max(self.last, (saying.attempt, saying.number))

    def note_last(self, result: TaskResult) -> None:
        """The task has ended, and its result may have brought all that it wrote. It may be said again."""
        if not self._has_last:
            self._has_last = True
            for text in last_texts(result):
                self._noted.append(Output(result.task, text.engine, text.stream, text.text, result.attempt))

    # ------------------------------------------------------------ looked at

    def entries(self, start: int = 0) -> tuple[list[Entry], int]:
        """What has come from an entry on, and the number of the next one."""
        with self._lock:
            self._sort_in()
            found = self._entries[start:]
            return [entry for entry in found if entry is not None], start + len(found)

    def text(self, stream: str = "") -> str:
        """All that was written to a stream, or to both."""
        streams = (stream,) if stream else _STREAMS
        texts = [entry.text for entry in self.entries()[0] if type(entry) is Text and entry.stream in streams]
        gone = sum(self._gone[name] for name in streams)
        if gone:
            texts.insert(0, f"[the first {gone} characters of this text are no longer kept]\n")
        return "".join(texts)

    def displays(self) -> list[dict[str, Any]]:
        """The displays as they are now, as dictionaries of `data`, `metadata` and `transient`."""
        with self._lock:
            self._sort_in()
            bundles = [shown.bundle for shown in self._shown]
            gone = self._gone["displays"]
        if gone:
            bundles.insert(0, _sentence(f"[the first {gone} displays of this task are no longer kept]"))
        return [bundle._asdict() for bundle in bundles]

    def values(self) -> dict[str, bytes]:
        """The latest published value of each name, pickled."""
        with self._lock:
            self._sort_in()
            return dict(self._values)

    # ------------------------------------------------------------ inside, under the lock

    def _sort_in(self) -> None:
        while self._noted:
            saying = self._noted.popleft()
            if isinstance(saying, Data):
                self._values[saying.name] = saying.payload
            elif self._is_news(saying):
                if isinstance(saying, Output):
                    self._write(saying.stream, saying.text, saying.engine)
                elif (whole := self._assembly.add(saying)) is not None:
                    self._show(whole)
        while self._size_bytes > KEPT_BYTES:
            self._let_go_of_oldest()

    def _is_news(self, saying: Output | Display) -> bool:
        """Whether this was not heard before; says what is missing before it."""
        attempt, number = saying.attempt, saying.number
        if not number:
            return True  # the last words of an attempt that has failed, which are not counted
        if attempt == RECORDED:
            if number == 1:
                self._forget()
            return True
        expected = self._counted.get(attempt, 0) + 1
        if number < expected:
            return False
        if number > expected:
            self._say_missing(number - expected, saying.engine)
        self._counted[attempt] = number
        return True

    def _say_missing(self, count: int, engine: EngineId) -> None:
        what = "1 piece" if count == 1 else f"{count} pieces"
        self._write("stderr", f"[{what} of this task's output did not arrive here]\n", engine)

    def _write(self, stream: str, text: str, engine: EngineId) -> None:
        if text:
            self._add(Text("stderr" if stream == "stderr" else "stdout", text, engine), text_size(text))

    def _show(self, whole: Whole) -> None:
        try:
            bundle = unpack_display(whole.content)
        except ValueError as error:
            bundle = _sentence(f"[a display of this task cannot be read: {error}]")
        if whole.kind == "clear_output":
            self._erase(Erased(whole.engine, bool(bundle.transient.get("wait"))))
            return
        if self._is_erasing:
            self._erase(Erased(whole.engine, False))
        shown = Shown(bundle, whole.engine, len(whole.content))
        if whole.kind != "update_display" or not self._update(shown):
            self._shown[shown] = None
            self._add(shown, shown.size_bytes)

    def _update(self, new: Shown) -> bool:
        """Change the displays of the same id; False if there are none."""
        changed = [shown for shown in self._shown if shown.display_id == new.display_id is not None]
        for shown in changed:
            self._size_bytes += new.size_bytes - shown.size_bytes
            shown.bundle, shown.size_bytes = new.bundle, new.size_bytes
            self._add(Updated(shown), 0)
        return bool(changed)

    def _erase(self, erased: Erased) -> None:
        self._is_erasing = erased.wait
        if not erased.wait:
            self._size_bytes -= sum(shown.size_bytes for shown in self._shown)
            for shown in self._shown:
                shown.bundle, shown.size_bytes = _NOTHING, 0  # its entry stays
            self._shown.clear()
        self._add(erased, 0)

    def _add(self, entry: Entry, size_bytes: int) -> None:
        self._entries.append(entry)
        self._size_bytes += ENTRY_BYTES + size_bytes

    def _let_go_of_oldest(self) -> None:
        entry, self._entries[self._first] = self._entries[self._first], None
        self._first += 1
        if entry is None:
            return
        self._size_bytes -= ENTRY_BYTES
        if isinstance(entry, Text):
            self._gone[entry.stream] += len(entry.text)
            self._size_bytes -= text_size(entry.text)
        elif isinstance(entry, Shown) and entry in self._shown:
            self._gone["displays"] += 1
            self._size_bytes -= entry.size_bytes
            del self._shown[entry]

    def _forget(self) -> None:
        """All of it comes again, as it was kept."""
        self._entries = [None] * len(self._entries)
        self._first = len(self._entries)
        self._shown.clear()
        self._size_bytes = 0
        self._is_erasing = False


def last_texts(result: TaskResult | None) -> list[Text]:
    """What has come with a result: all that its task wrote, if that was little and nothing went before it."""
    if result is None or not (result.stdout or result.stderr):
        return []
    texts = Text("stdout", result.stdout, result.engine), Text("stderr", result.stderr, result.engine)
    return [text for text in texts if text.text]


def _sentence(text: str) -> Bundle:
    return Bundle({"text/plain": text}, {}, {})
