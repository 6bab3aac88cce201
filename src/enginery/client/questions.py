"""Questions and orders that the controller has not answered. Not thread-safe: the session holds its lock.

They are asked again after each hello, unless who has asked does not wait any more (he has cancelled the
future). An answer that comes in pages is put together here; one that was begun before a hello begins anew
after it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError

import msgspec

from enginery.client.contract import AnswerRecord, AnyAnswer
from enginery.protocol.codec import check_record
from enginery.protocol.messages import (
    CallsAnswer,
    HistoryAnswer,
    MemoryAnswer,
    QueuesAnswer,
    Record,
    ResultsAnswer,
    StatusAnswer,
)

AskedFuture = Future[AnyAnswer]
Paged = HistoryAnswer | ResultsAnswer | CallsAnswer | QueuesAnswer | MemoryAnswer | StatusAnswer


class Question:
    """One of them, and the future of its answer."""

    __slots__ = ("future", "number", "pages", "record")

    def __init__(self, number: int, record: Record) -> None:
        self.number = number
        self.record = record
        self.future: AskedFuture = Future()
        self.pages: list[Paged] = []

    def answer(self, answer: AnyAnswer | Exception) -> None:
        """Fulfil the future."""
        try:
            if isinstance(answer, Exception):
                self.future.set_exception(answer)
            else:
                self.future.set_result(answer)
        except InvalidStateError:
            pass  # it has one already, or whoever asked has cancelled it


class Questions:
    """All open questions of one session, by number."""

    def __init__(self) -> None:
        self._open: dict[int, Question] = {}
        self._next = 1

    def __len__(self) -> int:
        return len(self._open)

    def __repr__(self) -> str:
        return f"<Questions: {len(self)} open>"

    def new_number(self) -> int:
        """A number that no other question has."""
        self._next += 1
        return self._next - 1

    def on_asked(self, make: Callable[[int], Record]) -> Question:
        """Take a question. Raises TooLarge or ValueError for one that cannot be sent."""
        number = self.new_number()
        record = make(number)
        check_record(record, "the question to the controller")
        question = self._open[number] = Question(number, record)
        return question

    def on_welcome(self) -> list[Record]:
        """A hello was answered. Returns what is to be asked again."""
        for question in list(self._open.values()):
            question.pages.clear()
            if question.future.cancelled():
                del self._open[question.number]
        return [question.record for question in self._open.values()]

    def on_answer(self, answer: AnswerRecord) -> tuple[Question, AnswerRecord] | None:
        """Take an answer or a page of it; returns the question and the whole once that is there.

        The question stays open until `on_told`.
        """
        question = self._open.get(answer.request)
        if question is None:
            return None
        if isinstance(answer, Paged):
            question.pages.append(answer)
            return (question, _joined(question.pages)) if answer.is_last else None
        return question, answer

    def on_told(self, question: Question) -> None:
        """Its future has the answer."""
        self._open.pop(question.number, None)

    def on_closed(self) -> list[Question]:
        """The session is over; returns those that will not be answered."""
        found, self._open = list(self._open.values()), {}
        return found


def _joined(pages: list[Paged]) -> Paged:
    whole = pages[0]
    if isinstance(whole, MemoryAnswer):
        last = pages[-1]
        assert isinstance(last, MemoryAnswer)
        engines = [use for page in pages if isinstance(page, MemoryAnswer) for use in page.engines]
        return msgspec.structs.replace(last, engines=engines)
    if isinstance(whole, StatusAnswer):
        last = pages[-1]
        assert isinstance(last, StatusAnswer)
        statuses = [one for page in pages if isinstance(page, StatusAnswer) for one in page.engines]
        return msgspec.structs.replace(last, engines=statuses)
    for page in pages[1:]:
        if isinstance(whole, HistoryAnswer) and isinstance(page, HistoryAnswer):
            whole.records.extend(page.records)
            whole.error = whole.error or page.error
        elif isinstance(whole, ResultsAnswer) and isinstance(page, ResultsAnswer):
            whole.results.extend(page.results)
            whole.pending.extend(page.pending)
        elif isinstance(whole, CallsAnswer) and isinstance(page, CallsAnswer):
            whole.calls.extend(page.calls)
            whole.missing.extend(page.missing)
        elif isinstance(whole, QueuesAnswer) and isinstance(page, QueuesAnswer):
            whole.engines.extend(page.engines)
    return whole
