"""Deadlines of tasks: in their order, and no more of them than there are."""

from __future__ import annotations

from enginery.core.deadlines import DEADLINES_KEPT, Deadlines
from tests.unit.core.builders import task_id


def test_deadlines_come_in_their_order_and_are_forgotten() -> None:
    deadlines = Deadlines()
    for number, at in ((1, 5.0), (2, 3.0), (3, 4.0)):
        deadlines.set(task_id(number), at)
    deadlines.forget(task_id(2))
    deadlines.forget(task_id(9))
    assert deadlines.next() == 4.0
    assert list(deadlines.take_due(now=4.5)) == [task_id(3)]
    deadlines.set(task_id(1), 9.0)
    assert (deadlines.next(), len(deadlines)) == (9.0, 1)
    assert list(deadlines.take_due(now=9.0)) == [task_id(1)]
    assert deadlines.next() is None


def test_deadlines_of_tasks_that_have_ended_do_not_gather() -> None:
    deadlines = Deadlines()
    for number in range(10_000):
        deadlines.set(task_id(number), 1e6 + number)
        deadlines.forget(task_id(number))
        assert len(deadlines._heap) <= DEADLINES_KEPT + 1
