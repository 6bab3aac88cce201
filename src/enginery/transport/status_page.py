"""A few mapped pages in which an engine says what it has begun, readable after its death.

The engine's main thread stores with plain memory writes, so the page is right even after SIGKILL or while C
code holds the GIL. It is a ring of the ids of the tasks that were begun last. A task in flight that is not in
it has not started, or was begun before all that are. Which of both the controller can tell in most cases by
what has ended since it sent the task (`EngineLoad.may_have_begun`): proof enough to run it elsewhere.

Every field is one aligned word of eight bytes, which the hardware writes whole. A process that is killed
has written all words up to some point and none after it; the order of the stores in `start` makes every
such point a true statement.

Behind the ring are the meters of the engine's pipes (`pipe_meter`), which its supervisor writes, and the last
words of its tasks (`last_words`). Whichever of the two comes first makes the file.
"""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path
from typing import NamedTuple, Self

from enginery.ids import TaskId
from enginery.protocol.hosts import PAGE_TASKS
from enginery.transport.last_words import LAST_WORDS_BYTES, KeptWord, LastWords, words_in
from enginery.transport.pipe_meter import METER_WORDS, PipeMeter

SLOTS = PAGE_TASKS + 1  # the slot after the newest is being overwritten, perhaps
IDLE = TaskId(0)
_MAGIC = 0x3259_5245_4E49_474E  # with the version in it
_MAGIC_WORD, _COUNT_WORD, _RUNNING_WORD, _TIME_WORD = 0, 1, 2, 3
_RING = 8  # first word of the ring: the fields above have a cache line of their own
_LAST = SLOTS - 1
STREAMS = ("stdout", "stderr")
_LINE = 64  # what belongs to different writers does not share a cache line
_METERS = -(-(_RING + SLOTS) * 8 // _LINE) * _LINE // 8
_WORDS_AT = (_METERS * 8) + _LINE  # bytes
assert METER_WORDS * len(STREAMS) * 8 <= _LINE
PAGE_SIZE_BYTES = _WORDS_AT + LAST_WORDS_BYTES


class PageContent(NamedTuple):
    """What a page says."""

    started: list[TaskId]
    """The tasks that were begun last, newest last: all of them if there were fewer than `PAGE_TASKS`."""
    running: TaskId  # 0 = idle
    started_at: float  # when the newest task was begun, seconds since the epoch; 0.0 = never
    words: list[KeptWord]
    """What its tasks wrote last, oldest first."""


class _Page:
    """The file, mapped; made if it is not there."""

    __slots__ = ("_map", "_path", "_words")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Space is reserved before it is mapped: on a full disk this is an error, and later no SIGBUS.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, PAGE_SIZE_BYTES)
            else:
                os.ftruncate(descriptor, PAGE_SIZE_BYTES)
            self._map = mmap.mmap(descriptor, PAGE_SIZE_BYTES)
        finally:
            os.close(descriptor)
        self._words = memoryview(self._map).cast("B").cast("Q")

    def meter(self, stream: int) -> PipeMeter:
        """Of the pipe of a stream, by its place in `STREAMS`."""
        first = _METERS + METER_WORDS * stream
        return PipeMeter(self._words, first)

    def close(self) -> None:
        """Unmap the page; the file stays. Repeating it does nothing."""
        if not self._map.closed:
            self._words.release()
            self._map.close()


class PageWatch(_Page):
    """The supervisor's side, while the engine lives."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<PageWatch of {self._path}>"

    def newest(self) -> TaskId:
        """The task that was begun last; 0 = none was."""
        count = self._words[_COUNT_WORD]
        return TaskId(self._words[_RING + ((count - 1) & _LAST)]) if count else IDLE


class StatusPage(_Page):
    """The engine's side: `start` before user code, `finish` after it."""

    __slots__ = ("_count", "_times", "last_words")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._count = 0
        self._times = memoryview(self._map).cast("B").cast("d")
        self._words[_COUNT_WORD] = self._words[_RUNNING_WORD] = self._words[_TIME_WORD] = 0
        self._words[_MAGIC_WORD] = _MAGIC
        self.last_words = LastWords(self._map, _WORDS_AT)

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Self:
        """Make the file, of mode 0600, and map it. To be done before the engine says hello."""
        return cls(path)

    def __repr__(self) -> str:
        return f"<StatusPage {self._path}, {self._count} tasks begun>"

    def start(self, task: TaskId) -> None:
        """Say that a task begins. Costs about 0.3 us."""
        words = self._words
        count = self._count
        # Killed before the count: the task counts as not begun, and it has not. The slot that is overwritten
        # is the one that the reader leaves out.
        words[_RING + (count & _LAST)] = task
        self._count = words[_COUNT_WORD] = count + 1
        self._times[_TIME_WORD] = time.time()
        words[_RUNNING_WORD] = task

    def finish(self, outer: TaskId = IDLE) -> None:
        """Say that the task has ended; `outer` is the one that goes on, if it was run inside another."""
        self._words[_RUNNING_WORD] = outer

    def close(self) -> None:
        """Unmap the page; the file stays for the supervisor. Repeating it does nothing."""
        if not self._map.closed:
            self._times.release()
            self.last_words.close()
        super().close()


def read_status_page(path: str | os.PathLike[str]) -> PageContent | None:
    """Read an engine's page; None if there is none or it is not whole."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return None
    if len(data) != PAGE_SIZE_BYTES:
        return None
    words = memoryview(data).cast("Q")
    if words[_MAGIC_WORD] != _MAGIC:
        return None
    count = words[_COUNT_WORD]
    oldest = max(count - PAGE_TASKS, 0)
    started = [TaskId(words[_RING + (index & _LAST)]) for index in range(oldest, count)]
    times = memoryview(data).cast("d")
    last = words_in(data[_WORDS_AT:])
    return PageContent(started, TaskId(words[_RUNNING_WORD]), times[_TIME_WORD], last)
