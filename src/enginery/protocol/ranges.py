"""A growing set of numbers kept as a low-water mark and a small set above it.

Used wherever numbers arrive mostly in order and each must be seen once: what has been accepted, delivered or
stored. Memory is bounded by how far out of order the numbers come, not by how many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from enginery.protocol.messages import Ranges


class NumberSet:
    """All numbers below `low`, and `extra` above it.

    >>> seen = NumberSet()
    >>> [seen.add(n) for n in (0, 1, 3, 1)]
    [True, True, True, False]
    >>> seen
    <NumberSet below 2, and 3>
    """

    __slots__ = ("extra", "low")

    def __init__(self, low: int = 0, extra: Iterable[int] = ()) -> None:
        self.low = low
        self.extra: set[int] = set()
        for number in extra:
            self.add(number)

    def __contains__(self, number: int) -> bool:
        return number < self.low or number in self.extra

    def __repr__(self) -> str:
        above = ", and " + ", ".join(map(str, sorted(self.extra))) if self.extra else ""
        return f"<NumberSet below {self.low}{above}>"

    def add(self, number: int) -> bool:
        """True if the number is new."""
        if number == self.low:
            low = number + 1
            extra = self.extra
            while extra and low in extra:
                extra.remove(low)
                low += 1
            self.low = low
            return True
        if number < self.low or number in self.extra:
            return False
        self.extra.add(number)
        return True

    def add_range(self, first: int, last: int) -> None:
        for number in range(max(first, self.low), last + 1):
            self.add(number)

    def ranges(self) -> Ranges:
        """The same set as closed intervals, the first one from 0."""
        result = [(0, self.low - 1)] if self.low > 0 else []
        return result + collect_ranges(self.extra)

    @classmethod
    def from_ranges(cls, ranges: Ranges) -> NumberSet:
        result = cls()
        for first, last in ranges:
            if first <= result.low:
                result.low = max(result.low, last + 1)
            else:
                result.extra.update(range(first, last + 1))
        return result


def collect_ranges(numbers: Iterable[int]) -> Ranges:
    """Sorted closed intervals of some numbers.

    >>> collect_ranges([5, 1, 2, 3])
    [(1, 3), (5, 5)]
    """
    result: Ranges = []
    for number in sorted(numbers):
        if result and number == result[-1][1] + 1:
            result[-1] = (result[-1][0], number)
        else:
            result.append((number, number))
    return result


def iterate_ranges(ranges: Ranges) -> Iterator[int]:
    for first, last in ranges:
        yield from range(first, last + 1)
