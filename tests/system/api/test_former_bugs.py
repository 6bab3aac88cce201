"""What is wrong in ipyparallel and must not be here, as far as the API shows it.

The numbers are those of the list of such things in the project's plan, and of nothing a user needs. Tracking
(1), queries (3), `DependencyTimeout` (8) and cancelling (14) have their tests with their subjects.
"""

from __future__ import annotations

import datetime
import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

import enginery as ipp
from tests.system.api.held import PATIENCE_S, Gate, each, wait_at


def test_tracking_tracks(rc: ipp.Client, gate: Gate) -> None:
    """(1) `sent` is not said before the buffers are free."""
    for _ in range(5):
        array = numpy.zeros(500_000)
        ar = rc.direct_view(0, track=True).apply_async(lambda a: float(a.sum()), array)
        ar.wait_for_send(PATIENCE_S)
        assert ar.sent
        array[:] = 1.0
        assert ar.get(timeout=PATIENCE_S) == 0.0


def test_results_do_not_change_after_their_task(rc: ipp.Client) -> None:
    """(2) A later task that writes into an array does not change the result that was returned before."""
    rc[0].execute("import numpy; kept = numpy.zeros(500_000)", block=True)
    for number in range(5):
        returned = rc[0].apply_async(ipp.Reference("lambda: kept"))
        rc[0].execute("kept += 1")
        assert float(returned.get(timeout=PATIENCE_S).max()) == number
    rc.clear(block=True)


def test_received_arrays_are_read_only_at_every_size(rc: ipp.Client) -> None:
    """(2)"""
    for size in (1, 100, 129, 5_000, 300_000):
        assert rc[0].apply_sync(lambda a: a.flags.writeable, numpy.zeros(size)) is False
        assert rc[0].apply_sync(lambda n: __import__("numpy").zeros(n), size).flags.writeable is False


def test_started_in_the_last_hour_while_something_is_pending(rc: ipp.Client, gate: Gate) -> None:
    """(3)"""
    done = rc.direct_view(1, label="asked").apply_async(pow, 1, 1)
    done.wait(PATIENCE_S)
    gate.hold(rc[0])
    hour = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    query = {"label": "asked", "queue": "mux", "started": {"$gt": hour, "$ne": None}}
    assert [record["msg_id"] for record in rc.db_query(query)] == done.msg_ids


def test_a_broadcast_view_runs_files_and_keeps_labels(rc: ipp.Client, tmp_path: Path) -> None:
    """(4)"""
    script = tmp_path / "script.py"
    script.write_text("ran = 1")
    for is_coalescing in (False, True):
        view = rc.broadcast_view(is_coalescing=is_coalescing)
        ar = view.run(str(script), block=True, label="broadcast")
        assert ar["label"] == each(rc, "broadcast")
        assert view.map_async(abs, [1], label="mapped")["label"] == ["mapped"]
    rc.clear(block=True)


def test_broadcasts_are_in_the_hub(rc: ipp.Client, another: ipp.Client) -> None:
    """(5)"""
    ar = rc.broadcast_view(label="in the hub").apply_async(pow, 2, 3)
    ar.wait(PATIENCE_S)
    assert another.get_result(ar.msg_ids).get(timeout=PATIENCE_S) == [8, 8]
    assert [record["label"] for record in another.db_query({"msg_id": {"$in": ar.msg_ids}})] == [
        "in the hub"
    ] * 2
    assert set(ar.msg_ids) <= set(another.hub_history())


def test_a_dependency_as_a_dictionary(rc: ipp.Client) -> None:
    """(6) It is accepted, and keeps what it says."""
    failed = rc.apply(int, ("x",))
    failed.wait(PATIENCE_S)
    dependency = ipp.Dependency(failed, all=False, success=False, failure=True)
    view = rc.load_balanced_view()
    with view.temp_flags(after=dependency.as_dict(), follow=[dependency.as_dict()]):
        assert view.after is not None
        assert view.after.as_dict() == dependency.as_dict()
        assert view.apply_async(pow, 2, 2).get(timeout=PATIENCE_S) == 4


def test_aborted_tasks_among_several_are_raised(rc: ipp.Client, gates: Callable[[], Gate]) -> None:
    """(7)"""
    gate = gates()
    gate.hold(rc[1])
    ar = rc[:].apply_async(pow, 2, 2)
    ar.split()[0].wait(PATIENCE_S)
    ar.split()[1].abort()
    with pytest.raises(ipp.TaskAborted):
        ar.get(timeout=PATIENCE_S)
    assert ar.successful() is False
    values = ar.get(return_exceptions=True)
    assert values[0] == 4
    assert isinstance(values[1], ipp.TaskAborted)


