"""What tasks print, display and publish: kept apart by task, sent while they run; short texts with results.

Text goes to the task that the writer works for (see `threads`), also when that has ended; what is nobody's
goes to the engine's log (see `streams`). Writers only append; the control thread, woken at the first text,
collects what has gathered after `GATHER_S` and sends it, so a task that prints much costs few messages. If a
task has said nothing but a short text when it ends, that travels with its result.

Displays and published values take the same way in order with the text; values at once, and then again after
`GATHER_S` at the earliest, but for the last ones of a task. Of several values under one name the last one
counts, so what has not been sent yet is replaced.

Texts and pieces of displays are numbered, and the result says how many there were, so whoever reads it knows
when he has all. Values have no numbers, since they replace each other; the last one is followed by a text,
which is empty if need be. What is said for a task after its end has no number either.

What is written past Python takes another way (see `past_python`); here a mark is made where it belongs.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from typing import NamedTuple, Protocol

from enginery.engine.past_python import PastPython
from enginery.engine.threads import TaskRun, TaskThreads
from enginery.ids import TaskId
from enginery.protocol.messages import clean_text
from enginery.transport.last_words import LastWords

GATHER_S = 0.05
RESULT_TEXT_LIMIT = 1 << 15
"""Characters of output that travel with a result."""
HELD_LIMIT = 64 << 20
"""Characters that may wait here; what is written while more do is counted, and left out."""
RECORD_TEXT_LIMIT = 1 << 15
RECORD_CONTENT_LIMIT = 1 << 18
"""Bytes of a display in one record."""
NO_TASK = TaskId(0)
"""A cell of a front-end runs instead, see `visits`."""
_STREAMS = {"stdout": 0, "stderr": 1}

Show = Callable[[str, bytes], bool]
"""Takes the kind of a display and its content; False if the caller works for no task."""


class Visitors(Protocol):
    """Takes what cells of front-ends write and display, by their numbers."""

    def write(self, number: int, stream: str, text: str) -> None: ...

    def show(self, number: int, kind: str, content: bytes) -> None: ...


class Piece(NamedTuple):
    """Text of one task, to be sent on its own."""

    task: TaskId
    stream: str
    text: str
    attempt: int = 1
    number: int = 0  # of the piece; 0 = not counted
    mark: int = 0  # not 0: without text; here belongs what was written past Python up to this mark
    written: int = 0  # number of the last that is in it, or in a piece before it


class Shown(NamedTuple):
    """A display of one task, or a piece of it."""

    task: TaskId
    kind: str
    content: bytes
    offset: int = 0
    is_last: bool = True
    attempt: int = 1
    number: int = 0


class Value(NamedTuple):
    """What one task has published under a name."""

    task: TaskId
    name: str
    payload: bytes


Said = Piece | Shown | Value


class Ending(NamedTuple):
    """What of a task's output goes with its result."""

    stdout: str = ""
    stderr: str = ""
    outputs: int = 0  # pieces that do not
    written: int = 0  # number of the last that it wrote


class _Open(NamedTuple):
    """The output of a task that waits while another one runs inside it."""

    run: TaskRun
    number: int
    has_open_value: bool
    is_quiet: bool


class _Write(NamedTuple):
    """A text, or a mark, as it was noted."""

    run: TaskRun
    stream: str
    text: str
    mark: int
    number: int


class _Show(NamedTuple):
    run: TaskRun
    kind: str
    content: bytes


class _Publish(NamedTuple):
    run: TaskRun
    name: str
    payload: bytes


_Noted = _Write | _Show | _Publish
_Texts = dict[tuple[TaskRun, str], list[str]]
_QUIET = Ending()


