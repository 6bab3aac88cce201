"""A controller that is killed, with real processes: started again by its host, or by hand."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest

import enginery as ipp
from enginery.cluster.cluster import Cluster
from enginery.ids import parse_task_id
from enginery.transport.connection_file import load
from tests.system.shared import MIB, until

BACK_S = 5.0
"""What is promised for a controller that its host starts again."""


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Two engines, and a controller that comes back."""
    cluster = Cluster(n=2, name="comeback", restart=True)
    directory = cluster.directory.path
    try:
        yield cluster
    finally:
        cluster.stop_cluster_sync()
        shutil.rmtree(directory, ignore_errors=True)


def kill_controller(cluster: Cluster) -> None:
    """As `kill -9` does, and wait until another one is there."""
    before = load(cluster.connection_file)
    os.kill(before.controller_pid, signal.SIGKILL)
    until(lambda: load(cluster.connection_file).controller_pid != before.controller_pid, patience_s=BACK_S)
    after = load(cluster.connection_file)
    assert (after.tcp, after.ipc, after.lane) == (before.tcp, before.ipc, before.lane)
    assert (after.server_key, after.token) == (before.server_key, before.token)


def note(path: str, number: int, seconds: float = 0.0) -> int:
    """Leave a line for each run."""
    with open(path, "a") as file:
        file.write(f"{number}\n")
    time.sleep(seconds)
    return number


def runs(path: Path) -> Counter[int]:
    return Counter(map(int, path.read_text().split())) if path.exists() else Counter()


