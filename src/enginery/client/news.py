"""What one turn of the session has brought, to be acted on without a lock and without the reader's role."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from enginery.client.contract import AnyAnswer, Promise
from enginery.client.questions import Question
from enginery.ids import TaskId
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import EnginesChanged, Finished, TaskResult


class News:
    """The facts of one turn, by kind."""

    __slots__ = (
        "answers",
        "buffers",
        "changes",
        "deliveries",
        "has_accepted",
        "listeners",
        "others",
        "results",
    )

    def __init__(self) -> None:
        self.deliveries: list[Finished] = []
        self.results: list[tuple[Promise, TaskResult]] = []  # of this client's calls
        self.others: list[TaskResult] = []  # that came by no delivery
        self.buffers: dict[TaskId, Sequence[Buffer]] = {}  # of results that have some
        self.listeners: dict[Promise, None] = {}  # of tasks that have said something
        self.changes: list[EnginesChanged] = []
        self.answers: list[tuple[Question, AnyAnswer]] = []
        self.has_accepted = False

    def __bool__(self) -> bool:
        return bool(
            self.deliveries
            or self.results
            or self.others
            or self.listeners
            or self.changes
            or self.answers
            or self.has_accepted
        )

    def add_ended(self, ended: Iterable[tuple[Promise, TaskResult]]) -> None:
        """Calls of this client have ended here, without a delivery."""
        for promise, result in ended:
            self.results.append((promise, result))
            self.others.append(result)

    def ended(self) -> Iterator[TaskResult]:
        """Every result that has come, whoever waits for it."""
        return chain(chain.from_iterable(delivery.results for delivery in self.deliveries), self.others)
