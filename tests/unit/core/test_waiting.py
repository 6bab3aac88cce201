"""Tasks that wait for others, follow others, are refused by engines or tried again: where they end up."""

from __future__ import annotations

import pytest

from enginery.core.placement import Placement
from enginery.core.scheduler import DIRECT_AND_DEPENDENT
from enginery.ids import NO_ENGINE, ClientId, EngineId
from enginery.protocol.messages import Call, Dependency, Status
from tests.unit.core.builders import CLIENT, Bench, on, options, task_id

OTHER = ClientId(2)


def statistics(bench: Bench) -> dict[str, int]:
    return {name: count for name, count in bench.scheduler.statistics()._asdict().items() if count}


def lines(bench: Bench, word: str) -> list[str]:
    return [line for line in bench.settle() if line.startswith(word)]


# ---------------------------------------------------------------- after


def test_a_task_waits_for_another() -> None:
    bench = Bench(engines=2)
    bench.submit()
    bench.submit(after=on(1))
    assert statistics(bench) == {"submitted": 2, "waiting": 1, "ready": 1}
    assert bench.settle() == ["run 1.1 on 0"]
    assert bench.scheduler.ready_count == 1
    assert bench.scheduler.unassigned == [task_id(2)]
    bench.finish(0, 1)
    assert bench.settle() == ["end 1 OK", "run 2.1 on 1"]
    bench.finish(1, 2)
    assert bench.settle() == ["end 2 OK"]
    assert statistics(bench) == {"submitted": 2, "done": 2}


def test_a_task_after_one_that_has_ended_is_ready_at_once() -> None:
    bench = Bench()
    bench.submit()
    bench.settle()
    bench.finish(0, 1)
    bench.submit(after=on(1))
    assert bench.settle() == ["end 1 OK", "run 2.1 on 0"]


def test_tasks_of_other_clients_count() -> None:
    bench = Bench()
    bench.scheduler.on_submitted(OTHER, options(), Call(7, b""), now=bench.now)
    bench.submit(after=on(7, client=OTHER))
    assert bench.settle() == ["run 7.1 on 0"]
    assert statistics(bench) == {"submitted": 2, "waiting": 1, "sent": 1}


def test_direct_tasks_can_be_waited_for() -> None:
    bench = Bench(engines=2)
    bench.submit(engines=(0, 1))
    bench.submit(after=on(1, 2))
    bench.settle()
    bench.finish(0, 1)
    assert bench.settle() == ["end 1 OK"]
    bench.finish(1, 2)
    assert bench.settle()[1].startswith("run 3.1 on")


def test_what_was_hopeless_ends_at_once_and_what_depends_on_it_too() -> None:
    bench = Bench()
    bench.submit()
    for number in range(1, 2000):
        bench.submit(after=on(number))
    bench.settle()
    bench.finish(0, 1, status=Status.ERROR)
    assert bench.settle() == ["end 1 ERROR", *(f"end {number} IMPOSSIBLE" for number in range(2, 2001))]
    assert bench.effects.ended[2].detail == "it depends on the success of task 00000001-1, which has failed"
    assert statistics(bench) == {"submitted": 2000, "failed": 1, "impossible": 1999}


def test_a_failure_can_be_waited_for() -> None:
    bench = Bench()
    bench.submit()
    bench.submit(after=on(1, success=False, failure=True))
    bench.settle()
    bench.finish(0, 1, status=Status.ERROR)
    assert bench.settle() == ["end 1 ERROR", "run 2.1 on 0"]


def test_an_attempt_that_is_tried_again_is_no_end() -> None:
    bench = Bench()
    bench.submit(retries=1)
    bench.submit(after=on(1))
    bench.settle()
    bench.finish(0, 1, status=Status.ERROR)
    assert bench.settle() == []
    assert bench.rest() == ["run 1.2 on 0"]
    bench.finish(0, 1, 2)
    assert bench.settle() == ["end 1 OK", "run 2.1 on 0"]


