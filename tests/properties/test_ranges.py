"""`NumberSet` against a plain set."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from enginery.protocol.messages import Ranges
from enginery.protocol.ranges import NumberSet, collect_ranges

numbers = st.integers(0, 40)


def numbers_in(ranges: Ranges) -> list[int]:
    return [number for first, last in ranges for number in range(first, last + 1)]


@given(st.integers(0, 20), st.lists(numbers, max_size=60))
def test_the_same_as_a_set(low: int, added: list[int]) -> None:
    fast, slow = NumberSet(low), set(range(low))
    for number in added:
        assert fast.add(number) == (number not in slow)
        slow.add(number)
        assert fast.low not in slow
        assert set(numbers_in(fast.ranges())) == slow
        assert fast.ranges() == collect_ranges(slow)
    assert [number in fast for number in range(45)] == [number in slow for number in range(45)]
    again = NumberSet.from_ranges(fast.ranges())
    assert (again.low, again.ranges()) == (fast.low, fast.ranges())


@given(st.sets(numbers))
def test_ranges_are_sorted_disjoint_and_complete(members: set[int]) -> None:
    ranges = collect_ranges(members)
    assert numbers_in(ranges) == sorted(members)
    assert all(first <= last for first, last in ranges)
    assert all(last + 1 < first for (_, last), (first, _) in itertools.pairwise(ranges))
