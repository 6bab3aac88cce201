"""Which engine runs which task, when: the only place where a task changes its state.

Cost: submit, send and finish of one task together take about 10 µs of this file (`scripts/bench --only
single_tasks` has the whole way). Each step is one table lookup and a few dictionary operations; nothing scans
tasks, and only tasks restricted to some engines look through those.

The shell calls `on_<fact>` for everything that comes in and then `dispatch` once, which fills the engines'
windows. Direct tasks of an engine go before balanced ones. An engine that has run dry while others hold
unstarted balanced tasks takes half of theirs (`on_tick`), so that a wrong estimate costs a round trip and not
the length of a task.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import NamedTuple

from enginery.core.durations import DurationTable
from enginery.core.engines import WINDOW_S, EngineLoad, RecentlyGone, RoomIndex
from enginery.core.outbox import SchedulerOutbox
from enginery.core.queues import ReadyQueue
from enginery.core.tasks import Fact, Task, TaskState
from enginery.ids import NO_ENGINE, ClientId, EngineId, TaskId, make_task_id, task_client
from enginery.protocol.messages import Call, EngineResult, Kind, Status, TaskOptions, TaskResult

ANNOUNCE_S = 0.05
"""Tasks expected to last longer say when they begin."""
RECALL_INTERVAL_S = WINDOW_S
"""How often an idle engine looks at the others' backlogs."""

FRUITLESS_RECALL_INTERVAL_S = 1.0
"""The same after it found nothing to take."""


class SchedulerStatistics(NamedTuple):
    """Counts of tasks: submitted is the sum of all the others at any instant."""

    submitted: int
    ready: int
    sent: int
    running: int
    done: int
    failed: int
    cancelled: int


