"""Questions to several peers: open until each has answered, left, or been silent for too long."""

from __future__ import annotations

from enginery.core.polls import Polls
from enginery.ids import ClientId, EngineId

CLIENT = ClientId(1)
ZERO, ONE = EngineId(0), EngineId(1)
WAIT_S = 2.0


def new_polls() -> Polls[EngineId, str]:
    return Polls(WAIT_S)


def test_it_is_answered_when_all_have_answered() -> None:
    questions = new_polls()
    number = questions.on_asked(CLIENT, 7, [ZERO, ONE], free=True, now=1.0)
    assert questions.of(ZERO) == questions.of(ONE) == [(number, True)]
    assert questions.next_deadline() == 1.0 + WAIT_S
    assert questions.on_answered(number, ONE, "one") is None
    assert questions.of(ONE) == []
    questions.check()
    assert questions.on_answered(number, ONE, "again") is None  # said again after a hello
    question = questions.on_answered(number, ZERO, "zero")
    assert question is not None
    assert (question.client, question.request, question.words) == (
        CLIENT,
        7,
        {ZERO: "zero", ONE: "one"},
    )
    assert questions.on_answered(number, ZERO, "zero") is None
    assert questions.next_deadline() is None


def test_who_leaves_is_not_waited_for() -> None:
    questions = new_polls()
    both = questions.on_asked(CLIENT, 1, [ZERO, ONE], free=False, now=1.0)
    questions.on_asked(CLIENT, 2, [ONE], free=False, now=2.0)
    assert [question.request for question in questions.on_gone(ONE)] == [2]
    questions.check()
    question = questions.on_answered(both, ZERO, "word")
    assert question is not None
    assert not question.open


def test_who_is_silent_is_named() -> None:
    questions = new_polls()
    number = questions.on_asked(CLIENT, 1, [ZERO, ONE], free=False, now=1.0)
    questions.on_answered(number, ZERO, "word")
    assert questions.take_overdue(now=1.0) == []
    (question,) = questions.take_overdue(now=1.0 + WAIT_S)
    assert (question.words, question.open) == ({ZERO: "word"}, {ONE})
    assert repr(questions) == "<Polls: 0 open>"
