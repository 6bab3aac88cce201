"""Tasks that tasks have made, and engines in which a task waits for some of these.

An engine runs one task at a time, and one that waits for tasks of its own would keep it from running them. So
the engine says that it *lends* itself: until the wait is over it gets tasks that run on top of the one that
waits, one by one; one of these may wait in turn. What it was given before and has not begun goes back to the
queues, else it would wait for as long.

It gets descendants of the task that waits there last; and if there is none, what other tasks that wait have
made and nobody else can run, because it is addressed to this engine. Elsewhere these tasks are as all others:
whichever engine is free first takes them.

Why nothing waits for ever, as long as tasks wait for what they have made: what is on top of an engine's
stack either runs, or waits for a task that has not begun, which then can begin there, or for one that lies in
another stack with something on top of it. Follow that: who is waited for has begun after who waits, and what
is on top of it has begun after it. So this leads to ever later tasks, and ends at one that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from enginery.core.engines import EngineLoad, EngineTable
from enginery.core.outbox import SchedulerOutbox
from enginery.core.placement import Destination
from enginery.core.task_table import TaskTable
from enginery.core.tasks import Task, TaskState
from enginery.core.waiting_tasks import WaitingTasks
from enginery.ids import EngineId, TaskId

GENERATIONS = 256
"""Ancestors of a task that count. No engine lets so many wait, see `engine.lending`."""

Send = Callable[[EngineLoad, Task, float], None]


class Families:
    """Who descends from whom, and what engines do that are lent to tasks in them."""

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
        return f"<Families: {len(self._engines.lent)} engines are lent>"

    # ------------------------------------------------------------ questions

    def of_child(self, parent: TaskId) -> tuple[TaskId, ...]:
        """What a task that this one makes is to have as its family; nothing if it has ended."""
        task = self._tasks.get(parent) if parent else None
        return () if task is None else (parent, *task.family[: GENERATIONS - 1])

    def descendants(self, tasks: Iterable[TaskId]) -> list[TaskId]:
        """The unfinished ones. Looks at all tasks, if any was ever made by another."""
        if not self._tasks.has_families:
            return []
        wanted = set(tasks)
        return [task.task_id for task in self._tasks.values() if not wanted.isdisjoint(task.family)]

    # ------------------------------------------------------------ facts

    def on_lends(self, engine: EngineId, task: Task) -> None:
        """This task, which has begun there, waits."""
        load = self._engines.loads[engine]
        if task not in load.lent_to:
            load.lent_to.append(task)
        self._engines.lent.add(engine)
        self._engines.room.update(load)
        tasks = load.in_flight.values()
        behind = [one for one in tasks if one.state is TaskState.SENT and not one.recalled]
        for one in behind:
            one.recalled = True
        if behind:
            self._outbox.take_back(engine, [(one.task_id, one.attempt) for one in behind])

    def on_waits_no_longer(self, engine: EngineId, task: Task) -> None:
        load = self._engines.loads[engine]
        if task in load.lent_to:
            del load.lent_to[load.lent_to.index(task) :]
        self._engines.room.update(load)

    # ------------------------------------------------------------ decisions

    def dispatch(self, *, now: float) -> None:
        """Give each lent engine a descendant of the task that waits there last, unless it has one."""
        for engine in list(self._engines.lent):
            load = self._engines.loads[engine]
            if not load.lent_to:
                self._engines.lent.discard(engine)
            elif load.has_room_inside and (task := self._next_inside(load)) is not None:
                self._send(load, task, now)

    def _next_inside(self, load: EngineLoad) -> Task | None:
        ancestor = load.lent_to[-1].task_id
        if (task := load.direct.take_where(lambda task: ancestor in task.family)) is not None:
            return task
        restricted = self._waiting.balanced.restricted()
        for destination, queue in restricted:
            if ancestor in destination.family and self._engines.may_take_inside(load, destination):
                return queue.pop()
        if (task := load.direct.take_where(lambda task: task.family)) is not None:
            return task
        for destination, queue in restricted:
            if destination.family and destination.engines and self._is_only_for_lent(load, destination):
                return queue.pop()
        return None

    def _is_only_for_lent(self, load: EngineLoad, destination: Destination) -> bool:
        """Whether all engines that may run this are lent, and this is one of them."""
        engines = self._engines.wanted_for(destination)
        return load in engines and all(one.lent_to for one in engines)