def test_an_aborted_task_has_failed() -> None:
    bench = Bench(engines=0)
    bench.submit()
    bench.submit(after=on(1))
    bench.submit(after=on(1, failure=True))
    bench.scheduler.cancelling.on_aborted([task_id(1)], now=bench.now)
    assert bench.settle() == ["end 1 ABORTED", "end 2 IMPOSSIBLE"]
    assert statistics(bench) == {"submitted": 3, "ready": 1, "cancelled": 1, "impossible": 1}


def test_a_waiting_task_can_be_aborted() -> None:
    bench = Bench(engines=0)
    bench.submit()
    bench.submit(after=on(1), wait_timeout_s=5.0)
    bench.scheduler.cancelling.on_aborted([task_id(2)], now=bench.now)
    assert bench.settle() == ["end 2 ABORTED"]
    assert bench.scheduler.next_deadline() is None


def test_a_lost_engine_fails_what_depends_on_its_task() -> None:
    bench = Bench(engines=2)
    bench.submit(after=on())
    bench.submit(after=on(1))
    assert bench.settle() == ["run 1.1 on 0"]
    bench.lose(0)
    assert bench.settle() == ["end 1 ENGINE_DIED", "end 2 IMPOSSIBLE"]


def test_those_who_have_waited_leave_in_their_order() -> None:
    bench = Bench()
    bench.submit()
    bench.submit(3, after=on(1))
    bench.settle()
    bench.submit()
    bench.finish(0, 1)
    order = []
    for number in (5, 2, 3, 4):
        order += lines(bench, "run")
        assert bench.finish(0, number)
    assert order == ["run 5.1 on 0", "run 2.1 on 0", "run 3.1 on 0", "run 4.1 on 0"]


@pytest.mark.parametrize("field", ["after", "follow"])
def test_a_direct_task_cannot_depend_on_others(field: str) -> None:
    bench = Bench(engines=2)
    bench.submit(engines=(0, 1), **{field: on()})
    assert bench.settle() == ["end 1 REFUSED", "end 2 REFUSED"]
    assert bench.effects.ended[1].detail == DIRECT_AND_DEPENDENT
    assert statistics(bench) == {"submitted": 2, "failed": 2}


# ---------------------------------------------------------------- who is not known


@pytest.mark.parametrize(
    ("dependency", "detail"),
    [
        (on(1), "it depends on itself"),
        (on(2), "it depends on task 00000001-2, which its client had not submitted before it"),
    ],
)
def test_a_task_cannot_wait_for_itself_or_a_later_one(dependency: Dependency, detail: str) -> None:
    bench = Bench()
    bench.submit(after=dependency)
    bench.submit(after=on(1))
    assert bench.settle() == ["end 1 INVALID", "end 2 IMPOSSIBLE"]
    assert bench.effects.ended[1].detail == detail


def test_a_cycle_over_two_clients_cannot_arise() -> None:
    bench = Bench()
    bench.submit(after=on(9, client=OTHER))
    assert bench.settle() == ["look up 00000002-9 for 1"]
    bench.scheduler.on_submitted(OTHER, options(after=on(1)), Call(9, b""), now=bench.now)
    assert bench.settle() == []
    bench.scheduler.on_looked_up({task_id(9, OTHER): None}, now=bench.now)
    assert bench.settle() == ["end 1 INVALID", "end 9 IMPOSSIBLE"]


def test_a_task_that_nobody_remembers_is_looked_up() -> None:
    bench = Bench(engines=2)
    bench.submit(after=on(5, 6, client=OTHER), follow=on(6, client=OTHER))
    assert bench.settle() == ["look up 00000002-5 00000002-6 for 1"]
    assert statistics(bench) == {"submitted": 1, "waiting": 1}
    bench.scheduler.on_looked_up(
        {task_id(5, OTHER): (True, NO_ENGINE), task_id(6, OTHER): (True, EngineId(1))},
        now=bench.now,
    )
    assert bench.settle() == ["run 1.1 on 1"]


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (None, "end 1 INVALID"),
        ((False, EngineId(0)), "end 1 IMPOSSIBLE"),
        ((True, NO_ENGINE), "end 1 IMPOSSIBLE"),
        ((True, EngineId(8)), "end 1 IMPOSSIBLE"),
    ],
)
def test_what_the_history_says_can_end_a_task(answer: tuple[bool, EngineId] | None, end: str) -> None:
    bench = Bench()
    bench.submit(follow=on(5, client=OTHER))
    bench.settle()
    bench.scheduler.on_looked_up({task_id(5, OTHER): answer}, now=bench.now)
    assert bench.settle() == [end]


