"""Big buffers between real processes: whoever is killed or shares nothing, what was received stays."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import psutil
import pytest

import enginery as ipp
from enginery.transport.shared_memory import ROOT
from tests.system.api.held import Gate
from tests.system.shared import (
    MIB,
    PATIENCE_S,
    Program,
    altered,
    checksum,
    pattern,
    segments_of,
    shared_of,
    until,
)

pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason="there is no shared memory here")


@pytest.fixture(scope="module")
def rc() -> Iterator[ipp.Client]:
    """A cluster for what does no harm to it."""
    with ipp.Cluster(n=2) as client:
        yield client
    assert not shared_of(client).exists()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


# ---------------------------------------------------------------- who is killed


def test_arguments_outlive_their_client(rc: ipp.Client, gate: Gate) -> None:
    size = 8 * MIB
    gate.hold(rc[0])
    program = Program(
        """
        rc = ipp.Client(sys.argv[1])
        array = numpy.random.default_rng(1).integers(0, 256, int(sys.argv[2]), dtype="u1")
        ar = rc[0].apply_async(lambda array: __import__("zlib").crc32(array), array)
        ar.wait_on_send()
        print(ar.msg_ids[0], flush=True)
        sys.stdin.read()
        """,
        rc.connection_file,
        size,
    )
    task = program.line()
    (segment,) = [name for name in segments_of(rc) if name.startswith("client-")]
    program.kill()
    gate.open()
    assert rc.get_result(task).get(PATIENCE_S) == checksum(pattern(size))
    rc.purge_results(task)
    until(lambda: segment not in segments_of(rc))


def test_what_a_killed_client_was_writing_is_cleared(rc: ipp.Client) -> None:
    """It has told nobody of the segment, or not what it is for."""
    program = Program(
        """
        from enginery.core.ledger import Ledger
        Ledger._put = lambda *arguments: None  # what would name the buffers is never said
        rc = ipp.Client(sys.argv[1])
        for _ in range(2):
            rc[0].apply_async(len, numpy.zeros(8 << 20, "u1"))
        rc.session.wait_until(lambda: rc._session._ledger.statistics().queued == 0, 20)
        print("written", flush=True)
        sys.stdin.read()
        """,
        rc.connection_file,
    )
    assert program.line() == "written"
    until(lambda: len([name for name in segments_of(rc) if name.startswith("client-")]) >= 2)
    program.kill()
    assert rc[:].apply_sync(abs, -1) == [1, 1]
    with ipp.Client(rc.connection_file) as other:
        assert other[0].apply_sync(len, numpy.zeros(MIB, "u1")) == MIB


def test_results_outlive_their_engine() -> None:
    with ipp.Cluster(n=2) as rc, ipp.Client(rc.connection_file) as other:
        pid = rc[0].apply_sync(os.getpid)
        ar = rc[0].apply_async(pattern, 4 * MIB)
        assert ar.wait(PATIENCE_S)
        until(lambda: rc.result_status(ar.msg_ids)["completed"] == ar.msg_ids)
        os.kill(pid, signal.SIGKILL)
        assert rc.session.wait_until(lambda: rc.ids == [1], PATIENCE_S)
        found = other.get_result(ar.msg_ids[0]).get(PATIENCE_S)
        assert checksum(found) == checksum(ar.get(0)) == checksum(pattern(4 * MIB))
        rc.purge_results(ar)
        until(lambda: not [name for name in segments_of(rc) if name.startswith("engine-")])
        assert checksum(found) == checksum(pattern(4 * MIB)), "whoever has it keeps it"
    assert not shared_of(rc).exists()


def test_a_reader_that_is_killed_gives_pages_back() -> None:
    with ipp.Cluster(n=2) as rc:
        size = 16 * MIB
        pool = rc._session._connection.sharing
        pid = rc[0].apply_sync(os.getpid)

        def free() -> None:
            rc.purge_results("all")
            until(lambda: not pool.lent())
            rc[1].apply_sync(int)  # with its next task an engine has let go of the last one's arguments

        rc[0].push({"kept": pattern(size)}, block=True)
        free()
        for seed in range(3):
            assert rc[1].apply_sync(checksum, pattern(size, seed)) == checksum(pattern(size, seed))
            free()
        assert pool.statistics().segments == 2, "what is kept, and the one that is used again"
        os.kill(pid, signal.SIGKILL)
        assert rc.session.wait_until(lambda: rc.ids == [1], PATIENCE_S)
        sent = [rc[1].apply_async(checksum, pattern(size, seed)) for seed in range(2)]
        assert [ar.get(PATIENCE_S) for ar in sent] == [checksum(pattern(size, seed)) for seed in range(2)]
        assert pool.statistics().segments == 2


VICTIMS = ["controller", "host", "engine", "client"]
STEPS = ["copying", "queued", "running", "returned", "idle"]


def process_of(victim: str, rc: ipp.Client, guest: Program) -> psutil.Process:
    controller = psutil.Process(rc._session.info.controller_pid)
    match victim:
        case "controller":
            return controller
        case "host":
            host = controller.parent()
            assert host is not None
            return host
        case "engine":
            return psutil.Process(next(iter(rc._session.engines().values())).pid)
        case _:
            return psutil.Process(guest.process.pid)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("victim", VICTIMS)
def test_nothing_is_left_whoever_is_killed_and_when(victim: str, step: str, gate: Gate) -> None:
    """A guest sends and receives arrays; somebody is killed; the cluster ends."""
    cluster = ipp.Cluster(n=2)
    rc = cluster.start_and_connect_sync()
    shared = shared_of(rc)
    guest = Program(
        """
        file, step, gate = sys.argv[1:]
        rc = ipp.Client(file)
        from tests.system.api.held import wait_at
        array = numpy.ones(24 << 20, "u1")
        if step == "queued":
            rc[:].apply_async(wait_at, gate)
        if step == "returned":
            kept = rc[:].apply_sync(lambda array: array + 1, array)
        ar = rc[:].apply_async(wait_at, gate, array) if step != "idle" else None
        if step == "copying":
            print("there", flush=True)
        for _ in range(1000 if step == "copying" else 0):
            rc[:].push({"a": array}, block=False)
        if step == "queued":
            ar.wait_on_send()
        if step in ("running", "returned"):
            rc.session.wait_until(lambda: ar.stdout == ["begun\\n"] * 2, 20)
        print("there", flush=True)
        sys.stdin.read()
        """,
        rc.connection_file,
        step,
        gate.path,
    )
    try:
        mine = rc[:].apply_async(pattern, 4 * MIB) if step == "idle" else None
        assert guest.line() == "there"
        if mine is not None:
            assert mine.wait(PATIENCE_S)
        process_of(victim, rc, guest).kill()
        if victim in ("client", "engine"):
            gate.open()
            left = rc.ids[-1:] if victim == "client" else [max(rc._session.engines())]
            assert rc[left].apply_sync(len, numpy.zeros(MIB, "u1")) == [MIB]
        if mine is not None:
            assert all(map(bool, map(checksum, mine.get(PATIENCE_S))))
    finally:
        gate.open()
        guest.kill()
        rc.close()
        cluster.stop_cluster_sync()
    until(lambda: not shared.exists())


# ---------------------------------------------------------------- who shares nothing


@pytest.mark.parametrize("fields", [{"shared": ""}, {"shared_limit_bytes": 3 * MIB}], ids=["off", "little"])
def test_a_client_that_shares_nothing_or_little(
    rc: ipp.Client, tmp_path: Path, fields: dict[str, Any]
) -> None:
    array = pattern(5 * MIB)
    with ipp.Client(altered(rc, tmp_path / "client.json", **fields)) as other:
        assert other[:].apply_sync(checksum, array) == [checksum(array)] * 2
        assert checksum(other[0].apply_sync(lambda a: a, array)) == checksum(array)
        sent = [other[0].apply_async(lambda a: a, pattern(MIB, seed)) for seed in range(8)]
        assert [checksum(ar.get(PATIENCE_S)) for ar in sent] == [checksum(pattern(MIB, n)) for n in range(8)]
        other[:].push({"pushed": array}, block=True)
        assert [checksum(found) for found in rc[:].pull("pushed", block=True)] == [checksum(array)] * 2


@pytest.fixture
def deaf(rc: ipp.Client, tmp_path: Path) -> Iterator[int]:
    """An engine that shares nothing, beside those that do."""
    file = altered(rc, tmp_path / "engine.json", "engine", shared="")
    before = set(rc.ids)
    program = """
