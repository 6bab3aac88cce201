"""Shared memory that is small, full or missing, want of descriptors, and how much memory is in use."""

from __future__ import annotations

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
from enginery.transport import shared_memory
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


# ---------------------------------------------------------------- want of descriptors


def map_nothing() -> None:
    """From now on this process has no descriptor left when it is to map something."""
    import errno

    from enginery.transport import shared_memory

    def refuse(*arguments: Any, **options: Any) -> memoryview:
        raise OSError(errno.EMFILE, "Too many open files")

    shared_memory.map_segment = refuse


def test_a_client_that_cannot_map_gets_frames(rc: ipp.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    array = pattern(6 * MIB)
    with ipp.Client(rc.connection_file) as client:
        sent = [client[:].apply_async(lambda a: a, array) for _ in range(3)]
        monkeypatch.setattr(shared_memory, "map_segment", shared_memory.map_segment)
        map_nothing()
        for ar in sent:
            assert [checksum(found) for found in ar.get(PATIENCE_S)] == [checksum(array)] * 2
        assert client[:].apply_sync(checksum, array) == [checksum(array)] * 2
        client.purge_results("all")
        until(lambda: not client._session._connection.sharing.lent())


def test_an_engine_that_cannot_map_gets_frames() -> None:
    array = pattern(6 * MIB)
    with ipp.Cluster(n=2) as rc:
        rc[0].apply_sync(map_nothing)
        for _ in range(2):
            assert [checksum(found) for found in rc[:].apply_sync(lambda a: a, array)] == [
                checksum(array)
            ] * 2
        sent = [rc.load_balanced_view().apply_async(checksum, array) for _ in range(6)]
        assert [ar.get(PATIENCE_S) for ar in sent] == [checksum(array)] * 6


def test_a_buffer_that_somebody_removes_fails_its_task_and_nothing_else(gate: Gate) -> None:
    """As systemd does at a logout, if it is told to."""
    with ipp.Cluster(n=2) as rc:
        held = gate.hold(rc[0])
        ar = rc[0].apply_async(len, numpy.zeros(MIB, "u1"))
        behind = rc[0].apply_async(abs, -1)
        ar.wait_on_send()
        for name in segments_of(rc):
            (shared_of(rc) / name).unlink()
        gate.open()
        assert held.get(PATIENCE_S) == "through"
        with pytest.raises(ipp.RemoteError, match="a large buffer of it is lost"):
            ar.get(PATIENCE_S)
        assert behind.get(PATIENCE_S) == 1
        assert rc[:].apply_sync(len, numpy.zeros(MIB, "u1")) == [MIB, MIB]


def test_who_keeps_many_arrays_does_not_run_out_of_descriptors(rc: ipp.Client) -> None:
    program = Program(
        """
        import os
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        rc = ipp.Client(sys.argv[1])
        fill = lambda n: __import__("numpy").full(300_000, n % 251, "u1")
        kept = [rc[0].apply_async(fill, n) for n in range(800)]
        kept = [ar.get(20) for ar in kept]
        used = len(os.listdir("/proc/self/fd"))
        right = all(array.min() == array.max() == number % 251 for number, array in enumerate(kept))
        print(right, used < 100, flush=True)
        rc.close()
        """,
        rc.connection_file,
    )
    assert program.line() == "True True"
    program.end()


# ---------------------------------------------------------------- small, full and no shared memory


def may_mount() -> bool:
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", str(ROOT)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


SMALL = """
import os, sys
import numpy
import enginery as ipp
size = int(sys.argv[1])
def checksum(array):
    import zlib
    return zlib.crc32(array)
array = numpy.random.default_rng(1).integers(0, 256, size, dtype="u1")
with ipp.Cluster(n=2) as rc:
    sharing = rc._session._connection.sharing
    for fill in (False, True):
        if fill and sharing.name:
            with open("/dev/shm/full", "wb") as file:
                left = os.statvfs("/dev/shm")
                os.posix_fallocate(file.fileno(), 0, left.f_bavail * left.f_frsize)
        sent = [rc[:].apply_async(lambda a: a, array) for _ in range(4)]
        assert all(checksum(found) == checksum(array) for ar in sent for found in ar.get(20)), fill
        rc[:].push({"a": array, "b": array[::2].copy()}, block=True)
        assert rc[:].apply_sync(lambda: int(a[-1]) + int(b[-1])) == [int(array[-1]) + int(array[-2])] * 2
        if fill and sharing.name:
            os.unlink("/dev/shm/full")
    print(sharing.name != "")
assert os.listdir("/dev/shm") == []
"""


@pytest.mark.skipif(not may_mount(), reason="file systems cannot be mounted here")
@pytest.mark.parametrize("size_mib", [1, 6, 0], ids=["small", "tiny", "none"])
def test_small_full_and_missing_shared_memory(size_mib: int) -> None:
    """Never a SIGBUS: space is reserved before it is written."""
    mount = f"mount -t tmpfs -o {f'size={size_mib}m' if size_mib else 'ro'} tmpfs {ROOT}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && exec "$0" -c "$1" {3 * MIB}', sys.executable, SMALL],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == f"{size_mib > 0}"


# ---------------------------------------------------------------- bounds


def processes_of(rc: ipp.Client) -> dict[str, psutil.Process]:
    """This process, the controller, and the engines by their ids."""
    engines = {f"engine {info.engine}": psutil.Process(info.pid) for info in rc._session.engines().values()}
    return {
        "client": psutil.Process(),
        "controller": psutil.Process(rc._session.info.controller_pid),
        **engines,
    }


def memory_of(rc: ipp.Client, *names: str) -> int:
    """Bytes of these processes, or all: what several share is divided among them, and so counts once."""
    return sum(
        process.memory_full_info().pss
        for name, process in processes_of(rc).items()
        if not names or name in names
    )


def shared_bytes_of(rc: ipp.Client) -> int:
    shared = shared_of(rc)
    total = 0
    for name in segments_of(rc):
        try:
            total += (shared / name).stat().st_blocks * 512
        except FileNotFoundError:  # used again since the listing
            continue
    return total


@pytest.mark.parametrize("fields", [{}, {"shared": ""}], ids=["on", "off"])
@pytest.mark.parametrize(
    "count", [1000, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(300)])]
)
def test_results_that_are_read_and_dropped_leave_nothing(
    rc: ipp.Client, tmp_path: Path, count: int, fields: dict[str, Any]
) -> None:
    with ipp.Client(altered(rc, tmp_path / "client.json", **fields)) as client:
        view = client.load_balanced_view()

        def read(count: int) -> None:
            for start in range(0, count, 100):
                sent = [
                    view.apply_async(lambda n: __import__("numpy").full(1 << 20, n % 251, "u1"), n)
                    for n in range(start, start + 100)
                ]
                assert all(
                    (ar.get(PATIENCE_S)[::4096] == (start + n) % 251).all() for n, ar in enumerate(sent)
                )

        read(200)
        client.purge_results("all")
        before = {name: memory_of(client, name) for name in ("client", "controller")}
        read(count)
        client.purge_results("all")
        until(lambda: shared_bytes_of(rc) <= 1200 * MIB)
        for name, size_bytes in before.items():
            assert memory_of(client, name) - size_bytes < 100 * MIB, name


