"""Querying the Hub: S54 to S58."""

from __future__ import annotations

import pytest

import enginery as ipp
from tests.system.seed.held import PATIENCE_S, busy, each


def another(rc: ipp.Client) -> ipp.Client:
    return ipp.Client(rc.connection_file)


def test_s54_other_clients_results_by_id(rc: ipp.Client) -> None:
    with another(rc) as other:
        single = other[0].apply_async(pow, 5, 2)
        several = other[:].apply_async(len, "four")
        single.wait(PATIENCE_S)
        several.wait(PATIENCE_S)
        ids = single.msg_ids, several.msg_ids
    assert rc.get_result(ids[0]).get(timeout=PATIENCE_S) in (25, [25])
    assert rc.get_result(ids[1]).get(timeout=PATIENCE_S) in (4, each(rc, 4))
    held, let_go = busy(rc)
    with another(rc) as other:
        waiting = other.get_result(held.msg_ids)
        assert not waiting.done()
        let_go()
        assert waiting.get(timeout=PATIENCE_S) in ("done", ["done"])


def test_s55_the_state_is_kept_in_a_database(rc: ipp.Client) -> None:
    with rc.label("s55"):
        ar = rc[0].apply_async(pow, 2, 9)
    ar.get(timeout=PATIENCE_S)
    (record,) = rc.db_query({"msg_id": ar.msg_ids[0]})
    assert record["msg_id"] == ar.msg_ids[0]
    assert record["label"] == "s55"
    assert record["completed"] >= record["started"]
    assert ar.msg_ids[0] in rc.hub_history()


def test_s56_queue_status(rc: ipp.Client) -> None:
    held, let_go = busy(rc)
    try:
        waiting = [rc[0].apply_async(pow, 2, n) for n in range(3)]
        rc.wait(None, timeout=0)
        while rc.queue_status(0)["queue"] < 4:
            assert not held.done()
        status = rc.queue_status()
        assert sorted(key for key in status if key != "unassigned") == rc.ids
        assert status["unassigned"] == 0
        verbose = rc.queue_status(0, verbose=True)
        assert set(verbose["queue"]) == {*held.msg_ids, *(i for ar in waiting for i in ar.msg_ids)}
    finally:
        let_go()
    assert [ar.get(timeout=PATIENCE_S) for ar in waiting] == [1, 2, 4]
    assert rc.queue_status(0)["queue"] == 0


def test_s57_result_status(rc: ipp.Client) -> None:
    done = rc[0].apply_async(pow, 2, 3)
    done.get(timeout=PATIENCE_S)
    held, let_go = busy(rc)
    try:
        status = rc.result_status([*done.msg_ids, *held.msg_ids])
        assert status["completed"] == done.msg_ids
        assert status["pending"] == held.msg_ids
    finally:
        let_go()
    held.get(timeout=PATIENCE_S)
    assert rc.result_status(done.msg_ids, status_only=False)[done.msg_ids[0]] == 8


def test_s58_purge_results(rc: ipp.Client) -> None:
    ar = rc[0].apply_async(pow, 2, 8)
    ar.get(timeout=PATIENCE_S)
    rc.purge_results(ar)
    assert rc.db_query({"msg_id": ar.msg_ids[0]}) == []
    assert ar.msg_ids[0] not in rc.results
    with pytest.raises(ValueError, match="name the tasks"):
        rc.purge_results()
