"""Tasks that have failed and are to be tried again: until when each of them rests."""

from __future__ import annotations

from collections.abc import Iterator

from enginery.core.deadlines import Deadlines
from enginery.core.tasks import Task
from enginery.ids import EngineId, TaskId


class Resting:
    """They are waiting, as those are that wait for others."""

    __slots__ = ("_until", "tasks")

    def __init__(self) -> None:
        self.tasks: dict[TaskId, Task] = {}
        self._until = Deadlines()

    def __repr__(self) -> str:
        return f"<Resting: {len(self.tasks)} tasks>"

    def add(self, task: Task, until: float) -> None:
        self.tasks[task.task_id] = task
        self._until.set(task.task_id, until)

    def forget(self, task_id: TaskId) -> None:
        """It has ended, or rests no longer."""
        if self.tasks.pop(task_id, None) is not None:
            self._until.forget(task_id)

    def of(self, engine: EngineId) -> list[Task]:
        """Those that are addressed to this engine."""
        return [task for task in self.tasks.values() if task.direct == engine]

    def next_deadline(self) -> float | None:
        return self._until.next()

    def take_rested(self, *, now: float) -> Iterator[Task]:
        for task_id in self._until.take_due(now=now):
            yield self.tasks.pop(task_id)

    def check(self) -> None:
        assert len(self._until) == len(self.tasks)
