"""Promises for tasks by their ids: who is asked about, who is told, what survives a hello."""

from __future__ import annotations

import pytest

from enginery.core import following as module
from enginery.core.following import Following
from enginery.ids import TaskId
from enginery.protocol.messages import Status, TaskResult

A, B, C = TaskId(1), TaskId(2), TaskId(3)


def nothing(task: TaskId) -> bool:
    return False


def ended(*tasks: TaskId) -> list[TaskResult]:
    return [TaskResult(task, Status.OK) for task in tasks]


def test_what_is_outstanding_here_needs_no_question() -> None:
    following: Following[str] = Following()
    assert list(following.on_followed({A: "a", B: "b"}, lambda task: task == A)) == [[B]]
    assert following.on_ended(ended(A)) == [("a", TaskResult(A, Status.OK))]


def test_everybody_is_told_and_until_then_nothing_is_forgotten() -> None:
    following: Following[str] = Following()
    following.on_followed({A: "a", B: "b"}, nothing)
    following.on_followed({A: "again"}, nothing)
    for _ in range(2):  # an interrupt came in between
        told = following.on_ended(ended(A, C))
        assert [promise for promise, _ in told] == ["a", "again"]
    following.on_told(told)
    following.check()
    assert following.on_ended(ended(A)) == []
    assert following.promises(B) == ["b"]
    assert len(following) == 1


def test_who_follows_while_the_others_are_told_stays() -> None:
    following: Following[str] = Following()
    following.on_followed({A: "a"}, nothing)
    told = following.on_ended(ended(A))
    assert list(following.on_followed({A: "late"}, nothing)) == [[A]]
    following.on_told(told)
    assert following.promises(A) == ["late"]


def test_after_a_hello_all_that_is_not_told_is_asked_about() -> None:
    following: Following[str] = Following()
    following.on_followed({A: "a", B: "b", C: "c"}, nothing)
    following.on_asked(7, [A, B, C])
    following.on_told(following.on_ended(ended(B)))
    assert following.is_asked(7)
    assert list(following.on_welcome(lambda task: task == C)) == [[A]]
    assert not following.is_asked(7)


def test_a_question_that_is_refused_ends_what_it_asked_about() -> None:
    following: Following[str] = Following()
    following.on_followed({A: "a", B: "b"}, nothing)
    following.on_asked(1, [A, B])
    following.on_told(following.on_ended(ended(A)))
    assert following.on_refused(1, "the history cannot be read") == [
        TaskResult(B, Status.REFUSED, detail="the history cannot be read")
    ]
    assert not following.is_asked(1)
    assert following.on_refused(1, "again") == []


def test_a_question_is_open_until_its_last_page() -> None:
    following: Following[str] = Following()
    following.on_followed({A: "a"}, nothing)
    following.on_asked(4, [A])
    assert following.is_asked(4)
    following.on_answered(4)
    assert not following.is_asked(4)
    assert following.promises(A) == ["a"], "it was pending: its end is delivered like an own task's"


def test_questions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TASKS_PER_QUESTION", 2)
    following: Following[str] = Following()
    assert list(following.on_followed({A: "a", B: "b", C: "c"}, nothing)) == [[A, B], [C]]
    assert list(following.on_welcome(nothing)) == [[A, B], [C]]


def test_the_end_of_the_session_ends_everything() -> None:
    following: Following[str] = Following()
    following.on_followed({A: "a"}, nothing)
    following.on_asked(1, [A])
    (result,) = following.on_closed("this client is closed")
    assert result == TaskResult(A, Status.REFUSED, detail="this client is closed")
    assert repr(following) == "<Following 1 tasks, 0 questions>"
