"""Which engine runs which task, when; and what becomes of tasks whose engine ends."""

from __future__ import annotations

import pytest

from enginery.core.scheduler import FRUITLESS_RECALL_INTERVAL_S, RECALL_INTERVAL_S, Scheduler
from enginery.ids import EngineId, task_number
from enginery.protocol.messages import Call, Status
from tests.unit.core.builders import CLIENT, Bench, Effects, options, task_id

NONE = EngineId(-1)


def statistics(bench: Bench) -> dict[str, int]:
    return {name: count for name, count in bench.scheduler.statistics()._asdict().items() if count}


# ---------------------------------------------------------------- one task


def test_a_task_goes_to_an_engine_and_returns() -> None:
    bench = Bench()
    assert bench.submit() == [1]
    assert statistics(bench) == {"submitted": 1, "ready": 1}
    assert bench.settle() == ["run 1.1 on 0"]
    assert statistics(bench) == {"submitted": 1, "sent": 1}
    bench.scheduler.on_started(EngineId(0), task_id(1), 1, now=bench.now)
    assert statistics(bench) == {"submitted": 1, "running": 1}
    assert bench.finish(0, 1)
    assert bench.settle() == ["end 1 OK"]
    assert statistics(bench) == {"submitted": 1, "done": 1}
    assert bench.scheduler.task(task_id(1)) is None


def test_the_result_says_when_and_where() -> None:
    bench = Bench()
    bench.submit()
    bench.settle()
    bench.finish(0, 1, took_s=0.5)
    ended = bench.effects.ended[1]
    assert (ended.engine, ended.submitted, ended.started, ended.completed) == (0, 1.0, 1.0, 1.5)


def test_a_task_waits_for_an_engine() -> None:
    bench = Bench(engines=0)
    bench.submit()
    assert bench.settle() == []
    bench.scheduler.on_engine_joined(EngineId(4))
    assert bench.settle() == ["run 1.1 on 4"]


def test_a_direct_call_is_a_task_for_each_engine() -> None:
    bench = Bench(engines=3)
    assert bench.submit(engines=(2, 0)) == [1, 2]
    assert sorted(bench.settle()) == ["run 1.1 on 2", "run 2.1 on 0"]


@pytest.mark.parametrize("late", ["other attempt", "other engine", "ended", "unknown"])
def test_a_late_result_changes_nothing(late: str) -> None:
    bench = Bench(engines=2)
    bench.submit()
    bench.settle()
    if late == "ended":
        bench.finish(0, 1)
        bench.settle()
    before = bench.scheduler.statistics()
    engine, number, attempt = {
        "other attempt": (0, 1, 2),
        "other engine": (1, 1, 1),
        "ended": (0, 1, 1),
        "unknown": (0, 77, 1),
    }[late]
    assert not bench.finish(engine, number, attempt)
    assert bench.settle() == []
    assert bench.scheduler.statistics() == before


def test_a_late_start_changes_nothing() -> None:
    bench = Bench()
    bench.submit()
    bench.settle()
    bench.scheduler.on_started(EngineId(0), task_id(1), 2, now=bench.now)
    bench.scheduler.on_started(EngineId(5), task_id(1), 1, now=bench.now)
    bench.scheduler.on_started(EngineId(0), task_id(9), 1, now=bench.now)
    assert statistics(bench) == {"submitted": 1, "sent": 1}


# ---------------------------------------------------------------- windows


def test_a_task_of_unknown_duration_has_an_engine_for_itself() -> None:
    bench = Bench(engines=2)
    bench.submit(5)
    assert bench.settle() == ["run 1.1 on 0", "run 2.1 on 1"]
    assert bench.scheduler.ready_count == 3


def test_short_tasks_fill_a_window_of_time() -> None:
    bench = Bench()
    bench.teach(0.0051)
    bench.submit(10)
    assert bench.settle() == [f"run {number}.1 on 0" for number in (2, 3, 4, 5)]


def test_engines_are_filled_evenly() -> None:
    bench = Bench(engines=2)
    bench.teach(0.005)
    bench.submit(6)
    ran_on = [line.split()[-1] for line in bench.settle()]
    assert (ran_on.count("0"), ran_on.count("1")) == (3, 3)


def test_only_tasks_that_last_are_announced() -> None:
    announced = []

    class Listening(Effects):
        def run(self, engine, task, *, announce) -> None:  # type: ignore[no-untyped-def]
            announced.append((task_number(task.task_id), announce))
            super().run(engine, task, announce=announce)

    bench = Bench()
    bench.effects = Listening()
    bench.scheduler = Scheduler(bench.effects)
    bench.scheduler.on_engine_joined(EngineId(0))
    bench.teach(0.001)
    bench.submit()
    bench.settle()
    bench.finish(0, 2, took_s=1.0)
    bench.submit()
    bench.settle()
    assert announced == [(1, True), (2, False), (3, True)]


