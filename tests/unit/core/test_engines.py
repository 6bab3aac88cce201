"""Which engine has room: the window of one, the index of all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from enginery.core.engines import (
    BYTES_IN_FLIGHT,
    TASKS_IN_FLIGHT,
    WINDOW_S,
    EngineLoad,
    RecentlyGone,
    RoomIndex,
)
from enginery.core.tasks import Fact, Task
from enginery.ids import EngineId
from tests.unit.core.builders import make_task, task_id


def sent(load: EngineLoad, number: int, *, estimate_s: float = 0.001, size_bytes: int = 10) -> Task:
    task = make_task(number)
    task.engine, task.estimate_s, task.size_bytes = load.engine, estimate_s, size_bytes
    task.apply(Fact.ASSIGNED)
    load.add(task)
    load.check()
    return task


def test_an_engine_without_work_has_room_for_anything() -> None:
    load = EngineLoad(EngineId(0))
    assert load.has_room
    sent(load, 1, estimate_s=-1.0)
    assert not load.has_room
    assert repr(load) == "<EngineLoad 0: 1 in flight, 0 waiting>"


def test_the_window_is_measured_in_time() -> None:
    load = EngineLoad(EngineId(0))
    count = 0
    while load.has_room:
        count += 1
        sent(load, count, estimate_s=WINDOW_S / 8)
    assert count == 8


def test_the_window_is_bounded_in_tasks_and_bytes() -> None:
    load = EngineLoad(EngineId(0))
    for number in range(TASKS_IN_FLIGHT):
        assert load.has_room
        sent(load, number, estimate_s=0.0)
    assert not load.has_room
    large = EngineLoad(EngineId(1))
    sent(large, 1, estimate_s=0.0, size_bytes=BYTES_IN_FLIGHT)
    assert not large.has_room


def test_room_comes_back_without_drift() -> None:
    load = EngineLoad(EngineId(0))
    tasks = [sent(load, number, estimate_s=0.1) for number in range(10)]
    for task in tasks:
        load.remove(task)
        load.check()
    assert load.estimated_s == 0.0
    assert load.bytes_in_flight == 0


def test_a_disconnected_engine_has_no_room() -> None:
    load = EngineLoad(EngineId(0))
    load.connected = False
    assert not load.has_room


def test_recallable_is_what_an_idle_engine_may_run_behind_the_first() -> None:
    load = EngineLoad(EngineId(0))
    tasks = [sent(load, number) for number in range(1, 7)]
    tasks[1].direct = EngineId(0)
    tasks[2].recalled = True
    for task, candidates in ((tasks[3], (0, 1)), (tasks[4], (0, 2))):
        task.options = type(task.options)(task.options.kind, candidates=tuple(map(EngineId, candidates)))
    assert load.recallable({EngineId(2)}) == [tasks[4], tasks[5]]


def test_without_proof_everything_may_have_started() -> None:
    load = EngineLoad(EngineId(0))
    tasks = [sent(load, number) for number in (1, 2, 3)]
    tasks[0].apply(Fact.STARTED)
    assert load.started_and_not(None) == (tasks, [])
    assert load.started_and_not({task_id(2)}) == (tasks[:2], tasks[2:])
    assert load.started_and_not(frozenset()) == (tasks[:1], tasks[1:])


def test_who_is_gone_and_why_is_remembered_for_a_while() -> None:
    gone = RecentlyGone(capacity=2)
    for engine in range(3):
        gone.add(EngineId(engine), f"cause {engine}")
    assert [gone.cause(EngineId(engine)) for engine in range(4)] == [None, "cause 1", "cause 2", None]


def test_an_engine_that_is_gone_twice_is_remembered_as_long_as_its_last_end() -> None:
    gone = RecentlyGone(capacity=2)
    for engine in (0, 0, 1):
        gone.add(EngineId(engine), f"cause {engine}")
    assert gone.cause(EngineId(0)) == "cause 0"
    assert len(gone._causes) == 2


changes = st.tuples(st.integers(0, 5), st.sampled_from(["add", "remove", "toggle", "discard"]))


@given(st.lists(changes, max_size=80), st.sets(st.integers(0, 5)))
def test_the_index_against_a_slow_oracle(steps: list[tuple[int, str]], candidates: set[int]) -> None:
    loads = {EngineId(engine): EngineLoad(EngineId(engine)) for engine in range(6)}
    index = RoomIndex()
    listed: set[EngineId] = set()
    number = 0
    for chosen, change in steps:
        load = loads[EngineId(chosen)]
        if change == "add":
            number += 1
            sent(load, number, estimate_s=WINDOW_S / 3)
        elif change == "remove" and load.in_flight:
            load.remove(next(iter(load.in_flight.values())))
        elif change == "toggle":
            load.connected = not load.connected
        if change == "discard":
            index.discard(load.engine)
            listed.discard(load.engine)
        else:
            index.update(load)
            listed = listed - {load.engine} | ({load.engine} if load.has_room else set())
        assert {engine for engine in loads if engine in index} == listed
        assert len(index) == len(listed)
        assert set(index.idle) == {engine for engine in listed if not loads[engine].in_flight}
        fewest = min((len(loads[engine].in_flight) for engine in listed), default=None)
        best = index.least_loaded()
        assert (None if best is None else len(loads[best].in_flight)) == fewest
        assert best is None or best in listed
        allowed = [engine for engine in map(EngineId, candidates) if engine in listed]
        expected = min(allowed, key=lambda engine: (len(loads[engine].in_flight), engine), default=None)
        assert index.least_loaded_of(map(EngineId, candidates)) == expected
