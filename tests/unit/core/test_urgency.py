"""Tasks of different priorities on the same engines."""

from __future__ import annotations

import pytest

from enginery.core.placement import Placement
from enginery.ids import EngineId
from enginery.protocol.messages import Status
from tests.unit.core.builders import Bench, task_id


def starts(lines: list[str]) -> list[int]:
    return [int(line.split()[1].partition(".")[0]) for line in lines if line.startswith("run")]


def give_back(bench: Bench, lines: list[str], engine: int = 0) -> list[str]:
    """The engine gives back all that it was asked for."""
    calls = []
    for line in lines:
        if line.startswith("take") and line.endswith(f"from {engine}"):
            for word in line.split()[1:-3]:
                number, attempt = map(int, word.split("."))
                calls.append((task_id(number), attempt))
    bench.scheduler.on_taken_back(EngineId(engine), calls, [], now=bench.now)
    return bench.settle()


@pytest.mark.parametrize("hwm", [None, 1, 100])
def test_it_starts_before_ten_thousand_waiting_ones(hwm: int | None) -> None:
    bench = Bench(placement=Placement(hwm=hwm))
    bench.teach(0.001)
    bench.submit(10_000)
    first = starts(bench.settle())[0]
    (urgent,) = bench.submit(priority=1)
    give_back(bench, bench.settle())
    bench.finish(0, first, took_s=0.001)
    assert starts(bench.settle())[0] == urgent


def test_of_equals_the_one_that_came_first_also_after_they_were_given_back() -> None:
    bench = Bench(placement=Placement(hwm=4))
    bench.submit(4)
    bench.settle()
    bench.submit(2, priority=1)
    assert give_back(bench, bench.settle()) == []
    bench.finish(0, 1)
    assert starts(bench.settle()) == [5, 6, 2, 3]
    bench.finish(0, 5)
    assert starts(bench.settle()) == [4]


def test_it_waits_for_any_engine_that_becomes_free_and_not_for_a_certain_one() -> None:
    bench = Bench(engines=2, placement=Placement(hwm=2))
    bench.submit(6)
    bench.settle()
    bench.submit(priority=1)
    asked = bench.settle()
    assert [line.split()[-1] for line in asked] == ["0", "1"]
    for engine in (0, 1):
        assert give_back(bench, asked, engine) == [], "lower levels wait for it"
    bench.finish(1, 2)
    assert starts(bench.settle())[0] == 7


def test_nothing_is_asked_for_twice_and_nothing_that_is_as_urgent() -> None:
    bench = Bench(placement=Placement(hwm=4))
    bench.submit()
    bench.settle()
    bench.submit(3)
    bench.settle()
    bench.submit(2, priority=2)
    assert bench.settle() == ["take 2.1 3.1 4.1 back from 0"]
    bench.submit(priority=2)
    bench.submit(priority=3)
    assert bench.settle() == []
    bench.finish(0, 1)
    assert bench.settle() == ["end 1 OK"], "what it was asked for is still there, and may have begun"


def test_a_lower_priority_gives_way_to_none() -> None:
    bench = Bench(placement=Placement(hwm=2))
    bench.submit(2, priority=-1)
    assert starts(bench.settle()) == [1, 2]
    bench.submit()
    assert bench.settle() == ["take 2.1 back from 0"]


def test_direct_tasks_make_way_and_keep_their_order() -> None:
    bench = Bench(placement=Placement(hwm=3))
    bench.submit(4, engines=(0,))
    bench.settle()
    bench.submit(priority=1)
    assert give_back(bench, bench.settle()) == []
    bench.finish(0, 1)
    assert starts(bench.settle()) == [5, 2, 3]
    bench.finish(0, 5)
    assert starts(bench.settle()) == [4]


def test_a_direct_task_follows_the_running_one_at_once() -> None:
    bench = Bench(placement=Placement(hwm=3))
    bench.submit(3)
    bench.settle()
    bench.submit(engines=(0,), priority=1)
    asked = bench.settle()
    assert asked == ["take 2.1 3.1 back from 0"]
    assert give_back(bench, asked)[0] == "run 4.1 on 0"


def test_an_engine_that_an_urgent_task_may_not_use_is_left_alone() -> None:
    bench = Bench(engines=2, placement=Placement(hwm=2))
    bench.submit(4)
    bench.settle()
    bench.submit(candidates=(EngineId(1),), priority=1)
    assert bench.settle() == ["take 4.1 back from 1"]
    bench.submit()
    bench.finish(0, 1)
    assert starts(bench.settle()) == [6], "engine 0 goes on with what is not urgent"


def test_levels_count_across_queues() -> None:
    bench = Bench(placement=Placement(hwm=1))
    bench.submit()
    bench.settle()
    bench.submit(engines=(0,))
    bench.submit(candidates=(EngineId(0),), priority=1)
    bench.submit(priority=2)
    order = []
    for number in (1, 4, 3, 2):
        bench.finish(0, number)
        order += starts(bench.settle())
    assert order == [4, 3, 2]


def test_an_urgent_task_that_every_engine_has_failed_waits_for_any() -> None:
    bench = Bench(placement=Placement(hwm=2))
    bench.submit(priority=1, retries=1)
    bench.settle()
    bench.finish(0, 1, status=Status.ERROR)
    bench.submit(2)
    bench.settle()
    assert give_back(bench, bench.rest()) == []
    bench.finish(0, 2)
    assert starts(bench.settle())[0] == 1


# ---------------------------------------------------------------- changed while waiting


def test_a_priority_can_be_set_while_a_task_waits() -> None:
    bench = Bench(placement=Placement(hwm=1))
    bench.submit(4)
    bench.settle()
    bench.scheduler.urgency.on_priority_set([task_id(4), task_id(77)], 1, now=bench.now)
    bench.scheduler.check()
    bench.finish(0, 1)
    assert starts(bench.settle()) == [4]
    bench.scheduler.urgency.on_priority_set([task_id(3), task_id(4)], -1, now=bench.now)
    bench.finish(0, 4)
    assert starts(bench.settle()) == [2]
    bench.scheduler.urgency.on_priority_set([task_id(3)], 0, now=bench.now)
    bench.scheduler.check()
    bench.finish(0, 2)
    assert starts(bench.settle()) == [3]


def test_and_while_an_engine_has_it() -> None:
    bench = Bench(placement=Placement(hwm=3))
    bench.submit(3)
    bench.settle()
    bench.scheduler.urgency.on_priority_set([task_id(3)], 1, now=bench.now)
    asked = bench.settle()
    assert asked == ["take 3.1 back from 0"]
    assert give_back(bench, asked) == ["take 2.1 back from 0"]


def test_and_while_it_waits_for_others() -> None:
    bench = Bench(engines=0)
    bench.submit()
    bench.submit(retries=1)
    bench.scheduler.urgency.on_priority_set([task_id(2)], 5, now=bench.now)
    bench.scheduler.on_engine_joined(EngineId(0))
    assert starts(bench.settle()) == [2]
    bench.finish(0, 2, status=Status.ERROR)
    bench.settle()
    bench.scheduler.urgency.on_priority_set([task_id(2)], 6, now=bench.now)
    bench.finish(0, 1)
    bench.settle()
    assert starts(bench.rest()) == [2]
    assert bench.scheduler.task(task_id(2)).priority == 6
