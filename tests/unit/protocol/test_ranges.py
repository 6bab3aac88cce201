"""`NumberSet` and the functions on ranges."""

from __future__ import annotations

import pytest

from enginery.protocol import ranges
from enginery.protocol.ranges import NumberSet, collect_ranges


def test_the_low_water_mark_rises_over_what_was_out_of_order() -> None:
    numbers = NumberSet()
    assert [numbers.add(number) for number in (2, 1, 2, 0)] == [True, True, False, True]
    assert (numbers.low, numbers.ranges()) == (3, [(0, 2)])


def test_made_from_numbers_out_of_order() -> None:
    numbers = NumberSet(1, [4, 2, 1])
    assert (numbers.low, numbers.ranges()) == (3, [(0, 2), (4, 4)])


def test_numbers_below_the_mark_are_old() -> None:
    assert not NumberSet(5).add(-3)
    assert -3 in NumberSet(5)


def test_ranges_and_back() -> None:
    numbers = NumberSet(3, [5, 6, 9])
    assert numbers.ranges() == [(0, 2), (5, 6), (9, 9)]
    assert repr(NumberSet.from_ranges(numbers.ranges())) == "<NumberSet below 3, and 5-6, 9>"


def test_an_empty_set_has_no_ranges() -> None:
    assert NumberSet().ranges() == []
    assert collect_ranges([]) == []
    assert NumberSet.from_ranges([]).low == 0


def test_what_never_comes_costs_one_gap_and_not_all_that_follows() -> None:
    numbers = NumberSet()
    for number in range(100_000):
        assert number == 7 or numbers.add(number)
    assert numbers.ranges() == [(0, 6), (8, 99_999)]


def test_beyond_the_limit_the_lowest_gap_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "GAPS_LIMIT", 3)
    numbers = NumberSet()
    for number in (1, 3, 5, 7):
        assert numbers.add(number)
    assert numbers.ranges() == [(0, 1), (3, 3), (5, 5), (7, 7)]
    assert numbers.add(9)
    assert numbers.ranges() == [(0, 3), (5, 5), (7, 7), (9, 9)]
    assert not numbers.add(2)
