"""Clusters, results and progress in a notebook with a real kernel: what is shown, and that it moves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import enginery as ipp
from tests.system.api.held import Gate
from tests.system.notebooks.rig import Notebook, notebook

PATIENCE_S = 20.0
WORK = """
def work(item, path):
    import enginery, fcntl
    print("item", item)
    enginery.report(0.5, f"item {item} waits")
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
    return item
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[ipp.Client]:
    with ipp.Cluster(n=2) as rc:
        yield rc


def start(cluster: ipp.Client) -> str:
    return f"import enginery as ipp\nrc = ipp.Client({cluster.connection_file!r})\n{WORK}"


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory, cluster: ipp.Client) -> Iterator[Notebook]:
    with notebook(tmp_path_factory.mktemp("book")) as book:
        assert book.run(start(cluster)).error == ""
        yield book


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


def test_clients_views_and_results_show_their_state(book: Notebook) -> None:
    for source, text in (
        ("rc", r"<Client of 'cluster-\w+': idle, 2 engines"),
        ("rc[:]", r"<DirectView \[0,1\] of 'cluster-\w+': idle, 2 engines"),
        ("rc.load_balanced_view()", r"<LoadBalancedView of any engine of 'cluster-\w+': idle, 2 engines"),
    ):
        (shown,) = book.run(source).displays
        assert re.match(text, shown["text/plain"])
        assert "<b>" in shown["text/html"]
        assert "script" not in shown["text/html"]
    done = book.run("ar = rc[:].apply_async(abs, -1); ar.get(); ar")
    assert done.value.startswith("<AsyncResult: abs: done, 2/2 tasks, on engines 0, 1, in ")


def test_what_is_shown_moves_while_it_is_waited_for(book: Notebook, gate: Gate) -> None:
    shown = book.run(f"ar = rc[:].map_async(work, range(2), [{gate.path!r}] * 2)\nar")
    assert re.match(r"<AsyncMapResult: work: (waiting|running), 0/2 items", shown.displays[0]["text/plain"])
    waited = book.run("ar.wait(0); ar._session.wait_until(lambda: len(ar.standing().lines) == 2, 20)\nar")
    assert "item 1, engine 1: 50 % item 1 waits" in waited.displays[0]["text/plain"]
    gate.open()
    assert book.run("ar.get()").value == "[0, 1]"
    for earlier in (shown, waited):
        assert re.match(r"<AsyncMapResult: work: done, 2/2 items, ", earlier.displays[0]["text/plain"])
        assert "<small>done</small>" in earlier.displays[0]["text/html"]


def test_bars_need_no_widgets(book: Notebook) -> None:
    shown = book.run("""
ar = rc.load_balanced_view().map_async(abs, range(100))
assert ar.wait_interactive()
import sys
"ipywidgets" in sys.modules
""")
    assert (shown.value, shown.error) == ("False", "")
    (bar,) = shown.displays
    assert bar["text/plain"].startswith("<abs: 100/100 items, ")
    assert 'class=good style="width:100%"' in bar["text/html"]


def test_a_result_that_is_awaited_moves_too(book: Notebook) -> None:
    shown = book.run("ar = rc[:].apply_async(abs, -1)\nar._ipython_display_()\nvalues = await ar\nar.get()")
    assert shown.error == ""
    assert shown.value == "[1, 1]"
    book.run("rc.wait()")
    assert shown.displays[0]["text/plain"].startswith("<AsyncResult: abs: ")


def test_blocking_calls_wherever_they_are_made(book: Notebook) -> None:
    shown = book.run("""
import asyncio, threading, concurrent.futures
found = {}

def block(where):
    view = rc.load_balanced_view()
    found[where] = (
        rc[:].apply_sync(abs, -1), view.map_sync(abs, [-2]), rc[0].push({"a": 3}), rc[0]["a"],
        rc.queue_status()["unassigned"], view.apply_async(abs, -4).get(20), rc.wait(timeout=20),
    )

async def in_a_coroutine():
    block("coroutine")
    await asyncio.to_thread(block, "to_thread")
    return await rc[0].apply_async(abs, -5)

block("cell")
thread = threading.Thread(target=block, args=("thread",)); thread.start(); thread.join(20)
called = concurrent.futures.Future()
def call_back(ar):
    block("callback"); called.set_result(None)
rc[0].apply_async(abs, -1).add_done_callback(call_back)
called.result(20)
five = await in_a_coroutine()
five, sorted(found), len(set(map(str, found.values())))
""")
    assert shown.error == ""
    assert shown.value == "(5, ['callback', 'cell', 'coroutine', 'thread', 'to_thread'], 1)"


def test_after_the_kernel_was_lost_one_call_replays_all(
    tmp_path: Path, cluster: ipp.Client, gate: Gate
) -> None:
    with notebook(tmp_path) as lost:
        lost.run(start(cluster))
        begun = lost.run(
            f"ar = rc[:].map_async(work, range(2), [{gate.path!r}] * 2)\n"
            "ar._session.wait_until(lambda: len(ar.standing().lines) == 2, 20)"
        )
        assert begun.value == "True"
    with notebook(tmp_path) as again:
        shown = again.run(f"{start(cluster)}\nresults = rc.replay(timeout=0.5)\nlen(results)")
        assert (shown.value, shown.error) == ("1", "")
        assert shown.text() == "[stdout:0] item 0\n[stdout:1] item 1\n"
        bar = shown.displays[0]["text/plain"]
        assert "0/2 items" in bar
        assert "engine 0: 50 % item 0 waits" in bar
        gate.open()
        replayed = again.run("results[0].replay(); results[0].get()")
        assert replayed.text() == "[stdout:0] item 0\n[stdout:1] item 1\n"
        assert replayed.value == "[0, 1]"
        assert replayed.displays[0]["text/plain"].startswith("<work: 2/2 items, ")
