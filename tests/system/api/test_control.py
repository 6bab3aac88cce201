"""Control: abort, clear, signals, shutdown and restart, all of them past the queue of a busy engine."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

import enginery as ipp
from tests.system.api.held import PATIENCE_S, Gate, each, until_begun, wait_at


@pytest.fixture
def own() -> Iterator[ipp.Client]:
    """A cluster that a test may do harm to."""
    with ipp.Cluster(n=2) as client:
        yield client


# ---------------------------------------------------------------- abort


def test_abort_in_every_form(rc: ipp.Client, gate: Gate) -> None:
    held = gate.hold(rc[:])
    lview = rc.load_balanced_view()
    for name_them in (
        lambda ar: ar,
        lambda ar: ar.msg_ids,
        lambda ar: ar.msg_ids[0],
        lambda ar: [ar],
        lambda ar: {*ar.msg_ids},
        lambda ar: -1,
        lambda ar: [-1, ar],
    ):
        for make in (lambda: rc[0].apply_async(pow, 1, 1), lambda: lview.apply_async(pow, 1, 1)):
            ar = make()
            assert rc.abort(name_them(ar), block=True) is None
            with pytest.raises(ipp.AbortedTask) as caught:
                ar.get(timeout=PATIENCE_S)
            assert caught.value.ename == "TaskAborted"
    assert not held.done()
    gate.open()
    assert held.get(timeout=PATIENCE_S) == each(rc, "through")


def test_abort_of_everything_outstanding(rc: ipp.Client, gate: Gate) -> None:
    held = gate.hold(rc[:])
    direct = rc[:].apply_async(pow, 1, 1)
    mapped = rc.load_balanced_view().map_async(abs, range(20))
    long_one = rc.load_balanced_view().map_async(abs, range(5000))
    pushed = rc[0].push({"a": 1})
    rc.abort(block=True)
    for ar in (direct, mapped, long_one, pushed):
        with pytest.raises(ipp.TaskAborted):
            ar.get(timeout=PATIENCE_S)
    gate.open()
    assert held.get(timeout=PATIENCE_S) == each(rc, "through")  # what runs is left alone
    assert rc.outstanding == set()


def test_abort_of_all_of_a_view(rc: ipp.Client, gate: Gate) -> None:
    held = gate.hold(rc[:])
    view = rc.load_balanced_view(label="a view of its own")
    long_one = view.map_async(abs, range(5000))
    foreign = rc[0].apply_async(pow, 2, 2)
    view.abort(block=True)
    with pytest.raises(ipp.TaskAborted, match="5000 of 5000 items"):
        long_one.get(timeout=PATIENCE_S)
    gate.open()
    assert foreign.get(timeout=PATIENCE_S) == 4
    assert held.get(timeout=PATIENCE_S) == each(rc, "through")


def test_abort_on_some_engines_only(rc: ipp.Client, gate: Gate) -> None:
    gate.hold(rc[:])
    both = rc[:].apply_async(pow, 2, 2)
    rc.abort(both, targets=1, block=True)
    zero, one = both.split()
    with pytest.raises(ipp.TaskAborted):
        one.get(timeout=PATIENCE_S)
    assert not zero.done()
    gate.open()
    assert zero.get(timeout=PATIENCE_S) == 4


def test_abort_by_another_client(rc: ipp.Client, another: ipp.Client, gate: Gate) -> None:
    gate.hold(rc[0])
    ar = rc[0].apply_async(pow, 1, 1)
    another.abort(ar.msg_ids, block=True)
    with pytest.raises(ipp.TaskAborted):
        ar.get(timeout=PATIENCE_S)


def test_abort_of_what_has_ended_does_nothing(rc: ipp.Client) -> None:
    ar = rc[0].apply_async(pow, 2, 2)
    ar.wait(PATIENCE_S)
    rc.abort(ar.msg_ids, block=True)
    rc.abort("3fa9c01b-17", block=True)
    assert ar.get() == 4
    assert ar.metadata.status == "ok"


def test_what_cannot_be_aborted(rc: ipp.Client) -> None:
    for bad in (3.5, [None], Future(), b"x"):
        with pytest.raises(TypeError):
            rc.abort(bad)


# ---------------------------------------------------------------- past the queue


def test_control_does_not_wait_for_a_busy_engine(rc: ipp.Client, gate: Gate) -> None:
    rc[:].push({"a": 1}, block=True)
    held = gate.hold(rc[:])
    queued = [rc[:].apply_async(pow, 1, n) for n in range(5)]
    rc.clear(block=True)
    assert rc.clear(targets=[0]).result(PATIENCE_S) is None
    assert rc.queue_status(0)["queue"] == 6
    rc.abort(queued, block=True)
    assert rc.queue_status(0)["queue"] == 1
    assert not held.done()
    gate.open()
    assert held.get(timeout=PATIENCE_S) == each(rc, "through")
    with pytest.raises(ipp.RemoteError):
        _ = rc[:]["a"]


@pytest.mark.parametrize("sig", ["SIGUSR1", "usr1", "USR1", int(signal.SIGUSR1), signal.SIGUSR1])
def test_a_signal_by_name_or_number(rc: ipp.Client, gate: Gate, sig: Any) -> None:
    def note_and_wait(path: str) -> str:
        import fcntl
        import signal

        heard: list[int] = []
        before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
        try:
            print("begun")
            while not heard:
                signal.sigtimedwait([], 0.01)
            with open(path) as file:
                fcntl.flock(file, fcntl.LOCK_SH)
        finally:
            signal.signal(signal.SIGUSR1, before)
        return signal.Signals(heard[0]).name

    gate.open()
    ar = rc[:].apply_async(note_and_wait, gate.path)
    until_begun(ar)
    assert rc.send_signal(sig, block=True) is None
    assert ar.get(timeout=PATIENCE_S) == each(rc, "SIGUSR1")


def test_a_signal_to_some_engines(rc: ipp.Client) -> None:
    def interrupted() -> str:
        import signal

        print("begun")
        try:
            signal.sigtimedwait([], 20)
        except KeyboardInterrupt:
            return "interrupted"
        return "in peace"

    ar = rc[1].apply_async(interrupted)
    until_begun(ar)
    future = rc.send_signal(signal.SIGINT, targets=[1])
    assert isinstance(future, Future)
    assert future.result(PATIENCE_S) is None
    assert ar.get(timeout=PATIENCE_S) == "interrupted"
    assert rc.send_signal(0, block=True) is None


@pytest.mark.parametrize(
    ("sig", "error"), [("SIGNOTHING", ValueError), (4711, ValueError), (None, TypeError), (True, TypeError)]
)
def test_what_is_no_signal(rc: ipp.Client, sig: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="signal"):
        rc.send_signal(sig)


# ---------------------------------------------------------------- shutdown, restart


def test_shutdown_of_one_engine(own: ipp.Client) -> None:
    lazy, fixed = own.direct_view("all"), own[:]
    pids = fixed.apply_sync(os.getpid)
    own.shutdown(targets=0, block=True)
    assert own.ids == [1]
    assert lazy.apply_sync(os.getpid) == [pids[1]]
    assert len(lazy) == 1
    assert own.load_balanced_view().apply_sync(os.getpid) == pids[1]
    assert fixed.targets == [0, 1]
    with pytest.raises(IndexError):
        own[0]
    with pytest.raises(ipp.EngineError):
        fixed.apply_async(os.getpid).get(timeout=PATIENCE_S)
    assert own[-1].targets == own[0:].targets[0] == 1
    # What it has done can still be asked for, and purged; it is listed no longer.
    assert set(own.queue_status()) == {1, "unassigned"}
    own.purge_hub_results(targets=0)
    with pytest.raises(ValueError, match="restart=True"):
        own.shutdown(restart=True, hub=True)
    own.shutdown(block=True)
    assert own.ids == []
    with pytest.raises(ipp.NoEnginesRegistered, match="enginery engine"):
        own[:]
    for use in (lazy.apply_async, own.load_balanced_view().apply_async):
        with pytest.raises(ipp.NoEnginesRegistered):
            use(os.getpid)
    with pytest.raises(ipp.NoEnginesRegistered):
        own.load_balanced_view().map_async(abs, [1])


def test_a_result_knows_the_life_of_its_engine(own: ipp.Client) -> None:
    """Not the one that has the id now, nor nobody when that has left."""
    keys = {int(info.engine): info.key for info in own.session.engines().values()}
    before = [own[engine].apply_async(abs, -1) for engine in (0, 1)]
    own.wait(before, PATIENCE_S)
    own.shutdown(targets=[1], restart=True, block=True)
    after = own[1].apply_async(abs, -1)
    assert after.get(PATIENCE_S) == 1
    assert [ar.engine_uuid for ar in before] == [keys[0], keys[1]]
    assert after.engine_uuid not in (None, keys[1])
    own.shutdown(targets=[0], block=True)
    assert before[0].engine_uuid == keys[0]
    with ipp.Client(own.connection_file) as other:
        found = other.get_result([ar.msg_ids[0] for ar in (*before, after)])
        assert found.get(PATIENCE_S) == [1] * 3
        assert found.engine_uuid == [keys[0], keys[1], after.engine_uuid]


def test_restart_keeps_the_ids(own: ipp.Client) -> None:
    pids = own[:].apply_sync(os.getpid)
    own[:].push({"a": 1}, block=True)
    assert own.shutdown(targets=[1], restart=True, block=True) is None
    assert own.ids == [0, 1]
    fresh = own[:].apply_sync(os.getpid)
    assert fresh[0] == pids[0]
    assert fresh[1] != pids[1]
    assert own[0]["a"] == 1
    with pytest.raises(NameError):
        own[1]["a"]
    future = own.shutdown(restart=True)
    assert isinstance(future, Future)
    assert future.result(PATIENCE_S) is None


def test_engines_that_join_are_seen_by_lazy_views(own: ipp.Client) -> None:
    lazy, sliced, broadcast = own.direct_view(), own[:], own.broadcast_view()
    joined = own.wait_for_engines(3, block=False)
    assert joined is not None
    own.cluster.start_engines_sync(1)
    assert joined.result(PATIENCE_S) is None
    assert (len(lazy), len(sliced), len(broadcast)) == (3, 2, 2)
    assert lazy.apply_sync(abs, -1) == [1, 1, 1]
    assert sliced.apply_sync(abs, -1) == [1, 1]
    assert own[:].targets == [0, 1, 2]
    assert own[:] is not sliced


def test_an_engine_that_dies_ends_its_tasks(own: ipp.Client, gates: Callable[[], Gate]) -> None:
    gate = gates()
    pid = own[1].apply_sync(os.getpid)
    held = gate.hold(own[1])
    queued = own[1].apply_async(pow, 1, 1)
    waiting = own.wait_for_engines(3, block=False)
    assert waiting is not None
    os.kill(pid, signal.SIGKILL)
    for ar in (held, queued):
        with pytest.raises(ipp.EngineError) as caught:
            ar.get(timeout=PATIENCE_S)
        assert caught.value.engine_info["engine_id"] == 1
        assert ar.status == "error"
    with pytest.raises(ipp.EngineError):
        waiting.result(PATIENCE_S)
    assert own[0].apply_sync(pow, 2, 2) == 4


def test_retries_after_the_death_of_an_engine(own: ipp.Client, tmp_path: Any) -> None:
    def die_once(path: str) -> int:
        import os
        import signal

        try:
            os.mkdir(path)
        except FileExistsError:
            return os.getpid()
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    pids = own[:].apply_sync(os.getpid)
    ar = own.apply(die_once, (str(tmp_path / "died"),), retries=1)
    assert ar.get(timeout=PATIENCE_S) in pids
    with pytest.raises(ipp.EngineError):
        own.apply(die_once, (str(tmp_path / "again"),), retries=0).get(timeout=PATIENCE_S)


def test_shutdown_of_the_hub_ends_all_of_it() -> None:
    cluster = ipp.Cluster(n=1)
    client = cluster.start_and_connect_sync()
    guest = ipp.Client(client.connection_file)
    pid = client[0].apply_sync(os.getpid)
    assert client.shutdown(hub=True, block=True) is None
    with pytest.raises(ipp.ClientClosed):
        client[0].apply_async(pow, 1, 1)
    assert cluster.wait_sync(PATIENCE_S)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(ipp.ClientClosed):
        guest.wait_for_engines(2, timeout=PATIENCE_S)
    guest.close()
    cluster.stop_cluster_sync()


@pytest.mark.parametrize(("scheme", "hwm"), [("lru", 1), ("pure", 0)])
def test_schemes_and_hwm(gates: Callable[[], Gate], scheme: str, hwm: int) -> None:
    with ipp.Cluster(n=2, scheme=scheme, hwm=hwm) as client:
        assert (client.cluster.scheme, client.cluster.hwm) == (scheme, hwm)
        lview = client.load_balanced_view()
        assert lview.map_sync(abs, range(-50, 0)) == list(range(50, 0, -1))
        first = client.apply(os.getpid)
        assert client.apply(os.getpid, follow=first, block=True) == first.get()
        only = client[1].apply_sync(os.getpid)
        assert client.apply(os.getpid, targets=[1], balanced=True, block=True) == only
        gate = gates()
        held = [lview.apply_async(wait_at, gate.path) for _ in range(2)]
        until_begun(*held)
        waiting = [lview.apply_async(pow, 1, n) for n in range(6)]
        # The first answer may be given before the calls that came with the question are handed out.
        client.queue_status()
        status = client.queue_status()
        given = status[0]["tasks"], status[1]["tasks"]
        assert (sum(given), status["unassigned"]) == ((2, 6) if hwm else (8, 0))
        assert min(given) >= 1
        gate.open()
        assert [ar.get(timeout=PATIENCE_S) for ar in waiting] == [1] * 6


def test_keywords_of_placement_that_mean_nothing() -> None:
    for keywords, error in (
        ({"scheme": "fastest"}, ValueError),
        ({"hwm": -1}, ValueError),
        ({"hwm": "1"}, TypeError),
    ):
        with pytest.raises(error):
            ipp.Cluster(n=1, **keywords)  # type: ignore[arg-type]