def test_direct_tasks_go_before_balanced_ones() -> None:
    bench = Bench()
    bench.submit()
    bench.settle()
    bench.submit()
    bench.submit(engines=(0,))
    bench.finish(0, 1)
    assert bench.settle() == ["end 1 OK", "run 3.1 on 0"]


def test_priority_then_order() -> None:
    bench = Bench()
    bench.submit()
    bench.settle()
    bench.submit(2)
    bench.submit(priority=3)
    order = []
    for number in (1, 4, 2, 3):
        bench.finish(0, number)
        order += [line for line in bench.settle() if line.startswith("run")]
    assert order == ["run 4.1 on 0", "run 2.1 on 0", "run 3.1 on 0"]


def test_candidates_limit_the_engines() -> None:
    bench = Bench(engines=3)
    bench.submit(2, candidates=(EngineId(2),))
    bench.submit()
    assert bench.settle() == ["run 1.1 on 2", "run 3.1 on 0"]


# ---------------------------------------------------------------- failure, retry


def test_an_error_without_retries_fails_the_task() -> None:
    bench = Bench()
    bench.submit()
    bench.settle()
    assert bench.finish(0, 1, status=Status.ERROR)
    assert bench.settle() == ["end 1 ERROR"]
    assert statistics(bench) == {"submitted": 1, "failed": 1}


def test_an_error_with_retries_is_another_attempt_in_front_of_the_queue() -> None:
    bench = Bench()
    bench.submit(retries=1)
    bench.settle()
    bench.submit(2)
    bench.finish(0, 1, status=Status.ERROR)
    assert bench.settle() == ["run 2.1 on 0"]
    bench.finish(0, 2)
    bench.scheduler.on_engine_disconnected(EngineId(0))
    assert bench.rest() == ["end 2 OK"]
    assert bench.scheduler.on_engine_returned(EngineId(0), []) == []
    assert bench.settle() == ["run 1.2 on 0"], "before task 3, as its turn is"
    assert not bench.finish(0, 1, attempt=1)
    assert bench.finish(0, 1, attempt=2, status=Status.ERROR)
    assert bench.settle()[0] == "end 1 ERROR"


def test_retries_can_be_for_lost_engines_only() -> None:
    bench = Bench()
    bench.submit(retries=3, retry_on=())
    bench.settle()
    bench.finish(0, 1, status=Status.ERROR)
    assert bench.settle() == ["end 1 ERROR"]


def test_a_direct_task_is_retried_on_its_engine() -> None:
    bench = Bench(engines=2)
    bench.submit(engines=(1,), retries=1)
    bench.settle()
    bench.finish(1, 1, status=Status.ERROR)
    assert bench.settle() == []
    assert statistics(bench) == {"submitted": 1, "waiting": 1}
    assert bench.rest() == ["run 1.2 on 1"]


# ---------------------------------------------------------------- engines that end


def test_what_had_started_fails_and_the_rest_runs_elsewhere() -> None:
    bench = Bench()
    bench.teach(0.005)
    bench.submit(3)
    bench.settle()
    bench.scheduler.on_engine_joined(EngineId(1))
    bench.lose(0, started={1, 2})
    assert bench.settle() == ["end 2 ENGINE_DIED", "run 3.2 on 1", "run 4.2 on 1"]
    assert bench.effects.ended[2].detail == "killed"
    assert bench.effects.ended[2].engine == 0


def test_without_proof_all_that_was_sent_may_have_started() -> None:
    bench = Bench()
    bench.teach(0.005)
    bench.submit(3)
    bench.settle()
    bench.scheduler.on_engine_joined(EngineId(1))
    bench.lose(0, status=Status.ENGINE_LOST)
    assert bench.settle() == [f"end {number} ENGINE_LOST" for number in (2, 3, 4)]


def test_an_announced_start_counts_as_proof() -> None:
    bench = Bench(engines=2)
    bench.submit()
    bench.settle()
    bench.scheduler.on_started(EngineId(0), task_id(1), 1, now=bench.now)
    bench.lose(0, started=set())
    assert bench.settle() == ["end 1 ENGINE_DIED"]


def test_retries_hold_for_lost_engines() -> None:
    bench = Bench(engines=2)
    bench.submit(retries=1)
    bench.settle()
    bench.lose(0, started={1})
    assert bench.settle() == []
    assert bench.rest() == ["run 1.2 on 1"]
    bench.lose(1, started={1})
    assert bench.settle() == ["end 1 ENGINE_DIED"]
    assert bench.effects.ended[1].detail == "killed; before that it was lost with engine 0 (killed)"


