"""`rc.status()` and `ar.explain()` of a real cluster."""

from __future__ import annotations

from typing import Any

from tests.system.api.held import PATIENCE_S, Gate


def test_a_busy_engine_and_what_waits_for_it(rc: Any, gate: Gate) -> None:
    running = gate.hold(rc[0])
    waiting = rc[0].apply_async(lambda: 1)
    status = rc.status()
    engine = status.engines[0]
    assert (engine.state, engine.name, engine.in_flight >= 1) == ("busy", "wait_at", True)
    assert engine.resident > 1 << 20
    assert status.hosts[0].cores >= 1
    assert "it runs on engine 0" in str(running.explain())
    assert "is busy with task" in str(waiting.explain())
    gate.open()
    waiting.get(PATIENCE_S)
    (times,) = waiting.explain().ended
    assert min(times) >= 0
    whole_s = (waiting.received - waiting.submitted).total_seconds()
    assert 0 < sum(times) <= whole_s + 1


def test_failures_are_remembered(rc: Any) -> None:
    def fail() -> None:
        raise ValueError("of this test")

    result = rc[0].apply_async(fail)
    result.wait(PATIENCE_S)
    (note,) = [note for note in rc.status().to_dict()["failures"] if note["msg_id"] == result.msg_id]
    assert (note["error"], note["engine"], note["name"]) == ("ValueError: of this test", 0, "fail")
