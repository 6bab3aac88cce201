"""The tasks of a controller's former life, until it is proven where each of them is.

Problem: the history knows which tasks have not ended, and, a few milliseconds late, which engine had which of
them. A task may have been sent, taken back, or sent elsewhere in the last moment of the former life, and the
engine that has it may be running it right now. Nothing may run twice that was not to.

Choice: a task of which that is not known is a *suspect*. While `is_open` the scheduler hands out nothing at
all, old or new: every engine that was there says which tasks it has (`on_held`), or is known to be dead, or
is given up. What an engine has is its own, whatever the history says; what it was said to have, and has not,
waits in a queue. When all engines are accounted for (`close`), what is in a queue is nowhere else.

An engine that runs user code cannot say hello on its task connection, perhaps for hours. Its control thread
speaks for it (`protocol.messages.Holds`), and from then on nothing is taken in there any more that the former
controller had sent. A new engine gets no task before the history knows it (`ClusterState.on_known`), so there
is none with tasks that nobody would wait for.

Guarantee: a task is handed out after a restart only if no engine has it or has begun it, each by its own word
or its host's proof. Where there is neither within the grace, what the history knows of an engine is lost with
it; what it was given in the last moment before the controller died (a commit, see `STORE_INTERVAL_S`) is not
known to have been there. Calls that come for the first time wait with the others, at most as long.
"""

from __future__ import annotations

from collections.abc import Iterable

from enginery.core.cancelling import Cancelling
from enginery.core.engines import EngineLoad, EngineTable
from enginery.core.left_over import FormerTask
from enginery.core.task_table import TaskTable
from enginery.core.tasks import Fact, Task, TaskState
from enginery.core.waiting_tasks import WaitingTasks
from enginery.ids import NO_ENGINE, EngineId, EngineKey, TaskId
from enginery.protocol.hosts import PAGE_TASKS
from enginery.protocol.messages import Status

Attempts = Iterable[tuple[TaskId, int]]
LEFT = "the engine that it is addressed to has left"
_UNKNOWN_S = -1.0


