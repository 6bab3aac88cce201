"""Which engine runs which task, when: the only place that decides what becomes of a task.

The steps that a task makes are in `task_table`, where it waits for an engine in `waiting_tasks`.

Cost: submit, send and finish of one task together take about 10 µs of this file (`scripts/bench --only
single_tasks` has the whole way). Each step is one table lookup and a few dictionary operations; nothing scans
tasks, and only tasks restricted to some engines look through those.

The shell calls `on_<fact>` for everything that comes in and then `dispatch` once, which frees the tasks that
waited for what has ended and fills the engines' windows. Direct tasks of an engine go before balanced ones.
An engine that has run dry while others hold unstarted balanced tasks takes half of theirs (`on_tick`), so
that a wrong estimate costs a round trip and not the length of a task.

An attempt after a failure goes to an engine that has not failed the task, waiting for one if need be, and to
any if all have; before it the task rests (`retries`). An engine that refuses a task (`Status.UNMET`) is not
asked again. What is taken back or ended before its time is the business of `cancelling`, tasks of different
priorities that of `urgency`, tasks that tasks have made that of `families`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

from enginery.core.cancelling import CANCEL_GRACE_S, FACTS, Cancelling
from enginery.core.dependencies import ENDS_KEPT, NOWHERE, Dependencies, End
from enginery.core.durations import DurationTable, duration_key
from enginery.core.engines import WINDOW_S, EngineLoad, EngineTable, RecentlyGone
from enginery.core.families import Families
from enginery.core.outbox import SchedulerOutbox
from enginery.core.placement import ANYWHERE, Placement
from enginery.core.queues import LOWEST_PRIORITY, ReadyQueue
from enginery.core.reclaiming import Reclaiming
from enginery.core.retries import Death, describe_deaths, is_deadly, rest_s
from enginery.core.task_table import SchedulerStatistics, TaskTable
from enginery.core.tasks import Fact, Task, TaskState
from enginery.core.urgency import Urgency
from enginery.core.waiting_tasks import WaitingTasks
from enginery.errors import TimeLimitExceeded
from enginery.ids import NO_ENGINE, NO_TASK, ClientId, EngineId, TaskId, make_task_id
from enginery.protocol.messages import Call, EngineResult, Status, TaskOptions, TaskResult

ANNOUNCE_S = 0.05
"""Tasks expected to last longer say when they begin."""
RECALL_INTERVAL_S = WINDOW_S
"""How often an idle engine looks at the others' backlogs."""

FRUITLESS_RECALL_INTERVAL_S = 1.0
"""The same after it found nothing to take."""

_NOT_RUN = frozenset({Status.UNMET, Status.ABORTED, Status.CANCELLED, Status.OVER_LIMIT})
"""Of these an engine's word says nothing of how long the function takes."""
_INTERRUPTED = "builtins.KeyboardInterrupt"
LIMIT_ERRORS = tuple(f"{kind.__module__}.{kind.__qualname__}" for kind in TimeLimitExceeded.__mro__[:-1])
"""What `retry_on` may say to have a task retried that ran for too long."""
_ENDS = {Status.OK: Fact.RETURNED, **FACTS}
"""What a result is to its task, where that is not a failure."""

DIRECT_AND_DEPENDENT = (
    "a call to engines named one by one cannot depend on other tasks; "
    "leave out `after` and `follow`, or let the scheduler choose the engine"
)


