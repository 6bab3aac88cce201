"""A few mapped bytes in which an engine says what it runs, readable after its death.

The engine's main thread stores with plain memory writes, so the page is right even after SIGKILL or while C
code holds the GIL. Every field is one aligned word of eight bytes, which the hardware writes whole; a reader
may see the fields of one `start` at different ages, in the order in which they were written, no worse.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import NamedTuple

from enginery.ids import EngineKey, TaskId

PAGE_SIZE_BYTES = 64
_MAGIC = 0x3159_5245_4E49_474E  # with the version in it
_LAST_STARTED_WORD, _RUNNING_WORD = 4, 5  # after 32 bytes of header
_HEADER = struct.Struct("=Q16sd")  # magic, key, time


class EngineStatusPage(NamedTuple):
    """What a page says."""

    key: EngineKey
    started_at: float  # of the engine process, seconds since the epoch
    last_started: TaskId  # 0 = none; it and all that arrived before it have started
    running: TaskId  # 0 = idle


class StatusPage:
    """The engine's side: `start` before user code, `run` to go back to an outer task, `finish` after it."""

    __slots__ = ("_map", "_path", "_words")

    def __init__(self, path: Path, key: EngineKey, *, started_at: float) -> None:
        data = key.encode("ascii")
        if len(data) != 16:
            raise ValueError(f"{key!r} is not the key of an engine: keys have 16 characters")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Space is reserved before it is mapped: on a full disk this is an error, and later no SIGBUS.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, PAGE_SIZE_BYTES)
            os.pwrite(descriptor, bytes(PAGE_SIZE_BYTES), 0)
            self._map = mmap.mmap(descriptor, PAGE_SIZE_BYTES)
        finally:
            os.close(descriptor)
        self._path = path
        _HEADER.pack_into(self._map, 0, _MAGIC, data, started_at)
        self._words = memoryview(self._map).cast("B").cast("Q")

    def __repr__(self) -> str:
        return f"<StatusPage {self._path}>"

    def start(self, task: TaskId) -> None:
        """Say that a task begins. Costs about 0.1 us."""
        words = self._words
        # In this order: who dies in between has begun a task that is not running, never the reverse.
        words[_LAST_STARTED_WORD] = task
        words[_RUNNING_WORD] = task

    def run(self, task: TaskId) -> None:
        """Say that a task which had begun goes on."""
        self._words[_RUNNING_WORD] = task

    def finish(self) -> None:
        """Say that nothing runs."""
        self._words[_RUNNING_WORD] = 0

    def close(self) -> None:
        """Unmap the page; the file stays for the supervisor. Repeating it does nothing."""
        if not self._map.closed:
            self._words.release()
            self._map.close()


def read_status_page(path: Path) -> EngineStatusPage | None:
    """Read an engine's page; None if there is none or it is not whole."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(data) != PAGE_SIZE_BYTES:
        return None
    words = memoryview(data).cast("Q")
    magic, key, started_at = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        return None
    return EngineStatusPage(
        EngineKey(key.decode("ascii", "replace")),
        started_at,
        TaskId(words[_LAST_STARTED_WORD]),
        TaskId(words[_RUNNING_WORD]),
    )