def test_an_answer_for_a_task_that_has_ended_changes_nothing() -> None:
    bench = Bench()
    bench.submit(after=on(5, client=OTHER))
    bench.scheduler.cancelling.on_aborted([task_id(1)], now=bench.now)
    assert bench.settle() == ["look up 00000002-5 for 1", "end 1 ABORTED"]
    bench.scheduler.on_looked_up({task_id(5, OTHER): (True, EngineId(0))}, now=bench.now)
    assert bench.settle() == []


# ---------------------------------------------------------------- follow


def ended_on(*engines: int, present: int = 2) -> Bench:
    """Tasks 1, 2, … have ended on these engines, one each."""
    bench = Bench(engines=present)
    for engine in engines:
        (number,) = bench.submit(engines=(engine,))
        bench.settle()
        bench.finish(engine, number)
    bench.settle()
    return bench


def test_a_task_follows_others_to_their_engine() -> None:
    bench = ended_on(1, 1)
    bench.submit(follow=on(1, 2))
    bench.submit(follow=on(1, 2))
    assert bench.settle() == ["run 3.1 on 1"]
    bench.finish(1, 3)
    assert bench.settle() == ["end 3 OK", "run 4.1 on 1"]


def test_a_task_cannot_follow_to_two_engines() -> None:
    bench = ended_on(0, 1)
    bench.submit(follow=on(1, 2))
    bench.submit(follow=on(1, 2, all=False))
    assert sorted(bench.settle()) == ["end 3 IMPOSSIBLE", "run 4.1 on 0"]
    assert "ended in different places" in bench.effects.ended[3].detail


def test_two_engines_are_noticed_before_all_have_ended() -> None:
    bench = ended_on(0, 1)
    bench.submit(engines=(0,))
    bench.submit(follow=on(1, 2, 3))
    assert bench.settle() == ["end 4 IMPOSSIBLE", "run 3.1 on 0"]


@pytest.mark.parametrize("when", ["before", "while it waits"])
def test_a_task_cannot_follow_to_an_engine_that_has_left(when: str) -> None:
    bench = ended_on(1)
    bench.submit(engines=(0,))
    if when == "before":
        bench.lose(1)
    bench.submit(follow=on(1, 2))
    bench.settle()
    if when != "before":
        bench.lose(1)
    assert bench.effects.ended[3].status is Status.IMPOSSIBLE
    assert "the engine where that ended has left" in bench.effects.ended[3].detail


def test_another_process_under_the_same_id_is_another_engine() -> None:
    bench = ended_on(1)
    bench.lose(1)
    bench.scheduler.on_engine_joined(EngineId(1))
    bench.submit(follow=on(1))
    assert bench.settle() == ["end 2 IMPOSSIBLE"]


def test_a_task_cannot_follow_to_where_it_is_not_allowed() -> None:
    bench = ended_on(1)
    bench.submit(follow=on(1), candidates=(EngineId(0),))
    assert bench.settle() == ["end 2 IMPOSSIBLE"]


def test_a_task_cannot_follow_one_that_never_ran() -> None:
    bench = Bench(engines=0)
    bench.submit()
    bench.scheduler.cancelling.on_aborted([task_id(1)], now=bench.now)
    bench.submit(follow=on(1, failure=True))
    bench.submit(after=on(1, failure=True))
    assert bench.settle() == ["end 1 ABORTED", "end 2 IMPOSSIBLE"]