import sys
from enginery.engine.main import run_engine
from enginery.ids import EngineKey
from enginery.protocol.specs import EngineSpec
spec = EngineSpec(cluster="", connection_file=sys.argv[1], key=EngineKey("deaf"))
sys.exit(run_engine(spec, version=sys.argv[2]))
"""
    process = subprocess.Popen([sys.executable, "-c", program, file, ipp.__version__])
    try:
        assert rc.session.wait_until(lambda: len(rc.ids) == len(before) + 1, PATIENCE_S)
        (engine,) = set(rc.ids) - before
        yield engine
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        assert rc.session.wait_until(lambda: set(rc.ids) == before, PATIENCE_S)


def test_an_engine_that_shares_nothing_beside_those_that_do(rc: ipp.Client, deaf: int) -> None:
    array = pattern(20 * MIB)
    everybody = rc[[*rc.ids]]
    assert everybody.apply_sync(checksum, array) == [checksum(array)] * 3
    assert [checksum(found) for found in everybody.apply_sync(lambda a: a, array)] == [checksum(array)] * 3
    everybody.push({"pushed": array}, block=True)
    assert everybody.apply_sync(lambda: float(pushed.sum())) == [float(array.sum())] * 3  # type: ignore[name-defined]  # noqa: F821


# ---------------------------------------------------------------- order


@pytest.mark.parametrize(
    "fields", [{}, {"shared": ""}, {"shared_limit_bytes": 100 * MIB}], ids=["on", "off", "full"]
)
def test_calls_to_engines_keep_their_order_behind_big_arrays(
    rc: ipp.Client, tmp_path: Path, fields: dict[str, Any]
) -> None:
    with ipp.Client(altered(rc, tmp_path / "client.json", **fields)) as client:
        seen = []
        for number in range(4):
            client[:].push({"a": numpy.full(64 * MIB, number, "u1")}, block=False)
            seen.append(client[:].apply_async(lambda: int(a[-1])))  # type: ignore[name-defined]  # noqa: F821
            client[0].push({"only": numpy.full(300_000, number, "u1")}, block=False)
            seen.append(client[0].apply_async(lambda: (int(a[0]), int(only[0]))))  # type: ignore[name-defined]  # noqa: F821
        assert [ar.get(60) for ar in seen[::2]] == [[number] * 2 for number in range(4)]
        assert [ar.get(60) for ar in seen[1::2]] == [(number, number) for number in range(4)]
        client[:].execute("del a", block=True)


def test_small_balanced_tasks_overtake(rc: ipp.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    copying = held_copies(rc, monkeypatch)
    large = rc[0].apply_async(len, numpy.zeros(64 * MIB, "u1"))
    assert copying.has_begun.wait(PATIENCE_S)
    assert rc.load_balanced_view().apply_async(abs, -3).get(PATIENCE_S) == 3
    small = rc[0].apply_async(abs, -4)
    assert not large.done()
    copying.go_on.set()
    assert (large.get(PATIENCE_S), small.get(PATIENCE_S)) == (64 * MIB, 4)


# ---------------------------------------------------------------- what was received does not change


class Copying:
    def __init__(self) -> None:
        self.has_begun = threading.Event()
        self.go_on = threading.Event()


def held_copies(rc: ipp.Client, monkeypatch: pytest.MonkeyPatch) -> Copying:
    """Hold this client's copies up, before they read anything."""
    copying = Copying()
    write = rc._session._connection.sharing.write

    def held(data: memoryview) -> Any:
        if data.nbytes > 4 * MIB:
            copying.has_begun.set()
            assert copying.go_on.wait(PATIENCE_S)
        return write(data)

    monkeypatch.setattr(rc._session._connection.sharing, "write", held)
    return copying


