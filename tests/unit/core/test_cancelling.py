"""Tasks that are ended before their time: who decides, what else an engine is given, when it is replaced."""

from __future__ import annotations

import pytest

from enginery.core.cancelling import CANCEL_GRACE_S, REPEAT_S
from enginery.core.placement import Placement
from enginery.ids import EngineId
from enginery.protocol.messages import Status
from tests.unit.core.builders import Bench, on, task_id

ZERO = EngineId(0)


def cancel(bench: Bench, *numbers: int, grace_s: float | None = None) -> list[str]:
    bench.scheduler.cancelling.on_cancelled(map(task_id, numbers), grace_s=grace_s, now=bench.now)
    bench.scheduler.check()
    return bench.settle()


def claim(bench: Bench, *, taken: tuple[int, ...] = (), kept: tuple[int, ...] = ()) -> list[str]:
    """Engine 0 says what it has not begun, and what it has."""
    bench.scheduler.on_taken_back(
        ZERO,
        [(task_id(number), 1) for number in taken],
        [(task_id(number), 1) for number in kept],
        now=bench.now,
    )
    return bench.settle()


def filled(count: int = 3, **fields: object) -> Bench:
    """Engine 0 has been given so many tasks, of which it runs the first."""
    bench = Bench(placement=Placement(hwm=count))
    bench.submit(count, **fields)
    bench.settle()
    bench.scheduler.on_started(ZERO, task_id(1), 1, now=bench.now)
    return bench


# ---------------------------------------------------------------- who decides


def test_what_no_engine_has_ends_at_once() -> None:
    bench = Bench(engines=0)
    bench.submit(2)
    bench.submit(after=on(2))
    assert cancel(bench, 1, 3, 99) == ["end 1 CANCELLED", "end 3 CANCELLED"]


def test_a_task_that_rests_ends_at_once() -> None:
    bench = Bench()
    bench.submit(retries=1)
    bench.settle()
    bench.finish(0, 1, status=Status.ERROR)
    assert cancel(bench, 1) == ["end 1 CANCELLED"]
    assert bench.scheduler.next_deadline() is None


def test_of_what_an_engine_has_the_engine_decides() -> None:
    bench = filled()
    assert cancel(bench, 2, 1) == [
        "take 3.1 back from 0",
        "end 2.1 1.1 on 0 within 5 s",
    ]
    assert claim(bench, taken=(2, 3), kept=(1,)) == ["end 2 CANCELLED"]
    bench.finish(0, 1, status=Status.CANCELLED)
    assert bench.settle() == ["end 1 CANCELLED", "run 3.2 on 0"]
    assert bench.scheduler.next_deadline() is None


@pytest.mark.parametrize("status", [Status.OK, Status.ERROR])
def test_a_cancel_that_comes_too_late_changes_nothing(status: Status) -> None:
    bench = filled(1, retries=3)
    cancel(bench, 1)
    claim(bench, kept=(1,))
    bench.finish(0, 1, status=status)
    assert bench.settle() == [f"end 1 {status.name}"], "and it is not tried again"
    assert bench.scheduler.next_deadline() is None


def test_twice_is_said_twice_and_means_the_same() -> None:
    bench = filled(1)
    assert cancel(bench, 1) == ["end 1.1 on 0 within 5 s"]
    bench.now += 2.0
    assert cancel(bench, 1, grace_s=9.0) == ["end 1.1 on 0 within 5 s"]
    assert bench.scheduler.next_deadline() == pytest.approx(bench.now - 2.0 + CANCEL_GRACE_S)


def test_it_is_said_again_to_an_engine_that_may_not_have_heard_it() -> None:
    bench = filled(3)
    cancel(bench, 1, grace_s=0.5)
    cancel(bench, 2, grace_s=7.0)
    bench.scheduler.cancelling.say_again(ZERO)
    assert bench.settle() == [
        "take 3.1 back from 0",
        "end 1.1 on 0 within 0.5 s",
        "end 2.1 on 0 within 7 s",
    ]


def test_a_cancel_follows_an_abort_and_an_abort_no_cancel() -> None:
    bench = filled(2)
    bench.scheduler.cancelling.on_aborted([task_id(2)], now=bench.now)
    cancel(bench, 2)
    bench.scheduler.cancelling.on_aborted([task_id(2)], now=bench.now)
    claim(bench, taken=(2,))
    assert bench.effects.ended[2].status is Status.CANCELLED


def test_what_is_on_its_way_back_ends_when_it_comes() -> None:
    bench = filled(2)
    bench.scheduler.urgency.on_priority_set([task_id(2)], 4, now=bench.now)
    assert bench.settle() == ["take 2.1 back from 0"]
    cancel(bench, 2)
    assert claim(bench, taken=(2,)) == ["end 2 CANCELLED"]
    assert claim(bench, taken=(2,)) == [], "the answer to the other question"


