"""What each engine has been given, and which engine has room.

Room is a window of *time*, not a count: an engine is fed as many short tasks as fill `WINDOW_S` by their
measured durations, so that a network round trip never leaves it idle, and no more, so that nothing waits
behind a slow task that another engine could have run. A task whose duration is unknown is given only to an
engine without work.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Set

from enginery.core.queues import ReadyQueue
from enginery.core.tasks import Task, TaskState
from enginery.ids import EngineId, TaskId

WINDOW_S = 0.02
TASKS_IN_FLIGHT = 1000
BYTES_IN_FLIGHT = 64 << 20
RECENT_TASKS = 1000


class EngineLoad:
    """One engine as the scheduler sees it."""

    __slots__ = (
        "bytes_in_flight",
        "completed",
        "connected",
        "direct",
        "engine",
        "estimated_s",
        "in_flight",
        "last_result_at",
        "recent",
        "unknown",
    )

    def __init__(self, engine: EngineId) -> None:
        self.engine = engine
        self.connected = True
        self.direct = ReadyQueue()  # addressed to this engine, not yet sent
        self.in_flight: dict[TaskId, Task] = {}  # in the order of sending
        self.estimated_s = 0.0
        self.unknown = 0  # tasks in flight without an estimate
        self.bytes_in_flight = 0
        self.completed = 0
        self.recent: deque[TaskId] = deque(maxlen=RECENT_TASKS)  # ended; their output may still come
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
            and not self.unknown
            and self.estimated_s < WINDOW_S
            and len(self.in_flight) < TASKS_IN_FLIGHT
            and self.bytes_in_flight < BYTES_IN_FLIGHT
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
        self.bytes_in_flight -= task.size_bytes
        if task.estimate_s < 0:
            self.unknown -= 1
        else:
            self.estimated_s -= task.estimate_s
        if not self.in_flight:
            self.estimated_s = 0.0  # no drift from adding and subtracting

    def recallable(self, idle: Set[EngineId]) -> list[Task]:
        """Tasks behind the first one that an idle engine may run and nobody asked back yet, oldest first."""
        tasks = iter(self.in_flight.values())
        next(tasks, None)
        return [
            task
            for task in tasks
            if task.direct < 0
            and not task.recalled
            and (not task.options.candidates or any(engine in idle for engine in task.options.candidates))
        ]

    def started_and_not(self, started: Set[TaskId] | None) -> tuple[list[Task], list[Task]]:
        """Split what is in flight by the engine's proof of what it began; None = no proof: all may have."""
        tasks = list(self.in_flight.values())
        if started is None:
            return tasks, []
        return (
            [task for task in tasks if task.task_id in started or task.state is TaskState.RUNNING],
            [task for task in tasks if task.task_id not in started and task.state is not TaskState.RUNNING],
        )

    def check(self) -> None:
        assert self.unknown == sum(task.estimate_s < 0 for task in self.in_flight.values())
        assert self.bytes_in_flight == sum(task.size_bytes for task in self.in_flight.values())
        known_s = sum(max(task.estimate_s, 0.0) for task in self.in_flight.values())
        assert abs(self.estimated_s - known_s) < 1e-6
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

    def least_loaded_of(self, candidates: Iterable[EngineId]) -> EngineId | None:
        best = min(
            ((self._place[engine], engine) for engine in candidates if engine in self._place), default=None
        )
        return None if best is None else best[1]


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
