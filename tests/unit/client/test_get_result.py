"""Results by id: own and others', pending, ended, unknown; `results`, `metadata`, labels."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from enginery.client.client import Client
from enginery.client.results import AsyncMapResult, AsyncResult
from enginery.client.results.hub_result import AsyncHubResult
from enginery.errors import ClientClosed, CompositeError, TaskAborted, UnknownTask
from enginery.ids import ClientId, EngineId, TaskId, format_task_id, make_task_id
from enginery.objects.packing import pack
from enginery.protocol.messages import Kind, Status, TaskOptions, TaskResult
from tests.unit.client.fake_session import PATIENCE_S, FakeSession, make_client
from tests.unit.client.sayings import write

OTHER = ClientId(5)


@pytest.fixture
def parts() -> tuple[Client, FakeSession]:
    return make_client((0, 1))


def other(number: int = 1) -> tuple[TaskId, str]:
    task = make_task_id(OTHER, number)
    return task, format_task_id(task)


# ---------------------------------------------------------------- own tasks


def test_an_own_task_that_waits_is_shared(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    ar = rc[0].apply_async(pow, 2, 5)
    again = rc.get_result(ar.msg_ids[0])
    assert type(again) is AsyncResult
    write(session.waiting[0].promise, "stdout", "text")
    assert again.stdout == "text"
    assert again.get(PATIENCE_S) == 32
    assert ar.done()
    assert again.msg_ids == ar.msg_ids


def test_output_of_a_task_that_runs(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    ar = rc[0].apply_async(pow, 2, 5)
    assert rc.output(ar.msg_ids[0]) == ""
    write(ar.promises[0], "stdout", "a")
    write(ar.promises[0], "stderr", "b")
    write(ar.promises[0], "stdout", "c")
    assert rc.output(-1) == rc.output(ar) == "abc"
    assert not ar.done()


def test_an_own_task_that_has_ended_comes_from_the_controller(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    ar = rc[0].apply_async(pow, 2, 5)
    ar.wait()
    again = rc.get_result(ar.msg_ids[0], owner=False)
    assert type(again) is AsyncResult
    assert again.get(0) == 32
    assert again.metadata.engine_id == 0
    assert again.owner is False


def test_forms_of_asking(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    with pytest.raises(IndexError, match="there is no task -1 in the history, which has 0 tasks"):
        rc.get_result()
    first, second = rc[0].apply_async(abs, -1), rc[1].apply_async(abs, -2)
    assert rc.get_result().get() == 2
    assert rc.get_result(0).get() == 1
    assert rc.get_result([0]).get() == [1]
    assert rc.get_result([-1, first.msg_ids[0]]).get() == [2, 1]
    assert rc.get_result([first, second]).get() == [1, 2]
    assert rc.get_result(first) is first
    assert rc.get_result(0, block=True).done()
    stranger, _ = make_client((0,))
    with pytest.raises(UnknownTask):
        stranger.get_result(first).get()
    for wrong in (1.5, b"x", {"a": 1}, [None]):
        with pytest.raises(TypeError, match="tasks are named by AsyncResults"):
            rc.get_result(wrong)
    with pytest.raises(ValueError, match="'nonsense' is not a task id"):
        rc.get_result("nonsense")


def test_one_id_asked_for_twice(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    pending = rc[0].apply_async(abs, -1)
    twice = rc.get_result([pending, pending.msg_ids[0], 0])
    assert twice.get(PATIENCE_S) == [1, 1, 1]
    assert rc.get_result([0, 0]).get(PATIENCE_S) == [1, 1]
    task, text = other()
    session.hub.add_ended(task, "value")
    assert rc.get_result([text, text]).get(PATIENCE_S) == ["value", "value"]


def test_a_result_that_comes_while_it_is_asked_for(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    ar = rc[0].apply_async(abs, -1)
    shared = session.waiting[0].promise
    session.run_all()
    session.promise = lambda task: shared  # type: ignore[method-assign,assignment]
    assert rc.get_result(ar.msg_ids[0]).get(0) == 1


def test_a_map_by_its_ids_is_a_list_for_each_task(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    amr = rc[:].map_async(abs, [-1, -2, -3])
    by_ids = rc.get_result(amr.msg_ids)
    assert by_ids.get(PATIENCE_S) == [[1, 2], [3]]
    assert rc.get_result(amr) is amr
    assert rc.get_result(amr.msg_ids[0]).get(0) == [1, 2]


def test_errors_of_a_map_by_its_ids(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    amr = rc[:].map_async(lambda n: 1 // n, [1, 0, 0, 2])
    amr.wait()
    with pytest.raises(CompositeError, match="2 of 4 items"):
        rc.get_result(amr.msg_ids).get(PATIENCE_S)
    found = rc.get_result(amr.msg_ids[0]).get(PATIENCE_S, return_exceptions=True)
    assert found[0] == 1
    assert isinstance(found[1], ZeroDivisionError)


def test_text_that_was_executed_is_known(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    rc[0].execute("a = 5").wait()
    again = rc.get_result(-1)
    again.wait()
    assert again.metadata.execute_input == "a = 5"


# ---------------------------------------------------------------- tasks of others


def test_a_task_of_another_client(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    task, text = other()
    session.hub.add_ended(task, [1, 2], name="simulate", label="night")
    result = rc.get_result(text)
    assert type(result) is AsyncHubResult
    assert result.get(PATIENCE_S) == [1, 2]
    assert result.metadata.label == "night"
    assert repr(result) == "<AsyncHubResult: simulate: finished>"
    assert text not in rc.results


def test_a_task_of_another_client_that_has_not_ended(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    task, text = other()
    session.hub.on_submitted(task, TaskOptions(Kind.CALL))
    result = rc.get_result(text)
    assert result.wait(0) is False
    packed = pack("value")
    ended = TaskResult(task, Status.OK, packed.inline, engine=EngineId(1))
    session.later.append(lambda: session.end(None, ended))
    assert result.get(PATIENCE_S) == "value"


def test_what_nobody_knows_is_a_key_error(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    task, text = other()
    session.hub.add_ended(task, 7)
    with pytest.raises(KeyError, match="00000005-9"):
        rc.get_result("00000005-9").get(PATIENCE_S)
    mixed = rc.get_result([text, "00000005-9"]).get(PATIENCE_S, return_exceptions=True)
    assert mixed[0] == 7
    assert isinstance(mixed[1], UnknownTask)


def test_the_end_of_the_client_ends_what_is_followed(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    task, text = other()
    session.hub.on_submitted(task, TaskOptions(Kind.CALL))
    result = rc.get_result(text)
    rc.close()
    assert result.done()
    assert result.exception(0) is not None
    with pytest.raises(ClientClosed):
        rc.get_result(text)


# ---------------------------------------------------------------- results and metadata


def test_results_and_metadata_appear_when_tasks_end(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    ok, failing = rc[0].apply_async(abs, -1), rc[1].apply_async(lambda: 1 // 0)
    (one,), (two,) = ok.msg_ids, failing.msg_ids
    assert one not in rc.results
    assert len(rc.metadata) == 0
    rc.wait()
    assert list(rc.results) == [one, two]
    assert rc.results[one] == 1
    assert isinstance(rc.results[two], ZeroDivisionError)
    assert rc.metadata[one].engine_id == 0
    assert rc.metadata[two]["status"] == "error"
    with pytest.raises(KeyError):
        _ = rc.results["0abcdef0-99"]
    with pytest.raises(KeyError):
        _ = rc.results["nonsense"]
    with pytest.raises(TypeError, match="results are what tasks came to"):
        rc.results[one] = 2
    assert repr(rc.results) == "<results of 2 tasks>"


def test_purged_results_are_gone_with_their_metadata(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    ars = [rc[n % 2].apply_async(abs, -n) for n in range(4)]
    ids = [ar.msg_ids[0] for ar in ars]
    with pytest.raises(RuntimeError, match=f"task {ids[0]} has not ended"):
        rc.purge_local_results(ids[0])
    rc.wait()
    rc.purge_local_results([ars[0], 1])
    assert list(rc.results) == list(rc.metadata) == ids[2:]
    del rc.results[ids[2]]
    assert rc.results.pop(ids[3]) == 3
    assert len(rc.metadata) == 0
    assert ars[0].get(0) == 0, "a result that somebody holds stays"
    session.hub.tasks.clear()
    assert ids[0] not in rc.results
    with pytest.raises(ValueError, match="name the tasks or the engines whose results are to be purged"):
        rc.purge_local_results()


def test_results_that_the_controller_has_forgotten(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    ar = rc[0].apply_async(abs, -1)
    ar.wait()
    session.hub.tasks.clear()
    with pytest.raises(KeyError):
        _ = rc.results[ar.msg_ids[0]]


def test_the_history_is_bounded() -> None:
    rc = Client.over(FakeSession(), name="test", history_limit=3)
    ars = [rc[0].apply_async(int) for _ in range(4)]
    rc.wait()
    ids = [ar.msg_ids[0] for ar in ars]
    assert rc.history == list(rc.results) == ids[1:]
    rc[:].apply_async(int).wait()
    assert len(rc.history) == 3
    assert rc.history_limit == 3
    with pytest.raises(ValueError, match="history_limit must be at least 1"):
        Client.over(FakeSession(), history_limit=0)


# ---------------------------------------------------------------- labels


def test_the_calls_under_a_label(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    with rc.label("night run"):
        rc[0].apply_async(abs, -1)
        session.now += 1
        rc[:].apply_async(abs, -2)
        session.now += 1
        rc.load_balanced_view().map_async(abs, range(-3, 0))
        rc.load_balanced_view().map_async(abs, range(-5, 0), chunksize=2)
        rc.load_balanced_view().map_async(abs, range(-4, 0), chunksize=2)
        rc[:].map_async(abs, range(-4, 0))
        rc[:].scatter("part", range(3))
        session.now += 1
        rc[1].apply_async(abs, -4)
        rc[1].apply_async(abs, -4)
    rc[0].apply_async(abs, -5)
    pending = rc.get_label("night run")
    assert [ar.done() for ar in pending] == [False] * 9
    rc.wait()
    for results in (pending, rc.get_label("night run")):
        maps = [[3, 2, 1], [5, 4, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1]]
        assert [ar.get(PATIENCE_S) for ar in results] == [1, [2, 2], *maps, [None] * 2, 4, 4]
        assert all(ar.metadata for ar in results)
    assert list(rc.get_label("night run")[2]) == [3, 2, 1]
    assert len(rc.get_label("night run")[2]) == 3
    assert rc.get_label("other") == []


def test_the_calls_of_other_clients_under_a_label(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    for number in range(1, 4):
        session.hub.add_ended(other(number)[0], number, label="night run")
    results = rc.get_label("night run")
    assert [type(ar) for ar in results] == [AsyncHubResult] * 3
    assert [ar.get(PATIENCE_S) for ar in results] == [1, 2, 3]


def test_threads_that_ask_for_the_same_results(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    ars = [rc[0].apply_async(abs, -n) for n in range(20)]
    found: list[Any] = []

    def ask() -> None:
        found.append([rc.get_result(ar.msg_ids[0]).get(PATIENCE_S) for ar in ars])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert found == [list(range(20))] * 4


def test_an_aborted_task_by_its_id(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    ar = rc[0].apply_async(int)
    by_id = rc.get_result(ar.msg_ids[0])
    by_id.abort()
    for result in (ar, by_id, rc.get_result(0)):
        with pytest.raises(TaskAborted):
            result.get(PATIENCE_S)
    assert not isinstance(by_id, AsyncMapResult)
