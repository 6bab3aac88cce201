"""Marks in the pipes of an engine: whose text it is that came before.

What C code and processes write to an engine's standard streams goes into pipes that its supervisor reads.
Where a task ends, or goes on in Python, after something was written that way, the engine writes a mark into
the pipe: all text since the mark before is of this attempt at running this task. A mark has the engine's key
in it, which is random, and is short enough for a pipe to take it whole.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Iterator
from typing import NamedTuple

from enginery.ids import EngineKey, TaskId

_BODY = struct.Struct(">QII")


class Mark(NamedTuple):
    """The end of a text."""

    task: TaskId
    attempt: int
    number: int  # of the mark, counted in each attempt


class Marks:
    """The marks of one engine: written by it, found by its supervisor.

    >>> marks = Marks(EngineKey("0123456789abcdef"))
    >>> data = b"text" + marks.encode(Mark(TaskId(1), 1, 1)) + b"more"
    >>> list(marks.split(data))
    [(b'text', Mark(task=1, attempt=1, number=1)), (b'more', None)]
    """

    __slots__ = ("_head", "size_bytes")

    def __init__(self, key: EngineKey) -> None:
        self._head = b"\x1b]" + key.encode() + b";"
        self.size_bytes = len(self._head) + _BODY.size

    def __repr__(self) -> str:
        return f"<Marks, {self.size_bytes} bytes each>"

    def encode(self, mark: Mark) -> bytes:
        return self._head + _BODY.pack(*mark)

    def split(self, data: bytes) -> Iterator[tuple[bytes, Mark | None]]:
        """Each text with the mark behind it; the last one has none, and may be empty."""
        start = 0
        while (found := data.find(self._head, start)) >= 0 and found + self.size_bytes <= len(data):
            task, attempt, number = _BODY.unpack_from(data, found + len(self._head))
            yield data[start:found], Mark(TaskId(task), attempt, number)
            start = found + self.size_bytes
        yield data[start:], None

    def begun_bytes(self, data: bytes) -> int:
        """How much of the end of a text, in which there is no whole mark, is the beginning of one."""
        found = data.rfind(self._head[:1], max(len(data) - self.size_bytes, 0))
        while found >= 0:
            tail = data[found : found + len(self._head)]
            if self._head.startswith(tail):
                return len(data) - found
            found = data.rfind(self._head[:1], max(len(data) - self.size_bytes, 0), found)
        return 0


def text_decoder() -> codecs.IncrementalDecoder:
    """Makes text of what comes out of a pipe, cut anywhere; what is no UTF-8 is written out."""
    return codecs.getincrementaldecoder("utf-8")("backslashreplace")
