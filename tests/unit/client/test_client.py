"""Client: indexing, waiting, orders, the end, and forked children."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from enginery.client.client import Client
from enginery.client.views.balanced import LoadBalancedView
from enginery.client.views.broadcast import BroadcastView
from enginery.client.views.direct import DirectView
from enginery.errors import (
    ClientClosed,
    ClusterNotFound,
    ClusterNotResponding,
    EngineError,
    EngineryError,
    ForkedClientError,
    NoEnginesRegistered,
    NoSuchEngine,
    TaskAborted,
)
from enginery.ids import NO_ENGINE, ClientId, EngineId, EngineKey, make_task_id
from enginery.protocol.messages import (
    ClearEngines,
    EngineLeft,
    EngineQueues,
    Kind,
    QueuesAnswer,
    RestartEngines,
    ShutDown,
    SignalEngines,
    Status,
    StopEngines,
    TaskOptions,
    TaskResult,
)
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


def test_an_engine_that_is_not_there_is_a_wrong_index_and_a_wrong_key(
    parts: tuple[Client, FakeSession],
) -> None:
    rc, _ = parts
    for targets in (99, [0, 99], -3, slice(5, 9), []):
        with pytest.raises(NoSuchEngine) as caught:
            rc.direct_view(targets)
        assert isinstance(caught.value, IndexError)
        assert isinstance(caught.value, KeyError)
    assert str(caught.value) == "an empty list of engines cannot be a target"


# ---------------------------------------------------------------- views


def test_views_are_one_object_for_the_same_targets(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    every, one, two, free = rc[:], rc[0], rc[0, 3], rc.load_balanced_view([0, 3])
    assert rc[:] is every
    assert rc[::1] is every
    assert rc[0] is rc[-2] is one
    assert rc[[0, 3]] is two
    assert two is every
    assert rc[[0]] is not one
    assert rc.direct_view("all") is rc.direct_view() is rc.view()
    assert rc.load_balanced_view((0, 3)) is free
    assert rc.load_balanced_view() is rc.load_balanced_view("all")
    assert rc.direct_view(0, label="x") is not one
    assert rc.direct_view(0, label="x", retries=0) is rc.direct_view(0, retries=0, label="x")
    assert rc.activate() is not rc.activate()
    assert rc.activate([0]).block is True


def test_new_views_block_as_the_client_does(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    before = rc[0]
    rc.block = True
    assert rc[0].block is True
    assert before.block is False
    assert rc.direct_view(0, block=False).block is False


def test_view_of_either_kind(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    view = rc.view([0, 3], balanced=True)
    assert type(view) is LoadBalancedView
    assert view.targets == [0, 3]
    assert type(rc.view([0, 3])) is DirectView
    assert rc.view(balanced=True) is rc.load_balanced_view()
    with pytest.raises(KeyError, match="nonsense"):
        rc.view(0, nonsense=1)


def test_broadcast_view(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    view = rc.broadcast_view(is_coalescing=True, label="x")
    session.join(7)
    assert type(view) is BroadcastView
    assert isinstance(view, DirectView)
    assert view.targets == [0, 3], "those of the time when it was made"
    assert view.is_coalescing is True
    assert rc.broadcast_view([0, 3]).is_coalescing is False
    assert view.apply_sync(abs, -1) == [1, 1]


def test_executor(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    with rc.executor([3]) as executor:
        assert executor.submit(pow, 2, 5).result(PATIENCE_S) == 32
        assert executor.view is rc.load_balanced_view([3])


# ---------------------------------------------------------------- apply


@pytest.mark.parametrize(
    ("keywords", "engines", "candidates", "is_list"),
    [
        ({}, (), (), False),
        ({"balanced": True}, (), (), False),
        ({"targets": 3}, (3,), (), False),
        ({"targets": [3]}, (3,), (), True),
        ({"targets": [3, 0], "balanced": False}, (3, 0), (), True),
        ({"targets": "all"}, (0, 3), (), True),
        ({"balanced": False}, (0, 3), (), True),
        ({"targets": [3, 0], "balanced": True}, (), (3, 0), False),
        ({"targets": 3, "balanced": True}, (), (3,), False),
        ({"targets": "all", "balanced": True}, (), (), False),
    ],
)
def test_where_apply_runs(
    parts: tuple[Client, FakeSession],
    keywords: dict[str, Any],
    engines: tuple[int, ...],
    candidates: tuple[int, ...],
    is_list: bool,
) -> None:
    rc, session = parts
    value = rc.apply(pow, (2, 5), block=True, **keywords)
    (call,) = session.submissions
    assert (call.engines, call.options.candidates) == (engines, candidates)
    assert value == ([32] * len(engines) if is_list else 32)


def test_apply_takes_arguments_and_flags(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    first = rc.apply(int)
    ar = rc.apply(dict, [[("x", 1)]], {"y": 2}, after=first, follow=first, timeout=3, label="l", retries=1)
    assert ar.get() == {"x": 1, "y": 2}
    options = session.submissions[-1].options
    assert options.after is not None
    assert options.after.tasks == options.follow.tasks == tuple(first.task_ids)  # type: ignore[union-attr]
    assert (options.wait_timeout_s, options.label, options.retries) == (3.0, "l", 1)
    assert rc.send_apply_message(pow, (2, 5), targets=0).get() == 32
    rc.block = True
    assert rc.apply(pow, (2, 5), targets=0) == 32
    assert rc.send_apply_message(pow, (2, 5)).get() == 32


def test_apply_refuses_what_it_cannot_do(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    for keyword in ("after", "follow", "timeout"):
        value = 1.0 if keyword == "timeout" else "0abcdef0-1"
        for targets in ({"targets": 0}, {"targets": "all"}, {"balanced": False}):
            with pytest.raises(ValueError, match=f"{keyword}= needs a call that is balanced"):
                rc.apply(int, **targets, **{keyword: value})
    with pytest.raises(TypeError, match="args must be a tuple or a list, not 5"):
        rc.apply(int, 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="kwargs must be a dictionary"):
        rc.apply(int, (), [1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a function is needed"):
        rc.apply(5)
    with pytest.raises(KeyError, match="nonsense"):
        rc.apply(int, nonsense=1)
    with pytest.raises(TypeError, match="send_apply_message has no keyword 'block'"):
        rc.send_apply_message(int, block=True)
    assert session.submissions == []


def test_labels_of_threads_do_not_meet(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    inside, outside = threading.Event(), threading.Event()

    def run() -> None:
        with rc.label("thread"):
            inside.set()
            assert outside.wait(PATIENCE_S)
            rc[0].apply_async(int)

    other = threading.Thread(target=run)
    other.start()
    assert inside.wait(PATIENCE_S)
    with rc.label("main"), rc.label("inner"):
        rc[0].apply_async(int)
    rc[0].apply_async(int)
    outside.set()
    other.join(PATIENCE_S)
    assert [call.options.label for call in session.submissions] == ["inner", "", "thread"]
    assert rc.current_label == ""
    with pytest.raises(TypeError, match="a label is a text"), rc.label(5):  # type: ignore[arg-type]
        pass


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


def died(engine: int = int(NO_ENGINE), cause: str = "exited with code 3") -> EngineLeft:
    return EngineLeft(EngineId(engine), EngineKey("key"), cause, cause == "it was stopped")


def test_an_engine_that_dies_while_it_starts_ends_the_wait(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    future = rc.wait_for_engines(3, block=False)
    assert future is not None
    session.later.append(lambda: session.tell([], [died()]))
    with pytest.raises(EngineError, match="an engine died: exited with code 3, while 3 engines were waited"):
        rc.wait_for_engines(3)
    assert isinstance(future.exception(0), EngineError)
    assert rc.wait_for_engines(2) is None, "a death of before is no matter"


def test_engines_that_are_stopped_or_replaced_end_no_wait(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    future = rc.wait_for_engines(3, block=False)
    assert future is not None
    session.tell([], [died(3, "it was stopped")])
    session.tell([session.engines()[EngineId(3)]], [died(3)])
    assert not future.done()
    session.join(7)
    assert future.result(0) is None


def test_threads_that_hear_of_engines_at_once_settle_a_wait_once(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    futures = [rc.wait_for_engines(3, block=False) for _ in range(50)]
    session.join(7)
    begin = threading.Barrier(4)

    def look() -> None:
        begin.wait(PATIENCE_S)
        for _ in range(50):
            rc.look_at_engines()

    more = [rc.wait_for_engines(3, block=False) for _ in range(50)]
    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert [future.result(0) for future in (*futures, *more) if future is not None] == [None] * 100


def test_waiting_for_engines_with_a_bar(
    parts: tuple[Client, FakeSession], capsys: pytest.CaptureFixture[str]
) -> None:
    rc, _ = parts
    rc.wait_for_engines(2, interactive=True)
    assert "2/2" in capsys.readouterr().err


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


def test_wait_for_every_kind_of_job(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    session.is_held = True
    ars = [rc[0].apply_async(int) for _ in range(3)]
    other: Future[None] = Future()
    for jobs in (
        ars[0],
        ars[0].msg_ids[0],
        0,
        [0, ars[1]],
        {ars[2]},
        (ar for ar in ars),
        [[-1]],
        {0: 1}.keys(),
    ):
        assert rc.wait(jobs, 0) is False
    assert rc.wait([], 0) is True
    assert rc.wait(other, 0) is False
    other.set_result(None)
    assert rc.wait([other], 0) is True
    session.is_held = False
    assert rc.wait([ars, other, -1]) is True
    with pytest.raises(IndexError, match="there is no task 9 in the history, which has 3 tasks"):
        rc.wait(9)
    for wrong in (1.5, True, [None], b"x", {"a": 1}):
        with pytest.raises(TypeError, match="tasks are named by AsyncResults, task ids, indices"):
            rc.wait(wrong)


def test_wait_for_tasks_of_others(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    task = make_task_id(ClientId(5), 1)
    session.hub.on_submitted(task, TaskOptions(Kind.CALL))
    assert rc.wait("00000005-1", 0) is False
    session.later.append(lambda: session.end(None, TaskResult(task, Status.ABORTED)))
    assert rc.wait("00000005-1") is True


def test_wait_interactive(parts: tuple[Client, FakeSession], capsys: pytest.CaptureFixture[str]) -> None:
    rc, session = parts
    ars = [rc[0].apply_async(int) for _ in range(3)]
    session.is_held = True
    assert rc.wait_interactive(interval=0.01, timeout=0.02) is False
    session.is_held = False
    assert rc.wait_interactive([ars[0], ars[1].msg_ids[0], 2], interval=0.01) is True
    assert "3/3" in capsys.readouterr().err


def test_abort_by_engine(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    here, there = rc[0].apply_async(int), rc[3].apply_async(int)
    session.hub.queues = QueuesAnswer(0, [EngineQueues(EngineId(3), 1, 0, 0, queue_ids=there.task_ids)], 0)
    rc.abort(targets=3, block=True)
    assert there.done()
    assert not here.done()


def test_abort_reaches_tasks_of_others(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    rc.abort("00000005-1")
    assert session.aborted == [make_task_id(ClientId(5), 1)]
    with pytest.raises(TypeError, match="is not a task of this client"):
        rc.abort(Future())


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
    with pytest.raises(ValueError, match="restart=True is for engines"):
        rc.shutdown(hub=True, restart=True)
    session.answer_error = ""
    rc.shutdown(hub=True)
    assert session.asked[-1] == ShutDown(4)
    assert session.closed


def test_shutdown_that_blocks_waits_until_the_engines_are_gone(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    session.later.append(lambda: session.leave(3))
    rc.shutdown(3, block=True)
    assert rc.ids == [0]


def test_restart(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    future = rc.shutdown(3, restart=True)
    assert future is not None
    assert future.result(0) is None
    assert session.asked == [RestartEngines(1, [3])]

    def replace() -> None:
        session.leave(3)
        session.join(3, life="again")

    session.later.append(replace)
    assert rc.shutdown(3, restart=True, block=True) is None
    assert rc.ids == [0, 3]
    session.answer_error = "nobody has started engine 3"
    refused = rc.shutdown(3, restart=True)
    assert refused is not None
    with pytest.raises(EngineryError, match="nobody has started engine 3"):
        refused.result(0)


def test_signals(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    rc.send_signal("SIGUSR1", block=True)
    rc.send_signal("int", [3], block=True)
    future = rc.send_signal(0, 0)
    assert future is not None
    assert future.result(0) is None
    assert session.asked == [
        SignalEngines(1, [0, 3], int(signal.SIGUSR1)),
        SignalEngines(2, [3], int(signal.SIGINT)),
        SignalEngines(3, [0], 0),
    ]
    with pytest.raises(ValueError, match="there is no signal 'SIGNOTHING' here; give a name such as"):
        rc.send_signal("SIGNOTHING")
    with pytest.raises(ValueError, match="there is no signal 999"):
        rc.send_signal(999)
    with pytest.raises(TypeError, match=r"a signal is given by name or number, not by 1\.5"):
        rc.send_signal(1.5)  # type: ignore[arg-type]


def test_clear(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    assert rc.clear(block=True) is None
    future = rc.clear(0)
    assert future is not None
    assert future.result(0) is None
    assert session.asked == [ClearEngines(1, [0, 3]), ClearEngines(2, [0])]
    session.answer_error = "engine 0 has not answered"
    with pytest.raises(EngineryError, match="engine 0 has not answered"):
        rc.clear(block=True)
    refused = rc.clear()
    assert refused is not None
    assert isinstance(refused.exception(0), EngineryError)


def test_a_future_of_an_order_can_be_cancelled(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    session.is_silent = True
    future = rc.clear()
    assert future is not None
    assert future.cancel()
    session.answer_last()
    assert future.cancelled()


def test_a_controller_that_is_silent_is_named(
    parts: tuple[Client, FakeSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    rc, session = parts
    session.is_silent = session.is_held = True
    with pytest.raises(ClusterNotResponding, match="the cluster 'test' did not answer within"):
        rc.queue_status()


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


def test_a_future_of_engines_ends_with_the_session(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    coming = rc.wait_for_engines(3, block=False)
    assert coming is not None
    session.close()
    with pytest.raises(ClientClosed, match="this client is closed"):
        coming.result(PATIENCE_S)
