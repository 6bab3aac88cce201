"""Why a task is where it is, in sentences; and where the time of one that has ended went."""

from __future__ import annotations

import pytest

from enginery.core.explain import Phases, explain, phases
from enginery.ids import EngineId, TaskId
from enginery.protocol.messages import Reason, Status, TaskResult
from tests.unit.core.builders import Bench, on, task_id


def why(bench: Bench, *numbers: int) -> list[tuple[str, str]]:
    return [(reason.state, reason.why) for reason in reasons(bench, *numbers)]


def reasons(bench: Bench, *numbers: int) -> list[Reason]:
    return explain(bench.scheduler, [task_id(number) for number in numbers], now=bench.now)


def test_without_engines() -> None:
    bench = Bench(engines=0)
    bench.submit()
    bench.settle()
    ((state, sentence),) = why(bench, 1)
    assert state == "ready"
    assert sentence.startswith("there is no engine; start some with `enginery engine`")


def test_behind_others() -> None:
    bench = Bench(engines=2)
    bench.submit(5)
    bench.settle()
    bench.now += 1.5
    assert why(bench, 1) == [("sent", "it runs on engine 0, for 1.5 s")]
    ((state, sentence),) = why(bench, 5)
    assert (state, sentence.split("; ")) == (
        "ready",
        [
            "each of the 2 engines that could take it has work to do",
            "2 tasks of its priority or a higher one came before it",
        ],
    )


def test_the_same_reason_is_said_once() -> None:
    bench = Bench(engines=1)
    bench.submit(4)
    bench.settle()
    busy = "each of the 1 engine that could take it has work to do"
    assert reasons(bench, 1, 2, 3, 4) == [
        Reason(1, task_id(1), "sent", "it runs on engine 0, for 0.0 s", EngineId(0)),
        Reason(3, task_id(2), "ready", busy),
    ]


def test_addressed_to_a_busy_engine() -> None:
    bench = Bench(engines=1)
    bench.submit()
    bench.settle()
    bench.submit(2, engines=(0,))
    bench.settle()
    bench.now += 2.0
    (_, second), (_, third) = why(bench, 2)[0], why(bench, 3)[0]
    busy = "it is addressed to engine 0, which is busy with task 00000001-1 (f), for 2.0 s"
    assert second == f"{busy}; 0 tasks before it"
    assert third.endswith("; 1 task before it")


def test_in_an_engine_behind_another() -> None:
    bench = Bench(engines=1)
    bench.teach(0.001)
    first, second = bench.submit(2)
    bench.settle()
    assert why(bench, first) == [("sent", "it runs on engine 0, for 0.0 s")]
    ((state, sentence),) = why(bench, second)
    assert (state, sentence[:33]) == ("sent", "engine 0 has it and is busy with ")
    assert sentence.endswith("it can still be taken back")


def test_on_an_engine_that_is_away() -> None:
    bench = Bench(engines=1)
    bench.submit()
    bench.settle()
    bench.scheduler.on_engine_disconnected(EngineId(0))
    bench.submit()
    bench.submit(engines=(0,))
    bench.settle()
    assert why(bench, 1)[0][1].startswith("it runs on engine 0, which is disconnected: it may run on")
    assert why(bench, 2)[0][1].startswith("engine 0 is disconnected")
    assert why(bench, 3)[0][1].startswith("it is addressed to engine 0, which is disconnected")


def test_waiting_for_others() -> None:
    bench = Bench(engines=1)
    bench.submit(2)
    bench.settle()
    bench.submit(after=on(1, 2))
    bench.submit(follow=on(1))
    bench.settle()
    assert why(bench, 3) == [("waiting", "it comes after tasks 00000001-1, 00000001-2, not ended yet")]
    assert why(bench, 4) == [("waiting", "it follows task 00000001-1, not ended yet, to the same engine")]


def test_only_where_it_may_run() -> None:
    bench = Bench(engines=2)
    bench.submit(2)
    bench.settle()
    bench.submit(candidates=(EngineId(1),))
    bench.settle()
    assert why(bench, 3) == [
        ("ready", "it may only run on engine 1; each of the 1 engine that could take it has work to do")
    ]


def test_where_it_was_refused_and_where_it_has_failed() -> None:
    bench = Bench(engines=2)
    bench.submit()
    bench.settle()
    bench.submit()
    bench.settle()
    bench.finish(0, 1, status=Status.UNMET, error="no GPU here")
    assert why(bench, 1)[0][1].startswith("engine 0 refused it (no GPU here); each of the 1 engine that")
    bench = Bench(engines=2)
    bench.submit(2, retries=1)
    bench.settle()
    bench.finish(0, 1, status=Status.ERROR)
    bench.rest()
    assert why(bench, 1)[0][1].startswith("it has failed on engine 0 and is to be tried on another; ")


def test_what_is_not_here_is_left_out() -> None:
    bench = Bench(engines=1)
    bench.submit()
    bench.settle()
    bench.finish(0, 1)
    assert reasons(bench, 1, 99) == []


# ---------------------------------------------------------------- times


def ended(**fields: float) -> TaskResult:
    return TaskResult(TaskId(1), Status.OK, **fields)  # type: ignore[arg-type]


def test_the_phases_are_the_whole_time() -> None:
    result = ended(submitted=1.0, sent=1.5, started=2.0, completed=5.0, unpickle_s=0.25, pickle_s=0.5)
    found = phases(result, received=5.125)
    assert found == Phases(queue=0.5, transfer=0.5, unpickle=0.25, run=2.25, pickle=0.5, back=0.125)
    assert sum(found) == pytest.approx(5.125 - 1.0)


def test_what_never_ran_has_none() -> None:
    assert phases(ended(submitted=1.0, completed=2.0), received=2.0) is None


def test_clocks_that_differ_make_nothing_negative() -> None:
    found = phases(
        ended(submitted=5.0, sent=5.0, started=3.0, completed=4.0, unpickle_s=9.0, pickle_s=9.0), received=3.5
    )
    assert found is not None
    assert min(found) >= 0.0


def test_a_record_without_its_time_of_sending() -> None:
    found = phases(ended(submitted=1.0, started=3.0, completed=4.0), received=4.0)
    assert found == Phases(0.0, 2.0, 0.0, 1.0, 0.0, 0.0)


def test_resting() -> None:
    bench = Bench()
    bench.submit(retries=2)
    bench.settle()
    bench.finish(0, 1, status=Status.ERROR)
    bench.settle()
    assert why(bench, 1) == [
        ("waiting", "it has failed 1 time and rests for a moment before it is tried again")
    ]


def test_on_its_way_to_an_early_end() -> None:
    bench = Bench()
    bench.submit()
    bench.settle()
    bench.scheduler.cancelling.on_cancelled([task_id(1)], now=bench.now)
    ((_, sentence),) = why(bench, 1)
    assert sentence == (
        "it runs on engine 0, for 0.0 s; it has been cancelled, and its engine is to end it; if that takes "
        "more than 5 s, it is replaced"
    )
    bench.tick(5.0)
    ((_, sentence),) = why(bench, 1)
    assert sentence.endswith(
        "it did not end within 5 s of being cancelled, and its engine is to be replaced, if its host can do "
        "that"
    )
