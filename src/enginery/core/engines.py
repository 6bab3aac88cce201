"""What each engine has been given, and which engine has room.

Room is a window of *time*, not a count: an engine is fed as many short tasks as fill `WINDOW_S` by their
measured durations, so that a network round trip never leaves it idle, and no more, so that nothing waits
behind a slow task that another engine could have run. A task whose duration is unknown is given only to an
engine without work. A bound on the number of tasks (`hwm`) can take the place of the window.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence, Set

from enginery.core.placement import ANYWHERE, LEAST_LOAD, PURE, Destination, Placement
from enginery.core.queues import LOWEST_PRIORITY, ReadyQueue
from enginery.core.tasks import Task, TaskState
from enginery.ids import EngineId, TaskId
from enginery.protocol.hosts import PAGE_TASKS
from enginery.protocol.messages import EngineResult

WINDOW_S = 0.02
TASKS_IN_FLIGHT = 1000
BYTES_IN_FLIGHT = 64 << 20
RECENT_TASKS = 1000
LINGERING_TASKS = 1000


class EngineLoad:
    """One engine as the scheduler sees it."""

    __slots__ = (
        "bytes_in_flight",
        "cleared_for",
        "completed",
        "connected",
        "direct",
        "ending",
        "engine",
        "estimated_s",
        "given_at",
        "in_flight",
        "last_result_at",
        "lent_to",
        "life",
        "lingering",
        "most_tasks",
        "recent",
        "setting_up",
        "task_limit",
        "unknown",
        "window_s",
    )

    def __init__(self, engine: EngineId, *, life: int = 0, hwm: int | None = None) -> None:
        self.engine = engine
        self.life = life  # another process under the same id is another one
        self.window_s = WINDOW_S if hwm is None else math.inf
        self.most_tasks = TASKS_IN_FLIGHT if hwm is None else hwm or math.inf
        self.task_limit = self.most_tasks  # 0 while a task is to be ended that has begun
        self.ending: set[TaskId] = set()  # such tasks
        self.given_at = 0  # number of the last sending to it, of all sendings
        self.connected = True
        self.lent_to: list[Task] = []  # tasks that run here and wait, each inside the one before
        self.setting_up: set[TaskId] = set()  # it gets nothing else before these have ended
        self.direct = ReadyQueue()  # addressed to this engine, not yet sent
        self.in_flight: dict[TaskId, Task] = {}  # in the order of sending
        self.cleared_for = LOWEST_PRIORITY  # it has been asked for what is below and not begun
        self.estimated_s = 0.0
        self.unknown = 0  # tasks in flight without an estimate
        self.bytes_in_flight = 0
        self.completed = 0
        self.recent: OrderedDict[TaskId, None] = OrderedDict()  # ended; their output may still come
        self.lingering: OrderedDict[TaskId, None] = OrderedDict()  # and of these it may at any time
        self.last_result_at = 0.0  # completion time that the engine stated last

    def __repr__(self) -> str:
        state = "" if self.connected else ", disconnected"
        return (
            f"<EngineLoad {self.engine}: {len(self.in_flight)} in flight, {len(self.direct)} waiting{state}>"
        )

    @property
    def has_room(self) -> bool:
        if not self.in_flight:
            return self.connected
        return (
            self.connected
            and not self.setting_up
            and not self.lent_to
            and self.estimated_s < self.window_s
            and len(self.in_flight) < self.task_limit
            and self.bytes_in_flight < BYTES_IN_FLIGHT
            and (not self.unknown or self.window_s == math.inf)
        )

    @property
    def has_room_inside(self) -> bool:
        """Whether nothing that it was given can begin while the last task in it waits."""
        others = {task.task_id for task in self.lent_to[:-1]}
        return self.connected and not any(
            task.inside and task.inside not in others and task.state is TaskState.SENT
            for task in self.in_flight.values()
        )

    @property
    def task_count(self) -> int:
        return len(self.in_flight)

    def may_take(self, destination: Destination) -> bool:
        """Whether a task of this destination should come here."""
        return (
            (not destination.engines or self.engine in destination.engines)
            and self.life not in destination.refused
            and self.life not in destination.failed
        )

    def add(self, task: Task) -> None:
        self.in_flight[task.task_id] = task
        self.bytes_in_flight += task.size_bytes
        if task.estimate_s < 0:
            self.unknown += 1
        else:
            self.estimated_s += task.estimate_s

    def remove(self, task: Task) -> None:
        del self.in_flight[task.task_id]
        if self.setting_up:
            self.setting_up.discard(task.task_id)
        if task in self.lent_to:
            del self.lent_to[self.lent_to.index(task) :]
        self.bytes_in_flight -= task.size_bytes
        if task.estimate_s < 0:
            self.unknown -= 1
        else:
            self.estimated_s -= task.estimate_s
        if not self.in_flight:
            self.estimated_s = 0.0  # no drift from adding and subtracting

    def hold(self, task: Task) -> None:
        """Give it nothing until it has ended this task: what came behind might wait for long."""
        self.ending.add(task.task_id)
        self.task_limit = 0

    def release(self, task: Task) -> None:
        """It has ended the task, or has never begun it."""
        self.ending.discard(task.task_id)
        if not self.ending:
            self.task_limit = self.most_tasks

    def is_running(self, task: Task) -> bool:
        """Whether it runs this task, as far as is known: the oldest in flight, or one that is announced."""
        return task.state is TaskState.RUNNING or next(iter(self.in_flight)) == task.task_id

    def on_ended(self, task_id: TaskId, *, lingers: bool) -> None:
        """A task has ended here; it `lingers` if it has left something running."""
        self.completed += 1
        self.recent[task_id] = None
        if len(self.recent) > RECENT_TASKS:
            self.recent.popitem(last=False)
        if lingers:
            self.lingering[task_id] = None
            if len(self.lingering) > LINGERING_TASKS:
                self.lingering.popitem(last=False)

    def has_had(self, task_id: TaskId) -> bool:
        """Whether a task is here, or may still have something to say; what speaks is known for longer."""
        if task_id in self.lingering:
            self.lingering.move_to_end(task_id)
            return True
        return task_id in self.in_flight or task_id in self.recent

    def known_tasks(self) -> frozenset[TaskId]:
        """All of which `has_had` is true."""
        return frozenset((*self.in_flight, *self.recent, *self.lingering))

    def unstarted(self) -> Iterator[Task]:
        """Tasks behind the first one that nobody has asked back yet, oldest first."""
        tasks = iter(self.in_flight.values())
        next(tasks, None)
        return (task for task in tasks if task.state is TaskState.SENT and not task.recalled)

    def is_clear_for(self, priority: int) -> bool:
        """Whether nothing of a lower priority is in flight: a task of this one would wait for that."""
        return all(task.priority >= priority for task in self.in_flight.values())

    def recallable(self, idle: Collection[EngineLoad]) -> list[Task]:
        """Tasks behind the first one that an idle engine may run and nobody asked back yet, oldest first."""
        return [
            task
            for task in self.unstarted()
            if task.direct < 0
            and (task.destination is ANYWHERE or any(load.may_take(task.destination) for load in idle))
        ]

    def may_have_begun(self, last_begun: Sequence[TaskId]) -> frozenset[TaskId]:
        """What of its tasks a status page, which says what was begun last, does not prove to be unstarted.

        A full page says nothing of a task that was begun before all on it. But then each of these is in
        flight, or has ended since that task was sent. Where fewer have, it cannot have been begun.
        """
        begun = self.in_flight.keys() & set(last_begun)
        if len(last_begun) >= PAGE_TASKS:
            ended_in_case = PAGE_TASKS - len(begun)
            for task in self.in_flight.values():
                if self.completed - task.completed_before >= ended_in_case:
                    begun.add(task.task_id)
        return frozenset(begun)

    def started_and_not(self, started: Set[TaskId] | None) -> tuple[list[Task], list[Task]]:
        """Split what is in flight by the engine's proof of what it began; None = no proof: all may have."""
        tasks = list(self.in_flight.values())
        if started is None:
            return tasks, []
        return (
            [task for task in tasks if task.task_id in started or task.state is TaskState.RUNNING],
            [task for task in tasks if task.task_id not in started and task.state is not TaskState.RUNNING],
        )

    def measure(self, task: Task, result: EngineResult) -> float:
        """How long the engine had to do with a task that has returned."""
        # From the end of the task before, if the engine could begin then: its own overhead counts too.
        began = max(self.last_result_at, task.sent_at)
        if not 0 < began <= result.completed:
            began = result.started
        self.last_result_at = result.completed
        return min(result.completed - began, result.completed - result.started + WINDOW_S)

    def check(self) -> None:
        assert self.unknown == sum(task.estimate_s < 0 for task in self.in_flight.values())
        assert self.bytes_in_flight == sum(task.size_bytes for task in self.in_flight.values())
        known_s = sum(max(task.estimate_s, 0.0) for task in self.in_flight.values())
        assert abs(self.estimated_s - known_s) < 1e-6
        assert self.ending <= self.in_flight.keys() >= self.setting_up
        assert all(self.in_flight.get(task.task_id) is task for task in self.lent_to)
        assert (self.task_limit == 0) == bool(self.ending)
        for task in self.in_flight.values():
            assert task.engine == self.engine, task


