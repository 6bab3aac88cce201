"""What came behind a task whose blobs are missing waits for it."""

from __future__ import annotations

from enginery.core.arrivals import Arrivals
from enginery.ids import TaskId

A, B, C, D = ((TaskId(number), 1) for number in range(4))


def test_what_is_complete_goes_in_at_once() -> None:
    arrivals: Arrivals[str] = Arrivals()
    assert arrivals.on_task(A, "a") == [(A, "a")]
    assert len(arrivals) == 0


def test_a_task_without_its_blobs_holds_up_those_behind_it() -> None:
    arrivals: Arrivals[str] = Arrivals()
    assert arrivals.on_task(A, None) == []
    assert arrivals.on_task(B, "b") == []
    assert arrivals.on_task(C, None) == []
    assert arrivals.on_task(D, "d") == []
    assert arrivals.on_task(A, None) == [], "its blobs have been forgotten again"
    assert arrivals.on_task(C, "c") == []
    assert arrivals.on_task(A, "a") == [(A, "a"), (B, "b"), (C, "c"), (D, "d")]
    assert len(arrivals) == 0


def test_what_was_taken_back_holds_nobody_up() -> None:
    arrivals: Arrivals[str] = Arrivals()
    arrivals.on_task(A, None)
    arrivals.on_task(B, "b")
    arrivals.on_task(C, "c")
    assert arrivals.on_taken_back([B, D]) == []
    assert arrivals.on_taken_back([A]) == [(C, "c")]


def test_after_a_hello_all_of_it_comes_again() -> None:
    arrivals: Arrivals[str] = Arrivals()
    arrivals.on_task(A, None)
    arrivals.on_task(B, "b")
    arrivals.restart()
    assert arrivals.on_task(A, "a") == [(A, "a")]
