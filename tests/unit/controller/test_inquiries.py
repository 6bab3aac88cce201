"""The thread that reads the history: what it answers, how far ahead it gets, how it ends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from enginery.controller import answering
from enginery.controller.inquiries import PAGES_WAITING, Inquiries
from enginery.controller.store.memory import MemoryStore
from enginery.core.inquiries import (
    Asker,
    DeliveriesFound,
    FindDeliveries,
    FindRecords,
    FindResults,
    Found,
    InquiryFailed,
    NextPage,
    NoMorePages,
    RecordsFound,
    ResultsFound,
)
from enginery.ids import ClientId, TaskId
from enginery.protocol.history import TaskAccepted
from enginery.protocol.messages import Kind, TaskOptions

ASKER = Asker(ClientId(1), 7, 0)


class Loop:
    """Waits for what is found, as the controller's loop does."""

    def __init__(self, store: MemoryStore) -> None:
        self.woken = threading.Semaphore(0)
        self.inquiries = Inquiries(store, on_found=self.woken.release)

    def wait(self) -> None:
        assert self.woken.acquire(timeout=10)

    def take(self, count: int) -> list[Found]:
        found: list[Found] = []
        while len(found) < count:
            self.wait()
            found += self.inquiries.take()
        return found


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    options = TaskOptions(Kind.CALL)
    assert store.append(
        [TaskAccepted(TaskId(number), float(number), options, b"") for number in range(1, 21)]
    )
    return store


@pytest.fixture
def loop(store: MemoryStore) -> Iterator[Loop]:
    loop = Loop(store)
    yield loop
    loop.inquiries.close()
    assert not is_reading()


def is_reading() -> bool:
    return "history-reader" in [thread.name for thread in threading.enumerate()]


def test_nothing_runs_before_the_first_question(loop: Loop) -> None:
    assert not is_reading()
    assert list(loop.inquiries.take()) == []
    assert repr(loop.inquiries) == "<Inquiries: 0 waiting, 0 pages found>"


def test_answers_come_in_the_order_of_the_questions(loop: Loop) -> None:
    for number in range(1, 6):
        loop.inquiries.ask(FindResults(ASKER, [TaskId(number)]))
    found = loop.take(5)
    assert [one.ended[0].result.task for one in found if isinstance(one, ResultsFound)] == [1, 2, 3, 4, 5]
    assert list(loop.inquiries.take()) == []


def test_the_thread_is_only_some_pages_ahead(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "PAGE_ITEMS", 1)
    loop.inquiries.ask(FindDeliveries(ClientId(1), [TaskId(number) for number in range(1, 21)]))
    for _ in range(PAGES_WAITING):
        loop.wait()
    assert not loop.woken.acquire(timeout=0.05)
    assert repr(loop.inquiries) == f"<Inquiries: 0 waiting, {PAGES_WAITING} pages found>"
    found = list(loop.inquiries.take())
    found += loop.take(20 - len(found))
    tasks = [one.ended[0].result.task for one in found if isinstance(one, DeliveriesFound)]
    assert tasks == list(range(1, 21))


def test_each_page_of_a_clients_answer_waits_for_the_loop(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And others are answered meanwhile, for a client may not take its pages for hours."""
    monkeypatch.setattr(answering, "PAGE_ITEMS", 1)
    other = Asker(ClientId(2), 7, 0)
    for asker in (ASKER, other):
        loop.inquiries.ask(FindRecords(asker, [], False))
    assert [(one.asker, one.is_last) for one in loop.take(2)] == [(ASKER, False), (other, False)]  # type: ignore[union-attr]
    for _ in range(19):
        assert list(loop.inquiries.take()) == []
        loop.inquiries.ask(NextPage(other))
        (page,) = loop.take(1)
    assert isinstance(page, RecordsFound)
    assert (page.asker, page.is_last) == (other, True)
    loop.inquiries.ask(NoMorePages(ASKER))
    loop.inquiries.ask(NextPage(ASKER))
    loop.inquiries.ask(NextPage(other))
    loop.inquiries.ask(FindResults(other, [TaskId(1)]))
    assert isinstance(loop.take(1)[0], ResultsFound), "nothing comes of answers that are over"
    assert not loop.inquiries._answers


def test_a_close_in_the_middle_of_an_answer(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "PAGE_ITEMS", 1)
    loop.inquiries.ask(FindRecords(ASKER, [], False))
    loop.inquiries.ask(FindRecords(ASKER, [], False))
    loop.wait()
    assert is_reading()
    loop.inquiries.close()
    assert not is_reading(), "it had pages to come, and has ended"
    loop.inquiries.close()


def test_a_defect_is_answered_and_the_next_question_too(
    loop: Loop, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = FindResults(ASKER, [TaskId(1)]), FindRecords(ASKER, [], False)
    monkeypatch.setattr(store, "find", lambda tasks: 1 / 0)
    with caplog.at_level(logging.ERROR):
        loop.inquiries.ask(bad)
        loop.inquiries.ask(good)
        first, second = loop.take(2)
    sentence = "the controller could not answer this question: ZeroDivisionError('division by zero')"
    assert first == InquiryFailed(bad, sentence)
    assert isinstance(second, RecordsFound)
    assert "an inquiry could not be answered" in caplog.text
