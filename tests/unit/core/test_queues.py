"""The order in which ready tasks leave."""

from __future__ import annotations

import pytest

from enginery.core.placement import ANYWHERE, Destination
from enginery.core.queues import DEAD_KEPT, BalancedQueues, ReadyQueue
from enginery.core.tasks import Fact, Task
from enginery.ids import EngineId, task_number
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


def in_turn(number: int, **fields: object) -> Task:
    task = make_task(number, **fields)
    task.turn = number
    return task


def test_what_comes_back_goes_to_its_place() -> None:
    queue = filled(in_turn(8), in_turn(9, priority=1))
    queue.put_back([in_turn(5), in_turn(2), in_turn(3, priority=1)])
    assert len(queue) == 5
    assert drain(queue) == [3, 9, 2, 5, 8]


def test_what_comes_back_late_goes_behind_what_has_come_back_before() -> None:
    queue = filled(in_turn(9))
    queue.put_back([in_turn(4)])
    queue.put_back([in_turn(6), in_turn(5), in_turn(12)])
    assert drain(queue) == [4, 5, 6, 9, 12]


def test_a_task_that_goes_elsewhere_is_taken_out() -> None:
    tasks = [make_task(number) for number in (1, 2, 3)]
    queue = filled(*tasks)
    queue.remove(tasks[1])
    assert len(queue) == 2
    assert drain(queue) == [1, 3]


def test_balanced_tasks_are_queued_by_where_they_may_go() -> None:
    queues = BalancedQueues()
    there = Destination((EngineId(1), EngineId(2)))
    queues.of(ANYWHERE).push(make_task(1))
    task = make_task(2, candidates=there.engines)
    queues.of(task.destination).push(task)
    assert queues.of(Destination()) is queues.anywhere
    assert queues.restricted() == [(there, queues.of(there))]
    assert len(queues) == 2
    assert repr(queues) == "<BalancedQueues of 2 tasks, to 2 destinations>"
    assert len(queues.check()) == 2
    queues.of(there).pop()
    assert queues.restricted() == []


def test_an_engine_that_leaves_affects_those_who_meant_it_or_were_refused() -> None:
    queues = BalancedQueues()
    destinations = [
        ANYWHERE,
        Destination((EngineId(0),)),
        Destination((EngineId(1), EngineId(2))),
        Destination(refused=frozenset({7})),
        Destination(failed=frozenset({7})),
    ]
    for number, destination in enumerate(destinations):
        task = make_task(number)
        task.destination = destination
        queues.of(destination).push(task)
    affected = queues.take_affected(EngineId(2))
    assert [task_number(task.task_id) for task in affected] == [2, 3]
    assert [task_number(task.task_id) for queue in queues.check() for task in queue] == [0, 1, 4]


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
