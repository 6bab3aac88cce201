"""Races, written out: what comes too early, what leaves in the middle, what is asked for by many at once."""

from __future__ import annotations

import operator
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest

import enginery as ipp
from tests.system.api.held import PATIENCE_S, Gate, each


@pytest.fixture
def own() -> Iterator[ipp.Client]:
    """A cluster that a test may do harm to."""
    with ipp.Cluster(n=2) as client:
        yield client


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work(0)`, `work(1)`, … return, each in a thread of its own, all at once; errors are raised."""
    found: list[Any] = [None] * count
    start = threading.Barrier(count)

    def run(number: int) -> None:
        start.wait(PATIENCE_S)
        try:
            found[number] = work(number)
        except Exception as error:
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    for value in found:
        if isinstance(value, Exception):
            raise value
    return found


def test_a_result_that_is_faster_than_its_registration(
    rc: ipp.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread reads the result before `submit` has returned the task's id."""
    session = rc.session
    submit = session.submit

    def slow_submit(
        options: Any, payload: Any, blobs: Any, promises: Any, engines: Any = (), **more: Any
    ) -> Any:
        task = submit(options, payload, blobs, promises, engines, **more)
        assert session.wait_until(lambda: all(promise.result is not None for promise in promises), PATIENCE_S)
        return task

    monkeypatch.setattr(session, "submit", slow_submit)
    ar = rc[:].apply_async(pow, 2, 5)
    assert ar.done()
    assert ar.get() == each(rc, 32)
    assert len(set(ar.msg_ids)) == 2
    assert ar.metadata[0].msg_id == ar.msg_ids[0]
    mapped = rc.load_balanced_view().map_async(abs, range(-5, 0), chunksize=1)
    assert mapped.get(timeout=PATIENCE_S) == [5, 4, 3, 2, 1]
    rc[:].scatter("a", [1, 2, 3], block=True)
    assert rc[:].gather("a", block=True) == [1, 2, 3]
    assert rc.outstanding == set()


def test_callbacks_that_submit(rc: ipp.Client) -> None:
    chain: list[Any] = []
    ended = threading.Event()

    def following(ar: Any) -> None:
        chain.append(ar.result())
        if len(chain) < 20:
            rc[len(chain) % 2].apply_async(operator.add, chain[-1], 1).add_done_callback(following)
        else:
            ended.set()

    rc[0].apply_async(pow, 1, 1).add_done_callback(following)
    assert ended.wait(PATIENCE_S)
    assert chain == list(range(1, 21))


def test_many_threads_wait_for_one_result(rc: ipp.Client, gate: Gate) -> None:
    ar = gate.hold(rc[:])
    threading.Timer(0.02, gate.open).start()
    assert in_threads(8, lambda _: ar.get(timeout=PATIENCE_S)) == [each(rc, "through")] * 8


def test_many_threads_use_one_client(rc: ipp.Client) -> None:
    def work(number: int) -> Any:
        view = rc[number % 2]
        total = view.apply_sync(sum, [number] * 3)
        mapped = rc.load_balanced_view().map_sync(operator.add, range(20), [number] * 20)
        rc[:].push({f"n{number}": number}, block=True)
        pulled = rc[:].pull(f"n{number}", block=True)
        status = rc.result_status(rc[:].apply_async(pow, 1, 1))
        return total, mapped, pulled, len(status["pending"]) + len(status["completed"])

    assert in_threads(6, work) == [(3 * n, list(range(n, n + 20)), [n, n], 2) for n in range(6)]
    rc.clear(block=True)


def test_ids_are_unique_and_histories_whole_whoever_submits(another: ipp.Client) -> None:
    results = in_threads(6, lambda n: [another[n % 2].apply_async(pow, n, 2) for _ in range(30)])
    ids = [ar.msg_ids[0] for found in results for ar in found]
    assert another.wait(timeout=PATIENCE_S)
    assert len(set(ids)) == 180
    assert sorted(another.history) == sorted(ids)
    assert [[ar.get() for ar in found] for found in results] == [[n * n] * 30 for n in range(6)]


def test_views_are_one_object_whoever_asks_first(rc: ipp.Client) -> None:
    found = in_threads(8, lambda _: (rc.load_balanced_view([1, 0]), rc[1, 0]))
    assert len({id(view) for view, _ in found}) == len({id(view) for _, view in found}) == 1


def test_a_question_comes_after_the_calls_before_it(another: ipp.Client, gate: Gate) -> None:
    held = gate.hold(another.load_balanced_view())
    for _ in range(10):
        later = [another.apply(pow, (1, 1), after=held) for _ in range(3)]
        assert another.queue_status()["unassigned"] == 3
        status = another.queue_status(verbose=True)
        assert set(status["unassigned"]) == {ar.msg_ids[0] for ar in later}
        another.abort(later, block=True)
        assert another.queue_status()["unassigned"] == 0


def test_get_result_while_the_task_ends(rc: ipp.Client, another: ipp.Client) -> None:
    for _ in range(20):
        ar = rc[0].apply_async(pow, 2, 2)
        (task,) = ar.msg_ids
        # Known as soon as the controller has heard of it; this client's own words come first.
        assert rc.get_result(task).get(timeout=PATIENCE_S) == 4
        ar.wait(PATIENCE_S)
        assert another.get_result(task).get(timeout=PATIENCE_S) == 4


def test_purge_while_others_read(rc: ipp.Client, another: ipp.Client) -> None:
    for _ in range(10):
        ar = rc[:].apply_async(pow, 2, 2)
        ar.wait(PATIENCE_S)
        reading = another.get_result(ar.msg_ids)
        rc.purge_hub_results(ar)
        for value in reading.get(timeout=PATIENCE_S, return_exceptions=True):
            assert value == 4 or isinstance(value, ipp.UnknownTask)


def test_abort_while_tasks_run(rc: ipp.Client) -> None:
    for _ in range(10):
        results = [rc.load_balanced_view().apply_async(pow, 2, n) for n in range(10)]
        rc.abort(results[5:])
        for number, ar in enumerate(results):
            try:
                assert ar.get(timeout=PATIENCE_S) == 2**number
            except ipp.TaskAborted:
                assert number >= 5


def test_clear_while_tasks_run(rc: ipp.Client) -> None:
    results = []
    for number in range(20):
        results.append(rc[:].apply_async(pow, 2, number))
        rc.clear(block=number % 2 == 0)
    assert [ar.get(timeout=PATIENCE_S) for ar in results] == [each(rc, 2**n) for n in range(20)]


def test_a_client_that_is_closed_while_others_use_it(rc: ipp.Client) -> None:
    client = ipp.Client(rc.connection_file)

    def use(number: int) -> str:
        if number == 0:
            client.close()
            return "closed"
        try:
            while True:
                client[number % 2].apply_sync(pow, 1, 1)
        except (ipp.ClientClosed, ipp.RemoteError) as error:
            return "closed" if "closed" in str(error) else str(error)

    assert in_threads(4, use) == ["closed"] * 4


# ---------------------------------------------------------------- engines that leave


def test_an_engine_leaves_during_a_scatter(own: ipp.Client) -> None:
    view = own[:]
    parts = numpy.zeros(4_000_000)
    pid = own[1].apply_sync(os.getpid)
    os.kill(pid, signal.SIGSTOP)
    ar = view.scatter("part", parts)
    queued = view.gather("part")
    os.kill(pid, signal.SIGKILL)
    zero, one = ar.split()
    assert zero.get(timeout=PATIENCE_S) is None
    with pytest.raises(ipp.EngineError):
        one.get(timeout=PATIENCE_S)
    with pytest.raises(ipp.EngineError):
        ar.get(timeout=PATIENCE_S)
    with pytest.raises(ipp.EngineError):
        queued.get(timeout=PATIENCE_S)
    assert own[0]["part.shape"] == (2_000_000,)
    with pytest.raises(ipp.EngineError):
        view.scatter("part", [1, 2], block=True)
    assert own[:].targets == [0]
    own[:].scatter("part", [1, 2], block=True)
    assert own[:].gather("part", block=True) == [1, 2]


def test_an_engine_leaves_in_the_middle_of_maps(own: ipp.Client, gates: Callable[[], Gate]) -> None:
    gate = gates()
    pid = own[1].apply_sync(os.getpid)
    held = gate.hold(own[1])
    direct = own[:].map_async(abs, range(-10, 0))
    balanced = own.load_balanced_view(retries=1).map_async(abs, range(-200, 0), chunksize=1)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ipp.EngineError):
        held.get(timeout=PATIENCE_S)
    with pytest.raises(ipp.EngineError):
        direct.get(timeout=PATIENCE_S)
    partial = direct.partial()
    assert partial.values == [10, 9, 8, 7, 6, *[None] * 5]
    assert sorted(partial.failed) == [5, 6, 7, 8, 9]
    assert balanced.get(timeout=PATIENCE_S) == list(range(200, 0, -1))


def test_what_came_before_the_end_of_the_cluster_counts() -> None:
    """A result, an answer and the goodbye may come in one message."""
    cluster = ipp.Cluster(n=1)
    client = cluster.start_and_connect_sync()
    ar = client[0].apply_async(pow, 2, 4)
    ar.wait(PATIENCE_S)
    client.shutdown(hub=True)
    assert ar.get() == 16
    assert cluster.wait_sync(PATIENCE_S)
    cluster.stop_cluster_sync()