class RoomIndex:
    """Engines with room, by the number of tasks in flight: finding the least loaded one costs no scan."""

    __slots__ = ("_buckets", "_lowest", "_place")

    def __init__(self) -> None:
        self._lowest = 0  # no bucket below this one has an engine
        self._buckets: list[dict[EngineId, None]] = [{}]
        self._place: dict[EngineId, int] = {}

    def __len__(self) -> int:
        return len(self._place)

    def __contains__(self, engine: EngineId) -> bool:
        return engine in self._place

    def __iter__(self) -> Iterator[EngineId]:
        return iter(self._place)

    def update(self, load: EngineLoad) -> None:
        engine = load.engine
        place = self._place.pop(engine, None)
        if place is not None:
            del self._buckets[place][engine]
        if load.has_room:
            place = len(load.in_flight)
            while len(self._buckets) <= place:
                self._buckets.append({})
            self._buckets[place][engine] = None
            self._place[engine] = place
            self._lowest = min(self._lowest, place)

    def discard(self, engine: EngineId) -> None:
        place = self._place.pop(engine, None)
        if place is not None:
            del self._buckets[place][engine]

    @property
    def idle(self) -> Set[EngineId]:
        """Connected engines without a task."""
        return self._buckets[0].keys()

    def least_loaded(self) -> EngineId | None:
        """The engine with the fewest tasks in flight; among equals the one that became so first."""
        if not self._place:
            return None
        while not self._buckets[self._lowest]:
            self._lowest += 1
        return next(iter(self._buckets[self._lowest]))


