"""Text that comes after the result of its task."""

from __future__ import annotations

import pytest

from enginery.core import late_texts
from enginery.core.late_texts import LATE_S, LateTexts
from enginery.ids import EngineId, TaskId
from enginery.protocol.history import TaskText
from enginery.protocol.messages import Status, TaskResult

ONE, TWO, THREE = TaskId(1), TaskId(2), TaskId(3)


def speak(late: LateTexts, task: TaskId, *places: tuple[int, int], has_ended: bool = False) -> list[bool]:
    told = [late.on_said(task, place, has_ended=has_ended) for place in places]
    late.check()
    return told


def test_whose_text_has_come_has_nothing_late() -> None:
    late = LateTexts()
    assert speak(late, ONE, (1, 1), (1, 2)) == [False, False]
    late.on_ended(ONE, (1, 2))
    late.on_ended(TWO, (1, 0))
    assert ONE not in late
    assert TWO not in late
    assert late.next_deadline() is None
    assert repr(late) == "<LateTexts: 0 tasks speak, 0 have ended before their text>"


def test_the_last_of_it_is_noticed() -> None:
    late = LateTexts()
    speak(late, ONE, (1, 5), (2, 1))
    late.on_ended(ONE, (2, 3))
    assert ONE in late
    assert speak(late, ONE, (1, 6), (2, 2), (2, 3), (2, 3), has_ended=True) == [False, False, True, False]
    assert ONE not in late


def test_it_is_waited_for_for_a_while() -> None:
    late = LateTexts()
    late.on_ended(ONE, (1, 1))
    assert late.next_deadline() is None
    late.on_settled(now=10.0)
    late.on_ended(TWO, (1, 1))
    late.on_settled(now=11.0)
    assert late.next_deadline() == 10.0 + LATE_S
    assert late.take_overdue(now=9.0 + LATE_S) == []
    assert late.take_overdue(now=10.5 + LATE_S) == [ONE]
    assert late.take_overdue(now=99.0) == [TWO]
    assert late.next_deadline() is None


def test_what_is_waited_for_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_texts, "LATE_KEPT", 2)
    late = LateTexts()
    for task in (ONE, TWO, THREE):
        late.on_ended(task, (1, 1))
    late.on_settled(now=1.0)
    assert late.take_overdue(now=1.0) == [ONE]


# ---------------------------------------------------------------- the last texts


def ended(task: TaskId, *, stdout: str = "out", engine: int = 0) -> TaskResult:
    return TaskResult(task, Status.OK, engine=EngineId(engine), stdout=stdout, stderr="err", outputs=2)


def test_last_texts_wait_for_those_before_them() -> None:
    late = LateTexts()
    late.on_ended(TaskId(1), (1, 2), EngineId(0))
    result = ended(TaskId(1))
    recorded = late.hold_last(result)
    late.check()
    assert (recorded.stdout, recorded.stderr, recorded.outputs) == ("", "", 2)
    assert (result.stdout, result.stderr) == ("out", "err"), "its client gets all of it"
    assert late.on_said(TaskId(1), (1, 2), has_ended=True)
    assert late.take_last(TaskId(1)) == [
        TaskText(TaskId(1), EngineId(0), "stdout", "out"),
        TaskText(TaskId(1), EngineId(0), "stderr", "err"),
    ]
    assert late.take_last(TaskId(1)) == []
    late.check()


def test_last_texts_are_kept_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_texts, "LAST_KEPT_BYTES", 10)
    late = LateTexts()
    for number in (1, 2):
        late.on_ended(TaskId(number), (1, 2), EngineId(0))
    assert late.hold_last(ended(TaskId(1))).stdout == ""
    too_much = ended(TaskId(2))
    assert late.hold_last(too_much) is too_much
    silent = TaskResult(TaskId(2), Status.OK)
    assert late.hold_last(silent) is silent


def test_of_an_engine_that_is_gone_nothing_is_waited_for() -> None:
    late = LateTexts()
    for number in (1, 2, 3):
        late.on_ended(TaskId(number), (1, 1), EngineId(number % 2))
    assert late.take_of_engine(EngineId(1)) == [1, 3]
    assert TaskId(1) not in late
    assert TaskId(2) in late
