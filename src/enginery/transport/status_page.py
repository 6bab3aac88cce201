"""A few mapped pages in which an engine says what it has begun, readable after its death.

The engine's main thread stores with plain memory writes, so the page is right even after SIGKILL or while C
code holds the GIL. It is a ring of the ids of the tasks that were begun last. The controller gives an
engine fewer tasks at a time than the ring holds, so a task in flight that is not in it has not started:
proof enough to run it elsewhere.

Every field is one aligned word of eight bytes, which the hardware writes whole. A process that is killed
has written all words up to some point and none after it; the order of the stores in `start` makes every
such point a true statement.
"""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path
from typing import NamedTuple, Self

from enginery.ids import TaskId

SLOTS = 1024
IDLE = TaskId(0)
_MAGIC = 0x3259_5245_4E49_474E  # with the version in it
_MAGIC_WORD, _COUNT_WORD, _RUNNING_WORD, _TIME_WORD = 0, 1, 2, 3
_RING = 8  # first word of the ring: the fields above have a cache line of their own
PAGE_SIZE_BYTES = (_RING + SLOTS) * 8
_LAST = SLOTS - 1


class PageContent(NamedTuple):
    """What a page says."""

    started: list[TaskId]
    """The tasks that were begun last, newest last: all of them if there were fewer than `SLOTS`."""
    running: TaskId  # 0 = idle
    started_at: float  # when the newest task was begun, seconds since the epoch; 0.0 = never


class StatusPage:
    """The engine's side: `start` before user code, `finish` after it."""

    __slots__ = ("_count", "_map", "_path", "_times", "_words")

    def __init__(self, path: Path, mapped: mmap.mmap) -> None:
        self._path = path
        self._map = mapped
        self._count = 0
        self._words = memoryview(mapped).cast("B").cast("Q")
        self._times = memoryview(mapped).cast("B").cast("d")
        self._words[_MAGIC_WORD] = _MAGIC

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Self:
        """Make the file, of mode 0600, and map it. To be done before the engine says hello."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            # Space is reserved before it is mapped: on a full disk this is an error, and later no SIGBUS.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, PAGE_SIZE_BYTES)
            else:
                os.ftruncate(descriptor, PAGE_SIZE_BYTES)
            return cls(Path(path), mmap.mmap(descriptor, PAGE_SIZE_BYTES))
        finally:
            os.close(descriptor)

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
            self._words.release()
            self._times.release()
            self._map.close()


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
    # The slot after the newest is being overwritten, perhaps.
    oldest = max(count - (SLOTS - 1), 0)
    started = [TaskId(words[_RING + (index & _LAST)]) for index in range(oldest, count)]
    times = memoryview(data).cast("d")
    return PageContent(started, TaskId(words[_RUNNING_WORD]), times[_TIME_WORD])
