"""The unfinished tasks of a cluster, counted by state, and the steps that end a task or send it back.

Steps move a task along its own table (`tasks.TRANSITIONS`) and keep the counts and what its engine holds in
agreement with it; what a step means, and whether it is due, is the scheduler's to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, ValuesView
from typing import NamedTuple

from enginery.core.deadlines import Deadlines
from enginery.core.dependencies import NOWHERE, Dependencies
from enginery.core.engines import EngineLoad
from enginery.core.outbox import SchedulerOutbox
from enginery.core.resting import Resting
from enginery.core.tasks import TERMINAL, Fact, Task, TaskState
from enginery.ids import NO_ENGINE, EngineId, TaskId
from enginery.protocol.messages import Status, TaskResult


class SchedulerStatistics(NamedTuple):
    """Counts of tasks: submitted is the sum of all the others at any instant."""

    submitted: int
    waiting: int
    ready: int
    sent: int
    running: int
    done: int
    failed: int
    cancelled: int
    impossible: int


class TaskTable:
    """All tasks that have not ended, in the order in which they came."""

    def __init__(self, outbox: SchedulerOutbox, dependencies: Dependencies) -> None:
        self.outbox = outbox
        self.resting = Resting()
        self.to_end_by = Deadlines()  # of tasks that are watched: when their engines are to have ended them
        self.prioritised = 0  # tasks of another priority than 0
        self.has_families = False  # whether any task was ever made by another
        self._dependencies = dependencies
        self._tasks: dict[TaskId, Task] = {}
        self.get = self._tasks.get
        self.submitted = 0
        self.in_flight = 0
        self._running = 0
        self._ended = dict.fromkeys(TERMINAL, 0)

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[TaskId]:
        return iter(self._tasks)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._tasks

    def __repr__(self) -> str:
        return f"<TaskTable {self.statistics()}>"

    def values(self) -> ValuesView[Task]:
        return self._tasks.values()

    def present(self, engine: EngineId, task_id: TaskId, attempt: int) -> Task | None:
        """The task if this engine has it in this attempt; everything else is late."""
        task = self._tasks.get(task_id)
        return None if task is None or task.engine != engine or task.attempt != attempt else task

    def statistics(self) -> SchedulerStatistics:
        waiting = len(self._dependencies.waiting) + len(self.resting.tasks)
        return SchedulerStatistics(
            submitted=self.submitted,
            waiting=waiting,
            ready=len(self._tasks) - self.in_flight - waiting,
            sent=self.in_flight - self._running,
            running=self._running,
            done=self._ended[TaskState.DONE],
            failed=self._ended[TaskState.FAILED],
            cancelled=self._ended[TaskState.CANCELLED],
            impossible=self._ended[TaskState.IMPOSSIBLE],
        )

    # ------------------------------------------------------------ steps

    def admit(self, task: Task) -> None:
        self.submitted = task.turn = self.submitted + 1
        self._tasks[task.task_id] = task
        if task.priority:
            self.prioritised += 1
        if task.family:
            self.has_families = True

    def set_priority(self, task: Task, priority: int) -> None:
        """It is in no queue now."""
        self.prioritised += bool(priority) - bool(task.priority)
        task.priority = priority

    def send(self, task: Task, load: EngineLoad, *, estimate_s: float, now: float) -> None:
        """Give a ready task to an engine."""
        task.apply(Fact.ASSIGNED)
        task.engine = load.engine
        task.estimate_s = estimate_s
        task.sent_at = now
        task.completed_before = load.completed
        load.add(task)
        self.in_flight += 1

    def start(self, task: Task) -> None:
        task.apply(Fact.STARTED)
        self._running += 1

    def leave_engine(self, load: EngineLoad, task: Task) -> None:
        """Its engine has it no more, whatever becomes of it now."""
        load.remove(task)
        self.in_flight -= 1
        if task.state is TaskState.RUNNING:
            self._running -= 1
        if task.is_watched:
            task.is_watched = False
            self.to_end_by.forget(task.task_id)
            load.release(task)
        self.outbox.release(task, load.engine)

    def watch(self, task: Task, until: float) -> None:
        """Its engine is to have ended it by then, if not before."""
        if until < self.to_end_by.at(task.task_id):
            self.to_end_by.forget(task.task_id)
            self.to_end_by.set(task.task_id, until)
            task.is_watched = True

    def retry(self, task: Task, until: float) -> None:
        """Let a task rest that has left its engine."""
        task.retries_left -= 1
        self.reset(task, Fact.RETRIED)
        self.resting.add(task, until)

    def reset(self, task: Task, fact: Fact) -> None:
        """Have a task that has left its engine wait for its next attempt."""
        task.apply(fact)
        task.attempt += 1
        task.engine = NO_ENGINE
        task.recalled = False
        task.wanted_end = None
        task.overdue = ""
        task.grace_s, task.cancelled_by = -1.0, math.inf
        self.outbox.waits_again(task)

    def fail(
        self,
        task: Task,
        fact: Fact,
        status: Status,
        now: float,
        detail: str = "",
        *,
        engine: EngineId = NO_ENGINE,
    ) -> None:
        """The end of a task that did not run to its own."""
        self.end(
            task,
            fact,
            TaskResult(
                task.task_id, status, engine=engine, submitted=task.submitted_at, completed=now, detail=detail
            ),
        )

    def end(self, task: Task, fact: Fact, result: TaskResult, life: int = NOWHERE) -> None:
        """The end of a task; `life` is that of the engine where it has ended, if that is there."""
        state = task.apply(fact)
        del self._tasks[task.task_id]
        self._ended[state] += 1
        if task.priority:
            self.prioritised -= 1
        if self.resting.tasks:
            self.resting.forget(task.task_id)
        self._dependencies.on_ended(task.task_id, state is TaskState.DONE, life)
        self.outbox.finish(task, result)

    def check(self) -> None:
        statistics = self.statistics()
        assert statistics.submitted == sum(statistics[1:]), statistics
        assert not any(task.state.is_terminal for task in self._tasks.values())
        assert self.prioritised == sum(bool(task.priority) for task in self._tasks.values())
        assert self.resting.tasks.keys() <= self._tasks.keys()
        assert len(self.to_end_by) == sum(task.is_watched for task in self._tasks.values())
        self.resting.check()
