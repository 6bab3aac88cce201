"""Which items of a map go together, and how their results become one sequence again. Pure.

Direct maps: one contiguous part per engine. Balanced maps: up to `SINGLE_LIMIT` items are one task each.
Longer maps begin with chunks of one item and let them grow with the durations that come back, towards
`CHUNK_S` of work; large enough that a chunk's overhead does not count, small enough that the rest of the
map is several chunks for each engine, so that nobody runs dry while another has seconds of work before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Generic, TypeVar

SINGLE_LIMIT = 1000
"""Items of a balanced map up to which each is a task of its own."""
CHUNK_S = 0.05
"""Work in a chunk at most, by what was measured so far."""
SMALLEST_CHUNK_S = 0.001
"""Work in a chunk at least, where the rest would be cut finer: about ten times the overhead of a task."""
CHUNKS_PER_ENGINE = 4
"""The rest of a map is at least about so many chunks for each engine."""
AHEAD_PER_ENGINE = 3
"""Chunks of measured maps that are under way at a time, for each engine."""
GROWTH = 16
"""A chunk is at most so many times the largest that has come back."""
_MEMORY = 0.8  # weight of what was measured before, at each measurement

Piece = TypeVar("Piece")


def split_evenly(total: int, parts: int) -> list[range]:
    """Contiguous parts in order, their sizes differing by one at most. Empty ones are left out.

    >>> split_evenly(7, 3)
    [range(0, 3), range(3, 5), range(5, 7)]
    >>> split_evenly(2, 3)
    [range(0, 1), range(1, 2)]
    """
    size, larger = divmod(total, parts)
    found = []
    start = 0
    for index in range(min(parts, total)):
        stop = start + size + (index < larger)
        found.append(range(start, stop))
        start = stop
    return found


class ChunkPlanner:
    """Decides on the size of each next chunk of one balanced map.

    `engines` is how many may run it, `total` the number of items where it is known, `chunksize` what the user
    asked for: it is obeyed exactly. Without that, `one_each` makes every item a chunk.
    """

    def __init__(
        self,
        *,
        engines: int,
        total: int | None = None,
        chunksize: int | None = None,
        one_each: bool = False,
    ) -> None:
        self._engines = max(1, engines)
        self._total = total
        self._chunksize = chunksize
        self._one_each = one_each
        self._planned = 0
        self._largest = 0  # size of the largest chunk that has come back
        self._items = 0.0  # measured lately, and their seconds
        self._seconds = 0.0

    def __repr__(self) -> str:
        return f"<ChunkPlanner: {self._planned} items planned, {self.estimate_s():.3g} s per item>"

    @property
    def is_decided(self) -> bool:
        """Whether no measurement will change what is planned: all chunks can go out at once."""
        return self._chunksize is not None or (self._total is not None and self._total <= SINGLE_LIMIT)

    def window(self) -> int | None:
        """Chunks that may be under way at a time; None is any number."""
        if self.is_decided:
            return None
        if self._is_single():
            return SINGLE_LIMIT
        return AHEAD_PER_ENGINE * self._engines

    def next_size(self, waiting: int, *, is_rest: bool) -> int:
        """Items to take now out of `waiting` ones; 0 means to wait for more of them.

        `is_rest` says that nothing follows them.
        """
        if waiting == 0:
            return 0
        if self._chunksize is not None:
            size = self._chunksize if waiting >= self._chunksize or is_rest else 0
        elif self._is_single() or not self._largest or self._one_each:
            size = 1
        else:
            size = self._measured_size(waiting)
        size = min(size, waiting)
        self._planned += size
        return size

    def on_finished(self, items: int, duration_s: float) -> None:
        """A chunk has come back after running for `duration_s` seconds."""
        self._largest = max(self._largest, items)
        self._items = _MEMORY * self._items + items
        self._seconds = _MEMORY * self._seconds + max(duration_s, 0.0)

    def estimate_s(self) -> float:
        """Seconds per item, by what was measured; 0 if nothing was."""
        return self._seconds / self._items if self._items else 0.0

    def _is_single(self) -> bool:
        if self._total is not None:
            return self._total <= SINGLE_LIMIT
        return self._planned < SINGLE_LIMIT

    def _measured_size(self, waiting: int) -> int:
        share = math.ceil(waiting / (CHUNKS_PER_ENGINE * self._engines))
        per_item_s = self.estimate_s()
        if per_item_s > 0.0:
            share = min(max(share, int(SMALLEST_CHUNK_S / per_item_s)), int(CHUNK_S / per_item_s))
        return max(1, min(share, GROWTH * self._largest))


class Reassembly(Generic[Piece]):
    """Pieces of one sequence, which come in any order.

    Not thread-safe for writers; readers may look at any time.
    """

    __slots__ = ("_pieces", "count")

    def __init__(self) -> None:
        self.count = 0
        """Items that have come."""
        self._pieces: dict[int, tuple[int, Piece]] = {}

    def add(self, start: int, size: int, piece: Piece) -> None:
        """Take the piece of `size` items from position `start` on; raises ValueError if there is one."""
        if start in self._pieces or size < 1:
            raise ValueError(f"a piece of {size} items at {start} does not belong here")
        self._pieces[start] = (size, piece)
        self.count += size

    def at(self, start: int) -> tuple[int, Piece] | None:
        """Size and content of the piece that begins there, if it has come."""
        return self._pieces.get(start)

    def in_order(self) -> Iterator[Piece]:
        """The pieces that have come, by their positions."""
        for start in sorted(self._pieces):
            yield self._pieces[start][1]