def test_tasks_for_one_engine_run_in_the_order_of_submission(rc: ipp.Client, gate: Gate) -> None:
    """(12) Also tasks that have waited for their engine."""
    rc[0].push({"order": []}, block=True)
    gate.hold(rc[0])
    view = rc.load_balanced_view([0])
    results = [view.apply_async(ipp.Reference("order.append"), number) for number in range(30)]
    gate.open()
    assert view.wait(results, PATIENCE_S)
    assert rc[0]["order"] == list(range(30))
    rc.clear(block=True)


def test_a_failed_submission_leaves_the_history_alone(another: ipp.Client) -> None:
    """(13)"""
    another[0].apply_async(pow, 1, 1).wait(PATIENCE_S)
    view = another[1]
    before = another.history
    for use in (
        lambda: view.apply_async(len, threading.Lock()),
        lambda: view.push({"a": threading.Lock()}),
        lambda: view.scatter("a", [threading.Lock()]),
    ):
        with pytest.raises(TypeError):
            use()
    assert view.history == []
    assert another.history == before


def test_imap_in_a_second_thread_keeps_the_history(another: ipp.Client) -> None:
    """(13) `imap` submits from a thread of its own."""
    view = another.load_balanced_view()
    mine = []
    lazy = view.imap(abs, range(-50, 0), max_outstanding=10)
    for value, expected in zip(lazy, range(50, 0, -1), strict=True):
        assert value == expected
        mine += view.apply_async(pow, 1, 1).msg_ids
    assert len(view.history) == len(set(view.history)) == 100
    assert set(mine) <= set(view.history)
    assert view.wait(timeout=PATIENCE_S)


def test_cancel_of_a_future_reaches_the_task(rc: ipp.Client, gate: Gate, tmp_path: Path) -> None:
    """(14)"""
    gate.hold(rc[0])
    mark = tmp_path / "ran"
    ar = rc[0].apply_async(lambda path: open(path, "w").close(), str(mark))
    assert ar.cancel() is True
    with pytest.raises(ipp.TaskCancelled):
        ar.get(timeout=PATIENCE_S)
    gate.open()
    assert rc[0].apply_sync(pow, 1, 1) == 1  # what was behind it has run
    assert not mark.exists()


def test_sync_imports_without_the_local_one(rc: ipp.Client) -> None:
    """(16)"""
    with rc[:].sync_imports(local=False, quiet=True):
        import tabnanny  # noqa: F401
    assert rc[:]["tabnanny.__name__"] == each(rc, "tabnanny")
    rc.clear(block=True)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (ipp.AsyncResult, ["wait_on_send", "wait_for_send"]),
        (ipp.Client, ["send_apply_message", "view", "direct_view"]),
    ],
)
def test_what_the_documents_promised_is_there(kind: type, names: list[str]) -> None:
    """(17)"""
    for name in names:
        assert inspect.getdoc(getattr(kind, name))
    assert ipp.AbortedTask is ipp.TaskAborted


def test_closures_travel_and_wait_says_how_it_went(rc: ipp.Client, gate: Gate) -> None:
    """(17)"""
    by = 3
    assert rc[0].apply_sync(lambda x: x * by, 2) == 6
    ar = rc[0].apply_async(wait_at, gate.path)
    assert rc.wait(ar, timeout=0.01) is False
    gate.open()
    assert rc.wait(ar) is True


def test_results_of_many_calls_are_let_go(rc: ipp.Client) -> None:
    """(6.3) Nothing keeps results but who holds them."""
    import gc
    import weakref

    references = []
    for number in range(50):
        ar = rc[0].apply_async(pow, 2, number)
        assert (ar.get(timeout=PATIENCE_S), ar.elapsed > 0, ar.serial_time >= 0) == (2**number, True, True)
        references.append(weakref.ref(ar))
    del ar
    gc.collect()
    assert [reference() for reference in references] == [None] * 50


def test_errors_are_of_their_own_classes(rc: ipp.Client) -> None:
    """(6.4)"""

    def fail(number: int) -> Any:
        return {0: lambda: 1 / 0, 1: lambda: {}["k"], 2: [].pop}[number]()

    for number, kind in enumerate((ZeroDivisionError, KeyError, IndexError)):
        with pytest.raises(kind) as caught:
            rc[0].apply_sync(fail, number)
        assert isinstance(caught.value, ipp.RemoteError)
