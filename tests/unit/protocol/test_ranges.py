"""`NumberSet` and the functions on ranges."""

from __future__ import annotations

from enginery.protocol.ranges import NumberSet, collect_ranges, iterate_ranges


def test_the_low_water_mark_rises_over_what_was_out_of_order() -> None:
    numbers = NumberSet()
    assert [numbers.add(number) for number in (2, 1, 2, 0)] == [True, True, False, True]
    assert (numbers.low, numbers.extra) == (3, set())


def test_made_from_numbers_out_of_order() -> None:
    numbers = NumberSet(1, [4, 2, 1])
    assert (numbers.low, numbers.extra) == (3, {4})


def test_numbers_below_the_mark_are_old() -> None:
    assert not NumberSet(5).add(-3)
    assert -3 in NumberSet(5)


def test_ranges_and_back() -> None:
    numbers = NumberSet(3, [5, 6, 9])
    assert numbers.ranges() == [(0, 2), (5, 6), (9, 9)]
    assert repr(NumberSet.from_ranges(numbers.ranges())) == "<NumberSet below 3, and 5, 6, 9>"


def test_an_empty_set_has_no_ranges() -> None:
    assert NumberSet().ranges() == []
    assert collect_ranges([]) == []
    assert NumberSet.from_ranges([]).low == 0


def test_a_range_is_added_once() -> None:
    numbers = NumberSet(4)
    numbers.add_range(2, 6)
    numbers.add_range(8, 9)
    assert numbers.ranges() == [(0, 6), (8, 9)]


def test_ranges_are_iterated() -> None:
    assert list(iterate_ranges([(0, 2), (7, 7)])) == [0, 1, 2, 7]
