"""Results: S51 to S53."""

from __future__ import annotations

import os

import enginery as ipp
from tests.system.seed.held import PATIENCE_S


def test_s51_async_results(rc: ipp.Client) -> None:
    from concurrent.futures import Future

    ar = rc[0].apply_async(pow, 2, 4)
    assert isinstance(ar, Future)
    assert (ar.get(), ar.result(), ar.r, ar.successful(), ar.ready()) == (16, 16, 16, True, True)


def test_s52_get_result(rc: ipp.Client, dview: ipp.DirectView) -> None:
    ar = dview.apply_async(os.getpid)
    ar.wait(PATIENCE_S)
    assert rc.get_result(ar.msg_ids).get(timeout=PATIENCE_S) == ar.get()
    assert rc.get_result(ar).get(timeout=PATIENCE_S) == ar.get()
    one = rc[0].apply_async(pow, 3, 3)
    assert one.get() == 27
    assert rc.get_result().get(timeout=PATIENCE_S) == 27
    assert rc.get_result(-1).get(timeout=PATIENCE_S) == 27


def test_s53_results_and_metadata(rc: ipp.Client) -> None:
    ar = rc[0].apply_async(pow, 2, 6)
    ar.get(timeout=PATIENCE_S)
    assert ar.metadata.engine_id == 0
    assert ar["status"] == "ok"
    assert ar.metadata["started"] <= ar.completed
    assert ar.metadata.msg_id == ar.msg_ids[0]
    kept = rc[0].apply_async(pow, 2, 7)
    kept.wait(PATIENCE_S)
    assert rc.results[kept.msg_ids[0]] == 128
    assert rc.metadata[kept.msg_ids[0]]["engine_id"] == 0