def test_direct_tasks_end_with_their_engine_started_or_not() -> None:
    bench = Bench(engines=2)
    bench.submit(3, engines=(0,), retries=2)
    bench.settle()
    bench.lose(0, started={1})
    assert bench.settle() == [f"end {number} ENGINE_DIED" for number in (1, 2, 3)]
    assert statistics(bench) == {"submitted": 3, "failed": 3}


@pytest.mark.parametrize("known", [True, False])
def test_a_task_for_an_engine_that_is_not_there_fails_at_once(known: bool) -> None:
    bench = Bench(engines=1)
    if known:
        bench.lose(0)
    bench.submit(engines=(0 if known else 9,))
    assert bench.settle() == ["end 1 NO_ENGINE"]
    detail = bench.effects.ended[1].detail
    assert detail == ("killed" if known else "no engine of this id has ever been registered")


def test_a_task_whose_every_candidate_has_left_fails() -> None:
    bench = Bench(engines=3)
    bench.submit(3, candidates=(EngineId(0), EngineId(1)))
    bench.settle()
    bench.lose(0, started=set())
    bench.settle()
    bench.lose(1, started=set())
    assert sorted(bench.settle()) == [f"end {number} NO_ENGINE" for number in (1, 2, 3)]
    assert bench.effects.ended[3].detail == "every engine it was allowed on (0, 1) has left"


def test_a_task_that_may_run_only_on_engines_that_are_not_there_fails_at_once() -> None:
    bench = Bench()
    bench.submit(candidates=(EngineId(5),))
    assert bench.settle() == ["end 1 NO_ENGINE"]


def test_a_disconnected_engine_gets_nothing_and_keeps_what_it_has() -> None:
    bench = Bench(engines=2)
    bench.submit()
    bench.settle()
    bench.scheduler.on_engine_disconnected(EngineId(0))
    bench.submit(2)
    assert bench.settle() == ["run 2.1 on 1"]
    assert bench.finish(0, 1)
    assert bench.settle() == ["end 1 OK"]


def test_an_engine_that_returns_is_sent_what_it_does_not_hold() -> None:
    bench = Bench()
    bench.teach(0.005)
    bench.submit(3)
    bench.settle()
    bench.scheduler.on_engine_disconnected(EngineId(0))
    lost = bench.scheduler.on_engine_returned(EngineId(0), [(task_id(2), 1), (task_id(3), 7)])
    assert [task_number(task.task_id) for task in lost] == [3, 4]
    bench.scheduler.check()


# ---------------------------------------------------------------- aborts


def test_a_ready_task_is_aborted_at_once() -> None:
    bench = Bench(engines=0)
    bench.submit(2)
    bench.scheduler.cancelling.on_aborted([task_id(1), task_id(99)], now=2.0)
    assert bench.settle() == ["end 1 ABORTED"]
    assert statistics(bench) == {"submitted": 2, "ready": 1, "cancelled": 1}


def test_a_sent_task_is_asked_back_and_then_aborted() -> None:
    bench = Bench()
    bench.submit()
    bench.settle()
    bench.scheduler.cancelling.on_aborted([task_id(1)], now=2.0)
    assert bench.settle() == ["take 1.1 back from 0"]
    bench.scheduler.cancelling.say_again(EngineId(0))
    assert bench.settle() == ["take 1.1 back from 0"]
    bench.scheduler.on_taken_back(EngineId(0), [(task_id(1), 1)], [], now=2.0)
    assert bench.settle() == ["end 1 ABORTED"]


@pytest.mark.parametrize("is_announced", [False, True])
@pytest.mark.parametrize("is_direct", [False, True])
def test_what_an_engine_will_not_begin_with_is_cancelled(is_announced: bool, is_direct: bool) -> None:
    """A text whose cell has failed there; its retries are for tasks that have failed themselves."""
    bench = Bench()
    bench.submit(retries=3, engines=(0,) if is_direct else ())
    bench.settle()
    if is_announced:
        bench.scheduler.on_started(EngineId(0), task_id(1), 1, now=bench.now)
    assert bench.finish(0, 1, status=Status.ABORTED)
    assert bench.settle() == ["end 1 ABORTED"]
    assert statistics(bench) == {"submitted": 1, "cancelled": 1}
    bench.scheduler.check()


def test_a_task_that_has_started_is_not_aborted() -> None:
    bench = Bench()
    bench.submit(retries=1)
    bench.settle()
    bench.scheduler.cancelling.on_aborted([task_id(1)], now=2.0)
    bench.scheduler.on_taken_back(EngineId(0), [], [(task_id(1), 1)], now=2.0)
    bench.settle()
    assert bench.finish(0, 1, status=Status.ERROR)
    bench.settle()
    assert bench.rest() == ["run 1.2 on 0"], "it failed by itself, so its retry counts"