class OutputCollector:
    """Gathers text, displays and values by task. `wake` is called at the first that should be sent soon.

    Writers only append, without a lock: they may be signal handlers or finalizers that run in the middle of a
    reader, in the reader's own thread.
    """

    def __init__(
        self,
        wake: Callable[[], None],
        threads: TaskThreads | None = None,
        *,
        past: PastPython | None = None,
        last_words: LastWords | None = None,
        held_limit: int = HELD_LIMIT,
    ) -> None:
        self._wake = wake
        self._threads = threads or TaskThreads()
        self._past = past
        self._last_words = last_words
        self._held_limit = held_limit
        self._held = 0  # characters that wait here, roughly: writers take no lock
        self._left_out: dict[tuple[TaskRun, str], int] = {}  # beyond that, by whose it was
        self.visitors: Visitors | None = None
        """Who gets what is said for no task, but for a cell of a front-end."""
        self._noted: deque[_Noted] = deque()
        self._has_values = self._is_due = False
        self._lock = threading.Lock()  # around what follows; taken by readers only
        self._pieces: dict[Hashable, Said] = {}  # in order; values under (task, name)
        self._placed = 0  # pieces of texts and displays so far
        self._number = 0  # of the present task's last piece
        self._seen = 0  # number of the last text that was taken from what was noted,
        self._written = 0  # and of the last one that has become a piece
        self._has_open_value = False  # a value is the last that the present task has said
        self._is_quiet = True  # nobody has said anything since it began
        self._armed = False
        self._is_open = True
        _collectors.add(self)

    def __repr__(self) -> str:
        return f"<OutputCollector of {self._threads!r}>"

    def begin(self, task: TaskId, attempt: int = 1) -> TaskRun:
        self._number = 0
        self._is_quiet = True
        return self._threads.begin(task, attempt)

    def end(self) -> Ending:
        """The present task is over."""
        run = self._threads.running
        assert run is not None, "it has begun"
        found = [] if self._past is None else self._past.look(run, is_over=True)
        if self._is_quiet and not found:
            self._threads.end()
            return _QUIET
        with self._lock:  # the control thread may be in the middle of placing what it has said
            self._threads.end()  # not before: what is noted now would be taken for late
            before = len(self._pieces)
            self._is_due = self._is_due or self._has_values
            texts = self._drain(run)
            is_all = not (found or self._number or self._has_open_value)
            if not is_all or sum(map(len, texts.values())) > RESULT_TEXT_LIMIT:
                for stream, text in texts.items():
                    self._place_text(run, stream, text)
                texts = {}
            for name, mark in found:
                self._place(Piece(run.task, name, "", run.attempt, mark=mark))
            if self._has_open_value:
                self._place(Piece(run.task, "stdout", "", run.attempt))
            self._is_due = self._is_due or len(self._pieces) > before
            ending = Ending(texts.get("stdout", ""), texts.get("stderr", ""), self._number, self._seen)
        if self._is_due:
            self._wake()
        return ending

    def suspend(self) -> _Open:
        """The present task waits, and another one is about to begin inside it."""
        run = self._threads.running
        assert run is not None, "it has begun"
        found = [] if self._past is None else self._past.look(run)
        with self._lock:
            for stream, text in self._drain(run).items():
                self._place_text(run, stream, text)
            for name, mark in found:
                self._place(Piece(run.task, name, "", run.attempt, mark=mark))
            is_quiet = self._is_quiet and not found
            return _Open(run, self._number, self._has_open_value, is_quiet)

    def resume(self, suspended: _Open) -> None:
        """That one has ended."""
        with self._lock:
            self._drain(None)  # what is of others is placed
            self._number, self._has_open_value, self._is_quiet = suspended[1:]
            self._threads.resume(suspended.run)

    def write(self, stream: str, text: str) -> bool:
        """Take text of the caller's task; False if he works for none."""
        run = self._threads.here()
        if run is None or not self._is_open:
            return False
        if run.task == NO_TASK and self.visitors is not None:
            self.visitors.write(run.attempt, stream, clean_text(text))
            return True
        is_late = run is not self._threads.running
        # The end of a line that was begun stays with it, whatever is written meanwhile.
        if self._past is not None and not is_late and text != "\n":
            for name, mark in self._past.look(run):
                self._note(run, name, "", mark=mark)
        self._note(run, stream, text, is_late=is_late)
        return True

    def write_for(self, run: TaskRun, stream: str, text: str) -> None:
        """Take text of a task, whoever brings it."""
        if run.task == NO_TASK and self.visitors is not None:
            self.visitors.write(run.attempt, stream, clean_text(text))
        elif self._is_open:
            self._note(run, stream, text, is_late=run is not self._threads.running)

    def _note(self, run: TaskRun, stream: str, text: str, *, mark: int = 0, is_late: bool = False) -> None:
        if self._held > self._held_limit and not mark:
            left_out = run, stream
            self._left_out[left_out] = self._left_out.get(left_out, 0) + len(text)
            return
        text = clean_text(text)
        self._held += len(text)
        words, number = self._last_words, 0
        if words is not None:
            number = words.keep(*run, _STREAMS[stream], text, is_late=is_late, mark=mark)
        self._take(_Write(run, stream, text, mark, number))

    def show(self, kind: str, content: bytes) -> bool:
        """Take a display of the caller's task; False if he works for none."""
        run = self._threads.here()
        if run is None or not self._is_open:
            return False
        if run.task == NO_TASK and self.visitors is not None:
            self.visitors.show(run.attempt, kind, content)
            return True
        self._take(_Show(run, kind, content))
        return True

    def _take(self, said: _Write | _Show) -> None:
        self._is_quiet = False
        self._noted.append(said)
        if not self._armed:
            self._armed = True
            self._wake()

    def publish(self, name: str, payload: bytes) -> bool:
        """Take a value of the present task; False if the caller does not work for it."""
        run = self._threads.here()
        if run is None or run is not self._threads.running or run.task == NO_TASK or not self._is_open:
            return False
        self._is_quiet = False
        self._noted.append(_Publish(run, name, payload))
        if not self._has_values:
            self._has_values = True
            self._wake()
        return True

    @property
    def is_open(self) -> bool:
        return self._is_open

    def current(self) -> TaskRun | None:
        """The task that the caller works for."""
        return self._threads.here()

    def close(self) -> None:
        """Take nothing any more."""
        self._is_open = False

    def delay_s(self, *, sent_ago_s: float) -> float:
        """How long what has been written is to gather, if something was sent that long ago."""
        if self._is_due:
            return 0.0
        return max(GATHER_S - sent_ago_s, 0.0) if self._has_values else GATHER_S

    def gather(self) -> None:
        """Put in order what has been written; nobody keeps a value that is replaced."""
        self._armed = self._has_values = self._is_due = False
        with self._lock:
            run = self._threads.running
            texts = self._drain(run)
            if run is not None:
                for stream, text in texts.items():
                    self._place_text(run, stream, text)

    def take(self) -> list[Said]:
        """Everything that has gathered."""
        self.gather()
        with self._lock:
            self._account_for_left_out()
            pieces, self._pieces = self._pieces, {}
            written = self._written
            self._held = 0  # what has been written since is small beside the limit
        taken = list(pieces.values())
        for place in range(len(taken) - 1, -1, -1):
            piece = taken[place]
            if isinstance(piece, Piece):
                taken[place] = piece._replace(written=written)
                break
        return taken

    # ------------------------------------------------------------ inside, under the lock

    def _account_for_left_out(self) -> None:
        """Say how much was not kept, if anything."""
        left_out, self._left_out = self._left_out, {}
        for (run, stream), count in left_out.items():
            sentence = (
                f"\n[{count:,} characters of this output were left out: it came faster than it could leave]\n"
            )
            self._place_text(run, stream, sentence, is_counted=run is self._threads.running)

    def _drain(self, current: TaskRun | None) -> dict[str, str]:
        """What the present task has written since it last said something else; all before is placed then.

        What is of others is placed too: it came too late to be counted.
        """
        texts: _Texts = {}
        while self._noted:
            noted = self._noted.popleft()
            if isinstance(noted, _Write):
                self._seen = max(self._seen, noted.number)
                if not noted.mark:
                    texts.setdefault((noted.run, noted.stream), []).append(noted.text)
                    continue
            self._place_texts(texts, noted.run, is_counted=noted.run is current)
            self._place_noted(noted, is_counted=noted.run is current)
        for run in dict.fromkeys(run for run, _ in texts if run is not current):
            self._place_texts(texts, run, is_counted=False)
        return {stream: "".join(parts) for (_, stream), parts in texts.items()}

    def _place_texts(self, texts: _Texts, run: TaskRun, *, is_counted: bool) -> None:
        """Place the texts of one task, which are no longer among these then."""
        for key in [key for key in texts if key[0] is run]:
            self._place_text(run, key[1], "".join(texts.pop(key)), is_counted=is_counted)

    def _place_text(self, run: TaskRun, stream: str, text: str, *, is_counted: bool = True) -> None:
        for start in range(0, len(text), RECORD_TEXT_LIMIT):
            piece = text[start : start + RECORD_TEXT_LIMIT]
            self._place(Piece(run.task, stream, piece, run.attempt), is_counted=is_counted)
        self._written = self._seen

    def _place_noted(self, noted: _Noted, *, is_counted: bool) -> None:
        run = noted.run
        if isinstance(noted, _Write):
            mark = Piece(run.task, noted.stream, "", run.attempt, mark=noted.mark)
            self._place(mark, is_counted=is_counted)
        elif isinstance(noted, _Show):
            size_bytes = len(noted.content)
            for start in range(0, size_bytes, RECORD_CONTENT_LIMIT):
                end = start + RECORD_CONTENT_LIMIT
                place = noted.content[start:end], start, end >= size_bytes
                self._place(Shown(run.task, noted.kind, *place, run.attempt), is_counted=is_counted)
        else:
            key = run.task, noted.name
            self._pieces.pop(key, None)
            self._pieces[key] = Value(*key, noted.payload)
            self._has_open_value = self._has_open_value or is_counted

    def _place(self, piece: Piece | Shown, *, is_counted: bool = True) -> None:
        if is_counted:
            self._number += 1
            self._has_open_value = False
            piece = piece._replace(number=self._number)
        self._pieces[self._placed] = piece
        self._placed += 1


_collectors: weakref.WeakSet[OutputCollector] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """In a forked child: nobody would send what is collected here. It writes past Python instead."""
    for collector in list(_collectors):
        collector.close()
    _collectors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