class EngineTable:
    """The engines that are there, and which of them is to get the next task."""

    def __init__(self, placement: Placement) -> None:
        self.loads: dict[EngineId, EngineLoad] = {}
        self.lives: dict[int, EngineId] = {}
        self.room = RoomIndex()
        self._placement = placement
        self._lives_begun = 0
        self.lent: set[EngineId] = set()  # those in which a task waits, and perhaps some in which none does
        self.is_rebalanced = placement.scheme != PURE
        self.choose: Callable[[], EngineId | None] = (
            self.room.least_loaded if placement.scheme == LEAST_LOAD else self._choose_any
        )
        """The engine for a task that may run anywhere; None if there is no room."""

    def __repr__(self) -> str:
        return f"<EngineTable of {len(self.loads)} engines, {len(self.room)} with room>"

    def join(self, engine: EngineId) -> None:
        self._lives_begun += 1
        load = EngineLoad(engine, life=self._lives_begun, hwm=self._placement.hwm)
        self.loads[engine] = load
        self.lives[load.life] = engine
        self.room.update(load)

    def may_take_inside(self, load: EngineLoad, destination: Destination) -> bool:
        """Whether a task of this destination may run here while another waits here."""
        is_last_resort = all(one.life in destination.failed for one in self.wanted_for(destination))
        return load.may_take(destination) or (is_last_resort and load.life not in destination.refused)

    def leave(self, engine: EngineId) -> EngineLoad:
        load = self.loads.pop(engine)
        self.lent.discard(engine)
        del self.lives[load.life]
        self.room.discard(engine)
        return load

    def present(self, engines: Iterable[EngineId]) -> list[EngineLoad]:
        """Those of these engines that are there; none named = all."""
        return [load for engine in engines or self.loads if (load := self.loads.get(engine)) is not None]

    def wanted_for(self, destination: Destination) -> list[EngineLoad]:
        """Those that a task of this destination may wait for."""
        possible = [
            load for load in self.present(destination.engines) if load.life not in destination.refused
        ]
        return [load for load in possible if load.life not in destination.failed] or possible

    def choose_for(
        self,
        destination: Destination,
        priority: int | None = None,
        reserved: Container[EngineId] = (),
    ) -> EngineId | None:
        """The engine with room that a task of this destination should go to; None if it has to wait.

        With a priority, only one that holds nothing of a lower one. None of those that are reserved.
        """
        engines, refused, failed, _ = destination
        with_room = [
            load
            for engine in engines or self.room
            if engine in self.room
            and engine not in reserved
            and (load := self.loads[engine]).life not in refused
            and (priority is None or load.is_clear_for(priority))
        ]
        fresh = [load for load in with_room if load.life not in failed]
        if fresh or not with_room:
            return self._choose_among(fresh)
        if any(load.connected and load.may_take(destination) for load in self.loads.values()):
            return None  # that one has not failed it, and will have room
        return self._choose_among(with_room)

    def backlogs(self) -> list[tuple[EngineId, list[Task]]]:
        """What idle engines should take from others: half a backlog for each, the longest ones."""
        idle = [self.loads[engine] for engine in self.room.idle]
        backlogs = sorted(
            ((load.recallable(idle), load.engine) for load in self.loads.values() if len(load.in_flight) > 1),
            key=lambda backlog: len(backlog[0]),
            reverse=True,
        )
        # The tail half: the engine will reach it last, so the claim is rarely too late.
        return [
            (engine, tail) for tasks, engine in backlogs[: len(idle)] if (tail := tasks[len(tasks) // 2 :])
        ]

    def _choose_any(self) -> EngineId | None:
        return self._choose_among([self.loads[engine] for engine in self.room])

    def _choose_among(self, loads: list[EngineLoad]) -> EngineId | None:
        return self._placement.choose(loads, self._placement.randomness).engine if loads else None

    def check(self) -> None:
        for load in self.loads.values():
            load.check()
            assert (load.engine in self.room) == load.has_room, load
        assert all(load.engine in self.lent for load in self.loads.values() if load.lent_to)
        assert self.lives == {load.life: load.engine for load in self.loads.values()}


class RecentlyGone:
    """Why engines that have left are gone, for tasks that come for them later. Bounded."""

    __slots__ = ("_capacity", "_causes")

    def __init__(self, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._causes: OrderedDict[EngineId, str] = OrderedDict()

    def add(self, engine: EngineId, cause: str) -> None:
        self._causes[engine] = cause
        self._causes.move_to_end(engine)
        if len(self._causes) > self._capacity:
            self._causes.popitem(last=False)

    def cause(self, engine: EngineId) -> str | None:
        return self._causes.get(engine)
