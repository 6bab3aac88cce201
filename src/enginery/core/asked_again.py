"""Which calls of one client are to come again: those whose blobs were not here, and those behind them."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush

GONE_KEPT = 1000
"""So many numbers that have come may be left in the heap, or as many as are to come if those are more."""


class AskedAgain:
    """Their numbers. The lowest of them is known without a look at the others."""

    __slots__ = ("_heap", "numbers")

    def __init__(self) -> None:
        self.numbers: set[int] = set()
        self._heap: list[int] = []  # and some that have come

    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        return f"<AskedAgain: {len(self)} calls>"

    def add(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number not in self.numbers:
                self.numbers.add(number)
                heappush(self._heap, number)

    def discard(self, numbers: Iterable[int]) -> None:
        """These have come."""
        self.numbers.difference_update(numbers)
        if len(self._heap) > 2 * len(self.numbers) + GONE_KEPT:
            self._heap = sorted(self.numbers)

    def has_below(self, number: int) -> bool:
        """Whether one is to come again that was called before this one."""
        heap = self._heap
        while heap and heap[0] not in self.numbers:
            heappop(heap)
        return bool(heap) and heap[0] < number
