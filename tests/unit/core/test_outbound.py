"""What waits for one client beside its results."""

from __future__ import annotations

import pytest

from enginery.core import outbound
from enginery.core.deliveries import Held
from enginery.core.inquiries import Asker, FindResults
from enginery.core.outbound import Outbound
from enginery.ids import ClientId, TaskId

ONE, TWO = TaskId(1), TaskId(2)


def question(request: int) -> FindResults:
    return FindResults(Asker(ClientId(1), request, 0), [ONE])


def test_what_was_missed_is_said_from_the_first_of_it_on() -> None:
    waiting = Outbound(Held())
    assert not waiting.is_waiting
    waiting.miss(ONE, 5)
    waiting.miss(ONE, 7)
    waiting.miss(TWO, 3)
    waiting.miss(TWO, 0)
    assert waiting.has_missed(ONE)
    assert waiting.is_waiting
    assert [waiting.next_unheard() for _ in range(3)] == [(ONE, 5), (TWO, 0), None]
    assert not waiting.has_missed(ONE)


def test_of_what_has_ended_nothing_is_said_from_here() -> None:
    waiting = Outbound(Held())
    waiting.miss(ONE, 5)
    assert waiting.on_ended(ONE)
    assert not waiting.on_ended(ONE)
    assert waiting.next_unheard() is None


def test_one_question_is_answered_at_a_time_page_by_page() -> None:
    waiting = Outbound(Held())
    first, second = question(1), question(2)
    assert waiting.next_question() is None
    assert waiting.on_asked(first)
    assert waiting.on_asked(second)
    assert waiting.next_question() is first
    assert waiting.next_question() is None
    assert waiting.next_page() is None, "the first page comes without being asked for"
    assert not waiting.on_page(second.asker, is_last=False)
    assert waiting.on_page(first.asker, is_last=False)
    assert waiting.next_page() == first.asker
    assert waiting.next_page() is None
    assert waiting.on_page(first.asker, is_last=True)
    assert waiting.next_page() is None
    assert waiting.next_question() is second
    waiting.check()


def test_after_a_hello_no_page_is_waited_for() -> None:
    waiting = Outbound(Held())
    for number in (1, 2):
        waiting.on_asked(question(number))
    assert waiting.forget_questions() is None
    waiting.on_asked(question(3))
    assert waiting.next_question() is not None
    assert waiting.on_page(question(3).asker, is_last=False)
    assert waiting.forget_questions() == question(3).asker
    assert waiting.next_page() is None
    assert not waiting.on_page(question(3).asker, is_last=True)
    assert not waiting.is_waiting
    waiting.check()


def test_the_questions_of_one_client_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "QUESTIONS_WAITING", 2)
    waiting = Outbound(Held())
    assert [waiting.on_asked(question(number)) for number in range(3)] == [True, True, False]
    assert repr(waiting) == (
        "<Outbound: <Deliveries from 0: 0 under way, 0 waiting>, 0 tasks unheard, 2 questions>"
    )
