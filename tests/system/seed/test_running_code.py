"""Running code: S22 to S33."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import enginery as ipp
from tests.system.seed.held import PATIENCE_S, busy, each


def test_s22_strings_and_functions_are_executed(rc: ipp.Client, dview: ipp.DirectView) -> None:
    dview.execute("a = 5", block=True)
    assert dview.apply_sync(eval("lambda: a + 1", {"__name__": "__main__"})) == each(rc, 6)


def test_s23_the_client_has_the_low_level_method(rc: ipp.Client) -> None:
    assert callable(rc.send_apply_message)
    assert rc[0].apply(pow, 2, 5).get() == 32


def test_s24_f_args_and_kwargs(rc: ipp.Client) -> None:
    assert rc.apply(int, ["ff"], {"base": 16}, targets=0, block=True) == 255
    assert rc.apply(int, ("11",), {"base": 2}, targets=0, block=True) == 3
    for bad in ({"f": 3}, {"f": int, "args": "11"}, {"f": int, "args": (), "kwargs": [1]}):
        with pytest.raises(TypeError):
            rc.apply(**bad)


def test_s25_block_gives_values_in_the_order_of_targets(rc: ipp.Client) -> None:
    ids = rc.ids
    order = ids[::-1]
    pids = rc[order].apply_sync(os.getpid)
    assert pids == [rc[engine].apply_sync(os.getpid) for engine in order]
    assert isinstance(rc[0].apply(os.getpid), ipp.AsyncResult)
    assert isinstance(rc[[0]].apply_sync(os.getpid), list)
    view = rc.direct_view(0, block=True)
    assert isinstance(view.apply(os.getpid), int)


def test_s26_track_is_off_by_default(rc: ipp.Client) -> None:
    assert rc.direct_view(0, track=True).track is True
    assert rc.direct_view(0).track is False


def test_s27_targets_of_apply(rc: ipp.Client) -> None:
    pids = {engine: rc[engine].apply_sync(os.getpid) for engine in rc.ids}
    assert rc.apply(os.getpid, targets=rc.ids[-1], block=True) == pids[rc.ids[-1]]
    assert rc.apply(os.getpid, targets=rc.ids, block=True) == list(pids.values())
    assert rc.apply(os.getpid, targets="all", block=True) == list(pids.values())
    assert rc.apply(os.getpid, targets=None, block=True) in pids.values()


def test_s28_balanced_with_targets_picks_one(rc: ipp.Client) -> None:
    last = rc.ids[-1]
    assert rc.apply(os.getpid, targets=[last], balanced=True, block=True) == rc[last].apply_sync(os.getpid)


def test_s29_after_waits_for_other_tasks(rc: ipp.Client) -> None:
    first = rc.apply(time.sleep, (0.05,))
    second = rc.apply(time.time, after=first)
    second.get(timeout=PATIENCE_S)
    assert first.done()
    assert second.metadata.started >= first.metadata.completed
    third = rc.apply(time.time, after=[*first.msg_ids, *second.msg_ids])
    assert third.get(timeout=PATIENCE_S)
    with pytest.raises(ValueError, match="after"):
        rc.apply(time.time, targets=0, balanced=False, after=first)


def test_s30_follow_runs_where_the_other_ran(rc: ipp.Client) -> None:
    first = rc.apply(os.getpid)
    followers = [rc.apply(os.getpid, follow=first) for _ in range(5)]
    assert {ar.get(timeout=PATIENCE_S) for ar in followers} == {first.get(timeout=PATIENCE_S)}


def test_s31_the_timeout_of_dependencies(rc: ipp.Client) -> None:
    held, let_go = busy(rc)
    try:
        late = rc.apply(os.getpid, after=held, timeout=0.05)
        with pytest.raises(ipp.DependencyTimeout) as caught:
            late.get(timeout=PATIENCE_S)
    finally:
        let_go()
    held.get(timeout=PATIENCE_S)
    assert isinstance(caught.value, ipp.TaskTimeout)
    assert caught.value.ename == "TaskTimeout"


def test_s32_execute_sends_a_string(rc: ipp.Client, dview: ipp.DirectView) -> None:
    ar = dview.execute("import os; where = os.getpid()", block=True)
    assert isinstance(ar, ipp.AsyncResult)
    assert dview["where"] == dview.apply_sync(os.getpid)
    with pytest.raises(ipp.RemoteError, match="SyntaxError"):
        rc[0].execute("a = ", block=True)


def test_s33_run_executes_a_local_file(rc: ipp.Client, dview: ipp.DirectView, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("def double(x):\n    return 2 * x\nfound = double(21)")
    dview.run(str(script), block=True)
    assert dview["found"] == each(rc, 42)
    rc.broadcast_view().run(str(script), block=True)