def test_a_refused_task_that_was_to_end_does() -> None:
    bench = Bench(engines=2)
    bench.submit()
    bench.settle()
    cancel(bench, 1)
    bench.finish(0, 1, status=Status.UNMET, error="not here")
    assert bench.settle() == ["end 1 CANCELLED"]


def test_an_engine_may_say_that_it_has_ended_what_nobody_here_wanted_ended() -> None:
    """The wish may have gone with an earlier life of the controller."""
    bench = filled(1, retries=2)
    bench.finish(0, 1, status=Status.CANCELLED)
    assert bench.settle() == ["end 1 CANCELLED"]


# ---------------------------------------------------------------- the engine meanwhile


def test_an_engine_gets_nothing_while_it_is_to_end_what_it_runs() -> None:
    bench = filled(2)
    assert cancel(bench, 1)[0] == "take 2.1 back from 0"
    bench.submit()
    assert claim(bench, taken=(2,), kept=(1,)) == []
    bench.scheduler.on_engine_joined(EngineId(1))
    assert bench.settle() == ["run 2.2 on 1", "run 3.1 on 1"], "these go elsewhere"
    bench.submit()
    bench.finish(0, 1, status=Status.CANCELLED)
    assert bench.settle() == ["end 1 CANCELLED", "run 4.1 on 0"]


def test_an_engine_that_has_begun_what_was_thought_unstarted_gets_nothing_either() -> None:
    bench = Bench(placement=Placement(hwm=3))
    bench.submit(3)
    bench.settle()
    assert cancel(bench, 2) == ["end 2.1 on 0 within 5 s"]
    bench.submit()
    assert claim(bench, kept=(2,)) == ["take 3.1 back from 0"]
    assert claim(bench, taken=(3,)) == []


def test_direct_tasks_behind_it_stay_where_they_are() -> None:
    bench = Bench(placement=Placement(hwm=3))
    bench.submit(3, engines=(0,))
    bench.settle()
    assert cancel(bench, 1) == ["end 1.1 on 0 within 5 s"], "they may rely on each other"


# ---------------------------------------------------------------- engines that do not do it


def test_an_engine_that_does_not_do_it_within_the_grace_is_replaced() -> None:
    bench = filled(1)
    bench.submit(engines=(0,))
    cancel(bench, 1, grace_s=2.0)
    assert bench.tick(1.9) == []
    assert bench.tick(0.1) == ["replace 0 for 1"]
    assert bench.tick(REPEAT_S) == ["replace 0 for 1"], "until one of both has ended"
    bench.lose(0, started={1})
    assert bench.settle() == ["end 1 CANCELLED", "end 2 ENGINE_DIED"]
    assert bench.effects.ended[1].detail == (
        "it did not end within 2 s of being cancelled, so engine 0 had to be replaced, and its namespace is "
        "lost"
    )
    assert bench.scheduler.next_deadline() is None


def test_an_engine_that_does_it_in_the_last_moment_stays() -> None:
    bench = filled(1)
    cancel(bench, 1, grace_s=2.0)
    bench.tick(2.0)
    bench.finish(0, 1, status=Status.CANCELLED, took_s=0.0)
    assert bench.settle() == ["end 1 CANCELLED"]
    assert bench.scheduler.next_deadline() is None
    bench.submit()
    assert bench.settle() == ["run 2.1 on 0"]


def test_there_is_a_grace_for_ever() -> None:
    bench = filled(2)
    assert cancel(bench, 1, grace_s=-1.0) == ["end 1.1 on 0 within -1 s"]
    assert bench.scheduler.next_deadline() is None


def test_a_cancelled_task_whose_engine_dies_has_been_cancelled() -> None:
    bench = filled(2, retries=3)
    cancel(bench, 1, 2)
    bench.lose(0, started={1})
    assert bench.settle()[-2:] == ["end 1 CANCELLED", "end 2 CANCELLED"]
    assert bench.effects.ended[1].detail == "its engine has died meanwhile: killed"
    assert bench.effects.ended[2].detail == ""


# ---------------------------------------------------------------- limits


def limited(**fields: object) -> Bench:
    return filled(1, time_limit_s=2.0, **fields)


def test_a_task_with_a_limit_says_when_it_begins() -> None:
    announced: list[bool] = []
    bench = Bench()
    bench.teach(0.001)
    bench.effects.run = lambda engine, task, *, announce: announced.append(announce)  # type: ignore[method-assign]
    bench.submit(time_limit_s=2.0)
    bench.submit()
    bench.settle()
    assert announced == [True, False]


def test_the_limit_is_the_engines_to_keep() -> None:
    bench = limited()
    assert bench.tick(2.0 + CANCEL_GRACE_S - 0.1) == []
    bench.finish(0, 1, status=Status.OVER_LIMIT)
    assert bench.settle() == ["end 1 OVER_LIMIT"]
    assert bench.scheduler.next_deadline() is None