def test_tasks_that_wait_for_slow_engines_are_held_in_bounds(rc: ipp.Client, gate: Gate) -> None:
    """The controller holds no more than its credit; the client keeps the arrays that it was given."""
    size = 10 * MIB
    array = pattern(size)
    begun = [gate.hold(rc[engine]) for engine in rc.ids]
    before = memory_of(rc, "controller")
    sent = [rc.load_balanced_view().apply_async(checksum, array) for _ in range(120)]
    rc.session.wait_until(lambda: rc._session._ledger.statistics().queued <= 120 - 52, PATIENCE_S)
    assert rc._session._ledger.statistics().queued >= 120 - 53, "above 512 MiB they wait here"
    assert rc._session._connection.sharing.statistics().lent_bytes <= 53 * round(1.125 * size)
    gate.open()
    assert {ar.get(PATIENCE_S) for ar in sent} == {checksum(array)}
    assert [ar.get(PATIENCE_S) for ar in begun] == ["through"] * 2
    assert memory_of(rc, "controller") - before < 50 * MIB
    rc.purge_results("all")


@pytest.mark.parametrize(
    "count", [250, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_who_submits_more_than_slow_engines_take_waits(rc: ipp.Client, gate: Gate, count: int) -> None:
    """512 MiB are with the controller, in shared memory; above another GiB `apply_async` waits."""
    size = 10 * MIB
    most = (512 + 1024) // 10 + 4
    rc.purge_results("all")
    rc.free()  # engines keep what the results of the tests before were in, to use it again
    until(lambda: shared_bytes_of(rc) < size)
    held = [gate.hold(rc[engine]) for engine in rc.ids]
    before = {name: memory_of(rc, name) for name in ("client", "controller")}
    sent: list[ipp.AsyncResult] = []

    def submit() -> None:
        view = rc.load_balanced_view()
        for number in range(count):
            array = numpy.full(size, number % 251, "u1")
            sent.append(view.apply_async(lambda a: (a.nbytes, int(a[0]), int(a[-1])), array))

    def check_bounds() -> bool:
        assert shared_bytes_of(rc) <= 54 * round(1.125 * size)
        assert memory_of(rc, "controller") - before["controller"] < 50 * MIB
        assert memory_of(rc, "client") - before["client"] < 2048 * MIB
        return not submitting.is_alive()

    submitting = threading.Thread(target=submit)
    submitting.start()
    until(lambda: rc._session._ledger.is_over_backlog)
    check_bounds()
    assert len(sent) <= most
    gate.open()
    until(check_bounds, patience_s=500)
    submitting.join()
    for number, ar in enumerate(sent):
        assert ar.get(PATIENCE_S) == (size, number % 251, number % 251)
    assert [ar.get(PATIENCE_S) for ar in held] == ["through"] * 2
    rc.purge_results("all")
    rc.free()


@pytest.mark.parametrize(
    "size", [128 * MIB, pytest.param(1 << 30, marks=[pytest.mark.slow, pytest.mark.timeout(200)])]
)
def test_an_array_for_eight_engines_is_in_memory_once(size: int) -> None:
    with ipp.Cluster(n=8) as rc:
        array = numpy.ones(size, "u1")
        rc[:].apply_sync(lambda: __import__("numpy").zeros(1))
        before = memory_of(rc)
        rc[:].push({"a": array}, block=True)
        assert rc[:].apply_sync(lambda: int(a.sum())) == [size] * 8  # type: ignore[name-defined]  # noqa: F821
        assert memory_of(rc) - before < max(1.2 * size, size + 80 * MIB)