def test_sent_comes_with_the_ack_and_not_before_the_last_byte_was_read(
    rc: ipp.Client, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    gate.hold(rc[0])
    copying = held_copies(rc, monkeypatch)
    array = pattern(8 * MIB)
    ar = rc[0].apply_async(lambda a: a, array)
    assert copying.has_begun.wait(PATIENCE_S)
    assert ar.sent is False
    assert ar.wait_for_send(0.05) is False or ar.sent is False
    before = checksum(array)
    array[:] = 7  # not sent: this is what is sent
    copying.go_on.set()
    ar.wait_on_send()
    assert ar.sent is True
    array[:] = 0
    gate.open()
    assert set(ar.get(PATIENCE_S)) == {7}
    assert before != checksum(array)


@pytest.mark.parametrize("fields", [{}, {"shared": ""}], ids=["on", "off"])
def test_an_array_may_be_changed_after_the_wait(
    rc: ipp.Client, tmp_path: Path, fields: dict[str, Any]
) -> None:
    rng = random.Random(5)
    with ipp.Client(altered(rc, tmp_path / "client.json", **fields)) as client:
        view = client[:]
        view.track = True
        array = numpy.empty(9 * MIB, "u1")
        results = []
        for number in range(12):
            size = rng.choice([200_000, 300_000, 3 * MIB, 9 * MIB])
            array[:] = number
            results.append(view.apply_async(lambda a: (int(a.min()), int(a.max())), array[:size]))
            results[-1].wait_on_send()
            array[:] = 255
        assert [ar.get(PATIENCE_S) for ar in results] == [[(n, n)] * 2 for n in range(12)]


def test_the_tracking_session_with_eight_megabytes(rc: ipp.Client) -> None:
    view = rc[:]
    view.block = False
    view.track = True
    array = numpy.arange(1 << 20, dtype=float)
    ar = view.apply_async(lambda x: 2 * x, array)
    assert ar.sent is False
    ar.wait_on_send()  # blocks until sent
    assert ar.sent is True
    array[:] = -1
    assert all((found == 2 * numpy.arange(1 << 20)).all() for found in ar.get(PATIENCE_S))


def test_results_do_not_change_while_their_engine_goes_on(rc: ipp.Client) -> None:
    def change_and_return(byte: int, size: int) -> Any:
        space = globals()
        if "mine" not in space or space["mine"].nbytes != size:
            import numpy

            space["mine"] = numpy.zeros(size, "u1")
        space["mine"][:] = byte
        return space["mine"]

    rng = random.Random(3)
    kept: list[tuple[int, Any]] = []
    for number in range(120):
        byte = number % 251
        kept.append(
            (byte, rc[number % 2].apply_sync(change_and_return, byte, rng.choice([300_000, 2 * MIB])))
        )
        if len(kept) > 8:
            del kept[rng.randrange(len(kept))]
        assert all(array[0] == byte == array[-1] and array.sum() == byte * array.size for byte, array in kept)


def test_arrays_do_not_change_while_their_owners_use_pages_again(rc: ipp.Client) -> None:
    """Engines keep some of what they are sent and look at all of it; the client uses its segments again."""

    def keep(array: Any, drop: int) -> int:
        kept = globals().setdefault("kept", [])
        kept.append((int(array[0]), array))
        if len(kept) > 6:
            del kept[drop % len(kept)]
        return sum(int(array.min() != byte or array.max() != byte) for byte, array in kept)

    rng = random.Random(4)
    pending: list[ipp.AsyncResult] = []
    for number in range(150):
        array = numpy.full(rng.choice([300_000, 700_000, 5 * MIB]), number % 251, "u1")
        pending.append(rc[:].apply_async(keep, array, rng.randrange(100)))
        if len(pending) > 5:
            assert pending.pop(0).get(PATIENCE_S) == [0, 0]
        if number % 10 == 0:
            assert [ar.get(PATIENCE_S) for ar in pending] == [[0, 0]] * len(pending)
            pending.clear()
            rc.purge_results("all")  # else the controller keeps what was sent for whoever asks
    assert [ar.get(PATIENCE_S) for ar in pending] == [[0, 0]] * len(pending)
    statistics = rc._session._connection.sharing.statistics()
    assert statistics.segments < 100, "nothing was used again"
    rc[:].execute("del kept", block=True)


# ---------------------------------------------------------------- interrupts, forks and new hellos


def test_an_interrupt_while_a_buffer_is_copied_holds_nobody_up(
    rc: ipp.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = rc._session._connection.sharing.write

    def interrupt(data: memoryview) -> Any:
        monkeypatch.setattr(rc._session._connection.sharing, "write", write)
        raise KeyboardInterrupt

    array = pattern(MIB)
    monkeypatch.setattr(rc._session._connection.sharing, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        rc[0].push({"interrupted": array}, block=False)
    rc[0].push({"next": array}, block=False)
    found = rc[0].apply_async(lambda: interrupted.nbytes + next.nbytes)  # type: ignore[name-defined]  # noqa: F821
    assert found.get(PATIENCE_S) == 2 * MIB, "what was submitted goes"


def test_new_hellos_at_any_time_lose_nothing_and_leave_nothing_lent() -> None:
    """Whatever was under way then is said again, and segments have their owners' names for what they are."""
    rng = random.Random(6)
    with ipp.Cluster(n=2) as rc:
        session = rc._session
        done = threading.Event()

        def tear() -> None:
            while not done.wait(rng.random() / 50):
                session._connection.tear()
                session._connection.wake()

        tearing = threading.Thread(target=tear)
        tearing.start()
        try:
            for start in range(0, 120, 12):
                sent = []
                for number in range(start, start + 12):
                    size = rng.choice([300_000, 2 * MIB, 6 * MIB])
                    array = numpy.full(size, number, "u1")
                    sent.append((number, rc[number % 2].apply_async(lambda a: a + 1, array)))
                    sent.append((number, rc.load_balanced_view().apply_async(lambda a: a + 1, array)))
                for number, ar in sent:
                    assert (ar.get(PATIENCE_S) == number + 1).all()
        finally:
            done.set()
            tearing.join(PATIENCE_S)
        sent.clear()
        del ar
        rc.purge_results("all")
        until(lambda: not session._connection.sharing.lent())
        assert rc[:].apply_sync(abs, -1) == [1, 1]
        until(lambda: all(count == 0 for count in rc[:].apply_sync(lent_by_this_engine)))


def lent_by_this_engine() -> int:
    import gc

    from enginery.transport.sharing import Sharing

    return sum(len(found.lent()) for found in gc.get_objects() if isinstance(found, Sharing))


def test_a_forked_child_takes_nothing_of_its_parents_away(rc: ipp.Client) -> None:
    def fork_and_leave(array: Any) -> Any:
        import os
        import sys

        child = os.fork()
        if child == 0:
            sys.exit(3)  # not `os._exit`: whatever is cleaned up at exit is
        os.waitpid(child, 0)
        return array

    array = pattern(MIB)
    kept = rc[0].apply_sync(lambda a: a, array)
    returned = rc[0].apply_async(fork_and_leave, array).get(PATIENCE_S)
    assert checksum(returned) == checksum(kept) == checksum(array)
    assert [checksum(found) for found in rc[:].apply_sync(lambda a: a, array)] == [checksum(array)] * 2
    child = os.fork()
    if child == 0:
        try:
            rc.close()
            os._exit(0 if checksum(kept) == checksum(array) else 1)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0) == (child, 0)
    assert [checksum(found) for found in rc[:].apply_sync(lambda a: a, array)] == [checksum(array)] * 2
