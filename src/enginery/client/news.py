"""What one turn of the session has brought, to be acted on without a lock and without the reader's role."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from enginery.client.contract import Promise
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import Answer, EnginesChanged, Finished, Output, StatusAnswer, TaskResult

Question = Future[Answer | StatusAnswer]


class News:
    """The facts of one turn, by kind."""

    __slots__ = ("answers", "changes", "deliveries", "results", "texts")

    def __init__(self) -> None:
        self.results: list[tuple[Promise, TaskResult, Sequence[Buffer]]] = []
        self.deliveries: list[Finished] = []  # what the results came in
        self.texts: list[tuple[Promise, Output]] = []
        self.changes: list[EnginesChanged] = []
        self.answers: list[tuple[Question, Answer | StatusAnswer]] = []

    def __bool__(self) -> bool:
        return bool(self.deliveries or self.results or self.texts or self.changes or self.answers)
