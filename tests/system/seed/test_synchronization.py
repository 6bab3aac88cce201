"""Synchronization: S63 to S66."""

from __future__ import annotations

import enginery as ipp
from tests.system.seed.held import PATIENCE_S, busy


def test_s63_spin_is_silent_and_never_needed(rc: ipp.Client) -> None:
    ar = rc[0].apply_async(pow, 2, 2)
    rc.spin()
    rc[0].spin()
    assert ar.get(timeout=PATIENCE_S) == 4


def test_s64_wait(rc: ipp.Client) -> None:
    held, let_go = busy(rc)
    try:
        assert rc.wait(timeout=0.01) is False
    finally:
        let_go()
    assert rc.wait() is True
    assert held.done()


def test_s65_wait_takes_whatever_stands_for_tasks(rc: ipp.Client) -> None:
    from concurrent.futures import Future

    a, b = rc[0].apply_async(pow, 2, 2), rc[:].apply_async(pow, 2, 3)
    for jobs in (a.msg_ids[0], a.msg_ids, a, [a, b], {*b.msg_ids}, -1, [0, -1], (a, b.msg_ids)):
        assert rc.wait(jobs, timeout=PATIENCE_S) is True
    done: Future[int] = Future()
    done.set_result(1)
    assert rc.wait(done, timeout=PATIENCE_S) is True


def test_s66_outstanding_is_a_set(rc: ipp.Client) -> None:
    held, let_go = busy(rc)
    try:
        assert isinstance(rc.outstanding, set)
        assert set(held.msg_ids) <= rc.outstanding
    finally:
        let_go()
    held.get(timeout=PATIENCE_S)
    assert rc.outstanding.isdisjoint(held.msg_ids)
