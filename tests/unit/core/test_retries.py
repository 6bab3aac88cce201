"""Rests between attempts, and tasks that end their engines."""

from __future__ import annotations

import random

import pytest

from enginery.core.placement import Placement
from enginery.core.retries import DEATHS_BORNE, FIRST_REST_S, LONGEST_REST_S, is_deadly, rest_s
from enginery.ids import EngineId
from enginery.protocol.messages import Status
from tests.unit.core.builders import Bench, result, task_id


def test_rests_double_up_to_a_bound_and_up_to_a_half_is_left_out() -> None:
    rests = [rest_s(failures, None) for failures in range(1, 12)]
    assert rests[:3] == [FIRST_REST_S, 2 * FIRST_REST_S, 4 * FIRST_REST_S]
    assert rests[-1] == rest_s(10**9, None) == LONGEST_REST_S
    randomness = random.Random(1)
    found = [rest_s(3, randomness) for _ in range(200)]
    assert len(set(found)) == 200
    assert all(rests[2] / 2 <= rest <= rests[2] for rest in found)


def test_attempts_are_that_far_apart() -> None:
    bench = Bench()
    bench.submit(retries=3)
    bench.settle()
    waits = []
    for attempt in (1, 2, 3):
        bench.finish(0, 1, attempt, Status.ERROR)
        assert bench.settle() == []
        before = bench.now
        assert bench.rest() == [f"run 1.{attempt + 1} on 0"]
        waits.append(bench.now - before)
    assert waits == pytest.approx([0.05, 0.1, 0.2])


def test_the_randomness_is_the_one_that_was_handed_in() -> None:
    bench = Bench(placement=Placement(randomness=random.Random(7)))
    bench.submit(retries=1)
    bench.settle()
    bench.finish(0, 1, status=Status.ERROR)
    bench.settle()
    until = bench.scheduler.next_deadline()
    assert until == pytest.approx(bench.now + rest_s(1, random.Random(7)))


@pytest.mark.parametrize(("retry_on", "again"), [(None, False), (("builtins.KeyboardInterrupt",), True)])
def test_what_was_interrupted_by_hand_is_not_tried_again(
    retry_on: tuple[str, ...] | None, again: bool
) -> None:
    bench = Bench()
    bench.submit(retries=3, retry_on=retry_on)
    bench.settle()
    answer = result(1, status=Status.ERROR)
    answer.error_types = ("builtins.KeyboardInterrupt", "builtins.BaseException")
    bench.scheduler.on_result(EngineId(0), answer, now=bench.now)
    assert bench.settle() == ([] if again else ["end 1 ERROR"])


def test_a_direct_task_that_rests_ends_with_its_engine() -> None:
    bench = Bench(engines=2)
    bench.submit(engines=(0,), retries=1)
    bench.settle()
    bench.finish(0, 1, status=Status.ERROR)
    bench.lose(0)
    assert bench.settle() == ["end 1 ENGINE_DIED"]
    assert bench.scheduler.next_deadline() is None


# ---------------------------------------------------------------- poison


def kill(bench: Bench, engine: int, started: set[int], *, expected: bool = False) -> list[str]:
    bench.scheduler.on_engine_joined(EngineId(engine + 1))
    bench.scheduler.on_engine_gone(
        EngineId(engine),
        cause=f"death {engine}",
        status=Status.ENGINE_DIED,
        started={task_id(number) for number in started},
        expected=expected,
        now=bench.now,
    )
    return bench.settle()


def test_it_runs_on_as_many_engines_as_retries_say_and_all_causes_are_told() -> None:
    bench = Bench()
    bench.submit(retries=4)
    bench.settle()
    for engine in range(4):
        assert kill(bench, engine, {1}) == []
        assert bench.rest() == [f"run 1.{engine + 2} on {engine + 1}"]
    assert kill(bench, 4, {1}) == ["end 1 ENGINE_DIED"]
    assert bench.effects.ended[1].detail == (
        "death 4; before that it was lost with engine 0 (death 0), engine 1 (death 1), engine 2 (death 2), "
        "engine 3 (death 3)"
    )


def test_engines_that_die_before_they_begin_anything_may_die_of_what_they_were_given() -> None:
    bench = Bench()
    bench.submit()
    bench.settle()
    assert kill(bench, 0, set()) == ["run 1.2 on 1"]
    assert kill(bench, 1, set()) == ["run 1.3 on 2"]
    assert kill(bench, 2, set()) == ["end 1 ENGINE_DIED"]
    assert bench.effects.ended[1].detail == (
        "death 2; before that it was lost with engine 0 (death 0), engine 1 (death 1)"
    )


def test_not_if_something_else_had_begun_there() -> None:
    bench = Bench(engines=0, placement=Placement(hwm=2))
    (innocent,) = bench.submit()
    for engine in range(5):
        (running,) = bench.submit(priority=1)
        bench.scheduler.on_engine_joined(EngineId(engine))
        assert len(bench.settle()) == 2
        bench.lose(engine, started={running})
        assert bench.settle() == [f"end {running} ENGINE_DIED"]
    assert bench.scheduler.task(task_id(innocent)) is not None


def test_not_if_they_were_told_to_end() -> None:
    bench = Bench()
    bench.submit()
    bench.settle()
    for engine in range(6):
        assert kill(bench, engine, set(), expected=True) == [f"run 1.{engine + 2} on {engine + 1}"]


def test_more_retries_allow_more_deaths() -> None:
    assert is_deadly(DEATHS_BORNE, 0)
    assert not is_deadly(DEATHS_BORNE, 3)
    assert is_deadly(4, 3)
