"""Which engine has room: the window of one, the index of all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginery.core.engines import (
    BYTES_IN_FLIGHT,
    TASKS_IN_FLIGHT,
    WINDOW_S,
    EngineLoad,
    EngineTable,
    RecentlyGone,
    RoomIndex,
)
from enginery.core.placement import Destination, Placement
from enginery.core.tasks import Fact, Task
from enginery.ids import EngineId, TaskId
from enginery.protocol.hosts import PAGE_TASKS
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
        task.destination = Destination(tuple(map(EngineId, candidates)))
    assert load.recallable([EngineLoad(EngineId(2), life=7)]) == [tasks[4], tasks[5]]
    tasks[5].destination = Destination(refused=frozenset({7}))
    tasks[4].destination = Destination(failed=frozenset({7}))
    assert load.recallable([EngineLoad(EngineId(2), life=7)]) == []
    assert load.recallable([EngineLoad(EngineId(2), life=8)]) == [tasks[4], tasks[5]]


def ids(*numbers: int) -> list[TaskId]:
    return [task_id(number) for number in numbers]


def test_a_page_that_is_not_full_names_all_that_was_begun() -> None:
    load = EngineLoad(EngineId(0))
    for number in (1, 2, 3):
        sent(load, number)
    load.completed = 2 * PAGE_TASKS
    assert load.may_have_begun(ids(7, 2)) == {task_id(2)}


@pytest.mark.parametrize(("ended", "is_begun"), [(PAGE_TASKS - 2, False), (PAGE_TASKS - 1, True)])
def test_a_full_page_proves_nothing_of_what_may_have_been_begun_before_all_on_it(
    ended: int, is_begun: bool
) -> None:
    """The result of task 1 has got stuck, say, while those of many that were begun after it went on."""
    load = EngineLoad(EngineId(0))
    load.completed = 5
    sent(load, 1).completed_before = 5
    load.completed += ended
    sent(load, 9000).completed_before = load.completed
    sent(load, 9001).completed_before = load.completed
    page = ids(*range(8001 - PAGE_TASKS, 8000), 9000)
    assert len(page) == PAGE_TASKS
    assert load.may_have_begun(page) == set(ids(1, 9000) if is_begun else ids(9000))


def test_what_is_in_flight_by_default_leaves_no_doubt() -> None:
    """The last one sent is waiting behind all others, whose results have come but for one."""
    load = EngineLoad(EngineId(0))
    sent(load, TASKS_IN_FLIGHT)
    sent(load, TASKS_IN_FLIGHT - 1)
    load.completed = TASKS_IN_FLIGHT - 2
    page = ids(*range(TASKS_IN_FLIGHT - PAGE_TASKS, TASKS_IN_FLIGHT))
    assert load.may_have_begun(page) == {task_id(TASKS_IN_FLIGHT - 1)}


@pytest.mark.parametrize("hwm", [1, 3])
def test_a_bound_on_tasks_takes_the_place_of_the_window(hwm: int) -> None:
    load = EngineLoad(EngineId(0), hwm=hwm)
    for number in range(hwm):
        assert load.has_room
        sent(load, number, estimate_s=-1.0 if number else 100.0)
    assert not load.has_room


def test_without_a_bound_an_engine_takes_all_that_its_bytes_allow() -> None:
    load = EngineLoad(EngineId(0), hwm=0)
    for number in range(2 * TASKS_IN_FLIGHT):
        sent(load, number, estimate_s=-1.0)
    assert load.has_room
    sent(load, 5000, size_bytes=BYTES_IN_FLIGHT)
    assert not load.has_room


def three_engines(scheme: str = "leastload") -> EngineTable:
    table = EngineTable(Placement(scheme))
    for engine in range(3):
        table.join(EngineId(engine))
    return table


def test_each_joining_is_another_life() -> None:
    table = three_engines()
    table.leave(EngineId(1))
    table.join(EngineId(1))
    assert table.lives == {1: 0, 3: 2, 4: 1}
    assert [load.engine for load in table.present([EngineId(1), EngineId(5)])] == [1]
    assert [load.engine for load in table.present([])] == [0, 2, 1]
    assert repr(table) == "<EngineTable of 3 engines, 3 with room>"
    table.check()


def test_an_engine_that_has_refused_is_not_chosen() -> None:
    table = three_engines()
    assert table.choose_for(Destination(refused=frozenset({1, 2}))) == 2
    assert table.choose_for(Destination((EngineId(0), EngineId(1)), frozenset({1}))) == 1
    assert table.choose_for(Destination(refused=frozenset({1, 2, 3}))) is None


def test_an_engine_that_has_failed_is_chosen_only_when_there_is_no_other() -> None:
    table = three_engines()
    failed = Destination(failed=frozenset({1, 2}))
    assert table.choose_for(failed) == 2
    last = table.loads[EngineId(2)]
    sent(last, 1, estimate_s=-1.0)
    table.room.update(last)
    assert table.choose_for(failed) is None, "engine 2 is busy and will have room"
    last.connected = False
    assert table.choose_for(failed) == 0, "nobody knows when engine 2 comes back"
    assert table.choose_for(Destination((EngineId(1),), failed=frozenset({2}))) == 1


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


@given(st.lists(changes, max_size=80))
def test_the_index_against_a_slow_oracle(steps: list[tuple[int, str]]) -> None:
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
        assert set(index) == listed
