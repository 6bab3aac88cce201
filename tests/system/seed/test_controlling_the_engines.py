"""Controlling the engines: S59 to S62."""

from __future__ import annotations

import os

import pytest

import enginery as ipp
from tests.leftovers import Ground
from tests.system.seed.held import PATIENCE_S, busy


def test_s59_control_bypasses_the_queue(rc: ipp.Client) -> None:
    held, let_go = busy(rc)
    try:
        rc[0].push({"a": 1})
        rc.clear(0, block=True)
        waiting = rc[0].apply_async(os.getpid)
        waiting.abort()
        with pytest.raises(ipp.TaskAborted):
            waiting.get(timeout=PATIENCE_S)
        assert not held.done()
    finally:
        let_go()
    held.get(timeout=PATIENCE_S)


def test_s60_abort(rc: ipp.Client) -> None:
    held, let_go = busy(rc)
    try:
        tasks = [rc[0].apply_async(os.getpid) for _ in range(3)]
        rc.abort([*tasks[0].msg_ids, *tasks[1].msg_ids])
        rc.abort(tasks[2])
        for ar in tasks:
            with pytest.raises(ipp.AbortedTask):
                ar.get(timeout=PATIENCE_S)
        assert not held.done()
    finally:
        let_go()
    assert held.get(timeout=PATIENCE_S) == "done"


def test_s61_clear_leaves_no_names(rc: ipp.Client) -> None:
    rc[:].push({"a": 1, "b": 2}, block=True)
    rc.clear(block=True)
    names = rc[:]["[name for name in globals() if not name.startswith('__')]"]
    assert all(set(found) <= {"In", "Out", "get_ipython", "exit", "quit", "open"} for found in names)


def test_s62_shutdown_ends_engines_and_controller(this_run: Ground) -> None:
    with this_run.as_it_was("this cluster"):
        cluster = ipp.Cluster(n=2)
        client = cluster.start_and_connect_sync()
        client.shutdown(1, block=True)
        assert client.ids == [0]
        client.shutdown(hub=True, block=True)
        assert cluster.wait_sync(PATIENCE_S)
        cluster.stop_cluster_sync()
