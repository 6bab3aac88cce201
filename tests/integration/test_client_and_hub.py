"""A client and the controller's memory, with a real cluster of two engines and a second client."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy
import pytest

import enginery as ipp
from enginery.client.results.async_result import AsyncResult
from enginery.client.results.hub_result import AsyncHubResult
from enginery.errors import PurgeRefused, UnknownTask

PATIENCE_S = 10.0


@pytest.fixture(scope="module")
def rc() -> Iterator[ipp.Client]:
    with ipp.Cluster(n=2) as client:
        yield client


@pytest.fixture
def other(rc: ipp.Client) -> Iterator[ipp.Client]:
    with ipp.Client(rc.connection_file) as client:
        yield client


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A pipe whose readers block until it is written to."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


@contextmanager
def busy(client: ipp.Client, engine: int, gate: Path) -> Iterator[AsyncResult]:
    """Keep an engine busy inside of a `with` block."""
    ar = client[engine].apply_async(lambda path: Path(path).read_text(), str(gate))
    with open(gate, "w") as pipe:  # opens when the task has opened the other end
        yield ar
        pipe.write("done")
    assert ar.get(PATIENCE_S) == "done"


def ids(*results: AsyncResult) -> list[str]:
    return [msg_id for result in results for msg_id in result.msg_ids]


# ---------------------------------------------------------------- results of others


def test_results_of_a_client_that_has_left(rc: ipp.Client) -> None:
    with ipp.Client(rc.connection_file) as leaving:
        large = leaving[0].apply_async(numpy.arange, 300_000)
        several = leaving[:].apply_async(abs, -3)
        mapped = leaving.load_balanced_view().map_async(abs, range(-10, 0))
        failing = leaving[1].apply_async(lambda: 1 // 0)
        executed = leaving[0].execute("print('text')", silent=False)
        assert leaving.wait(timeout=PATIENCE_S)
    found = rc.get_result(large.msg_ids[0])
    assert type(found) is AsyncHubResult
    array = found.get(PATIENCE_S)
    assert (array == numpy.arange(300_000)).all()
    assert not array.flags.writeable
    assert rc.get_result(several.msg_ids).get(PATIENCE_S) == [3, 3]
    assert rc.get_result(several.msg_ids).get_dict(PATIENCE_S) == {0: 3, 1: 3}
    parts = rc.get_result(mapped.msg_ids).get(PATIENCE_S)
    assert [item for part in parts for item in part] == list(range(10, 0, -1))
    with pytest.raises(ZeroDivisionError):
        rc.get_result(failing.msg_ids[0]).get(PATIENCE_S)
    text = rc.get_result(executed.msg_ids[0])
    assert text.wait(PATIENCE_S)
    assert text.stdout == "text\n"
    assert text.metadata.execute_input == "print('text')"


def test_results_that_are_waited_for_by_two_clients(rc: ipp.Client, other: ipp.Client, gate: Path) -> None:
    with busy(rc, 0, gate) as blocked:
        queued = rc[0].apply_async(abs, -2)
        assert rc.session.wait_until(lambda: queued.sent, PATIENCE_S)
        found = other.get_result(ids(blocked, queued))
        assert found.wait(0.02) is False
        assert other.queue_status(0) == {"queue": 2, "completed": rc.queue_status(0)["completed"], "tasks": 0}
        assert other.result_status(ids(blocked, queued)) == {"pending": ids(blocked, queued), "completed": []}
        with pytest.raises(PurgeRefused):
            other.purge_hub_results(queued.msg_ids)
    assert found.get(PATIENCE_S) == ["done", 2]
    assert other.result_status(ids(blocked, queued))["completed"] == ids(blocked, queued)


def test_a_task_of_another_client_is_aborted(rc: ipp.Client, other: ipp.Client, gate: Path) -> None:
    with busy(rc, 0, gate):
        queued = rc[0].apply_async(abs, -2)
        assert rc.session.wait_until(lambda: queued.sent, PATIENCE_S)
        other.abort(queued.msg_ids, block=True)
        for result in (queued, other.get_result(queued.msg_ids[0])):
            with pytest.raises(ipp.TaskAborted):
                result.get(PATIENCE_S)


def test_text_and_values_of_a_task_that_another_client_runs(
    rc: ipp.Client, other: ipp.Client, gate: Path
) -> None:
    def talk(path: str) -> None:
        print("begin", flush=True)
        publish_data({"loss": 0.5})  # type: ignore[name-defined]  # noqa: F821 - a name of the engine's
        Path(path).read_text()
        print("end")

    rc[0].execute("from enginery.engine.publishing import publish_data", block=True)
    ar = rc[0].apply_async(talk, str(gate))
    with open(gate, "w") as pipe:
        found = other.get_result(ar.msg_ids[0])
        assert other.session.wait_until(lambda: bool(found.stdout and found.data), PATIENCE_S)
        again = other.get_result(ar.msg_ids[0])
        assert again.stdout == found.stdout == "begin\n", "what is followed twice is told once"
        assert found.data == {"loss": 0.5}
        pipe.write("done")
    assert found.wait_for_output(PATIENCE_S)
    assert again.wait(PATIENCE_S)
    assert found.stdout == again.stdout == "begin\nend\n"
    with ipp.Client(rc.connection_file) as late:
        later = late.get_result(ar.msg_ids[0])
        assert later.wait(PATIENCE_S)
        assert later.stdout == "begin\nend\n"
        assert late.session.wait_until(lambda: bool(later.data), PATIENCE_S)


def test_own_results_by_id_under_way_and_ended(rc: ipp.Client, gate: Path) -> None:
    with busy(rc, 0, gate) as blocked:
        pending = rc.get_result(blocked.msg_ids[0])
        assert rc.get_result() is not blocked
    assert pending.get(PATIENCE_S) == "done"
    (msg_id,) = blocked.msg_ids
    assert rc.results[msg_id] == "done"
    assert rc.metadata[msg_id]["engine_id"] == 0
    del blocked, pending
    assert rc.results[msg_id] == "done", "the controller remembers"
    with pytest.raises(UnknownTask):
        rc.get_result("00000001-1").get(PATIENCE_S)


def test_threads_that_wait_for_the_same_results(rc: ipp.Client, other: ipp.Client) -> None:
    results = [rc.load_balanced_view().apply_async(pow, 2, n) for n in range(40)]
    found: list[list[int]] = []

    def ask(client: ipp.Client) -> None:
        found.append([client.get_result(ar.msg_ids[0]).get(PATIENCE_S) for ar in results])

    assert rc.session.wait_until(lambda: all(ar.sent for ar in results), PATIENCE_S)
    threads = [threading.Thread(target=ask, args=(client,)) for client in (rc, other, rc, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * PATIENCE_S)
    assert found == [[2**n for n in range(40)]] * 4


# ---------------------------------------------------------------- labels, queries


def test_labels_from_another_process_later(rc: ipp.Client, other: ipp.Client) -> None:
    with rc.label("night run"):
        one = rc[0].apply_async(abs, -1)
        one.wait()
        several = rc[:].apply_async(abs, -2)
        several.wait()
        mapped = rc.load_balanced_view().map_async(abs, range(-20, 0))
    mapped.wait()
    for client in (rc, other):
        assert [ar.get(PATIENCE_S) for ar in client.get_label("night run")] == [
            1,
            [2, 2],
            list(range(20, 0, -1)),
        ]
    assert one.metadata.label == "night run"


def test_queries(rc: ipp.Client, other: ipp.Client) -> None:
    began = datetime.now(UTC) - timedelta(seconds=0.1)
    view = rc.load_balanced_view(label="queries")
    ok, failing = view.apply_async(abs, -1), view.apply_async(lambda: 1 // 0)
    direct = rc.direct_view(1, label="queries").apply_async(abs, -1)
    rc.wait(timeout=PATIENCE_S)
    mine = {"label": "queries"}
    assert [one["msg_id"] for one in other.db_query(mine)] == ids(ok, failing, direct)
    assert [one["msg_id"] for one in other.db_query({**mine, "status": "error"})] == failing.msg_ids
    assert [one["msg_id"] for one in other.db_query({**mine, "queue": "mux"})] == direct.msg_ids
    assert other.db_query({**mine, "submitted": {"$gt": began}, "completed": {"$lte": began}}) == []
    assert len(other.db_query({**mine, "started": {"$gt": began}, "received": {"$ne": None}})) == 3
    (record,) = other.db_query({"msg_id": {"$glob": direct.msg_ids[0]}})
    assert record["engine_uuid"] == rc.session.engines()[1].key  # type: ignore[index]
    assert began < record["submitted"] <= record["started"] <= record["completed"]
    assert other.hub_history()[-3:] == ids(ok, failing, direct)
    with pytest.raises(ValueError, match="label"):
        other.db_query({"label": {"$lt": 5}})


# ---------------------------------------------------------------- again, and never again


def test_resubmit_what_another_client_has_submitted(rc: ipp.Client, other: ipp.Client) -> None:
    argument = numpy.ones(200_000)
    ar = rc[0].apply_async(lambda array, n: float(array.sum()) + n, argument, 5)
    assert ar.get(PATIENCE_S) == 200_005.0
    again = other.resubmit(ar.msg_ids[0])
    assert again.get(PATIENCE_S) == 200_005.0
    assert again.msg_ids != ar.msg_ids
    assert other.history == again.msg_ids
    with pytest.raises(KeyError):
        other.resubmit("00000001-1")


def test_purge(rc: ipp.Client, other: ipp.Client) -> None:
    first, second = rc[0].apply_async(abs, -1), rc[1].apply_async(abs, -1)
    assert rc.wait([first, second], PATIENCE_S)
    rc.purge_results(first)
    assert first.msg_ids[0] not in rc.results
    with pytest.raises(UnknownTask):
        other.get_result(first.msg_ids[0]).get(PATIENCE_S)
    other.purge_hub_results(targets=1)
    assert other.db_query({"engine_id": 1}) == []
    rc.purge_everything()
    assert rc.history == rc.hub_history() == []
    assert second.get(0) == 1


# ---------------------------------------------------------------- orders


def test_clear_does_not_wait_for_the_queue(rc: ipp.Client, gate: Path) -> None:
    rc[:].push({"a": 1}, block=True)
    with busy(rc, 0, gate):
        rc.clear(0, block=True)
    with pytest.raises(NameError):
        rc[0].pull("a", block=True)
    assert rc[1]["a"] == 1
    cleared = rc.clear()
    assert cleared is not None
    assert cleared.result(PATIENCE_S) is None
    with pytest.raises(NameError):
        rc[1].pull("a", block=True)


def test_restart_keeps_the_id_and_nothing_else(rc: ipp.Client) -> None:
    before = rc[:].apply_sync(os.getpid)
    rc[:].push({"a": 1}, block=True)
    rc.shutdown(1, restart=True, block=True)
    assert rc.ids == [0, 1]
    after = rc[:].apply_sync(os.getpid)
    assert (after[0] == before[0], after[1] == before[1]) == (True, False)
    assert rc[0]["a"] == 1
    with pytest.raises(NameError):
        rc[1].pull("a", block=True)