def test_running_tasks_run_on_and_queued_ones_are_still_queued(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    rc = cluster.start_and_connect_sync()
    engines = {engine: known.pid for engine, known in rc.session.engines().items()}
    view = rc.load_balanced_view()
    results = [view.apply_async(note, str(path), number, 0.4) for number in range(8)]
    until(lambda: len(runs(path)) >= 2)
    kill_controller(cluster)
    assert [result.get(timeout=30) for result in results] == list(range(8))
    assert runs(path) == Counter(range(8))
    assert {engine: known.pid for engine, known in rc.session.engines().items()} == engines
    assert rc[:].apply_sync(os.getpid) == list(engines.values())


def test_results_that_nobody_has_fetched_are_still_there(cluster: Cluster) -> None:
    rc = cluster.start_and_connect_sync()
    other = cluster.connect_client_sync()
    ids = [other.load_balanced_view().apply_async(lambda x: x * 2, number).msg_ids[0] for number in range(5)]
    until(lambda: [bool(one["completed"]) for one in rc.db_query({"msg_id": {"$in": ids}})] == [True] * 5)
    other.close()
    kill_controller(cluster)
    assert rc.get_result(ids).get(timeout=20) == [0, 2, 4, 6, 8]


def test_a_stream_of_short_tasks_loses_none_and_runs_none_twice(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    rc = cluster.start_and_connect_sync()
    view = rc.load_balanced_view()
    results = []
    is_begun = threading.Event()

    def submit() -> None:
        for number in range(3000):
            results.append(view.apply_async(note, str(path), number))
            if number == 300:
                is_begun.set()

    thread = threading.Thread(target=submit)
    thread.start()
    is_begun.wait(20)
    kill_controller(cluster)
    kill_controller(cluster)
    thread.join(60)
    assert [result.get(timeout=60) for result in results] == list(range(3000))
    assert runs(path) == Counter(range(3000))


def test_a_task_that_holds_its_engine_does_not_hold_up_the_others(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    rc = cluster.start_and_connect_sync()
    long = rc[0].apply_async(note, str(path), 7, 6)
    until(lambda: runs(path)[7])
    kill_controller(cluster)
    assert rc[1].apply_async(lambda: 1).get(timeout=5) == 1
    assert rc.load_balanced_view().apply_async(lambda: 2).get(timeout=5) == 2
    assert not long.done()
    assert long.get(timeout=20) == 7


def test_engines_that_died_meanwhile_are_told_of_and_ids_go_on(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    rc = cluster.start_and_connect_sync()
    pid = rc[1].apply_sync(os.getpid)
    doomed = rc[1].apply_async(note, str(path), 7, 60)
    until(lambda: runs(path)[7])
    retried = rc.load_balanced_view().map_async(lambda x: x + 1, range(4))
    info = load(cluster.connection_file)
    os.kill(info.controller_pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    os.kill(info.controller_pid, signal.SIGKILL)
    with pytest.raises(ipp.EngineError):
        doomed.get(timeout=20)
    assert sorted(retried.get(timeout=20)) == [1, 2, 3, 4]
    cluster.start_engines_sync(1)
    rc.wait_for_engines(3, timeout=20)
    assert rc.ids == [0, 1, 2], "another one has taken the place of the one that died"
    assert rc[1].apply_sync(os.getpid) != pid


def test_without_restart_a_client_is_told_and_restore_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    first = Cluster(n=1, name="byhand")
    rc = first.start_and_connect_sync()
    try:
        view = rc.load_balanced_view()
        done = view.apply_async(note, str(path), 0)
        assert done.get(timeout=10) == 0
        begun = view.apply_async(note, str(path), 1, 60)
        queued = [view.apply_async(note, str(path), number) for number in range(2, 6)]
        until(lambda: runs(path)[1] == 1)
        until(lambda: rc.session.is_accepted([parse_task_id(result.msg_ids[0]) for result in queued]))
        before = load(first.connection_file)
        os.kill(before.controller_pid, signal.SIGKILL)
        with pytest.raises(ipp.EngineryError, match="the controller of 'byhand' has ended"):
            queued[0].get(timeout=20)
        assert first.wait_sync(20)
        again = Cluster(n=1, name="byhand", restore=True)
        try:
            client = again.start_and_connect_sync()
            after = load(again.connection_file)
            assert (after.tcp, after.server_key) == (before.tcp, before.server_key)
            ids = [result.msg_ids[0] for result in queued]
            assert client.get_result(ids).get(timeout=20) == [2, 3, 4, 5]
            assert client.get_result(done.msg_ids[0]).get(timeout=10) == 0
            with pytest.raises(ipp.EngineError):
                client.get_result(begun.msg_ids[0]).get(timeout=10)
            assert runs(path) == Counter(range(6))
            assert client.ids == [0]
        finally:
            again.stop_cluster_sync()
    finally:
        first.stop_cluster_sync()
        shutil.rmtree(first.directory.path, ignore_errors=True)


def test_one_that_dies_again_and_again_is_given_up(cluster: Cluster) -> None:
    cluster.start_and_connect_sync()
    for _ in range(5):
        kill_controller(cluster)
    os.kill(load(cluster.connection_file).controller_pid, signal.SIGKILL)
    assert cluster.wait_sync(30)


def test_arrays_outlive_their_controller(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    rc = cluster.start_and_connect_sync()
    other = cluster.connect_client_sync()
    large, middle = numpy.arange(4 * MIB // 8), numpy.arange(100_000 // 8)
    ids = other[0].apply_async(lambda x: (__import__("time").sleep(0.5), x * 2)[1], large).msg_ids
    other.close()
    until(lambda: [bool(one["completed"]) for one in rc.db_query({"msg_id": ids[0]})] == [True])
    view = rc.load_balanced_view()
    busy = [rc[engine].apply_async(note, str(path), engine, 3) for engine in (0, 1)]
    until(lambda: len(runs(path)) == 2)
    sums = [view.apply_async(numpy.sum, array) for array in (large, middle, large + 1)]
    until(lambda: rc.session.is_accepted([parse_task_id(result.msg_ids[0]) for result in sums]))
    kill_controller(cluster)
    assert [result.get(timeout=20) for result in sums] == [large.sum(), middle.sum(), (large + 1).sum()]
    assert [result.get(timeout=20) for result in busy] == [0, 1]
    assert numpy.array_equal(rc.get_result(ids[0]).get(timeout=10), large * 2)


LET_GO = """
import enginery as ipp
import time

with ipp.Cluster(n=1, name="letgo") as rc:
    result = rc.load_balanced_view().apply_async(lambda: (time.sleep(1), 42)[1])
    rc.cluster.detach()
print(result.msg_ids[0])
"""


def test_a_cluster_that_is_let_go_is_found_again() -> None:
    with pytest.raises(ipp.ClusterNotFound):
        Cluster.attach("letgo")
    script = subprocess.run(
        [sys.executable, "-c", LET_GO], capture_output=True, text=True, timeout=50, check=True
    )
    cluster = Cluster.attach("letgo")
    try:
        assert cluster.is_running()
        with cluster as rc:
            assert rc.get_result(script.stdout.strip()).get(timeout=20) == 42
            cluster.start_engines_sync(1)
            rc.wait_for_engines(2, timeout=20)
        assert cluster.is_running(), "who attaches owns nothing"
    finally:
        cluster.stop_cluster_sync()
        shutil.rmtree(cluster.directory.path, ignore_errors=True)
    assert not cluster.is_running()


def test_who_comes_while_the_controller_is_about_to_be_started_again_waits_for_it(cluster: Cluster) -> None:
    cluster.start_and_connect_sync()
    os.kill(load(cluster.connection_file).controller_pid, signal.SIGKILL)
    with ipp.Client(cluster.connection_file) as by_path, ipp.Client("comeback") as by_name:
        for client in (by_path, by_name):  # it may not have known of them for good, and they say hello
            client.wait_for_engines(2, timeout=20)
            assert client.ids == [0, 1]
        assert by_name[0].apply_sync(abs, -1) == 1
