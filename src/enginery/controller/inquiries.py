"""The thread that reads the history for the controller's loop.

The loop hands over inquiries and goes on; what was found waits in a deque until the loop, which is woken,
takes it. Answers are made page by page. Of what a client has asked each page waits for the loop's word, which
comes when the client has taken the one before; of all else the thread is never more than `PAGES_WAITING`
pages ahead of the loop. How many inquiries may wait is for the core to bound.

The thread begins with the first inquiry and ends with `close`.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator

from enginery.controller.answering import answers
from enginery.controller.store.store import HistoryStore
from enginery.core.inquiries import (
    Asker,
    FindCalls,
    FindRecords,
    FindResults,
    Found,
    Inquiry,
    InquiryFailed,
    NextPage,
    NoMorePages,
    Order,
)

PAGES_WAITING = 4
CLOSE_TIMEOUT_S = 35.0
"""Longer than a store may take for one answer."""

log = logging.getLogger("enginery.controller")


class Inquiries:
    """What the loop wants to know, in the order in which it asked."""

    def __init__(self, store: HistoryStore, *, on_found: Callable[[], None]) -> None:
        self._store = store
        self._on_found = on_found
        self._asked: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._answers: dict[Asker, Iterator[Found]] = {}  # which are not at their end
        self._found: deque[Found] = deque()
        self._room = threading.Semaphore(PAGES_WAITING)
        self._thread: threading.Thread | None = None
        self._is_closing = False

    def __repr__(self) -> str:
        return f"<Inquiries: {self._asked.qsize()} waiting, {len(self._found)} pages found>"

    def ask(self, order: Order) -> None:
        """Have something answered, or a further page of it; returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="history-reader", daemon=True)
            self._thread.start()
        self._asked.put(order)

    def take(self) -> Iterator[Found]:
        """What was found since this was asked last."""
        while self._found:
            yield self._found.popleft()
            self._room.release()

    def close(self) -> None:
        """End the thread; what it has not answered stays unanswered."""
        self._is_closing = True
        if self._thread is None:
            return
        self._room.release()
        self._asked.put(None)
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            log.error("the history has not answered for %.0f s; its reader is left behind", CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        while (order := self._asked.get()) is not None and not self._is_closing:
            for found in self.pages(order):
                if not self._put(found):
                    return

    def pages(self, order: Order) -> Iterator[Found]:
        """What is to be said now: one page of a client's answer, all pages of any other."""
        match order:
            case NoMorePages(asker):
                self._answers.pop(asker, None)
            case NextPage(asker):
                if asker in self._answers:
                    yield self._next_page(asker)
            case FindResults() | FindCalls() | FindRecords():
                self._answers[order.asker] = self._answer(order)
                yield self._next_page(order.asker)
            case _:
                yield from self._answer(order)

    def _next_page(self, asker: Asker) -> Found:
        found = next(self._answers[asker])
        if found.is_last:
            del self._answers[asker]
        return found

    def _answer(self, inquiry: Inquiry) -> Iterator[Found]:
        try:
            yield from answers(self._store, inquiry)
        except Exception as error:
            # A defect. Whoever asked must not wait for ever, and others want to be answered too.
            log.exception("an inquiry could not be answered")
            yield InquiryFailed(inquiry, f"the controller could not answer this question: {error!r}")

    def _put(self, found: Found) -> bool:
        """Hand a page to the loop, as soon as there is room for it; False if nobody wants it any more."""
        self._room.acquire()
        if self._is_closing:
            return False
        self._found.append(found)
        self._on_found()
        return True
