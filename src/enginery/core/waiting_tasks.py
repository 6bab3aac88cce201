"""Where tasks wait that no engine has: for other tasks, or in the queue of the engines they may go to.

Each ready task is in one queue: that of the engine it is addressed to, or that of its destination. Where it
may go can change while it waits (an engine leaves, one has refused it, the tasks that it follows have ended),
and then it moves to another queue, waits again, or ends because there is no place left.
"""

from __future__ import annotations

from collections.abc import Iterator

from enginery.core.dependencies import Dependencies, Outlook, Standing
from enginery.core.engines import EngineTable
from enginery.core.placement import ANYWHERE
from enginery.core.queues import BalancedQueues, ReadyQueue
from enginery.core.task_table import TaskTable
from enginery.core.tasks import Fact, Task, TaskState
from enginery.ids import NO_ENGINE, EngineId
from enginery.protocol.messages import Status


class WaitingTasks:
    """The queues, and the rules by which tasks come into them."""

    def __init__(self, tasks: TaskTable, engines: EngineTable, dependencies: Dependencies) -> None:
        self._tasks = tasks
        self._engines = engines
        self.dependencies = dependencies
        self.balanced = BalancedQueues()
        self.direct: set[EngineId] = set()  # engines to which tasks are addressed that they have not got

    def __repr__(self) -> str:
        return f"<WaitingTasks: {self.balanced!r}, {len(self.dependencies.waiting)} waiting for others>"

    def put(self, tasks: list[Task], now: float) -> None:
        """Put ready tasks into the queues where they belong now."""
        by_queue: dict[int, tuple[ReadyQueue, list[Task]]] = {}
        for task in tasks:
            if task.direct != NO_ENGINE:
                self.direct.add(task.direct)
            elif not self._find_place(task, now):
                continue
            queue = self.queue_of(task)
            by_queue.setdefault(id(queue), (queue, []))[1].append(task)
        for queue, members in by_queue.values():
            queue.put_back(members)

    def begin_waiting(self, task: Task, now: float) -> None:
        unknown = self.dependencies.on_submitted(task, self._tasks)
        self.reconsider(task, now)
        if unknown and task.state is TaskState.WAITING:
            self._tasks.outbox.look_up(task.task_id, unknown)

    def reconsider(self, task: Task, now: float) -> None:
        """What this task depends on, or an engine that it may follow others to, is not what it was."""
        if task.state is TaskState.READY:
            self.queue_of(task).remove(task)
            self.put([task], now)
        elif task.state is TaskState.WAITING:
            standing = self.dependencies.standing(task, self._engines.lives)
            if standing.outlook is Outlook.MET:
                task.apply(Fact.MET)
                self.dependencies.stop_waiting(task)
                task.turn = self._tasks.submitted
                self.put([task], now)
            elif standing.outlook is not Outlook.OPEN:
                self._end_hopeless(task, standing, now)

    def on_engine_gone(self, gone: EngineId, now: float) -> None:
        """An engine has left: find other places for what it might have run."""
        self.put(self.balanced.take_affected(gone), now)
        for task in list(self.dependencies.waiting.values()):
            if task.options.follow is not None:
                self.reconsider(task, now)

    def _find_place(self, task: Task, now: float) -> bool:
        """Decide where a ready task may go. False if there is no place: it waits again, or has ended."""
        if task.destination is ANYWHERE and task.options.follow is None:
            return True
        if task.options.follow is not None:
            standing = self.dependencies.standing(task, self._engines.lives)
            if standing.outlook is Outlook.OPEN:
                task.apply(Fact.HELD)
                self.dependencies.wait(task)
                return False
            if standing.outlook is not Outlook.MET:
                self._end_hopeless(task, standing, now)
                return False
            task.destination = task.destination._replace(engines=standing.engines or task.options.candidates)
        engines = task.destination.engines
        present = self._engines.present(engines)
        if any(load.life not in task.destination.refused for load in present) or not (engines or present):
            return True
        if present:
            detail = f"every engine that it may run on has refused it; the last one said: {task.unmet}"
            self._tasks.fail(task, Fact.HOPELESS, Status.IMPOSSIBLE, now, detail)
        else:
            detail = f"every engine it was allowed on ({', '.join(map(str, engines))}) has left"
            self._tasks.fail(task, Fact.UNREACHABLE, Status.NO_ENGINE, now, detail)
        return False

    def _end_hopeless(self, task: Task, standing: Standing, now: float) -> None:
        status = Status.INVALID if standing.outlook is Outlook.INVALID else Status.IMPOSSIBLE
        self._tasks.fail(task, Fact.HOPELESS, status, now, standing.detail)

    def priorities(self) -> list[int]:
        """Of all tasks in the queues, highest first."""
        return sorted({number for queue in self._queues() for number in queue.priorities}, reverse=True)

    def _queues(self) -> Iterator[ReadyQueue]:
        yield from (self._engines.loads[engine].direct for engine in self.direct)
        yield from (queue for _, queue in self.balanced.restricted())
        yield self.balanced.anywhere

    def queue_of(self, task: Task) -> ReadyQueue:
        if task.direct != NO_ENGINE:
            return self._engines.loads[task.direct].direct
        return self.balanced.of(task.destination)