class Scheduler:
    """The tasks of one cluster."""

    def __init__(
        self,
        outbox: SchedulerOutbox,
        placement: Placement | None = None,
        *,
        grace_s: float = CANCEL_GRACE_S,
        ends_kept: int = ENDS_KEPT,
    ) -> None:
        self._outbox = outbox
        placement = placement or Placement()
        self._jitter = placement.jitter
        self._table = EngineTable(placement)
        self._engines = self._table.loads
        self._room = self._table.room
        self._gone = RecentlyGone()
        self._durations = DurationTable()
        self._dependencies = Dependencies(ends_kept)
        self._tasks = TaskTable(outbox, self._dependencies)
        self._waiting = WaitingTasks(self._tasks, self._table, self._dependencies)
        self._ready = self._waiting.balanced.anywhere
        self._resting = self._tasks.resting
        self.cancelling = Cancelling(self._tasks, self._table, self._waiting, outbox, grace_s=grace_s)
        self.reclaiming = Reclaiming(self._tasks, self._table, self._waiting, self.cancelling)
        self._sendings = 0
        self.urgency = Urgency(self._tasks, self._table, self._waiting, outbox, self._send)
        self.families = Families(self._tasks, self._table, self._waiting, outbox, self._send)
        self._recall_at: float | None = None

    def __repr__(self) -> str:
        return f"<Scheduler {self.statistics()}>"

    # ------------------------------------------------------------ questions

    def task(self, task_id: TaskId) -> Task | None:
        """An unfinished task."""
        return self._tasks.get(task_id)

    def load(self, engine: EngineId) -> EngineLoad | None:
        return self._engines.get(engine)

    @property
    def loads(self) -> list[EngineLoad]:
        """The engines that are there, ascending ids."""
        return [self._engines[engine] for engine in sorted(self._engines)]

    def ahead_of(self, task: Task) -> int:
        """How many tasks leave the queue of this ready one before it. Looks through the queue."""
        return self._waiting.queue_of(task).ahead_of(task)

    def is_resting(self, task: Task) -> bool:
        """Whether a waiting task waits for its next attempt."""
        return task.task_id in self._resting.tasks

    def open_dependencies(self, task: Task) -> tuple[set[TaskId], set[TaskId], set[TaskId]]:
        """What a waiting task comes after, what it follows, and what is being looked up."""
        return self._dependencies.open_of(task.task_id)

    def has_had(self, engine: EngineId, task_id: TaskId) -> bool:
        """Whether this engine has the task, was one of the last to end it, or has something left of it."""
        load = self._engines.get(engine)
        return load is not None and load.has_had(task_id)

    def tasks_of(self, engine: EngineId) -> frozenset[TaskId]:
        """The tasks that this engine has or has had, as far as that is still known."""
        load = self._engines.get(engine)
        return frozenset() if load is None else load.known_tasks()

    def present(self, engine: EngineId, task_id: TaskId, attempt: int) -> bool:
        """Whether this engine has this attempt at an unfinished task."""
        return self._tasks.present(engine, task_id, attempt) is not None

    @property
    def ready_count(self) -> int:
        """Balanced tasks that no engine has been given, those that wait or rest included."""
        resting = sum(task.direct == NO_ENGINE for task in self._resting.tasks.values())
        return len(self._dependencies.waiting) + len(self._waiting.balanced) + resting

    def resting_at(self, engine: EngineId) -> list[TaskId]:
        """Tasks addressed to this engine that have failed there and rest before they are tried again."""
        return [task.task_id for task in self._resting.of(engine)]

    @property
    def unassigned(self) -> list[TaskId]:
        """The same tasks by their ids, oldest first."""
        return [
            task.task_id
            for task in self._tasks.values()
            if task.direct == NO_ENGINE and task.engine == NO_ENGINE
        ]

    def statistics(self) -> SchedulerStatistics:
        return self._tasks.statistics()

    def __iter__(self) -> Iterator[TaskId]:
        """All unfinished tasks, oldest first."""
        return iter(self._tasks)

    # ------------------------------------------------------------ facts: engines

    def on_former_engine(self, engine: EngineId, cause: str) -> None:
        """An engine that was there before this controller, and has left."""
        self._gone.add(engine, cause)

    def on_engine_joined(self, engine: EngineId) -> None:
        self._table.join(engine)

    def on_engine_disconnected(self, engine: EngineId) -> None:
        """Its route is gone; that is no proof of death. It gets nothing new for now."""
        load = self._engines[engine]
        load.connected = False
        self._room.discard(engine)

    def on_engine_known(self, engine: EngineId) -> None:
        """It gets tasks from now on."""
        load = self._engines[engine]
        load.connected = True
        self._room.update(load)

    def on_set_up(self, engine: EngineId, tasks: Sequence[Task], *, now: float) -> None:
        """These are made there in this order, and nothing else before them but what it has been given."""
        load = self._engines[engine]
        load.setting_up.update(task.task_id for task in tasks)
        for task in tasks:
            self._tasks.admit(task)
            self._send(load, task, now)

    def on_engine_returned(self, engine: EngineId, held: Iterable[tuple[TaskId, int]]) -> list[Task]:
        """It said hello again. Returns what was lost on the way to it, to be sent once more, in order."""
        load = self._engines[engine]
        load.connected = True
        load.lent_to.clear()  # it says so again
        self._room.update(load)
        known = set(held)
        return [task for task in load.in_flight.values() if (task.task_id, task.attempt) not in known]

    def strangers(self, engine: EngineId, held: Iterable[tuple[TaskId, int]]) -> list[tuple[TaskId, int]]:
        """What this engine holds and was given up, or has ended: it must not begin that (any more)."""
        return [attempt for attempt in held if self._tasks.present(engine, *attempt) is None]

    def on_engine_gone(
        self,
        engine: EngineId,
        *,
        cause: str,
        status: Status,
        started: Set[TaskId] | None,
        expected: bool = False,
        now: float,
    ) -> None:
        """It is dead, or given up as lost. `started` is its proof of what it began, None if there is none.

        `expected` says that it was told to end, so that none of its tasks is to blame.
        """
        load = self._table.leave(engine)
        self._waiting.direct.discard(engine)
        self._gone.add(engine, cause)
        begun, unstarted = load.started_and_not(started)
        again: list[Task] = []
        if not expected:
            for task in begun or unstarted:
                task.deaths = (*task.deaths, Death(engine, cause))
        for task in begun:
            self._tasks.leave_engine(load, task)
            self._end_lost(task, status, cause, now)
        for task in unstarted:
            self._tasks.leave_engine(load, task)
            if task.wanted_end in FACTS:
                self._tasks.fail(task, FACTS[task.wanted_end], task.wanted_end, now, engine=engine)
            elif task.direct != NO_ENGINE:
                self._tasks.fail(task, Fact.UNREACHABLE, status, now, cause, engine=engine)
            elif is_deadly(len(task.deaths), task.options.retries):
                detail = describe_deaths(task.deaths)
                self._tasks.fail(task, Fact.UNREACHABLE, status, now, detail, engine=engine)
            else:
                self._tasks.reset(task, Fact.LOST_UNSTARTED)
                again.append(task)
        self._waiting.put(again, now)
        for task in self._resting.of(engine):
            self._tasks.fail(task, Fact.UNREACHABLE, status, now, cause, engine=engine)
        while (waiting := load.direct.pop()) is not None:
            self._tasks.fail(waiting, Fact.UNREACHABLE, status, now, cause, engine=engine)
        self._waiting.on_engine_gone(engine, now)

    def _end_lost(self, task: Task, status: Status, cause: str, now: float) -> None:
        """A task that had begun has left an engine that is gone."""
        engine = task.engine
        if task.wanted_end is Status.CANCELLED:
            detail = _replaced(task) if task.overdue else f"its engine has died meanwhile: {cause}"
            self._tasks.fail(task, Fact.CANCELLED, Status.CANCELLED, now, detail, engine=engine)
            return
        is_over_limit = task.wanted_end is Status.OVER_LIMIT
        is_wanted = _covers(task.options.retry_on, LIMIT_ERRORS) if is_over_limit else task.wanted_end is None
        if task.direct == NO_ENGINE and task.retries_left > 0 and is_wanted:
            self._rest(task, now)
        elif is_over_limit:
            self._tasks.fail(task, Fact.FAILED, Status.OVER_LIMIT, now, _replaced(task), engine=engine)
        else:
            detail = describe_deaths(task.deaths) if task.deaths else cause
            self._tasks.fail(task, Fact.FAILED, status, now, detail, engine=engine)

    # ------------------------------------------------------------ facts: tasks

    def on_submitted(
        self,
        client: ClientId,
        options: TaskOptions,
        call: Call,
        *,
        family: tuple[TaskId, ...] = (),
        blob_bytes: int = 0,
        now: float,
    ) -> list[Task]:
        """Take one call: a balanced task, or a direct one for each engine that it names."""
        task_id = make_task_id(client, call.number)
        size = len(call.payload) + blob_bytes
        if not call.engines:
            task = Task(
                task_id, options, call.payload, call.blobs,
                direct=NO_ENGINE, size_bytes=size, submitted_at=now, family=family,
            )  # fmt: skip
            self._tasks.admit(task)
            if task.state is TaskState.WAITING:
                self._waiting.begin_waiting(task, now)
            elif task.destination is ANYWHERE:
                self._ready.push(task)
            else:
                self._waiting.put([task], now)
            return [task]
        tasks = []
        for offset, engine in enumerate(call.engines):
            task = Task(
                TaskId(task_id + offset), options, call.payload, call.blobs,
                direct=engine, size_bytes=size, submitted_at=now, family=family,
            )  # fmt: skip
            self._tasks.admit(task)
            tasks.append(task)
            load = self._engines.get(engine)
            if task.state is TaskState.WAITING:
                self._tasks.fail(task, Fact.REFUSED, Status.REFUSED, now, DIRECT_AND_DEPENDENT)
            elif load is None:
                cause = self._gone.cause(engine) or "no engine of this id has ever been registered"
                self._tasks.fail(task, Fact.UNREACHABLE, Status.NO_ENGINE, now, cause, engine=engine)
            else:
                load.direct.push(task)
                self._waiting.direct.add(engine)
        return tasks

    def on_lends(self, engine: EngineId, task_id: TaskId, attempt: int, *, is_over: bool, now: float) -> None:
        """A task waits, and its engine is there for its descendants; or it waits no longer."""
        task = self._tasks.present(engine, task_id, attempt)
        if task is None:
            return
        if is_over:
            self.families.on_waits_no_longer(engine, task)
        else:
            self.on_started(engine, task_id, attempt, now=now)
            self.families.on_lends(engine, task)

    def on_started(self, engine: EngineId, task_id: TaskId, attempt: int, *, now: float) -> None:
        task = self._tasks.present(engine, task_id, attempt)
        if task is not None and task.state is TaskState.SENT:
            self._tasks.start(task)
            self.cancelling.on_started(task, now)

    def on_result(self, engine: EngineId, result: EngineResult, *, now: float) -> bool:
        """A task has returned or raised. False for a late answer, which changes nothing."""
        task = self._tasks.present(engine, result.task, result.attempt)
        if task is None:
            return False
        load = self._engines[engine]
        took_s = load.measure(task, result)
        if result.status not in _NOT_RUN:  # which says nothing of how long the function takes
            self._durations.on_measured(duration_key(task.options), took_s)
        self._tasks.leave_engine(load, task)
        load.on_ended(task.task_id, lingers=result.lingers)
        self._refresh(load)
        if result.status is not Status.OK and self._goes_on(load, task, result, now):
            return True
        self._tasks.end(
            task,
            _ENDS.get(result.status, Fact.FAILED),
            TaskResult(
                task.task_id, result.status, result.payload, result.blobs, engine,
                task.submitted_at, result.started, result.completed,
                result.stdout, result.stderr, result.outputs, result.error, result.attempt,
                task.sent_at, result.unpickle_s, result.pickle_s, report=result.report,
                items=result.items, failed=result.failed, cancelled=result.cancelled,
            ),
            load.life,
        )  # fmt: skip
        return True

    def on_resend_wanted(self, engine: EngineId, task_id: TaskId, attempt: int) -> Task | None:
        """The engine lacks blobs of this task and has dropped it. Returns it if it is to be sent again."""
        return self._tasks.present(engine, task_id, attempt)

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
            task = self._tasks.present(engine, task_id, attempt)
            if task is None or task.state is not TaskState.SENT:
                continue
            self._tasks.leave_engine(self._engines[engine], task)
            if not self.cancelling.on_taken_back(task, now):
                self._tasks.reset(task, Fact.TAKEN_BACK)
                again.append(task)
        for task_id, attempt in kept:
            task = self._tasks.present(engine, task_id, attempt)
            if task is not None:
                self.cancelling.on_kept(task)
        if taken and engine in self._engines:
            self._refresh(self._engines[engine])
        self._waiting.put(again, now)

    def on_looked_up(self, ends: Mapping[TaskId, tuple[bool, EngineId] | None], *, now: float) -> None:
        """The history's answer to `look_up`: whether each task returned, and where; None = nobody knows it.

        The engine is NO_ENGINE if it ran on none, or on one that is not there any more.
        """
        known: dict[TaskId, End | None] = {}
        for asked, end in ends.items():
            load = None if end is None else self._engines.get(end[1])
            known[asked] = None if end is None else End(end[0], NOWHERE if load is None else load.life)
        for task in self._dependencies.on_looked_up(known):
            self._waiting.reconsider(task, now)

    # ------------------------------------------------------------ time and decisions

    def dispatch(self, *, now: float) -> None:
        """Give ready tasks to engines with room. Called once after each batch of facts."""
        while self._dependencies.has_news:
            for task in self._dependencies.take_changed():
                self._waiting.reconsider(task, now)
        if self.reclaiming.is_open:
            return  # what is in a queue may be in an engine all the same
        self.families.dispatch(now=now)
        if self._tasks.prioritised:
            self.urgency.dispatch(now=now)
        else:
            self._fill(now)
        self._plan_recall(now)

    def next_deadline(self) -> float | None:
        deadlines = (
            self._recall_at,
            self._dependencies.deadlines.next(),
            self._resting.next_deadline(),
            self.cancelling.next_deadline(),
        )
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def on_tick(self, *, now: float) -> None:
        for task_id in self._dependencies.deadlines.take_due(now=now):
            task = self._dependencies.waiting[task_id]
            detail = f"its dependencies were not met within {task.options.wait_timeout_s:g} s"
            self._tasks.fail(task, Fact.TIMED_OUT, Status.TIMED_OUT, now, detail)
        rested = list(self._resting.take_rested(now=now))
        for task in rested:
            task.apply(Fact.RESTED)
        self._waiting.put(rested, now)
        self.cancelling.on_tick(now=now)
        if self._recall_at is not None and now >= self._recall_at:
            self._recall_at = None
            found = self._recall()
            self._plan_recall(now, RECALL_INTERVAL_S if found else FRUITLESS_RECALL_INTERVAL_S)

    # ------------------------------------------------------------ inside

    def _fill(self, now: float) -> None:
        for engine in list(self._waiting.direct):
            load = self._engines[engine]
            while load.has_room and (next_task := load.direct.pop()) is not None:
                self._send(load, next_task, now)
            if not load.direct:
                self._waiting.direct.discard(engine)
        for destination, queue in self._waiting.balanced.restricted():
            while queue and (chosen := self._table.choose_for(destination)) is not None:
                self._send_next(chosen, queue, now)
        choose = self._table.choose
        while self._ready and (chosen := choose()) is not None:
            self._send_next(chosen, self._ready, now)

    def _send_next(self, engine: EngineId, queue: ReadyQueue, now: float) -> None:
        task = queue.pop()
        if task is not None:
            self._send(self._engines[engine], task, now)

    def _send(self, load: EngineLoad, task: Task, now: float) -> None:
        estimate_s = self._durations.estimate_s(duration_key(task.options))
        self._tasks.send(task, load, estimate_s=estimate_s, now=now)
        self._sendings = load.given_at = self._sendings + 1
        task.inside = NO_TASK if not load.lent_to else load.lent_to[-1].task_id
        self._room.update(load)
        if task.priority < load.cleared_for:
            load.cleared_for = LOWEST_PRIORITY
        is_announced = not 0 <= estimate_s < ANNOUNCE_S or task.options.time_limit_s >= 0
        self._outbox.run(load.engine, task, announce=is_announced)

    def _rest(self, task: Task, now: float) -> None:
        """It has failed and left its engine: try it again in a while."""
        failures = task.options.retries - task.retries_left + 1
        self._tasks.retry(task, now + rest_s(failures, self._jitter))

    def _refresh(self, load: EngineLoad) -> None:
        if load.connected:
            self._room.update(load)

    def _goes_on(self, load: EngineLoad, task: Task, result: EngineResult, now: float) -> bool:
        """Whether a task that has not returned is tried again."""
        is_balanced = task.direct == NO_ENGINE
        destination = task.destination
        if result.status is Status.UNMET:
            if not is_balanced:
                return False
            wanted_end = task.wanted_end
            task.unmet = result.error
            task.destination = destination._replace(refused=destination.refused | {load.life})
            self._tasks.reset(task, Fact.UNMET)
            if wanted_end in FACTS:
                self._tasks.fail(task, FACTS[wanted_end], wanted_end, now)
            else:
                self._waiting.put([task], now)
            return True
        if result.status in FACTS or task.wanted_end in FACTS:
            return False
        if task.retries_left > 0 and _is_retried_after(result, task.options.retry_on):
            if is_balanced:
                task.destination = destination._replace(failed=destination.failed | {load.life})
            self._rest(task, now)
            return True
        return False

    def _plan_recall(self, now: float, interval_s: float = RECALL_INTERVAL_S) -> None:
        """Look again soon while somebody is idle and somebody else has a backlog."""
        idle = len(self._room.idle)
        if (
            self._recall_at is None
            and idle
            and self._table.is_rebalanced
            and self._tasks.in_flight > len(self._engines) - idle
        ):
            self._recall_at = now + interval_s

    def _recall(self) -> bool:
        """Ask for what idle engines could take. False if there is nothing."""
        asked = self._table.backlogs()
        for engine, tasks in asked:
            for task in tasks:
                task.recalled = True
            self._outbox.take_back(engine, [(task.task_id, task.attempt) for task in tasks])
        return bool(asked)

    def check(self) -> None:
        """Assert every invariant."""
        self._tasks.check()
        self._table.check()
        self.reclaiming.check()
        in_flight: dict[TaskId, Task] = {}
        queues = self._waiting.balanced.check()
        for load in self._engines.values():
            assert not load.direct or load.engine in self._waiting.direct, load
            in_flight.update(load.in_flight)
            queues.append(load.direct)
        assert len(in_flight) == self._tasks.in_flight
        assert all(len(list(queue)) == len(queue) for queue in queues)
        queued = {task.task_id for queue in queues for task in queue}
        assert len(queued) == sum(map(len, queues))
        waiting = self._dependencies.waiting.keys() | self._resting.tasks.keys()
        assert len(queued) + len(in_flight) + len(waiting) == len(self._tasks)
        for task in self._tasks.values():
            task_id = task.task_id
            assert (task.state is TaskState.READY) == (task_id in queued), task
            assert (task.state is TaskState.WAITING) == (task_id in waiting), task
            assert (task.engine == NO_ENGINE) == (task_id not in in_flight), task
        self._dependencies.check(self._tasks)


def _is_retried_after(result: EngineResult, retry_on: tuple[str, ...] | None) -> bool:
    """Whoever interrupts a task by hand does not want it again, unless he has named that."""
    if retry_on is None and _INTERRUPTED in result.error_types:
        return False
    return _covers(retry_on, result.error_types)


def _covers(retry_on: tuple[str, ...] | None, error_types: Iterable[str]) -> bool:
    return retry_on is None or not set(retry_on).isdisjoint(error_types)


def _replaced(task: Task) -> str:
    return f"{task.overdue}, so engine {task.engine} had to be replaced, and its namespace is lost"