class Scheduler:
    """The tasks of one cluster."""

    def __init__(self, outbox: SchedulerOutbox) -> None:
        self._outbox = outbox
        self._tasks: dict[TaskId, Task] = {}
        self._engines: dict[EngineId, EngineLoad] = {}
        self._gone = RecentlyGone()
        self._room = RoomIndex()
        self._durations = DurationTable()
        self._ready = ReadyQueue()
        self._restricted: dict[tuple[EngineId, ...], ReadyQueue] = {}
        self._direct_waiting: set[EngineId] = set()
        self._submitted = 0
        self._ended = {TaskState.DONE: 0, TaskState.FAILED: 0, TaskState.CANCELLED: 0}
        self._running = 0
        self._in_flight = 0
        self._recall_at: float | None = None

    def __repr__(self) -> str:
        return f"<Scheduler {self.statistics()}>"

    # ------------------------------------------------------------ questions

    def task(self, task_id: TaskId) -> Task | None:
        """An unfinished task."""
        return self._tasks.get(task_id)

    def load(self, engine: EngineId) -> EngineLoad | None:
        return self._engines.get(engine)

    def has_had(self, engine: EngineId, task_id: TaskId) -> bool:
        """Whether this engine has the task, or was one of the last to end it."""
        load = self._engines.get(engine)
        return load is not None and (task_id in load.in_flight or task_id in load.recent)

    @property
    def ready_count(self) -> int:
        """Balanced tasks that no engine has been given."""
        return len(self._ready) + sum(len(queue) for queue in self._restricted.values())

    def statistics(self) -> SchedulerStatistics:
        return SchedulerStatistics(
            submitted=self._submitted,
            ready=len(self._tasks) - self._in_flight,
            sent=self._in_flight - self._running,
            running=self._running,
            done=self._ended[TaskState.DONE],
            failed=self._ended[TaskState.FAILED],
            cancelled=self._ended[TaskState.CANCELLED],
        )

    @property
    def unfinished_count(self) -> int:
        return len(self._tasks)

    def unfinished_of(self, client: ClientId) -> list[TaskId]:
        return [task_id for task_id in self._tasks if task_client(task_id) == client]

    # ------------------------------------------------------------ facts: engines

    def on_engine_joined(self, engine: EngineId) -> None:
        load = self._engines[engine] = EngineLoad(engine)
        self._room.update(load)

    def on_engine_disconnected(self, engine: EngineId) -> None:
        """Its route is gone; that is no proof of death. It gets nothing new for now."""
        load = self._engines[engine]
        load.connected = False
        self._room.discard(engine)

    def on_engine_returned(self, engine: EngineId, held: Iterable[tuple[TaskId, int]]) -> list[Task]:
        """It said hello again. Returns what was lost on the way to it, to be sent once more, in order."""
        load = self._engines[engine]
        load.connected = True
        self._room.update(load)
        known = set(held)
        return [task for task in load.in_flight.values() if (task.task_id, task.attempt) not in known]

    def on_engine_gone(
        self, engine: EngineId, *, cause: str, status: Status, started: Set[TaskId] | None, now: float
    ) -> None:
        """It is dead, or given up as lost. `started` is its proof of what it began, None if there is none."""
        load = self._engines.pop(engine)
        self._room.discard(engine)
        self._direct_waiting.discard(engine)
        self._gone.add(engine, cause)
        begun, unstarted = load.started_and_not(started)
        again: list[Task] = []
        for task in begun:
            self._leave_engine(load, task)
            if task.direct == NO_ENGINE and task.retries_left > 0 and not task.to_abort:
                self._retry(task)
                again.append(task)
            else:
                self._end(task, Fact.FAILED, self._verdict(task, status, engine, cause, now))
        for task in unstarted:
            self._leave_engine(load, task)
            if task.to_abort:
                self._end(task, Fact.ABORTED, self._verdict(task, Status.ABORTED, engine, "", now))
            elif task.direct == NO_ENGINE:
                self._reset(task, Fact.LOST_UNSTARTED)
                again.append(task)
            else:
                self._end(task, Fact.UNREACHABLE, self._verdict(task, status, engine, cause, now))
        self._requeue(again)
        while (waiting := load.direct.pop()) is not None:
            self._end(waiting, Fact.UNREACHABLE, self._verdict(waiting, status, engine, cause, now))
        self._refuse_unplaceable(now)

    # ------------------------------------------------------------ facts: tasks

    def on_submitted(
        self, client: ClientId, options: TaskOptions, call: Call, *, blob_bytes: int = 0, now: float
    ) -> list[Task]:
        """Take one call: a balanced task, or a direct one for each engine that it names."""
        task_id = make_task_id(client, call.number)
        size = len(call.payload) + blob_bytes
        if not call.engines:
            task = Task(
                task_id, options, call.payload, call.blobs,
                direct=NO_ENGINE, size_bytes=size, submitted_at=now,
            )  # fmt: skip
            self._admit(task)
            self._queue_for(options.candidates).push(task)
            if options.candidates and not any(engine in self._engines for engine in options.candidates):
                self._refuse_unplaceable(now)
            return [task]
        tasks = []
        for offset, engine in enumerate(call.engines):
            task = Task(
                TaskId(task_id + offset), options, call.payload, call.blobs,
                direct=engine, size_bytes=size, submitted_at=now,
            )  # fmt: skip
            self._admit(task)
            tasks.append(task)
            load = self._engines.get(engine)
            if load is None:
                cause = self._gone.cause(engine) or "no engine of this id has ever been registered"
                self._end(task, Fact.UNREACHABLE, self._verdict(task, Status.NO_ENGINE, engine, cause, now))
            else:
                load.direct.push(task)
                self._direct_waiting.add(engine)
        return tasks

    def on_started(self, engine: EngineId, task_id: TaskId, attempt: int) -> None:
        task = self._present(engine, task_id, attempt)
        if task is not None and task.state is TaskState.SENT:
            task.apply(Fact.STARTED)
            self._running += 1

    def on_result(self, engine: EngineId, result: EngineResult, *, now: float) -> bool:
        """A task has returned or raised. False for a late answer, which changes nothing."""
        task = self._present(engine, result.task, result.attempt)
        if task is None:
            return False
        load = self._engines[engine]
        self._measure(load, task, result)
        self._leave_engine(load, task)
        load.completed += 1
        load.recent.append(task.task_id)
        self._refresh(load)
        if (
            result.status is not Status.OK
            and task.retries_left > 0
            and task.options.retry_on_exception
            and not task.to_abort
        ):
            self._retry(task)
            self._requeue([task])
            return True
        fact = Fact.RETURNED if result.status is Status.OK else Fact.FAILED
        self._end(
            task,
            fact,
            TaskResult(
                task.task_id, result.status, result.payload, result.blobs, engine,
                task.submitted_at, result.started, result.completed,
                result.stdout, result.stderr, result.outputs,
            ),
        )  # fmt: skip
        return True

    def on_resend_wanted(self, engine: EngineId, task_id: TaskId, attempt: int) -> Task | None:
        """The engine lacks blobs of this task and has dropped it. Returns it if it is to be sent again."""
        return self._present(engine, task_id, attempt)

    def on_taken_back(
        self,
        engine: EngineId,
        taken: Sequence[tuple[TaskId, int]],
        kept: Sequence[tuple[TaskId, int]],
        *,
        now: float,
    ) -> None:
        """The engine's answer to a take-back: `taken` will never run there."""
        again: list[Task] = []
        for task_id, attempt in taken:
            task = self._present(engine, task_id, attempt)
            if task is None or task.state is not TaskState.SENT:
                continue
            self._leave_engine(self._engines[engine], task)
            if task.to_abort:
                self._end(task, Fact.ABORTED, self._verdict(task, Status.ABORTED, engine, "", now))
            else:
                self._reset(task, Fact.TAKEN_BACK)
                again.append(task)
        for task_id, attempt in kept:
            task = self._present(engine, task_id, attempt)
            if task is not None:
                task.to_abort = False  # it has started: an abort comes too late. It stays `recalled`
        if taken and engine in self._engines:
            self._refresh(self._engines[engine])
        self._requeue(again)

    def on_aborted(self, task_ids: Iterable[TaskId], *, now: float) -> None:
        """Take these out if they have not started; tasks that have ended are ignored."""
        asked: dict[EngineId, list[tuple[TaskId, int]]] = {}
        for task_id in task_ids:
            task = self._tasks.get(task_id)
            if task is None:
                continue
            if task.state is TaskState.READY:
                self._queue_of(task).discard()
                self._end(task, Fact.ABORTED, self._verdict(task, Status.ABORTED, NO_ENGINE, "", now))
            elif task.state is TaskState.SENT:
                task.to_abort = task.recalled = True
                asked.setdefault(task.engine, []).append((task_id, task.attempt))
        for engine, calls in asked.items():
            self._outbox.take_back(engine, calls)

    def recalled_of(self, engine: EngineId) -> list[tuple[TaskId, int]]:
        """What this engine has been asked for and may not have heard, or not been heard about."""
        load = self._engines[engine]
        return [(task.task_id, task.attempt) for task in load.in_flight.values() if task.recalled]

    # ------------------------------------------------------------ time and decisions

    def dispatch(self, *, now: float) -> None:
        """Give ready tasks to engines with room. Called once after each batch of facts."""
        for engine in list(self._direct_waiting):
            load = self._engines[engine]
            while load.has_room and (task := load.direct.pop()) is not None:
                self._send(load, task, now)
            if not load.direct:
                self._direct_waiting.discard(engine)
        for candidates, queue in list(self._restricted.items()):
            while queue and (chosen := self._room.least_loaded_of(candidates)) is not None:
                self._send_next(chosen, queue, now)
            if not queue:
                del self._restricted[candidates]
        while self._ready and (chosen := self._room.least_loaded()) is not None:
            self._send_next(chosen, self._ready, now)
        self._plan_recall(now)

    def next_deadline(self) -> float | None:
        return self._recall_at

    def on_tick(self, *, now: float) -> None:
        if self._recall_at is not None and now >= self._recall_at:
            self._recall_at = None
            found = self._recall()
            self._plan_recall(now, RECALL_INTERVAL_S if found else FRUITLESS_RECALL_INTERVAL_S)

    # ------------------------------------------------------------ inside

    def _present(self, engine: EngineId, task_id: TaskId, attempt: int) -> Task | None:
        """The task if this engine has it in this attempt; everything else is late."""
        task = self._tasks.get(task_id)
        if task is None or task.engine != engine or task.attempt != attempt or engine not in self._engines:
            return None
        return task

    def _admit(self, task: Task) -> None:
        self._submitted += 1
        self._tasks[task.task_id] = task

    def _queue_for(self, candidates: tuple[EngineId, ...]) -> ReadyQueue:
        if not candidates:
            return self._ready
        queue = self._restricted.get(candidates)
        if queue is None:
            queue = self._restricted[candidates] = ReadyQueue()
        return queue

    def _queue_of(self, task: Task) -> ReadyQueue:
        if task.direct == NO_ENGINE:
            return self._queue_for(task.options.candidates)
        return self._engines[task.direct].direct

    def _requeue(self, tasks: list[Task]) -> None:
        by_queue: dict[int, tuple[ReadyQueue, list[Task]]] = {}
        for task in tasks:
            queue = self._queue_of(task)
            by_queue.setdefault(id(queue), (queue, []))[1].append(task)
            if task.direct != NO_ENGINE:
                self._direct_waiting.add(task.direct)
        for queue, members in by_queue.values():
            queue.push_front(members)

    def _send_next(self, engine: EngineId, queue: ReadyQueue, now: float) -> None:
        task = queue.pop()
        if task is not None:
            self._send(self._engines[engine], task, now)

    def _send(self, load: EngineLoad, task: Task, now: float) -> None:
        estimate = self._durations.estimate_s(_duration_key(task.options))
        task.apply(Fact.ASSIGNED)
        task.engine = load.engine
        task.estimate_s = estimate
        task.sent_at = now
        load.add(task)
        self._in_flight += 1
        self._room.update(load)
        self._outbox.run(load.engine, task, announce=not 0 <= estimate < ANNOUNCE_S)

    def _refresh(self, load: EngineLoad) -> None:
        if load.connected:
            self._room.update(load)

    def _leave_engine(self, load: EngineLoad, task: Task) -> None:
        load.remove(task)
        self._in_flight -= 1
        if task.state is TaskState.RUNNING:
            self._running -= 1
        self._outbox.release(task, load.engine)

    def _measure(self, load: EngineLoad, task: Task, result: EngineResult) -> None:
        # From the end of the task before, if the engine could begin then: its own overhead counts too.
        began = max(load.last_result_at, task.sent_at)
        if not 0 < began <= result.completed:
            began = result.started
        self._durations.on_measured(
            _duration_key(task.options),
            min(result.completed - began, result.completed - result.started + WINDOW_S),
        )
        load.last_result_at = result.completed

    def _retry(self, task: Task) -> None:
        task.retries_left -= 1
        self._reset(task, Fact.RETRIED)

    def _reset(self, task: Task, fact: Fact) -> None:
        task.apply(fact)
        task.attempt += 1
        task.engine = NO_ENGINE
        task.recalled = task.to_abort = False

    def _end(self, task: Task, fact: Fact, result: TaskResult) -> None:
        state = task.apply(fact)
        del self._tasks[task.task_id]
        self._ended[state] += 1
        self._outbox.finish(task, result)

    def _verdict(self, task: Task, status: Status, engine: EngineId, detail: str, now: float) -> TaskResult:
        return TaskResult(
            task.task_id, status, engine=engine, submitted=task.submitted_at, completed=now, detail=detail
        )

    def _refuse_unplaceable(self, now: float) -> None:
        """Fail balanced tasks whose every allowed engine has left: nobody else will ever run them."""
        for candidates, queue in list(self._restricted.items()):
            if any(engine in self._engines for engine in candidates):
                continue
            named = ", ".join(map(str, candidates))
            while (task := queue.pop()) is not None:
                detail = f"every engine it was allowed on ({named}) has left"
                self._end(
                    task, Fact.UNREACHABLE, self._verdict(task, Status.NO_ENGINE, NO_ENGINE, detail, now)
                )
            del self._restricted[candidates]

    def _plan_recall(self, now: float, interval_s: float = RECALL_INTERVAL_S) -> None:
        """Look again soon while somebody is idle and somebody else has a backlog."""
        idle = len(self._room.idle)
        if self._recall_at is None and idle and self._in_flight > len(self._engines) - idle:
            self._recall_at = now + interval_s

    def _recall(self) -> bool:
        """Ask the longest backlogs back by half, one for each idle engine. False if there was none."""
        idle = self._room.idle
        backlogs = sorted(
            (
                (load.recallable(idle), load.engine)
                for load in self._engines.values()
                if len(load.in_flight) > 1
            ),
            key=lambda backlog: len(backlog[0]),
            reverse=True,
        )
        asked = False
        for tasks, engine in backlogs[: len(idle)]:
            # The tail half: the engine will reach it last, so the claim is rarely too late.
            tail = tasks[len(tasks) // 2 :]
            if tail:
                asked = True
                for task in tail:
                    task.recalled = True
                self._outbox.take_back(engine, [(task.task_id, task.attempt) for task in tail])
        return asked

    def check(self) -> None:
        """Assert every invariant."""
        statistics = self.statistics()
        assert statistics.submitted == sum(statistics[1:]), statistics
        in_flight: dict[TaskId, Task] = {}
        for load in self._engines.values():
            load.check()
            assert not load.direct or load.engine in self._direct_waiting, load
            assert (load.engine in self._room) == load.has_room, load
            in_flight.update(load.in_flight)
        assert len(in_flight) == self._in_flight
        waiting = {task.task_id for task in self._ready}
        for queue in self._restricted.values():
            waiting.update(task.task_id for task in queue)
        for load in self._engines.values():
            assert len(list(load.direct)) == len(load.direct)
            waiting.update(task.task_id for task in load.direct)
        assert len(list(self._ready)) == len(self._ready)
        assert waiting.isdisjoint(in_flight)
        assert waiting | in_flight.keys() == self._tasks.keys()
        for task_id, task in self._tasks.items():
            assert not task.state.is_terminal, task
            assert (task.state is TaskState.READY) == (task_id in waiting), task
            assert (task.engine == NO_ENGINE) == (task_id in waiting), task


_KIND_KEYS = {kind: kind.name.encode() for kind in Kind}


def _duration_key(options: TaskOptions) -> bytes:
    return options.function or _KIND_KEYS[options.kind]
