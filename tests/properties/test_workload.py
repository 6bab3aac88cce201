"""Random arrivals, claims and hellos in a workload: each attempt is run or given back, once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from enginery.core.workload import Workload
from enginery.protocol.messages import EngineResult
from tests.unit.core.builders import result, task_id

numbers = st.integers(0, 12)
steps = st.one_of(
    st.tuples(st.just("arrive"), numbers),
    st.tuples(st.just("start"), numbers),
    st.tuples(st.just("take back"), st.lists(numbers, max_size=4)),
    st.tuples(st.just("finish"), numbers),
    st.tuples(st.just("send"), numbers),
    st.tuples(st.just("stored"), numbers),
    st.tuples(st.just("welcome"), numbers),
)


@given(st.lists(steps, max_size=80))
def test_claims_are_final_and_results_are_stored_in_order(plan: list[tuple]) -> None:  # type: ignore[type-arg]
    workload: Workload[int] = Workload()
    started: list[int] = []
    running: list[int] = []
    given_back: set[int] = set()
    finished: list[int] = []
    received: dict[int, EngineResult] = {}  # by the other side, by number
    stored = 0
    for what, value in plan:
        if what == "arrive":
            workload.on_task((task_id(value), 1), value)
        elif what == "start" and (claimed := workload.start_next()) is not None:
            started.append(claimed[1])
            running.append(claimed[1])
        elif what == "take back":
            taken, kept = workload.on_take_back([(task_id(number), 1) for number in value])
            assert {task for task, _ in taken}.isdisjoint({task for task, _ in kept})
            given_back |= {task & 0xFFFF for task, _ in taken}
        elif what == "finish" and running:
            number = running.pop(0)
            finished.append(number)
            workload.on_finished(result(number))
        elif what == "send":
            for first, results, _ in workload.take_results():
                for index, sent in enumerate(results, first):
                    assert received.setdefault(index, sent) is sent
        elif what == "stored":
            stored = max(stored, min(value, len(received)))
            workload.on_stored(stored)
        elif what == "welcome":
            workload.on_welcome(stored)
        workload.check()
        assert [sent.task & 0xFFFF for _, sent in sorted(received.items())] == finished[: len(received)]
        assert workload.first_result == stored
    # A task may be given back after its result was stored: by then the controller knows how it ended.
    unstored = started[stored:] if len(started) >= stored else []
    assert given_back.isdisjoint(unstored)
    assert len(started) == len(set(started)) or stored


@given(st.lists(numbers), st.lists(numbers))
def test_what_is_held_is_exactly_what_need_not_be_sent_again(arrived: list[int], back: list[int]) -> None:
    workload: Workload[int] = Workload()
    for number in arrived:
        workload.on_task((task_id(number), 1), number)
    workload.start_next()
    taken, _ = workload.on_take_back([(task_id(number), 1) for number in back])
    assert set(workload.held()) == {(task_id(number), 1) for number in arrived} - set(taken)
