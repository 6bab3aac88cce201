"""Tasks that are taken back or ended before their time: from the wish to the engine's word, or its end.

An *abort* takes out what has not started. A *cancel* ends what has started as well, and so does the end of a
task's `time_limit`. A task that no engine has ends at once. For one that an engine has, the engine decides:
whatever it says of the task is the end of it, and a wish that comes too late changes nothing. The wish is
said again after each hello of the engine's control connection, and twice does no harm.

An engine that is to end a task which has begun gets nothing new until it has. If it has not within the
grace (C code that does not let go of the interpreter, code that will not be ended), it is to be *replaced*,
its namespace is lost, and the task ends with the engine. Whoever kills it looks first whether it still runs
that very task, so that none that came behind is hit; the order is repeated until the task or the engine has
ended. What else was addressed to that engine fails, because it may rely on what is lost; all other tasks go
elsewhere. An engine that nobody can replace is waited for.

A time limit is the engine's to keep, by the same means. Here it is kept only for an engine that does not do
it: `most_calls` times the limit and the grace after the task has begun.

The limit and each cancel have a deadline and a grace of their own, and the first one that passes counts: who
waits for ever for a cancel still has the limit that he has set, and a second cancel may have a shorter grace.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from enginery.core.engines import EngineLoad, EngineTable
from enginery.core.outbox import SchedulerOutbox
from enginery.core.task_table import TaskTable
from enginery.core.tasks import Fact, Task, TaskState
from enginery.core.waiting_tasks import WaitingTasks
from enginery.ids import NO_ENGINE, EngineId, TaskId
from enginery.protocol.messages import Status

CANCEL_GRACE_S = 5.0
"""How long an engine may take to end a task, unless somebody says otherwise; negative = for ever."""
REPEAT_S = 1.0
"""After what time the order to replace an engine is repeated."""

FACTS: Final = {Status.ABORTED: Fact.ABORTED, Status.CANCELLED: Fact.CANCELLED}
"""What the end that somebody wants is to a task that has not started."""


class Cancelling:
    """Carries out the wishes. Time limits have the cluster's grace; cancels may have another one."""

    def __init__(
        self,
        tasks: TaskTable,
        engines: EngineTable,
        waiting: WaitingTasks,
        outbox: SchedulerOutbox,
        *,
        grace_s: float = CANCEL_GRACE_S,
    ) -> None:
        self._tasks = tasks
        self._engines = engines
        self._waiting = waiting
        self._outbox = outbox
        self.grace_s = grace_s

    def __repr__(self) -> str:
        return f"<Cancelling: {len(self._tasks.to_end_by)} tasks watched>"

    # ------------------------------------------------------------ wishes

    def on_aborted(self, task_ids: Iterable[TaskId], *, now: float) -> None:
        """Take these out if they have not started; tasks that have ended are ignored."""
        asked: dict[EngineId, list[tuple[TaskId, int]]] = {}
        for task in self._unfinished(task_ids):
            if task.engine == NO_ENGINE:
                self._take_out(task, Status.ABORTED, now)
            elif task.state is TaskState.SENT and task.wanted_end is None:
                task.wanted_end, task.recalled = Status.ABORTED, True
                asked.setdefault(task.engine, []).append((task.task_id, task.attempt))
        for engine, calls in asked.items():
            self._outbox.take_back(engine, calls)

    def on_cancelled(self, task_ids: Iterable[TaskId], *, grace_s: float | None = None, now: float) -> None:
        """End these, whether they have started or not; tasks that have ended are ignored."""
        if grace_s is None:
            grace_s = self.grace_s
        asked: dict[EngineId, list[Task]] = {}
        for task in self._unfinished(task_ids):
            if task.engine == NO_ENGINE:
                self._take_out(task, Status.CANCELLED, now)
                continue
            task.wanted_end, task.recalled = Status.CANCELLED, True
            if grace_s >= 0 and now + grace_s < task.cancelled_by:
                task.grace_s, task.cancelled_by = grace_s, now + grace_s
                self._tasks.watch(task, task.cancelled_by)
            asked.setdefault(task.engine, []).append(task)
        for engine, tasks in asked.items():
            load = self._engines.loads[engine]
            for task in filter(load.is_running, tasks):
                self._hold(load, task)
            self._say_cancelled(engine, tasks)

    def on_items_cancelled(self, task_id: TaskId, items: Iterable[int]) -> None:
        """Do not run these items of a part of a map."""
        task = self._tasks.get(task_id)
        if task is None:
            return
        task.skipped = tuple(sorted({*task.skipped, *items}))
        if task.engine != NO_ENGINE:
            self._outbox.skip_items(task.engine, task)

    # ------------------------------------------------------------ facts

    def on_started(self, task: Task, now: float) -> None:
        """Its engine has said so: from now on it has its limit, and the grace."""
        limit_s = task.options.time_limit_s
        if limit_s >= 0 and self.grace_s >= 0:
            self._tasks.watch(task, now + limit_s * task.options.most_calls + self.grace_s)

    def on_taken_back(self, task: Task, now: float) -> bool:
        """It will never run where it was, and has left there. True if that is its end."""
        if task.wanted_end not in FACTS:
            return False
        self._end(task, task.wanted_end, now)
        return True

    def on_kept(self, task: Task) -> None:
        """It has started, or ended and is on its way: what it comes to is decided there."""
        if task.wanted_end is Status.ABORTED:
            task.wanted_end = None  # too late; it stays `recalled`
        elif task.wanted_end is Status.CANCELLED:
            self._hold(self._engines.loads[task.engine], task)

    def say_again(self, engine: EngineId) -> None:
        """The engine's control connection is (back) here: question or answer may be lost."""
        recalled: list[tuple[TaskId, int]] = []
        cancelled: list[Task] = []
        for task in self._engines.loads[engine].in_flight.values():
            if task.skipped:
                self._outbox.skip_items(engine, task)
            if task.wanted_end is Status.CANCELLED:
                cancelled.append(task)
            elif task.recalled:
                recalled.append((task.task_id, task.attempt))
        if recalled:
            self._outbox.take_back(engine, recalled)
        self._say_cancelled(engine, cancelled)

    # ------------------------------------------------------------ time

    def next_deadline(self) -> float | None:
        return self._tasks.to_end_by.next()

    def on_tick(self, *, now: float) -> None:
        for task_id in self._tasks.to_end_by.take_due(now=now):
            task = self._tasks.get(task_id)
            assert task is not None, "what has ended is not watched"
            self._tasks.to_end_by.set(task_id, now + REPEAT_S)
            task.overdue = task.overdue or self._why_overdue(task, now)
            if task.wanted_end is not Status.CANCELLED:
                task.wanted_end = Status.OVER_LIMIT
            self._hold(self._engines.loads[task.engine], task)
            self._outbox.replace(task.engine, task, now=now)

    # ------------------------------------------------------------ inside

    def _unfinished(self, task_ids: Iterable[TaskId]) -> Iterable[Task]:
        return (task for task_id in task_ids if (task := self._tasks.get(task_id)) is not None)

    def _take_out(self, task: Task, status: Status, now: float) -> None:
        if task.state is TaskState.READY:
            self._waiting.queue_of(task).discard()
        self._end(task, status, now)

    def _end(self, task: Task, status: Status, now: float) -> None:
        self._tasks.fail(task, FACTS[status], status, now, engine=task.engine)

    def _say_cancelled(self, engine: EngineId, tasks: Iterable[Task]) -> None:
        by_grace: dict[float, list[tuple[TaskId, int]]] = {}
        for task in tasks:
            by_grace.setdefault(task.grace_s, []).append((task.task_id, task.attempt))
        for grace_s, calls in by_grace.items():
            self._outbox.end_calls(engine, calls, grace_s)

    def _hold(self, load: EngineLoad, task: Task) -> None:
        """This engine gets nothing new until it has ended the task; what it has not begun goes elsewhere."""
        if task.task_id in load.ending or not (task.overdue or task.cancelled_by < math.inf):
            return  # nobody wants to wait for ever, unless he has said so
        load.hold(task)
        if load.connected:
            self._engines.room.update(load)
        behind = [other for other in load.unstarted() if other.direct == NO_ENGINE]
        for other in behind:
            other.recalled = True
        if behind:
            self._outbox.take_back(load.engine, [(other.task_id, other.attempt) for other in behind])

    def _why_overdue(self, task: Task, now: float) -> str:
        """Why its engine has to be replaced, for the error of the task."""
        if task.cancelled_by <= now:
            return f"it did not end within {task.grace_s:g} s of being cancelled"
        limit_s, calls = task.options.time_limit_s, task.options.most_calls
        if calls == 1:
            return f"it did not end within {self.grace_s:g} s after its time_limit of {limit_s:g} s"
        return f"it had not ended {self.grace_s:g} s after {calls} times its time_limit of {limit_s:g} s"