def test_a_follower_of_any_may_go_wherever_one_has_ended() -> None:
    bench = ended_on(0)
    bench.submit(engines=(0,))
    bench.submit(engines=(1,))
    bench.submit(follow=on(1, 3, all=False))
    assert bench.settle() == ["run 2.1 on 0", "run 3.1 on 1"]
    bench.finish(1, 3)
    assert bench.settle() == ["end 3 OK", "run 4.1 on 1"]


def test_a_follower_of_any_waits_again_for_the_others_when_the_first_engine_leaves() -> None:
    bench = ended_on(0)
    bench.submit(engines=(0,))
    bench.submit(engines=(1,))
    bench.submit(follow=on(1, 3, all=False))
    bench.settle()
    assert statistics(bench) == {"submitted": 4, "ready": 1, "sent": 2, "done": 1}
    bench.lose(0)
    assert bench.settle() == ["end 2 ENGINE_DIED"]
    assert statistics(bench) == {"submitted": 4, "waiting": 1, "sent": 1, "done": 1, "failed": 1}
    bench.finish(1, 3)
    assert bench.settle() == ["end 3 OK", "run 4.1 on 1"]


def test_a_follower_that_was_lost_on_its_way_has_no_other_engine() -> None:
    bench = ended_on(1)
    bench.submit(follow=on(1))
    bench.settle()
    bench.lose(1, started=set())
    assert bench.settle() == ["end 2 IMPOSSIBLE"]


def test_a_follower_is_tried_again_on_its_engine() -> None:
    bench = ended_on(1)
    bench.submit(follow=on(1), retries=1)
    bench.settle()
    bench.finish(1, 2, status=Status.ERROR)
    bench.settle()
    assert bench.rest() == ["run 2.2 on 1"]


def test_a_follower_that_rests_while_its_engine_leaves_is_impossible() -> None:
    bench = ended_on(1)
    bench.submit(follow=on(1), retries=1)
    bench.settle()
    bench.finish(1, 2, status=Status.ERROR)
    bench.lose(1)
    assert bench.settle() == []
    assert bench.rest() == ["end 2 IMPOSSIBLE"]


def test_a_follower_is_not_taken_back_for_an_idle_engine() -> None:
    bench = Bench()
    bench.teach(0.005)
    bench.submit(4, follow=on(1))
    assert len(bench.settle()) == 4
    bench.scheduler.on_engine_joined(EngineId(1))
    bench.settle()
    for _ in range(3):
        assert bench.tick(1.0) == []


# ---------------------------------------------------------------- time


def test_dependencies_that_are_not_met_in_time_end_the_task() -> None:
    bench = Bench()
    bench.submit()
    bench.submit(after=on(1), wait_timeout_s=2.5)
    bench.settle()
    assert bench.scheduler.next_deadline() == bench.now + 2.5
    assert bench.tick(2.4) == []
    assert bench.tick(0.1) == ["end 2 TIMED_OUT"]
    assert bench.effects.ended[2].detail == "its dependencies were not met within 2.5 s"
    assert bench.scheduler.next_deadline() is None
    assert statistics(bench) == {"submitted": 2, "sent": 1, "impossible": 1}


def test_no_time_limits_the_wait_for_an_engine() -> None:
    bench = Bench()
    bench.submit(2)
    bench.submit(after=on(1), wait_timeout_s=2.5)
    bench.settle()
    bench.finish(0, 1)
    assert bench.settle() == ["end 1 OK", "run 2.1 on 0"]
    assert bench.scheduler.next_deadline() is None
    assert bench.tick(100) == []


def test_no_time_at_all_means_now_or_never() -> None:
    bench = Bench(engines=0)
    bench.submit()
    bench.submit(after=on(1), wait_timeout_s=0.0)
    bench.submit(after=on(), wait_timeout_s=0.0)
    assert bench.scheduler.next_deadline() == bench.now
    assert bench.tick(0.0) == ["end 2 TIMED_OUT"]


@pytest.mark.parametrize("timeout_s", [-1.0, -0.5, float("inf"), float("nan"), 1e300])
def test_a_wait_without_end(timeout_s: float) -> None:
    bench = Bench(engines=0)
    bench.submit()
    bench.submit(after=on(1), wait_timeout_s=timeout_s)
    assert bench.scheduler.next_deadline() is None


