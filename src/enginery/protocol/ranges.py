"""A growing set of numbers kept as a low-water mark and ranges above it.

Used wherever numbers arrive mostly in order and each must be seen once: what has been accepted, delivered or
stored. Memory is bounded by the number of gaps, not by how many numbers there are. Some gaps stay for good: a
call that was taken back before it was sent never comes. Beyond `GAPS_LIMIT` of them the lowest is closed, for
what has not come by then will not.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from enginery.protocol.messages import Ranges

GAPS_LIMIT = 10_000


class NumberSet:
    """All numbers below `low`, and ranges above it.

    >>> seen = NumberSet()
    >>> [seen.add(n) for n in (0, 1, 3, 1)]
    [True, True, True, False]
    >>> seen
    <NumberSet below 2, and 3>
    """

    __slots__ = ("_firsts", "_lasts", "low")

    def __init__(self, low: int = 0, extra: Iterable[int] = ()) -> None:
        self.low = low
        # Above `low`, sorted, with a gap before each.
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for number in extra:
            self.add(number)

    def __contains__(self, number: int) -> bool:
        if number < self.low:
            return True
        place = bisect_right(self._firsts, number) - 1
        return place >= 0 and number <= self._lasts[place]

    def __repr__(self) -> str:
        above = ", ".join(
            str(first) if first == last else f"{first}-{last}" for first, last in self._extra_ranges()
        )
        return f"<NumberSet below {self.low}{', and ' if above else ''}{above}>"

    def add(self, number: int) -> bool:
        """True if the number is new."""
        firsts, lasts = self._firsts, self._lasts
        if number == self.low:
            self.low = number + 1
            if firsts and firsts[0] == self.low:
                self._close_lowest_gap()
            return True
        if number < self.low:
            return False
        if lasts and number == lasts[-1] + 1:  # in order, behind a gap
            lasts[-1] = number
            return True
        place = bisect_right(firsts, number)
        if place and number <= lasts[place - 1]:
            return False
        joins_left = place > 0 and lasts[place - 1] == number - 1
        joins_right = place < len(firsts) and firsts[place] == number + 1
        if joins_left and joins_right:
            lasts[place - 1] = lasts.pop(place)
            del firsts[place]
        elif joins_left:
            lasts[place - 1] = number
        elif joins_right:
            firsts[place] = number
        else:
            firsts.insert(place, number)
            lasts.insert(place, number)
            if len(firsts) > GAPS_LIMIT:
                self._close_lowest_gap()
        return True

    def _close_lowest_gap(self) -> None:
        del self._firsts[0]
        self.low = self._lasts.pop(0) + 1

    def _extra_ranges(self) -> Ranges:
        return list(zip(self._firsts, self._lasts, strict=True))

    def ranges(self) -> Ranges:
        """The same set as closed intervals, the first one from 0."""
        return [*([(0, self.low - 1)] if self.low > 0 else []), *self._extra_ranges()]

    @classmethod
    def from_ranges(cls, ranges: Ranges) -> NumberSet:
        result = cls()
        for first, last in ranges:
            if first <= result.low:
                result.low = max(result.low, last + 1)
            else:
                result._firsts.append(first)
                result._lasts.append(last)
        return result


def without(ranges: Ranges, numbers: Iterable[int]) -> Ranges:
    """These intervals without some numbers.

    >>> without([(0, 5), (9, 9)], [2, 9])
    [(0, 1), (3, 5)]
    """
    holes = sorted(set(numbers))
    result: Ranges = []
    for first, last in ranges:
        for hole in holes[bisect_left(holes, first) : bisect_right(holes, last)]:
            if first < hole:
                result.append((first, hole - 1))
            first = hole + 1
        if first <= last:
            result.append((first, last))
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
