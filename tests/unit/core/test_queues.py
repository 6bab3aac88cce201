"""The order in which ready tasks leave."""

from __future__ import annotations

import pytest

from enginery.core.queues import DEAD_KEPT, ReadyQueue
from enginery.core.tasks import Fact, Task
from enginery.ids import task_number
from tests.unit.core.builders import make_task


def drain(queue: ReadyQueue) -> list[int]:
    numbers = []
    while (task := queue.pop()) is not None:
        numbers.append(task_number(task.task_id))
    return numbers


def filled(*tasks: Task) -> ReadyQueue:
    queue = ReadyQueue()
    for task in tasks:
        queue.push(task)
    return queue


def test_first_in_first_out_among_equals() -> None:
    assert drain(filled(*map(make_task, (1, 2, 3)))) == [1, 2, 3]


def test_higher_priority_first() -> None:
    queue = filled(
        make_task(1), make_task(2, priority=5), make_task(3, priority=-1), make_task(4, priority=5)
    )
    assert len(queue) == 4
    assert [task_number(task.task_id) for task in queue] == [2, 4, 1, 3]
    assert drain(queue) == [2, 4, 1, 3]
    assert len(queue) == 0


def test_what_comes_back_goes_to_the_front_in_its_order() -> None:
    queue = filled(make_task(8), make_task(9, priority=1))
    queue.push_front([make_task(5), make_task(2), make_task(3, priority=1)])
    assert drain(queue) == [3, 9, 2, 5, 8]


def test_a_task_that_is_not_ready_any_more_is_skipped() -> None:
    tasks = [make_task(number) for number in (1, 2, 3)]
    queue = filled(*tasks)
    queue.discard()
    tasks[0].apply(Fact.ABORTED)
    assert len(queue) == 2
    assert drain(queue) == [2, 3]


@pytest.mark.parametrize("left", [0, 50])
def test_few_tasks_that_are_not_ready_any_more_are_kept(left: int) -> None:
    tasks = [make_task(number, priority=number % 3) for number in range(1000)]
    queue = filled(*tasks)
    for task in tasks[left:]:
        queue.discard()
        task.apply(Fact.ABORTED)
    assert len(queue) == left
    assert sum(map(len, queue._by_priority.values())) <= left + 2 * DEAD_KEPT
    queue.push(make_task(2000))
    assert sorted(drain(queue)) == [*range(left), 2000]
    assert queue._by_priority == {}


def test_repr() -> None:
    assert repr(filled(make_task())) == "<ReadyQueue of 1 tasks>"