class Reclaiming:
    """What is done with the scheduler's tasks after a restart of the controller."""

    def __init__(
        self, tasks: TaskTable, engines: EngineTable, waiting: WaitingTasks, cancelling: Cancelling
    ) -> None:
        self._tasks = tasks
        self._cancelling = cancelling
        self._engines = engines
        self._waiting = waiting
        self._suspects: set[TaskId] = set()
        self.is_open = False
        """Whether nothing is handed out."""

    def __repr__(self) -> str:
        return f"<Reclaiming: {'open' if self.is_open else 'closed'}, {len(self._suspects)} suspects>"

    def restore(
        self, former: Iterable[tuple[FormerTask, Task]], engines: dict[EngineKey, EngineId], now: float
    ) -> None:
        """Take the tasks of the former life, in the order in which they came. Its engines have joined."""
        tasks = list(former)
        for known, task in tasks:
            task.attempt = known.attempt
            if known.retries_left is not None:
                task.retries_left = known.retries_left
            self._tasks.admit(task)
            self._suspects.add(task.task_id)
        for known, task in tasks:  # when all are there that others may name
            engine = engines.get(known.engine_key, NO_ENGINE)
            if task.state is TaskState.WAITING:
                self._waiting.begin_waiting(task, now)
            elif engine == NO_ENGINE:
                self._queue(task, now)
            if engine != NO_ENGINE and not task.state.is_terminal:
                if known.call.options.after is not None or known.call.options.follow is not None:
                    self._take_out(task)  # it waited for others, and no longer does
                self._place(task, self._engines.loads[engine], now)

    def _queue(self, task: Task, now: float) -> None:
        if task.direct != NO_ENGINE and task.direct not in self._engines.loads:
            self._tasks.fail(task, Fact.UNREACHABLE, Status.NO_ENGINE, now, LEFT, engine=task.direct)
        else:
            self._waiting.put([task], now)

    # ------------------------------------------------------------ what engines say

    def on_held(self, engine: EngineId, held: Attempts, *, is_asked: bool, now: float) -> None:
        """An engine says which tasks it has: these and no others. What it has and nobody knows is left out.

        `is_asked` says that it will be asked for what it has not begun, because an order to give that back
        may still be on its way to it.
        """
        load = self._engines.loads[engine]
        for task_id, attempt in held:
            task = self._tasks.get(task_id)
            if task is None or task_id not in self._suspects:
                continue
            self._suspects.discard(task_id)
            if task.engine != engine:
                self._take_out(task)
                self._place(task, load, now)
            task.attempt = attempt
            task.recalled = is_asked
        self._take_back(
            load, [task for task in load.in_flight.values() if task.task_id in self._suspects], now
        )

    def on_begun(self, engine: EngineId, begun: Iterable[TaskId], known: set[TaskId], *, now: float) -> None:
        """This engine is dead, and has begun these at some time.

        Those of the `known` ones the history has seen move: it knows better where they are.
        """
        load = self._engines.loads[engine]
        for task_id in begun:
            task = self._tasks.get(task_id)
            if task is not None and task_id in self._suspects and task_id not in known:
                self._take_out(task)
                self._place(task, load, now)

    def on_suspected(self, task: Task) -> None:
        """A call has come that an engine may have since before this life."""
        self._suspects.add(task.task_id)

    def on_found(self, task: Task, engine: EngineId, attempt: int, *, now: float) -> None:
        """A call has come that this engine has since before this life."""
        self._suspects.discard(task.task_id)
        self._take_out(task)
        self._place(task, self._engines.loads[engine], now)
        task.attempt = attempt

    def on_lost(
        self, task: Task, status: Status, cause: str, *, engine: EngineId = NO_ENGINE, now: float
    ) -> None:
        """A call has come that has run, or may have, on an engine that is gone."""
        if task.direct == NO_ENGINE and task.retries_left > 0:
            task.retries_left -= 1
            task.attempt += 1
            return
        if task.state is TaskState.READY:
            self._waiting.queue_of(task).discard()
        self._tasks.fail(task, Fact.UNREACHABLE, status, now, cause, engine=engine)

    def close(self) -> None:
        """Every engine is accounted for."""
        self.is_open = False
        self._suspects.clear()

    # ------------------------------------------------------------ inside

    def _take_out(self, task: Task) -> None:
        """From wherever the history, or chance, has put it: it is ready, and nowhere."""
        if task.engine != NO_ENGINE:
            load = self._engines.loads[task.engine]
            self._tasks.leave_engine(load, task)
            self._refresh(load)
            task.apply(Fact.TAKEN_BACK)
            task.engine = NO_ENGINE
        elif task.state is TaskState.READY:
            self._waiting.queue_of(task).remove(task)

    def _place(self, task: Task, load: EngineLoad, now: float) -> None:
        """It is in this engine, since before this life."""
        if task.task_id in self._tasks.resting.tasks:
            self._tasks.resting.forget(task.task_id)
            task.apply(Fact.RESTED)
        elif task.state is TaskState.WAITING:
            task.apply(Fact.MET)
            self._waiting.dependencies.stop_waiting(task)
            task.turn = self._tasks.submitted
        self._tasks.send(task, load, estimate_s=_UNKNOWN_S, now=now)
        task.completed_before = -PAGE_TASKS  # of its past nothing is known that would prove anything
        self._refresh(load)

    def _take_back(self, load: EngineLoad, tasks: list[Task], now: float) -> None:
        again: list[Task] = []
        for task in tasks:
            self._tasks.leave_engine(load, task)
            if not self._cancelling.on_taken_back(task, now):
                self._tasks.reset(task, Fact.TAKEN_BACK)
                again.append(task)
        self._waiting.put(again, now)
        self._refresh(load)

    def _refresh(self, load: EngineLoad) -> None:
        if load.connected:
            self._engines.room.update(load)

    def check(self) -> None:
        assert self.is_open or not self._suspects
