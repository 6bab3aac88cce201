"""What the scheduler expects of tasks whose like it has seen."""

from __future__ import annotations

import pytest

from enginery.core.durations import UNKNOWN, DurationTable


def test_unknown_until_measured() -> None:
    durations = DurationTable()
    assert durations.estimate_s(b"f") == UNKNOWN
    durations.on_measured(b"f", 0.25)
    assert durations.estimate_s(b"f") == 0.25
    assert durations.estimate_s(b"g") == UNKNOWN


def test_follows_a_change_within_about_ten_tasks() -> None:
    durations = DurationTable()
    for _ in range(100):
        durations.on_measured(b"f", 1.0)
    for _ in range(10):
        durations.on_measured(b"f", 0.0)
    assert durations.estimate_s(b"f") == pytest.approx(0.75**10)


def test_a_clock_that_goes_back_measures_nothing() -> None:
    durations = DurationTable()
    durations.on_measured(b"f", -3.0)
    assert durations.estimate_s(b"f") == 0.0


def test_the_function_not_heard_of_for_longest_is_forgotten() -> None:
    durations = DurationTable(capacity=2)
    for function in (b"f", b"g", b"f", b"h"):
        durations.on_measured(function, 1.0)
    assert len(durations) == 2
    assert [durations.estimate_s(function) for function in (b"f", b"g", b"h")] == [1.0, UNKNOWN, 1.0]
    assert repr(durations) == "<DurationTable of 2 functions>"
