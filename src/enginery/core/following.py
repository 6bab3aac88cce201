"""Promises for tasks by their ids, whoever has submitted them, and in whatever state they are.

A followed task is *outstanding here* (the ledger has it, so its end will come by itself), *asked about* (the
controller says at once how it has ended, or delivers its end like that of an own task), or gone. All that is
still followed when a hello was answered is asked about again, so nothing that was lost on the way, or in an
interrupt (Ctrl-C) between the arrival of a result and the promise, is lost for good. A promise may hear of
the same end twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from enginery.ids import TaskId
from enginery.protocol.messages import Status, TaskResult

TASKS_PER_QUESTION = 10_000

Promise = TypeVar("Promise")
IsOutstanding = Callable[[TaskId], bool]


class Following(Generic[Promise]):
    """The tasks that one client follows. Not thread-safe: the session holds its lock."""

    def __init__(self) -> None:
        self._promises: dict[TaskId, list[Promise]] = {}
        self._asked: dict[int, list[TaskId]] = {}  # by number of the question, until its answer is complete

    def __repr__(self) -> str:
        return f"<Following {len(self)} tasks, {len(self._asked)} questions>"

    def __len__(self) -> int:
        return len(self._promises)

    def promises(self, task: TaskId) -> list[Promise]:
        """Those who follow this task."""
        return list(self._promises.get(task, ()))

    # ------------------------------------------------------------ facts

    def on_followed(
        self, promises: Mapping[TaskId, Promise], is_outstanding: IsOutstanding
    ) -> Iterator[list[TaskId]]:
        """Remember them; returns the tasks to ask about, in portions fit for one question."""
        for task, promise in promises.items():
            self._promises.setdefault(task, []).append(promise)
        return _portions([task for task in promises if not is_outstanding(task)])

    def on_welcome(self, is_outstanding: IsOutstanding) -> Iterator[list[TaskId]]:
        """A hello was answered: what was asked before it is void. Returns what to ask now."""
        self._asked.clear()
        return _portions([task for task in self._promises if not is_outstanding(task)])

    def on_asked(self, question: int, tasks: list[TaskId]) -> None:
        self._asked[question] = tasks

    def is_asked(self, question: int) -> bool:
        return question in self._asked

    def on_answered(self, question: int) -> None:
        """The last page of the answer has come."""
        self._asked.pop(question, None)

    def on_refused(self, question: int, error: str) -> list[TaskResult]:
        """The controller cannot answer. Returns the ends of all that was asked about."""
        tasks = self._asked.pop(question, [])
        return [TaskResult(task, Status.REFUSED, detail=error) for task in tasks if task in self._promises]

    def on_ended(self, results: Iterable[TaskResult]) -> list[tuple[Promise, TaskResult]]:
        """Tasks have ended, followed ones perhaps among them. Returns who is to be told; changes nothing."""
        found = self._promises
        return [(promise, result) for result in results for promise in found.get(result.task, ())]

    def on_told(self, told: Iterable[tuple[Promise, TaskResult]]) -> None:
        """These promises are fulfilled. Who has followed one of the tasks meanwhile stays."""
        for promise, result in told:
            waiting = self._promises.get(result.task)
            if waiting is not None:
                waiting[:] = [other for other in waiting if other is not promise]
                if not waiting:
                    del self._promises[result.task]

    def on_closed(self, detail: str) -> list[TaskResult]:
        """The session is over. Returns the ends of all that is followed."""
        self._asked.clear()
        return [TaskResult(task, Status.REFUSED, detail=detail) for task in self._promises]

    def check(self) -> None:
        """Assert every invariant."""
        assert all(self._promises.values())


def _portions(tasks: list[TaskId]) -> Iterator[list[TaskId]]:
    return (tasks[start : start + TASKS_PER_QUESTION] for start in range(0, len(tasks), TASKS_PER_QUESTION))
