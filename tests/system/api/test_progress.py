"""Progress of tasks that run, reports, and who comes back after he was lost, with real processes."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import enginery as ipp
from enginery.protocol.messages import Report
from tests.system.api.held import PATIENCE_S, Gate
from tests.system.shared import Program


def item_at_gate(item: int, path: str) -> int:
    """Items 1 and 4 wait at the gate; item 3 of the others fails."""
    import fcntl

    import enginery

    print("item", item)
    if item in (2, 5):
        enginery.report(0.5, f"item {item} waits\n")
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH)
    if item == 0:
        raise ValueError("zero")
    return item


def until(rc: ipp.Client, condition: Callable[[], object]) -> None:
    assert rc.session.wait_until(lambda: bool(condition()), PATIENCE_S)


# ---------------------------------------------------------------- the client's own tasks


def test_items_of_running_chunks_are_counted(rc: ipp.Client, gate: Gate) -> None:
    ar = rc[:].map_async(item_at_gate, range(6), [gate.path] * 6)
    until(rc, lambda: ar.progress == 4 and len(ar.standing().lines) == 2)
    standing = ar.standing()
    assert (standing.done, standing.total, standing.failed, standing.unit) == (4, 6, 1, "items")
    assert [(line.where, line.fraction, line.text) for line in standing.lines] == [
        ("items 0–2, engine 0", 0.5, "item 2 waits"),
        ("items 3–5, engine 1", 0.5, "item 5 waits"),
    ]
    assert ar.report == [Report(0.5, "item 2 waits"), Report(0.5, "item 5 waits")]
    assert re.fullmatch(r"<AsyncMapResult: item_at_gate: 4 of 6 items, 1 failed>", repr(ar))
    assert "4/6 items, 1 failed, 2 running on engines 0, 1" in ar._repr_mimebundle_()[0]["text/plain"]
    gate.open()
    with pytest.raises(ValueError, match="zero"):
        ar.get(PATIENCE_S)
    standing = ar.standing()
    assert (standing.done, standing.failed, standing.lines) == (6, 1, ())
    assert [metadata.report for metadata in ar.metadata] == ar.report


def test_cancelled_items_are_counted_apart(rc: ipp.Client, gate: Gate) -> None:
    ar = rc[:].map_async(item_at_gate, range(6), [gate.path] * 6)
    until(rc, lambda: len(ar.standing().lines) == 2)
    ar.cancel()
    assert ar.wait(PATIENCE_S)
    standing = ar.standing()
    assert (standing.done, standing.failed, standing.cancelled) == (6, 1, 2)
    assert "6/6 items, 1 failed, 2 cancelled, " in ar._repr_mimebundle_()[0]["text/plain"]


def test_what_is_tried_again_is_counted_once(rc: ipp.Client, gate: Gate) -> None:
    def fail_first(item: int, path: str) -> int:
        import __main__

        item_at_gate(item, path)
        if item == 2 and not hasattr(__main__, "has_failed"):
            __main__.has_failed = True
            raise OSError("once")
        return item

    view = rc.load_balanced_view(targets=0, retries=1)
    ar = view.map_async(fail_first, range(1, 4), [gate.path] * 3, chunksize=3)
    until(rc, lambda: ar.progress == 1)
    gate.open()
    assert ar.get(PATIENCE_S) == [1, 2, 3]
    standing = ar.standing()
    assert (standing.done, standing.failed) == (3, 0)
    rc.clear(block=True)


def test_a_report_is_kept_for_every_client(rc: ipp.Client, another: ipp.Client) -> None:
    def quick() -> None:
        ipp.report(0.1)
        ipp.report(1.0, "done")

    def silent() -> None:
        pass

    ar = rc[0].apply_async(quick)
    ar.get(PATIENCE_S)
    assert ar.report == ar.metadata.report == Report(1.0, "done")
    again = another.get_result(ar.msg_ids[0])
    again.get(PATIENCE_S)
    assert again.report == Report(1.0, "done")
    assert rc[0].apply_async(silent).report is None


def test_a_thread_of_a_task_reports_for_it(rc: ipp.Client, gate: Gate) -> None:
    def in_thread(path: str) -> None:
        thread = threading.Thread(target=ipp.report, args=(0.25, "from a thread"))
        thread.start()
        thread.join()
        item_at_gate(1, path)
        with open(path) as file:
            __import__("fcntl").flock(file, __import__("fcntl").LOCK_SH)

    ar = rc[0].apply_async(in_thread, gate.path)
    until(rc, lambda: ar.report == Report(0.25, "from a thread"))
    gate.open()
    ar.get(PATIENCE_S)
    ipp.report(0.5, "here no task runs, and nothing happens")


# ---------------------------------------------------------------- who was lost


OWNER = """
from tests.system.api.test_progress import item_at_gate
rc = ipp.Client(sys.argv[1])
with rc.label("night run"):
    ar = rc[:].map_async(item_at_gate, range(6), [sys.argv[2]] * 6)
    cell = rc[0].execute("print('cell'); display({'text/plain': 'figure'}, raw=True); 6 * 7", silent=False)
assert ar._session.wait_until(lambda: len(ar.standing().lines) == 2, 20)
print("running", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def owner(rc: ipp.Client, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    """A client that has begun a map and a cell, and is told to end only by a signal."""
    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(root / "src")]))
    program = Program(OWNER, rc.connection_file, gate.path)
    assert program.line() == "running"
    yield program
    program.kill()


SHOWN = """[stdout:0]
item 0
item 1
item 2
[stdout:1]
item 3
item 4
item 5
"""


@pytest.mark.parametrize("is_over", [False, True])
def test_a_lost_client_is_replayed_by_another_one(
    rc: ipp.Client,
    owner: Program,
    gate: Gate,
    capsys: pytest.CaptureFixture[str],
    is_over: bool,
) -> None:
    os.kill(owner.process.pid, signal.SIGKILL)
    owner.process.wait(PATIENCE_S)
    with ipp.Client(rc.connection_file) as fresh:
        if is_over:
            gate.open()
            for found in fresh.get_label("night run"):
                assert found.wait(PATIENCE_S)
        replayed: list[Any] = []
        thread = threading.Thread(target=lambda: replayed.extend(fresh.replay(timeout=PATIENCE_S)))
        thread.start()
        if not is_over:
            (running, _) = rc.get_label("night run")
            until(rc, lambda: (running.standing().done, running.standing().failed) == (4, 1))
            gate.open()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        out, err = capsys.readouterr()
        if not is_over:
            ar, cell = replayed
            assert (len(ar), ar.standing().failed) == (6, 1)
            assert ar.get(return_exceptions=True)[1:] == [1, 2, 3, 4, 5]
            lines = out.splitlines()
            shown = [line for line in lines if line.startswith("item ")]
            assert sorted(shown) == [f"item {number}" for number in range(6)], "nothing twice"
            assert [line for line in shown if line > "item 2"] == [f"item {n}" for n in (3, 4, 5)]
            assert re.search(r"6/6 items \[[\d:]+, 1 failed\]", err)
        else:
            (cell,) = replayed
            assert fresh.replay("night run")[0].done()
            again, _ = capsys.readouterr()
            assert again.startswith(SHOWN)
        assert re.search(r"cell\nfigure\nOut\[0:\d+\]: 42\n$", out), out
        assert cell.get().data == {"text/plain": "42"}
