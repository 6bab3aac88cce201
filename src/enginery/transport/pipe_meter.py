"""How much has ever been written to a pipe: its reader's count and what is in it, seen by who writes.

An engine has to know at the end of a task whether anything was written past Python: by C code, by a process
that the task has started. Nobody tells it, and its supervisor may not have read that yet. So the supervisor
counts in a mapped page what it takes out, and says with a word that is odd for as long as it does so that the
count is on the move. Count and content of the pipe together only change when somebody writes.
"""

from __future__ import annotations

import fcntl
import os
import sys
import termios
from collections.abc import Callable, Sequence

METER_WORDS = 2
_EMPTY = bytes(4)
UNKNOWN = -1
_TRIES = 200
"""The reader needs some 10 µs; if it loses its processor meanwhile, nobody waits for it."""
_yield = getattr(os, "sched_yield", lambda: None)


class PipeMeter:
    """One pipe's two words. The reader calls `begin` and `end`, the writer `written`."""

    __slots__ = ("_count", "_state", "_words")

    def __init__(self, words: memoryview, first: int) -> None:
        self._words = words
        self._state, self._count = first, first + 1

    def __repr__(self) -> str:
        return f"<PipeMeter: {self._words[self._count]} bytes were read>"

    def begin(self) -> None:
        """The reader is about to read."""
        self._words[self._state] |= 1

    def end(self, size_bytes: int) -> None:
        """The reader has read that much."""
        words = self._words
        words[self._count] += size_bytes
        words[self._state] += 1

    def written(self, descriptor: int) -> int:
        """All bytes that were ever written to the pipe; `UNKNOWN` if its reader takes long to read.

        Costs about 0.6 µs. Raises OSError if the descriptor is not open, or is none of a pipe.
        """
        words, state = self._words, self._state
        for _ in range(_TRIES):
            before = words[state]
            if before & 1:
                _yield()
                continue
            held = fcntl.ioctl(descriptor, termios.FIONREAD, _EMPTY)
            total = words[self._count] + int.from_bytes(held, sys.byteorder)
            if words[state] == before:
                return total
        return UNKNOWN


def make_check(meters: Sequence[PipeMeter], descriptors: Sequence[int]) -> Callable[[list[int]], bool]:
    """A fast way to ask two meters whether all that was ever written is still so much, and was read.

    It takes 1 µs, and an engine asks for each line that it prints.
    """
    first, second = descriptors
    words = meters[0]._words
    first_state, second_state = (meter._state for meter in meters)
    first_count, second_count = (meter._count for meter in meters)
    ioctl, pending = fcntl.ioctl, termios.FIONREAD

    def is_still(totals: list[int]) -> bool:
        before, other_before = words[first_state], words[second_state]
        return (
            ioctl(first, pending, _EMPTY) == _EMPTY == ioctl(second, pending, _EMPTY)
            and [words[first_count], words[second_count]] == totals
            and words[first_state] == before
            and words[second_state] == other_before
            and not (before | other_before) & 1
        )

    return is_still
