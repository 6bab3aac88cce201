"""What the history is still to be told."""

from __future__ import annotations

import pytest

from enginery.core import recording as module
from enginery.core.recording import Commit, FactBatch, Recording
from enginery.ids import NO_ENGINE, BlobId, ClientId, EngineId, TaskId
from enginery.protocol import history as h

ONE, TWO = TaskId(1), TaskId(2)
BLOB, OTHER = BlobId(b"b" * 16), BlobId(b"o" * 16)
ME, ENGINE = ClientId(1), EngineId(0)


def text(words: str, task: TaskId = ONE) -> h.TaskText:
    return h.TaskText(task, ENGINE, "stdout", words)


def test_facts_are_handed_over_once_with_what_may_be_acknowledged() -> None:
    recording = Recording()
    assert not recording.is_waiting
    assert recording.take() is None
    recording.add(h.TaskDelivered(ONE))
    recording.on_accepted(ME, range(1, 3))
    recording.on_accepted(ME, [7])
    recording.on_results_seen(ENGINE, 5)
    assert len(recording) == 1
    assert recording.take([BLOB]) == FactBatch(
        [h.TaskDelivered(ONE), h.BlobDropped(BLOB)], Commit({ME: [1, 2, 7]}, {ENGINE: 5}), []
    )
    assert recording.take() is None


def test_results_alone_are_acknowledged_too() -> None:
    recording = Recording()
    recording.on_results_seen(ENGINE, 5)
    assert recording.is_waiting
    assert recording.take() == FactBatch([], Commit({}, {ENGINE: 5}), [])


def test_who_is_gone_is_told_nothing() -> None:
    recording = Recording()
    recording.on_accepted(ME, [1])
    recording.on_results_seen(ENGINE, 5)
    recording.on_client_gone(ME)
    recording.on_engine_gone(ENGINE)
    assert recording.take() is None


def test_a_history_that_is_behind_loses_what_tasks_say_and_says_how_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FACT_BYTES", 1000)
    recording = Recording()
    recording.add_saying(text("kept"), 600)
    recording.add(h.TaskDelivered(TWO), 401)
    assert recording.is_behind
    assert repr(recording) == "<Recording: 2 facts, 1001 bytes, behind>"
    for _ in range(2):
        recording.add_saying(text("lost"), 10)
    recording.add_saying(text("lost", TWO), 10)
    batch = recording.take()
    assert batch is not None
    note = "of this task's output could not be written to the history fast enough]\n"
    assert batch.facts[2:] == [
        h.TaskText(ONE, NO_ENGINE, "stderr", f"[2 pieces {note}"),
        h.TaskText(TWO, NO_ENGINE, "stderr", f"[1 piece {note}"),
    ]
    assert not recording.is_behind
    recording.add_saying(text("kept"), 10)
    assert recording.take() == FactBatch([text("kept")], Commit({}, {}), [])


def test_what_is_owed_to_several_is_released_by_the_last() -> None:
    recording = Recording()
    for task in (ONE, ONE, TWO):
        recording.owe(task)
        recording.check()
    recording.release([ONE, TWO])
    assert recording.take() == FactBatch([h.ResultsReleased([TWO])], Commit({}, {}), [])
    recording.release([ONE])
    recording.check()
    assert recording.is_waiting
    assert recording.take() == FactBatch([h.ResultsReleased([ONE])], Commit({}, {}), [])
    assert not recording.owed


def test_buffers_go_beside_the_facts_and_what_is_lost_goes_nowhere() -> None:
    recording = Recording()
    recording.add_buffers(ONE, [(BLOB, [b"ab", b"c"]), (OTHER, [])])
    assert recording.take() == FactBatch(
        [h.BuffersKept(ONE, [BLOB, OTHER], 3)], Commit({}, {}), [(BLOB, [b"ab", b"c"])]
    )


def test_buffers_count_as_much_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FACT_BYTES", 1000)
    recording = Recording()
    recording.add_buffers(ONE, [(BLOB, [b"x" * 500]), (OTHER, [b"x" * 400, b"x" * 100])])
    assert recording.is_behind
    recording.add_saying(text("kept"), 10)
    batch = recording.take()
    assert batch is not None
    assert text("kept") in batch.facts, "large buffers are no reason to lose it"
    assert not recording.is_behind