def test_a_running_task_is_left_alone() -> None:
    bench = Bench()
    bench.submit()
    bench.settle()
    bench.scheduler.on_started(EngineId(0), task_id(1), 1, now=bench.now)
    bench.scheduler.cancelling.on_aborted([task_id(1)], now=2.0)
    assert bench.settle() == []


def test_an_aborted_task_is_not_retried() -> None:
    bench = Bench()
    bench.submit(retries=5)
    bench.settle()
    bench.scheduler.cancelling.on_aborted([task_id(1)], now=2.0)
    bench.finish(0, 1, status=Status.ERROR)
    assert bench.settle() == ["take 1.1 back from 0", "end 1 ERROR"]


def test_an_aborted_task_ends_with_its_engine() -> None:
    bench = Bench(engines=2)
    bench.submit()
    bench.settle()
    bench.scheduler.cancelling.on_aborted([task_id(1)], now=2.0)
    bench.lose(0, started=set())
    assert bench.settle()[-1] == "end 1 ABORTED"


# ---------------------------------------------------------------- take-back


def overfull() -> Bench:
    """Engine 0 has four short tasks in flight, engine 1 has just come."""
    bench = Bench()
    bench.teach(0.005)
    bench.submit(4)
    bench.settle()
    bench.scheduler.on_engine_joined(EngineId(1))
    bench.settle()
    return bench


def test_an_idle_engine_takes_half_of_a_backlog() -> None:
    bench = overfull()
    assert bench.scheduler.next_deadline() == pytest.approx(bench.now + RECALL_INTERVAL_S)
    assert bench.tick(RECALL_INTERVAL_S) == ["take 4.1 5.1 back from 0"]
    bench.scheduler.on_taken_back(EngineId(0), [(task_id(4), 1), (task_id(5), 1)], [], now=bench.now)
    assert bench.settle() == ["run 4.2 on 1", "run 5.2 on 1"]


def test_nothing_is_asked_for_twice() -> None:
    bench = overfull()
    bench.tick(RECALL_INTERVAL_S)
    assert bench.tick(RECALL_INTERVAL_S) == ["take 3.1 back from 0"]
    assert bench.tick(RECALL_INTERVAL_S) == []
    deadline = bench.scheduler.next_deadline()
    assert deadline == pytest.approx(bench.now + FRUITLESS_RECALL_INTERVAL_S)


def test_a_claim_that_came_too_late_changes_nothing() -> None:
    bench = overfull()
    bench.tick(RECALL_INTERVAL_S)
    assert bench.finish(0, 5)
    bench.settle()
    bench.scheduler.on_taken_back(EngineId(0), [(task_id(5), 1)], [(task_id(4), 1)], now=bench.now)
    assert bench.settle() == []
    assert bench.effects.ended[5].status is Status.OK


def test_tasks_that_the_idle_engine_may_not_run_are_left_where_they_are() -> None:
    bench = Bench()
    bench.teach(0.005)
    bench.submit(4, candidates=(EngineId(0),))
    bench.settle()
    bench.scheduler.on_engine_joined(EngineId(1))
    bench.settle()
    for _ in range(3):
        assert bench.tick(FRUITLESS_RECALL_INTERVAL_S) == []


def test_nobody_looks_while_nobody_is_idle() -> None:
    bench = Bench(engines=2)
    bench.teach(0.005)
    bench.submit(8)
    bench.settle()
    assert bench.scheduler.next_deadline() is None


# ---------------------------------------------------------------- the rest


def test_all_unfinished_tasks_in_their_order() -> None:
    bench = Bench(engines=0)
    bench.submit(2)
    other = type(CLIENT)(2)
    bench.scheduler.on_submitted(other, options(), Call(1, b""), now=0.0)
    assert list(bench.scheduler) == [task_id(1), task_id(2), task_id(1, other)]


def test_a_task_that_lost_its_blobs_is_wanted_only_in_its_present_attempt() -> None:
    bench = Bench()
    bench.submit()
    bench.settle()
    present = bench.scheduler.on_resend_wanted(EngineId(0), task_id(1), 1)
    assert present is bench.scheduler.task(task_id(1))
    assert bench.scheduler.on_resend_wanted(EngineId(0), task_id(1), 2) is None


def test_repr() -> None:
    assert repr(Bench().scheduler).startswith(
        "<Scheduler SchedulerStatistics(submitted=0, waiting=0, ready=0"
    )
