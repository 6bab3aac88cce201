"""How tasks of different priorities share the engines. Nothing of this runs while all have the same one.

Goal: a task of higher priority begins before all waiting ones of lower priority, whatever queue these are in
and whether engines have been given them or not; of equals the one that came first. It waits for no more than
the first engine that becomes free, and not for a particular one: which will be free first nobody knows.

So the queues are emptied level by level, the highest first. A task is given only to an engine that holds
nothing of a lower level, so that it does not end up behind a long task while other engines go on; one that
is addressed to an engine goes there as soon as only the running task is in its way. An engine for which
something waits gets nothing of lower levels, and is asked for those that it has not begun. What that costs is
a round trip between the last task of one level and the first one of the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from enginery.core.engines import EngineLoad, EngineTable
from enginery.core.outbox import SchedulerOutbox
from enginery.core.placement import ANYWHERE
from enginery.core.task_table import TaskTable
from enginery.core.tasks import Task, TaskState
from enginery.core.waiting_tasks import WaitingTasks
from enginery.ids import EngineId, TaskId

Send = Callable[[EngineLoad, Task, float], None]


class Urgency:
    """Takes the scheduler's place in filling engines while there are tasks of several priorities."""

    def __init__(
        self,
        tasks: TaskTable,
        engines: EngineTable,
        waiting: WaitingTasks,
        outbox: SchedulerOutbox,
        send: Send,
    ) -> None:
        self._tasks = tasks
        self._engines = engines
        self._waiting = waiting
        self._outbox = outbox
        self._send = send

    def __repr__(self) -> str:
        return f"<Urgency: {self._tasks.prioritised} tasks of a priority of their own>"

    def on_priority_set(self, task_ids: Iterable[TaskId], priority: int, *, now: float) -> None:
        """Tasks that wait leave by this priority from now on, also if an engine has them already."""
        asked: dict[EngineId, list[tuple[TaskId, int]]] = {}
        for task_id in task_ids:
            task = self._tasks.get(task_id)
            if task is None or task.priority == priority:
                continue
            if task.state is TaskState.READY:
                self._waiting.queue_of(task).remove(task)
                self._tasks.set_priority(task, priority)
                self._waiting.put([task], now)
                continue
            self._tasks.set_priority(task, priority)
            if task.state is TaskState.SENT and not task.recalled:
                task.recalled = True
                asked.setdefault(task.engine, []).append((task_id, task.attempt))
        for engine, calls in asked.items():
            self._outbox.take_back(engine, calls)

    def dispatch(self, *, now: float) -> None:
        """Give ready tasks to engines with room."""
        wanted: dict[EngineId, int] = {}  # engines that something waits for, and its priority at most
        for priority in self._waiting.priorities():
            self._fill_direct(priority, wanted, now)
            self._fill_balanced(priority, wanted, now)
            if len(wanted) == len(self._engines.loads):
                break
        for engine, priority in wanted.items():
            self._make_way(self._engines.loads[engine], priority)

    def _fill_direct(self, priority: int, wanted: dict[EngineId, int], now: float) -> None:
        for engine in list(self._waiting.direct):
            load = self._engines.loads[engine]
            queue = load.direct
            if engine not in wanted and queue.top() == priority:
                self._make_way(load, priority)
                while load.has_room and queue.top() == priority:
                    self._send(load, queue.take(), now)
            if not queue:
                self._waiting.direct.discard(engine)
            elif queue.top() == priority:
                wanted.setdefault(engine, priority)

    def _fill_balanced(self, priority: int, wanted: dict[EngineId, int], now: float) -> None:
        balanced = self._waiting.balanced
        for destination, queue in (*balanced.restricted(), (ANYWHERE, balanced.anywhere)):
            while queue.top() == priority:
                chosen = self._engines.choose_for(destination, priority, wanted)
                if chosen is None:
                    for load in self._engines.wanted_for(destination):
                        wanted.setdefault(load.engine, priority)
                    break
                self._send(self._engines.loads[chosen], queue.take(), now)

    def _make_way(self, load: EngineLoad, priority: int) -> None:
        """Have an engine give back what it has not begun and is less urgent."""
        if (
            priority <= load.cleared_for or load.lent_to
        ):  # what is in there is for nobody else, see `families`
            return
        load.cleared_for = priority
        tasks = [task for task in load.unstarted() if task.priority < priority]
        for task in tasks:
            task.recalled = True
        if tasks:
            self._outbox.take_back(load.engine, [(task.task_id, task.attempt) for task in tasks])
