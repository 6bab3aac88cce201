"""What one client is still to be told, beside its results: what it has missed of its tasks, and its answers.

All of it waits here, where it costs little, until the client takes what it is sent (`Link.has_room`): of what
a task has said the number from which on the client has missed it, of an answer the question. One question is
answered at a time, page by page, so that nobody's questions keep others waiting for theirs.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Container

from enginery.core.deliveries import Deliveries, Held
from enginery.core.inquiries import Asker, FindResults, PagedInquiry
from enginery.ids import TaskId

QUESTIONS_WAITING = 200
"""Of one client."""
CUT_KEPT = 1000
"""Tasks of which it is remembered that a client was told that it does not get all they say."""


class Outbound:
    """One client's deliveries, and what waits beside them."""

    __slots__ = ("_asking", "_cut", "_is_page_wanted", "_open", "_unheard", "deliveries")

    def __init__(self, held: Held) -> None:
        self.deliveries = Deliveries(held)
        self._unheard: dict[TaskId, int] = {}
        self._cut: OrderedDict[TaskId, None] = OrderedDict()  # ended ones of which it does not get all
        self._asking: deque[PagedInquiry] = deque()
        self._open: PagedInquiry | None = None
        self._is_page_wanted = False

    def __repr__(self) -> str:
        asking = len(self._asking) + (self._open is not None)
        return f"<Outbound: {self.deliveries!r}, {len(self._unheard)} tasks unheard, {asking} questions>"

    @property
    def is_waiting(self) -> bool:
        """Whether something waits for room on the link."""
        return bool(self._unheard or self._asking or self._is_page_wanted or len(self.deliveries))

    # ------------------------------------------------------------ what tasks say

    def miss(self, task: TaskId, since: int) -> None:
        """Of what an unfinished task says, everything from this number on is to be said later."""
        self._unheard[task] = min(since, self._unheard.get(task, since))

    def has_missed(self, task: TaskId) -> bool:
        return task in self._unheard

    def cut(self, task: TaskId) -> bool:
        """Of what an ended task says, a piece is left out. Whether it is the first."""
        is_first = task not in self._cut
        self._cut[task] = None
        if len(self._cut) > CUT_KEPT:
            self._cut.popitem(last=False)
        return is_first

    def on_ended(self, task: TaskId) -> bool:
        """A task has ended. Whether some of what it has said has not been heard."""
        return self._unheard.pop(task, None) is not None

    def next_unheard(self) -> tuple[TaskId, int] | None:
        """A task, and from which number on it is to be said now."""
        if not self._unheard:
            return None
        task = next(iter(self._unheard))
        return task, self._unheard.pop(task)

    # ------------------------------------------------------------ questions

    def on_asked(self, inquiry: PagedInquiry) -> bool:
        """Its turn comes when those before it are answered; False if too many wait."""
        if len(self._asking) >= QUESTIONS_WAITING:
            return False
        self._asking.append(inquiry)
        return True

    def next_question(self, late: Container[TaskId] = ()) -> PagedInquiry | None:
        """What the history is to be asked now, for the first page of the answer.

        Of the tasks in `late` it does not have all that they have said yet.
        """
        if self._open is not None or not self._asking:
            return None
        first = self._asking[0]
        if isinstance(first, FindResults) and any(task in late for task in first.tasks):
            return None
        self._open = self._asking.popleft()
        return self._open

    def next_page(self) -> Asker | None:
        """Of whose answer the next page is wanted now."""
        if self._open is None or not self._is_page_wanted:
            return None
        self._is_page_wanted = False
        return self._open.asker

    def on_page(self, asker: Asker, *, is_last: bool) -> bool:
        """A page of an answer is there; False if nobody waits for it any more."""
        if self._open is None or asker != self._open.asker:
            return False
        self._is_page_wanted = not is_last
        if is_last:
            self._open = None
        return True

    def forget_questions(self) -> Asker | None:
        """They will be asked again, or nobody waits for answers. Returns the one that is being answered."""
        self._asking.clear()
        self._is_page_wanted = False
        answered, self._open = self._open, None
        return None if answered is None else answered.asker

    def check(self) -> None:
        self.deliveries.check()
        assert not self._is_page_wanted or self._open is not None