# ---------------------------------------------------------------- engines that refuse a task


def refuse(bench: Bench, engine: int, number: int, attempt: int = 1) -> None:
    assert bench.finish(engine, number, attempt, Status.UNMET, error=f"no GPU on {engine}")


def test_a_task_goes_to_the_next_engine_when_one_refuses_it() -> None:
    bench = Bench(engines=3)
    bench.submit()
    bench.settle()
    refuse(bench, 0, 1)
    assert bench.settle() == ["run 1.2 on 1"]
    refuse(bench, 1, 1, 2)
    assert bench.settle() == ["run 1.3 on 2"]
    assert bench.finish(2, 1, 3)
    assert bench.settle() == ["end 1 OK"]


def test_a_task_that_every_engine_refuses_is_impossible() -> None:
    bench = Bench(engines=2)
    bench.submit(retries=5)
    bench.settle()
    refuse(bench, 0, 1)
    bench.settle()
    refuse(bench, 1, 1, 2)
    assert bench.settle() == ["end 1 IMPOSSIBLE"]
    assert bench.effects.ended[1].detail == (
        "every engine that it may run on has refused it; the last one said: no GPU on 1"
    )
    assert statistics(bench) == {"submitted": 1, "impossible": 1}


def test_only_engines_that_the_task_may_run_on_are_asked() -> None:
    bench = Bench(engines=3)
    bench.submit(candidates=(EngineId(0), EngineId(2)))
    bench.settle()
    refuse(bench, 0, 1)
    assert bench.settle() == ["run 1.2 on 2"]
    refuse(bench, 2, 1, 2)
    assert bench.settle() == ["end 1 IMPOSSIBLE"]


def test_a_refused_task_waits_for_the_others_and_for_engines_that_join() -> None:
    bench = Bench(engines=2)
    bench.submit(2)
    bench.settle()
    refuse(bench, 0, 1)
    assert bench.settle() == [], "engine 1 is busy"
    bench.scheduler.on_engine_joined(EngineId(2))
    assert bench.settle() == ["run 1.2 on 2"]


@pytest.mark.parametrize("gone", [0, 1])
def test_a_refused_task_when_an_engine_leaves(gone: int) -> None:
    bench = Bench(engines=2)
    bench.submit(2)
    bench.settle()
    refuse(bench, 0, 1)
    bench.settle()
    bench.lose(gone)
    told = bench.settle()
    if gone == 0:
        assert told == [], "engine 1 can still take it"
    else:
        assert told == ["end 2 ENGINE_DIED", "end 1 IMPOSSIBLE"]


def test_without_any_engine_a_refused_task_waits_as_all_others_do() -> None:
    bench = Bench(engines=2)
    bench.submit(2)
    bench.settle()
    refuse(bench, 0, 1)
    bench.settle()
    bench.lose(0)
    bench.lose(1)
    assert bench.settle() == ["end 2 ENGINE_DIED"]
    bench.scheduler.on_engine_joined(EngineId(0))
    assert bench.settle() == ["run 1.2 on 0"], "it is another process"


def test_refusals_use_up_no_retry_and_teach_no_duration() -> None:
    bench = Bench(engines=2)
    bench.submit(retries=1)
    bench.settle()
    refuse(bench, 0, 1)
    bench.settle()
    bench.finish(1, 1, 2, Status.ERROR)
    bench.settle()
    assert bench.rest() == ["run 1.3 on 1"], "its retry; engine 0 has refused it"
    bench.finish(1, 1, 3)
    assert bench.settle() == ["end 1 OK"]


def test_a_refusal_ends_a_direct_task() -> None:
    bench = Bench(engines=2)
    bench.submit(engines=(0,), retries=3)
    bench.settle()
    refuse(bench, 0, 1)
    assert bench.settle() == ["end 1 UNMET"]
    assert statistics(bench) == {"submitted": 1, "failed": 1}