def test_an_engine_that_does_not_keep_it_is_replaced() -> None:
    bench = limited()
    assert bench.tick(2.0 + CANCEL_GRACE_S) == ["replace 0 for 1"]
    bench.lose(0, started={1})
    assert bench.settle() == ["end 1 OVER_LIMIT"]
    assert bench.effects.ended[1].detail == (
        "it did not end within 5 s after its time_limit of 2 s, so engine 0 had to be replaced, and its "
        "namespace is lost"
    )


def test_a_part_of_a_map_has_the_limit_of_all_its_items() -> None:
    bench = limited(most_calls=10)
    assert bench.tick(20.0 + CANCEL_GRACE_S - 0.1) == []
    assert bench.tick(0.2) == ["replace 0 for 1"]
    bench.lose(0)
    bench.settle()
    assert bench.effects.ended[1].detail.startswith(
        "it had not ended 5 s after 10 times its time_limit of 2 s"
    )


@pytest.mark.parametrize("is_replaced", [False, True])
@pytest.mark.parametrize(
    ("retry_on", "is_retried"),
    [(None, True), ((), False), (("enginery.errors.TaskTimeout",), True), (("builtins.KeyError",), False)],
)
def test_retries_count_for_what_takes_too_long(
    retry_on: tuple[str, ...] | None, is_retried: bool, is_replaced: bool
) -> None:
    bench = limited(retries=1, retry_on=retry_on)
    bench.scheduler.on_engine_joined(EngineId(1))
    if is_replaced:
        bench.tick(2.0 + CANCEL_GRACE_S)
        bench.lose(0, started={1})
    else:
        bench.finish(
            0, 1, status=Status.OVER_LIMIT, error_types=("enginery.errors.TaskTimeout", "builtins.Exception")
        )
    assert bench.settle()[-1:] == ([] if is_retried else ["end 1 OVER_LIMIT"])
    if is_retried:
        assert bench.rest() == ["run 1.2 on 1"]


def test_a_cancel_has_a_grace_of_its_own() -> None:
    bench = limited()
    cancel(bench, 1, grace_s=1.0)
    assert bench.tick(1.0) == ["replace 0 for 1"]
    bench.lose(0)
    bench.settle()
    assert bench.effects.ended[1].status is Status.CANCELLED


def test_who_waits_for_ever_for_a_cancel_still_has_the_limit() -> None:
    bench = filled(2, time_limit_s=2.0)
    assert cancel(bench, 1, grace_s=-1.0) == ["end 1.1 on 0 within -1 s"], "and what is behind it stays"
    assert bench.tick(2.0 + CANCEL_GRACE_S - 0.1) == []
    assert bench.tick(0.1) == ["take 2.1 back from 0", "replace 0 for 1"]
    bench.lose(0, started={1})
    bench.settle()
    assert bench.effects.ended[1].status is Status.CANCELLED
    assert bench.effects.ended[1].detail.startswith("it did not end within 5 s after its time_limit of 2 s")


def test_a_limit_that_is_over_before_a_cancels_grace_is_why() -> None:
    bench = limited()
    cancel(bench, 1, grace_s=100.0)
    assert bench.tick(2.0 + CANCEL_GRACE_S) == ["replace 0 for 1"]
    task = bench.scheduler.task(task_id(1))
    assert task is not None
    assert task.overdue == "it did not end within 5 s after its time_limit of 2 s"
    for _ in range(100):
        bench.tick(REPEAT_S)
    assert task.overdue == "it did not end within 5 s after its time_limit of 2 s"


def test_of_two_graces_the_one_counts_that_ends_first() -> None:
    bench = filled(1)
    assert cancel(bench, 1, grace_s=-1.0) == ["end 1.1 on 0 within -1 s"]
    assert cancel(bench, 1, grace_s=4.0) == ["end 1.1 on 0 within 4 s"]
    bench.now += 1.0
    assert cancel(bench, 1, grace_s=0.5) == ["end 1.1 on 0 within 0.5 s"]
    assert cancel(bench, 1, grace_s=-1.0) == ["end 1.1 on 0 within 0.5 s"]
    assert bench.tick(0.4) == []
    assert bench.tick(0.1) == ["replace 0 for 1"]
    bench.lose(0, started={1})
    bench.settle()
    assert bench.effects.ended[1].detail.startswith("it did not end within 0.5 s of being cancelled")


# ---------------------------------------------------------------- items of maps


def test_items_that_are_not_wanted_go_with_their_part() -> None:
    bench = Bench(engines=0)
    bench.submit(retries=1)
    bench.scheduler.cancelling.on_items_cancelled(task_id(1), [3, 1])
    bench.scheduler.cancelling.on_items_cancelled(task_id(9), [3, 1])
    bench.scheduler.on_engine_joined(ZERO)
    bench.settle()
    assert bench.scheduler.task(task_id(1)).skipped == (1, 3)
    bench.scheduler.cancelling.on_items_cancelled(task_id(1), [2, 3])
    assert bench.settle() == ["skip 1 2 3 of 1.1 on 0"]
    bench.scheduler.cancelling.say_again(ZERO)
    assert bench.settle() == ["skip 1 2 3 of 1.1 on 0"]
