"""Engines that die are started again under their ids, and set up before they serve: with real processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

import enginery as ipp
from enginery.core.healing import AGAIN
from tests.system.shared import until


@pytest.fixture(scope="module")
def rc() -> Iterator[ipp.Client]:
    with ipp.Cluster(n=2, restart=True) as rc:
        yield rc


@pytest.fixture(autouse=True)
def clean(rc: ipp.Client) -> Iterator[None]:
    yield
    rc.forget_setup()
    rc.wait_for_engines(2, timeout=20)
    rc.clear(block=True)


def die() -> None:
    print("the last words", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def another(rc: ipp.Client, engine: int, before: str) -> None:
    """Wait for the next life of an engine."""
    until(lambda: engine in rc.ids and rc.session.engines()[engine].key != before)  # type: ignore[index]


def key(rc: ipp.Client, engine: int) -> str:
    return str(rc.session.engines()[engine].key)  # type: ignore[index]


def test_an_engine_comes_back_with_its_id_and_what_was_kept(rc: ipp.Client) -> None:
    view = rc[:]
    view.push({"a": 7, "lost": 1}, block=True)
    view.push({"a": 8}, keep=True, block=True)
    view.execute("b = a + 1", keep=True, block=True)
    rc[1].push({"own": 1}, keep=True, block=True)

    def prepare() -> None:
        global c
        c = b * 2  # type: ignore[name-defined] # noqa: F821

    assert rc.on_join(prepare).get(timeout=20) == [None, None]
    assert [(step.what, step.engines) for step in rc.setup()] == [
        ("push a", "all"),
        ("execute 'b = a + 1'", "all"),
        ("push own", [1]),
        ("on_join prepare", "all"),
    ]
    before = key(rc, 0)
    with pytest.raises(ipp.error.EngineError) as caught:
        rc[0].apply_async(die).get(timeout=20)
    text = str(caught.value)
    assert f"killed by SIGKILL (signal 9); {AGAIN}, on host " in text
    assert "the last words" in text
    another(rc, 0, before)
    assert rc[0].pull(["a", "b", "c"], block=True) == [8, 9, 18]
    with pytest.raises(NameError):
        rc[0].pull("lost", block=True)
    with pytest.raises(NameError):
        rc[0].pull("own", block=True)


def test_balanced_tasks_are_made_again_and_find_the_set_up(rc: ipp.Client) -> None:
    rc[:].execute("import os\nmine = os.getpid()", keep=True, block=True)
    victim = rc[0].apply_sync(os.getpid)
    results = [
        rc.load_balanced_view(retries=3).apply_async(lambda: mine == __import__("os").getpid())  # type: ignore[name-defined] # noqa: F821
        for _ in range(200)
    ]
    os.kill(victim, signal.SIGKILL)
    assert [result.get(timeout=30) for result in results] == [True] * 200


def test_deaths_are_in_the_status(rc: ipp.Client) -> None:
    before, known = key(rc, 1), len(rc.status().deaths)
    lost = rc[1].apply_async(die)
    with pytest.raises(ipp.error.EngineError):
        lost.get(timeout=20)
    another(rc, 1, before)
    status = rc.status()
    (note,) = status.deaths[known:]
    assert (note.engine, note.cause) == (1, f"killed by SIGKILL (signal 9); {AGAIN}")
    assert status.to_dict()["deaths"][-1]["msg_ids"] == lost.msg_ids
    assert "died last:" in str(status)
    assert "died: " in status._repr_html_()


def test_a_crash_loop_ends_with_a_sentence_and_disturbs_nobody(rc: ipp.Client) -> None:
    rc[1].push({"first": True}, block=True)
    rc[1].execute("if 'first' not in globals(): __import__('os')._exit(3)", keep=True, block=True)
    os.kill(rc[1].apply_sync(os.getpid), signal.SIGKILL)
    until(lambda: any("in a row" in note.cause for note in rc.status().deaths))
    assert rc.ids == [0]
    assert rc[0].apply_sync(abs, -1) == 1
    rc.forget_setup()
    cluster = rc.cluster
    assert cluster is not None
    cluster.start_engines_sync(1)
