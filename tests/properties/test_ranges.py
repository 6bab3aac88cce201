"""`NumberSet` against a plain set."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from enginery.protocol.ranges import NumberSet, collect_ranges, iterate_ranges

numbers = st.integers(0, 40)


@given(st.integers(0, 20), st.lists(numbers, max_size=60))
def test_the_same_as_a_set(low: int, added: list[int]) -> None:
    fast, slow = NumberSet(low), set(range(low))
    for number in added:
        assert fast.add(number) == (number not in slow)
        slow.add(number)
        assert fast.low not in slow
        assert set(range(fast.low)) | fast.extra == slow
    assert [number in fast for number in range(45)] == [number in slow for number in range(45)]
    assert set(iterate_ranges(fast.ranges())) == slow
    again = NumberSet.from_ranges(fast.ranges())
    assert (again.low, again.extra) == (fast.low, fast.extra)


@given(st.sets(numbers))
def test_ranges_are_sorted_disjoint_and_complete(members: set[int]) -> None:
    ranges = collect_ranges(members)
    assert list(iterate_ranges(ranges)) == sorted(members)
    assert all(first <= last for first, last in ranges)
    assert all(last + 1 < first for (_, last), (first, _) in itertools.pairwise(ranges))


@given(st.lists(st.tuples(numbers, st.integers(0, 8))))
def test_adding_ranges_is_adding_their_numbers(added: list[tuple[int, int]]) -> None:
    fast, slow = NumberSet(), set()
    for first, length in added:
        fast.add_range(first, first + length)
        slow.update(range(first, first + length + 1))
    assert set(iterate_ranges(fast.ranges())) == slow