def test_a_refused_task_that_was_to_be_aborted_is() -> None:
    bench = Bench(engines=2)
    bench.submit()
    bench.settle()
    bench.scheduler.cancelling.on_aborted([task_id(1)], now=bench.now)
    refuse(bench, 0, 1)
    assert bench.settle() == ["take 1.1 back from 0", "end 1 ABORTED"]


def test_a_running_task_can_be_refused() -> None:
    bench = Bench(engines=2)
    bench.submit()
    bench.settle()
    bench.scheduler.on_started(EngineId(0), task_id(1), 1, now=bench.now)
    refuse(bench, 0, 1)
    assert bench.settle() == ["run 1.2 on 1"]


def test_a_follower_that_is_refused_is_impossible() -> None:
    bench = ended_on(1)
    bench.submit(follow=on(1))
    bench.settle()
    refuse(bench, 1, 2)
    assert bench.settle() == ["end 2 IMPOSSIBLE"]


# ---------------------------------------------------------------- retries


def test_an_engine_that_has_not_failed_the_task_comes_first() -> None:
    bench = Bench(engines=3)
    bench.submit(retries=4)
    tried = []
    for attempt in range(1, 6):
        ran = lines(bench, "run") or bench.rest()
        tried += [int(line.split()[-1]) for line in ran]
        bench.finish(tried[-1], 1, attempt, Status.ERROR)
    assert bench.settle() == ["end 1 ERROR"]
    assert sorted(tried[:3]) == [0, 1, 2]
    assert set(tried[3:]) <= {0, 1, 2}


def test_a_retry_waits_for_an_engine_that_has_not_failed_it() -> None:
    bench = Bench(engines=2)
    bench.submit(2, retries=1)
    bench.settle()
    bench.finish(0, 1, status=Status.ERROR)
    bench.settle()
    assert bench.rest() == []
    bench.finish(1, 2)
    assert bench.settle() == ["end 2 OK", "run 1.2 on 1"]


@pytest.mark.parametrize("what", ["leaves", "is away"])
def test_a_retry_does_not_wait_for_an_engine_that(what: str) -> None:
    bench = Bench(engines=2)
    bench.submit(2, retries=1)
    bench.settle()
    bench.finish(0, 1, status=Status.ERROR)
    bench.settle()
    bench.rest()
    if what == "leaves":
        bench.lose(1, started=set())
        assert bench.settle() == ["run 1.2 on 0"]
    else:
        bench.scheduler.on_engine_disconnected(EngineId(1))
        assert bench.settle() == ["run 1.2 on 0"]


def test_what_comes_back_from_several_engines_keeps_its_order() -> None:
    bench = Bench(engines=2)
    bench.teach(0.005)
    bench.submit(8)
    sent = {engine: [] for engine in ("0", "1")}
    for line in bench.settle():
        sent[line.split()[-1]].append(int(line.split()[1].partition(".")[0]))
    bench.submit(2)
    for engine in (1, 0):
        bench.lose(engine, started=set())
    assert bench.settle() == []
    bench.scheduler.on_engine_joined(EngineId(5))
    bench.scheduler.on_engine_joined(EngineId(6))
    bench.scheduler.on_engine_joined(EngineId(7))
    order = [int(line.split()[1].partition(".")[0]) for line in bench.settle()]
    assert sorted(sent["0"] + sent["1"]) == list(range(2, 10))
    assert order == list(range(2, 12)), "oldest first, whichever engine gave them back"


def test_tasks_of_two_clients_come_back_in_the_order_of_submission() -> None:
    bench = Bench(placement=Placement(hwm=2))
    bench.scheduler.on_submitted(OTHER, options(), Call(1, b""), now=bench.now)
    bench.scheduler.on_submitted(CLIENT, options(), Call(5, b""), now=bench.now)
    bench.settle()
    for task in (task_id(1, OTHER), task_id(5)):
        bench.scheduler.on_taken_back(EngineId(0), [(task, 1)], [], now=bench.now)
    assert bench.settle() == ["run 1.2 on 0", "run 5.2 on 0"]
