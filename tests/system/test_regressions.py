"""What once went wrong with whole clusters, each as short as it can be shown."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import enginery as ipp

PATIENCE_S = 20.0
END_S = 10.0
"""How long a wait may go on that has become hopeless."""


def held(gate: str) -> int:
    """A task that says that it has begun and goes on until the gate is opened; returns its process."""
    print("begun")
    with open(gate, "rb", buffering=0) as opened:
        opened.read(2)
    return os.getpid()


@pytest.fixture
def gate(tmp_path: Path) -> str:
    path = tmp_path / "gate"
    os.mkfifo(path)
    return str(path)


def open_gate(gate: str) -> None:
    """Let a task go on that waits at the gate; do nothing if there is none."""
    try:
        descriptor = os.open(gate, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return
    os.write(descriptor, b"go")
    os.close(descriptor)


def has_begun(ar: ipp.AsyncResult) -> bool:
    return ar._session.wait_until(lambda: ar.stdout == "begun\n", PATIENCE_S)


@pytest.fixture(scope="module")
def rc() -> Iterator[ipp.Client]:
    """A cluster for what does no harm to it."""
    with ipp.Cluster(n=2) as client:
        yield client


def at_once(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Begin a call in a thread; the list gets what it returns or raises."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(call())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, found


def test_the_death_of_the_controller_ends_every_wait_of_a_guest(gate: str) -> None:
    cluster = ipp.Cluster(n=1)
    owner = cluster.start_and_connect_sync()
    guest = ipp.Client(cluster.connection_file)
    try:
        ar = guest[0].apply_async(held, gate)
        assert has_begun(ar)
        waits = [at_once(call) for call in (ar.get, lambda: guest.wait_for_engines(9), ar.result)]
        os.kill(guest.session.info.controller_pid, signal.SIGKILL)  # type: ignore[attr-defined]
        end = time.monotonic() + END_S
        for thread, _ in waits:
            thread.join(max(0.0, end - time.monotonic()))
            assert not thread.is_alive(), "it still waits"
        ended = f"the controller of {cluster.name!r} has ended"
        for _, (error,) in waits:
            assert isinstance(error, ipp.EngineryError), error
            assert ended in str(error)
        for call in (lambda: guest.ids, lambda: guest[0], lambda: guest.load_balanced_view().apply(abs, 1)):
            with pytest.raises(ipp.ClientClosed, match=f"{ended}; make a new one with Client"):
                call()
        assert repr(guest) == f"<Client of {cluster.name!r}: closed>"
    finally:
        guest.close()
        owner.close()
        cluster.stop_cluster_sync()


def test_a_large_argument_leaves_before_its_client_does() -> None:
    size = 20 << 20
    with ipp.Cluster(n=1) as rc:
        with ipp.Client(rc.connection_file) as guest:
            guest[0].push({"big": b"x" * size})
        assert rc.session.wait_until(lambda: rc[0].pull("'big' in globals()").get(PATIENCE_S), PATIENCE_S)
        assert rc[0].apply_sync(lambda: len(big)) == size  # type: ignore[name-defined]  # noqa: F821


def test_waiting_for_the_end_can_be_cancelled() -> None:
    async def main() -> float:
        async with ipp.Cluster(n=1) as rc:
            began = time.monotonic()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(rc.cluster.wait(), 0.3)
            took_s = time.monotonic() - began
            assert await rc.cluster.wait(0.01) is False
        return took_s

    began = time.monotonic()
    assert asyncio.run(main()) < 2.0
    assert time.monotonic() - began < 10.0, "the end of the program waits for nothing else either"


def test_a_client_of_a_cluster_that_was_shut_down_says_so() -> None:
    with ipp.Cluster(n=1) as rc:
        with ipp.Client(rc.connection_file) as guest:
            guest.shutdown(hub=True)
            with pytest.raises(ipp.ClientClosed, match=r"; make a new one with Client\(\)"):
                guest.wait_for_engines(1)
        assert rc.session.wait_until(lambda: rc._session.closed, PATIENCE_S)
        with pytest.raises(ipp.ClientClosed, match="the cluster was shut down; make a new one with Client"):
            rc[0].apply_sync(abs, 1)


def test_engines_that_are_stopped() -> None:
    with ipp.Cluster(n=2) as rc:
        rc.cluster.start_engines_sync(1)  # answered by the host: it can take orders now
        rc.wait_for_engines(3, timeout=PATIENCE_S)
        with pytest.raises(IndexError, match="there is no engine 7; the engines are"):
            rc.shutdown([7])
        rc.shutdown(block=True)
        assert rc.ids == []
        rc.cluster.start_engines_sync(1)
        rc.wait_for_engines(1, timeout=PATIENCE_S)
        assert rc[:].apply_sync(abs, -1) == [1]


def test_an_engine_that_is_terminated_in_the_middle_of_a_task(gate: str) -> None:
    with ipp.Cluster(n=2) as rc:
        assert rc[:].apply_sync(abs, -1) == [1, 1]
        balanced = rc.load_balanced_view()
        ar = rc[0].apply_async(held, gate)
        assert has_begun(ar)
        elsewhere = [balanced.apply_async(os.getpid) for _ in range(50)]
        pids = {engine: info.pid for engine, info in rc.session.engines().items()}
        os.kill(pids[0], signal.SIGTERM)  # type: ignore[index]
        with pytest.raises(ipp.EngineError) as caught:
            ar.get(PATIENCE_S)
        assert caught.value.engine == 0
        assert {result.get(PATIENCE_S) for result in elsewhere} == {pids[1]}  # type: ignore[index]
        assert rc.session.wait_until(lambda: rc.ids == [1], PATIENCE_S)


def test_the_unstarted_tasks_of_an_engine_that_is_terminated_run_elsewhere(gate: str) -> None:
    with ipp.Cluster(n=1) as rc:
        balanced = rc.load_balanced_view()
        assert balanced.map_sync(abs, range(100)) == list(range(100))  # short ones fill an engine's window
        ar = balanced.apply_async(held, gate)
        assert has_begun(ar)
        waiting = [balanced.apply_async(abs, -n) for n in range(50)]
        rc.cluster.start_engines_sync(1)
        rc.wait_for_engines(2, timeout=PATIENCE_S)
        pid = rc.session.engines()[0].pid  # type: ignore[index]
        os.kill(pid, signal.SIGTERM)
        with pytest.raises(ipp.EngineError):
            ar.get(PATIENCE_S)
        assert [result.get(PATIENCE_S) for result in waiting] == list(range(50))


class Screen(io.StringIO):
    """A terminal, until it is gone."""

    error: Exception | None = None

    def write(self, text: str) -> int:
        if self.error is not None:
            raise self.error
        return super().write(text)

    def flush(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError("gone"), ValueError("I/O operation on closed file")])
@pytest.mark.parametrize("gone", ["later", "from the start"])
def test_a_bar_whose_screen_is_gone_stops_no_result(
    monkeypatch: pytest.MonkeyPatch, rc: ipp.Client, gone: str, error: Exception
) -> None:
    view, screen = rc.load_balanced_view(), Screen()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", screen)
        if gone == "from the start":
            screen.error = error
        ar = view.map_async(abs, range(-200, 0), progress=True, chunksize=1)
        screen.error = error
        beside = view.apply_async(abs, -7)
        assert ar.get(PATIENCE_S) == list(range(200, 0, -1))
        assert beside.get(PATIENCE_S) == 7
    assert rc.wait(timeout=PATIENCE_S)
    assert rc.session._reader.thread.is_alive()  # type: ignore[attr-defined]
    assert rc[:].apply_sync(abs, -1) == [1, 1]


@pytest.mark.parametrize("kind", ["direct_view", "load_balanced_view"])
def test_a_flag_that_is_misspelt_is_refused(rc: ipp.Client, kind: str) -> None:
    view = getattr(rc, kind)(label="own")
    with pytest.raises(AttributeError, match="has no attribute 'unknown_flag' that could be set"):
        view.unknown_flag = 1
    view.block = True
    assert view.apply(abs, -1) in (1, [1, 1])


def test_tasks_that_are_aborted_in_thousands_leave_the_rest_as_it_was(gate: str) -> None:
    with ipp.Cluster(n=1) as rc:
        view = rc.load_balanced_view()
        ar = view.apply_async(held, gate)
        assert has_begun(ar)
        for _ in range(5):
            rc.abort([view.apply_async(abs, n) for n in range(1000)])
        last = [view.apply_async(abs, -n) for n in range(5)]
        assert not last[0].done()
        open_gate(gate)
        assert isinstance(ar.get(PATIENCE_S), int)
        assert [result.get(PATIENCE_S) for result in last] == list(range(5))
        assert rc.wait(timeout=PATIENCE_S)
        assert rc.outstanding == set()
