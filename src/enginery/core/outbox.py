"""What the scheduler may say: a small interface that is drained once per batch of input."""

from __future__ import annotations

from typing import Protocol

from enginery.core.tasks import Task
from enginery.ids import EngineId, TaskId
from enginery.protocol.messages import TaskResult


class SchedulerOutbox(Protocol):
    """The scheduler's effects, in the order in which they were decided."""

    def run(self, engine: EngineId, task: Task, *, announce: bool) -> None:
        """Send a task to an engine; `announce` asks it to say when it begins."""

    def take_back(self, engine: EngineId, calls: list[tuple[TaskId, int]]) -> None:
        """Ask an engine for these (task, attempt) if they have not started."""

    def finish(self, task: Task, result: TaskResult) -> None:
        """A task has ended: tell its client and the store."""

    def release(self, task: Task, engine: EngineId) -> None:
        """This engine has no more use for the task's own blobs."""
