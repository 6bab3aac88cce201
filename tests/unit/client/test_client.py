"""Client: indexing, waiting, orders, the end, and forked children."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from enginery.client.client import Client
from enginery.errors import (
    ClientClosed,
    ClusterNotFound,
    EngineryError,
    ForkedClientError,
    NoEnginesRegistered,
    TaskAborted,
)
from enginery.protocol.messages import ShutDown, StopEngines
from tests.unit.client.fake_session import PATIENCE_S, FakeSession, make_client


@pytest.fixture
def parts() -> tuple[Client, FakeSession]:
    return make_client((0, 3))


def test_engines(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    assert rc.ids == [0, 3]
    assert len(rc) == 2
    assert [view.targets for view in rc] == [0, 3]
    session.join(1)
    assert rc.ids == [0, 1, 3]
    session.leave(0)
    assert rc.ids == [1, 3]
    rc.ids.append(9)
    assert rc.ids == [1, 3]
    assert repr(rc) == "<Client of 'test': 2 engines>"


@pytest.mark.parametrize("key", ["all", "0", None, 1.5, {0}])
def test_a_wrong_type_for_targets(parts: tuple[Client, FakeSession], key: object) -> None:
    rc, _ = parts
    with pytest.raises(TypeError):
        _ = rc[key]


def test_an_engine_that_is_not_there(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    with pytest.raises(IndexError, match=r"there is no engine 99; the engines are \[0, 3\]"):
        _ = rc[99]
    with pytest.raises(NoEnginesRegistered):
        _ = make_client(())[0][:]


# ---------------------------------------------------------------- waiting


def test_wait_for_engines(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    assert rc.wait_for_engines(2) is None
    with pytest.raises(
        TimeoutError, match=r"2 of 3 engines are there after 0 s; look with:  enginery status test"
    ):
        rc.wait_for_engines(3, timeout=0)
    late = threading.Thread(target=session.join, args=(7,))
    late.start()
    rc.wait_for_engines(3, timeout=None)
    late.join(PATIENCE_S)
    assert rc.ids == [0, 3, 7]
    with pytest.raises(TypeError, match="wait_for_engines needs a number"):
        rc.wait_for_engines()
    with pytest.raises(TypeError, match="n must be a whole number"):
        rc.wait_for_engines(1.5)  # type: ignore[arg-type]


def test_wait_for_engines_as_a_future(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    now, later, never = (rc.wait_for_engines(n, block=False) for n in (2, 3, 9))
    assert now is not None
    assert later is not None
    assert never is not None
    assert now.result(0) is None
    assert not later.done()
    session.join(7)
    assert later.result(0) is None
    rc.close()
    with pytest.raises(ClientClosed):
        never.result(0)


def test_the_cluster_says_how_many(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts

    class Cluster:
        n = 2

    rc.cluster = Cluster()
    assert rc.wait_for_engines() is None


def test_wait(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    assert rc.wait(timeout=0) is True
    ars = [rc[0].apply_async(int) for _ in range(5)]
    assert rc.outstanding == {ar.msg_ids[0] for ar in ars}
    assert rc.wait(timeout=0) is False
    assert rc.wait(ars[0]) is True
    assert not ars[1].done()
    assert rc.wait(ars[1].msg_ids[0]) is True
    assert not ars[2].done()
    assert rc.wait([*ars[1].msg_ids, ars[2]]) is True
    assert not ars[3].done()
    assert rc.wait(3) is True
    assert not ars[4].done()
    assert rc.wait() is True
    assert ars[4].done()
    assert rc.outstanding == set()
    with pytest.raises(TypeError, match="tasks are named by AsyncResults"):
        rc.wait(1.5)
    with pytest.raises(ValueError, match="is not a task id"):
        rc.wait("nonsense")
    assert rc.history == [ar.msg_ids[0] for ar in ars]
    assert session.waiting == []


def test_abort(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    first, second, third = (rc[0].apply_async(int) for _ in range(3))
    rc.abort(first)
    rc.abort(second.msg_ids)
    assert first.done()
    assert second.done()
    assert not third.done()
    rc.abort()
    for ar in (first, second, third):
        with pytest.raises(TaskAborted):
            ar.get()
    rc.abort([first])


# ---------------------------------------------------------------- orders, the end


def test_shutdown(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    rc.shutdown([0])
    rc.shutdown()
    assert session.asked == [StopEngines(1, [0]), StopEngines(2, [0, 3])]
    session.answer_error = "not by you"
    with pytest.raises(EngineryError, match="not by you"):
        rc.shutdown(hub=True)
    session.answer_error = ""
    rc.shutdown(hub=True)
    assert session.asked[-1] == ShutDown(4)
    assert session.closed
    with pytest.raises(NotImplementedError):
        rc.shutdown(restart=True)


def test_a_closed_client_says_so(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    view, pending = rc[0], rc[0].apply_async(int)
    with rc as entered:
        assert entered is rc
    rc.close()
    assert pending.done()
    for call in (lambda: view.apply(int), lambda: rc[0], lambda: rc.ids, lambda: rc.wait_for_engines(1)):
        with pytest.raises(ClientClosed, match="this client is closed; make a new one"):
            call()
    assert repr(rc) == "<Client of 'test': closed>"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_says_so(parts: tuple[Client, FakeSession], tmp_path: Path) -> None:
    rc, _ = parts
    view, report = rc[0], tmp_path / "report"
    child = os.fork()
    if child == 0:
        try:
            view.apply(int)
        except ForkedClientError as error:
            report.write_text(str(error))
        finally:
            rc.close()
            os._exit(0)
    os.waitpid(child, 0)
    assert (
        f"this client belongs to process {os.getpid()} and cannot be used in its forked child"
        in report.read_text()
    )
    assert view.apply_sync(int) == 0


def test_no_cluster() -> None:
    with pytest.raises(ClusterNotFound, match="no cluster named 'nowhere' is running"):
        Client("nowhere")
    with pytest.raises(ClusterNotFound, match=r"there is no connection file .*nothing\.json"):
        Client("./nothing.json")
    with pytest.raises(ValueError, match="cannot name a cluster"):
        Client("a b")
