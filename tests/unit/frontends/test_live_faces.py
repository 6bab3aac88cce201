"""What clients, views and results show of themselves, in a shell of IPython's and while it changes."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from enginery.client import glance
from enginery.client.results.async_result import AsyncResult
from enginery.client.snapshots import Standing
from enginery.frontends.faces import live
from enginery.frontends.faces.screens import NotebookScreen, TerminalScreen, open_screen
from enginery.ids import EngineId, EngineKey, TaskId
from enginery.protocol.messages import (
    EngineStatus,
    Progress,
    Report,
    Status,
    StatusAnswer,
    TaskCounts,
    TaskResult,
)
from tests.unit.client.fake_session import FakeSession
from tests.unit.frontends.site import KernelPublisher, Site


def double(x: int) -> int:
    return 2 * x


def status(*running: int, ready: int = 0, done: int = 0) -> StatusAnswer:
    """What the controller says: which task each engine runs, 0 for none."""
    engines = [
        EngineStatus(
            EngineId(n),
            EngineKey(f"key{n}"),
            "host",
            100 + n,
            "busy" if task else "idle",
            0,
            bool(task),
            5,
            TaskId(task),
        )
        for n, task in enumerate(running)
    ]
    busy = sum(map(bool, running))
    counts = TaskCounts(ready + busy + done, 0, ready, 0, busy, done, 0, 0, 0)
    return StatusAnswer(0, "test", 60.0, 1, len(engines), counts, engines)


def shown(thing: Any) -> str:
    """As in a terminal, but for times."""
    return timeless(str(thing._repr_mimebundle_()[0]["text/plain"]))


def timeless(text: str) -> str:
    """A text without how long something has taken: it depends on the machine."""
    return re.sub(r"\b\d+(\.\d)? s\b", "T s", text)


def places(notebook: KernelPublisher) -> list[list[str]]:
    return [[timeless(text) for text in place] for place in notebook.texts()]


def say(
    session: FakeSession, number: int, *, done: int = 0, items: int = 0, report: Report | None = None
) -> None:
    entry = session.waiting[number]
    entry.promise.on_said(Progress(entry.task, EngineId(number), 1, items, done, 0, 0, report))
    entry.promise.on_heard()


# ---------------------------------------------------------------- what is known


def test_a_client_shows_engines_and_tasks(site: Site) -> None:
    site.session.hub.status = status(7, 0, 0, ready=2, done=3)
    assert shown(site.rc) == (
        "<Client: running, 3 engines, 1 running, 2 queued, 3 done, 1 client, up 1 min>\n"
        "  engine 0 on host, busy, 5 done\n"
        "  engine 1 on host, idle, 5 done\n"
        "  engine 2 on host, idle, 5 done"
    )
    assert "<b>Client</b>" in site.rc._repr_html_()


def test_a_view_shows_its_own_engines_and_flags(site: Site) -> None:
    site.session.hub.status = status(0, 7, 0)
    view = site.rc.direct_view([1, 2], block=True, label="night")
    assert shown(view) == (
        "<DirectView [1,2]: running, 2 engines, 1 running, block=True, label='night'>\n"
        "  engine 1 on host, busy, 5 done\n"
        "  engine 2 on host, idle, 5 done"
    )
    assert shown(site.rc[0]).splitlines()[0] == "<DirectView 0: idle, 1 engine>"
    assert shown(site.rc.load_balanced_view(retries=2)).splitlines()[0] == (
        "<LoadBalancedView of any engine: running, 3 engines, 1 running, retries=2>"
    )


def test_who_gets_no_answer_says_so_in_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glance, "ASK_S", 0.0)
    site.session.is_silent = site.session.is_held = True
    assert shown(site.rc).splitlines()[-1] == "  the controller has not answered within T s"
    assert shown(site.rc).splitlines()[0] == "<Client: 3 engines>"
    ar = site.rc[:].apply_async(double, 1)
    assert "0/3 tasks" in shown(ar)


def test_what_is_closed_says_so(site: Site) -> None:
    site.session.is_held = True
    ar, view = site.rc[0].apply_async(double, 1), site.rc[0]
    site.rc.close()
    assert shown(site.rc) == "<Client: closed>\n  this client is closed"
    assert shown(view) == "<DirectView 0: closed>\n  this client is closed"
    assert shown(ar).startswith("<AsyncResult: double: failed, 1/1 task, 1 failed, ")
    assert shown(ar).splitlines()[1].startswith("  first error: Verdict: ")
    assert [repr(thing) for thing in (site.rc, view)] == ["<Client: closed>", "<DirectView 0>"]


def test_a_forked_child_says_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.rc, "_pid", 1)
    head, note = shown(site.rc).splitlines()
    assert head == "<Client: closed>"
    assert "process 1" in note or "forked" in note


def test_results(site: Site) -> None:
    site.session.is_held = True
    ar = site.rc.load_balanced_view().map_async(double, range(4), chunksize=2)
    assert shown(ar).startswith("<AsyncMapResult: double: waiting, 0/4 items, none running yet, T s>")
    site.session.hub.status = status(int(ar.task_ids[0]), 0, 0)
    say(site.session, 0, done=1, items=2, report=Report(0.25, "half"))
    assert ar.progress == 1
    assert shown(ar).splitlines()[1] == "  items 0–1, engine 0: 25 % half"
    assert shown(ar).startswith("<AsyncMapResult: double: running, 1/4 items, 1 running on engine 0, ")
    site.session.verdicts[1] = TaskResult(
        TaskId(0), Status.ENGINE_DIED, engine=EngineId(0), detail="killed by SIGKILL", completed=3.0
    )
    site.session.run_all()
    text = shown(ar)
    assert text.startswith("<AsyncMapResult: double: failed, 4/4 items, 2 failed, on engine 0, in T s>\n")
    assert text.splitlines()[1].startswith("  first error: EngineError: engine 0 died: killed by SIGKILL; ")
    assert repr(ar) == "<AsyncMapResult: double: 4 of 4 items, 2 failed>"


# ---------------------------------------------------------------- in a notebook


@pytest.fixture
def notebook(site: Site, monkeypatch: pytest.MonkeyPatch) -> KernelPublisher:
    monkeypatch.setattr(live, "MOVE_S", 0.0)
    monkeypatch.setattr(live, "SHARE", 0)
    site.session.is_held = True
    publisher = site.be_a_kernel()
    site.shell.user_ns.update(rc=site.rc, double=double)
    return publisher


def test_a_result_that_is_displayed_moves_until_its_end(site: Site, notebook: KernelPublisher) -> None:
    site.run("ar = rc[:].apply_async(double, 1)\nar")
    site.run("ar")
    ar: AsyncResult = site.shell.user_ns["ar"]
    (place,) = places(notebook)
    assert place == ["<AsyncResult: double: waiting, 0/3 tasks, none running yet, T s>"] * 2
    say(site.session, 1, report=Report(0.5, "half"))
    site.session.tickers.run(1.0)
    assert places(notebook)[0][-1].splitlines()[1] == "  engine 1: 50 % half"
    count = len(places(notebook)[0])
    site.session.run_all()
    site.session.tickers.run(2.0)
    assert places(notebook)[0][-1].startswith("<AsyncResult: double: done, 3/3 tasks, on engines 0-2, in ")
    site.session.tickers.run(3.0)
    assert len(places(notebook)[0]) == count + 1, "nothing moves any more"
    out = site.run("ar")
    assert out.startswith("Out[3]: <AsyncResult: double: done, ")
    assert ar.get() == [2, 2, 2]


def test_a_client_that_is_displayed_moves_while_something_goes_on(
    site: Site, notebook: KernelPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glance, "ASK_AGAIN_S", 0.0)
    site.run("rc")
    assert places(notebook)[0][-1].startswith("<Client: idle, 3 engines, 1 client, up T s>\n")
    assert not site.rc._is_moving()
    site.run("ar = rc[0].apply_async(double, 1)")
    site.session.hub.status = status(1, 0, 0)
    for second in (1.0, 2.0):  # asks, and then shows what was answered
        site.session.tickers.run(second)
    assert places(notebook)[0][-1].splitlines()[0] == (
        "<Client: running, 3 engines, 1 running, 1 of this client unfinished, 1 client, up 1 min>"
    )
    site.rc.close()
    site.session.tickers.run(3.0)
    assert places(notebook)[0][-1] == "<Client: closed>\n  this client is closed"


def test_what_is_displayed_is_not_kept_alive(site: Site, notebook: KernelPublisher) -> None:
    site.run("display(rc[0].apply_async(double, 1))")
    site.session.run_all()
    site.session.tickers.run(1.0)
    assert repr(site.session.tickers) in ("<Tickers: 0>", "<Tickers: 1>")
    site.session.tickers.run(2.0)


# ---------------------------------------------------------------- screens


def test_a_bar_in_a_notebook_is_one_place(site: Site, notebook: KernelPublisher) -> None:
    screen = open_screen()
    assert isinstance(screen, NotebookScreen)
    for done in (0, 1, 1, 2):
        screen.draw(Standing(done, 2, name="f", elapsed_s=1.0))
    screen.close()
    (place,) = places(notebook)
    assert place == [
        "<f: running, 0/2 tasks, T s>",
        "<f: running, 1/2 tasks, T s, about T s left>",
        "<f: 2/2 tasks, T s>",
    ]
    assert "ipywidgets" not in sys.modules


def test_which_screen(site: Site) -> None:
    assert isinstance(open_screen(), TerminalScreen), "this shell is neither"
    assert isinstance(open_screen(True), NotebookScreen)
    assert isinstance(open_screen(False), TerminalScreen)


def test_a_map_with_a_bar_in_a_notebook(site: Site, notebook: KernelPublisher) -> None:
    ar = site.rc[:].map_async(double, range(9), progress=True)
    say(site.session, 0, done=2, items=3)
    site.session.tickers.run(1.0)
    site.session.run_all()
    assert ar.get() == [2 * item for item in range(9)]
    (place,) = places(notebook)
    assert place[0].startswith("<double: running, 0/9 items, T s")
    assert place[-1].startswith("<double: 9/9 items, T s")


def test_waiting_in_a_notebook(site: Site, notebook: KernelPublisher) -> None:
    ar = site.rc[:].apply_async(double, 1)
    site.session.later.extend(
        [lambda: say(site.session, 2, report=Report(0.5, "half")), site.session.run_all]
    )
    assert ar.wait_interactive(interval=0.1) is True
    (place,) = places(notebook)
    assert place[-1] == "<double: 3/3 tasks, T s>"
