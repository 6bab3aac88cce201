"""What the tasks of an engine wrote last, in a mapped file: still there if it is killed the next moment.

Text gathers in an engine for some milliseconds before it is sent. Here the end of it is kept in a ring of
slots of a fixed size, each with a number of its own. A writer takes the next number, which no other writer
can have, fills the slot and stores the number last: a signal handler or a thread that writes in between
disturbs nothing, and a slot that was not filled to its end has the number of an earlier round.
"""

from __future__ import annotations

import itertools
import mmap
import struct
from typing import NamedTuple

from enginery.ids import TaskId

SLOTS = 512
SLOT_BYTES = 256
LAST_WORDS_BYTES = SLOTS * SLOT_BYTES
LONGEST_SLOTS = 64
"""Of one text; of a longer one the end is kept."""

_HEAD = struct.Struct("=QIIBBH")  # task, attempt, mark, stream, is late, bytes of text
_NUMBER = struct.Struct("=Q")
_TEXT_BYTES = SLOT_BYTES - _NUMBER.size - _HEAD.size
_WHOLE = struct.Struct(f"{_HEAD.format}{_TEXT_BYTES}s")
_pack = _WHOLE.pack_into


class KeptWord(NamedTuple):
    """A text, or a part of a long one."""

    number: int
    task: TaskId
    attempt: int
    stream: int
    is_late: bool  # the task had ended when it was written
    mark: int  # not 0: without text; here something was written past Python, see `protocol.marks`
    text: str


class LastWords:
    """The writer's side."""

    __slots__ = ("_map", "_next", "_numbers", "_start")

    def __init__(self, mapped: mmap.mmap, start: int) -> None:
        self._map = mapped
        self._start = start
        self._numbers = memoryview(mapped).cast("B")[start : start + LAST_WORDS_BYTES].cast("Q")
        self._next = itertools.count(1).__next__

    def __repr__(self) -> str:
        return f"<LastWords at {self._start}>"

    def keep(
        self, task: TaskId, attempt: int, stream: int, text: str, *, is_late: bool = False, mark: int = 0
    ) -> int:
        """Keep a text, or a mark; returns its number. Costs about 0.7 µs."""
        data = text.encode()
        if len(data) <= _TEXT_BYTES:
            return self._fill(task, attempt, mark, stream, is_late, data)
        step = _TEXT_BYTES if text.isascii() else _TEXT_BYTES // 4  # whole characters in each slot
        number = 0
        for start in range(max(len(text) - LONGEST_SLOTS * step, 0), len(text), step):
            piece = text[start : start + step].encode()
            number = self._fill(task, attempt, mark, stream, is_late, piece)
        return number

    def _fill(self, task: TaskId, attempt: int, mark: int, stream: int, is_late: bool, data: bytes) -> int:
        number = self._next()
        place = number % SLOTS * SLOT_BYTES
        start = self._start + place + _NUMBER.size
        _pack(self._map, start, task, attempt, mark, stream, is_late, len(data), data)
        self._numbers[place >> 3] = number
        return number

    def close(self) -> None:
        """Let go of the map. Repeating it does nothing."""
        self._numbers.release()


def words_in(data: bytes) -> list[KeptWord]:
    """What a ring holds, in order."""
    words = []
    for place in range(0, LAST_WORDS_BYTES, SLOT_BYTES):
        (number,) = _NUMBER.unpack_from(data, place)
        if not number:
            continue
        task, attempt, mark, stream, is_late, size, held = _WHOLE.unpack_from(data, place + _NUMBER.size)
        text = held[:size].decode(errors="replace")
        words.append(KeptWord(number, TaskId(task), attempt, stream, bool(is_late), mark, text))
    return sorted(words)
