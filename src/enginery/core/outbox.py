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

    def end_calls(self, engine: EngineId, calls: list[tuple[TaskId, int]], grace_s: float) -> None:
        """The same; those that have started are to be ended. Code that cleans up has half of the grace."""

    def skip_items(self, engine: EngineId, task: Task) -> None:
        """Tell an engine that has this part of a map which items are not to run (any more)."""

    def replace(self, engine: EngineId, task: Task, *, now: float) -> None:
        """Have this engine replaced if it still runs the task. May be said again and again."""

    def finish(self, task: Task, result: TaskResult) -> None:
        """A task has ended: tell its client and the store."""

    def look_up(self, task: TaskId, ids: tuple[TaskId, ...]) -> None:
        """Ask the history how these ended, which this task depends on; `on_looked_up` takes the answer.

        There has to be one, with an entry for each of `ids`, also when the history cannot be read.
        """

    def waits_again(self, task: Task) -> None:
        """This task has left an engine and waits for its next attempt."""

    def release(self, task: Task, engine: EngineId) -> None:
        """This engine has no more use for the task's own blobs."""
