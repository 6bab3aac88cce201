"""The order in which ready tasks leave: higher priority first, first in first out among equals."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from enginery.core.placement import ANYWHERE, Destination
from enginery.core.tasks import Task, TaskState
from enginery.ids import EngineId

DEAD_KEPT = 64
"""Discarded tasks that may stay in a queue, however short it is."""
LOWEST_PRIORITY = -(1 << 31)


class ReadyQueue:
    """Ready tasks of one kind of destination.

    A task that stops being ready while it waits (it was aborted) is skipped when its turn comes; `discard`
    only keeps the count right, so that nothing is searched for.
    """

    __slots__ = ("_by_priority", "_dead", "_length", "_order")

    def __init__(self) -> None:
        self._by_priority: dict[int, deque[Task]] = {}
        self._order: list[int] = []  # negated priorities, ascending: the first is served first
        self._length = 0
        self._dead = 0  # tasks inside that were discarded and not met yet, at most

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Task]:
        for negated in self._order:
            for task in self._by_priority[-negated]:
                if task.state is TaskState.READY:
                    yield task

    def __repr__(self) -> str:
        return f"<ReadyQueue of {self._length} tasks>"

    def ahead_of(self, task: Task) -> int:
        """How many leave before this one, which is inside. Looks through all of them."""
        for place, other in enumerate(self):
            if other is task:
                return place
        raise KeyError(task.task_id)

    def push(self, task: Task) -> None:
        self._lane(task.priority).append(task)
        self._length += 1

    def put_back(self, tasks: Iterable[Task]) -> None:
        """Put tasks that had left back where they were: each before those whose turn comes later."""
        by_priority: dict[int, list[Task]] = {}
        for task in sorted(tasks, key=lambda task: task.turn):
            by_priority.setdefault(task.priority, []).append(task)
            self._length += 1
        for priority, returning in by_priority.items():
            lane = self._lane(priority)
            first: list[Task] = []
            for task in returning:
                if not lane or lane[-1].turn <= task.turn:
                    lane.append(task)
                    continue
                while lane[0].turn <= task.turn:
                    first.append(lane.popleft())
                first.append(task)
            lane.extendleft(reversed(first))

    @property
    def priorities(self) -> list[int]:
        """Of the tasks inside, highest first; of discarded ones too."""
        return [-negated for negated in self._order]

    def top(self) -> int | None:
        """The priority of the next ready task."""
        while self._order:
            priority = -self._order[0]
            lane = self._by_priority[priority]
            while lane and lane[0].state is not TaskState.READY:
                lane.popleft()
            if lane:
                return priority
            del self._by_priority[priority], self._order[0]
        return None

    def take(self) -> Task:
        """The next ready task; there is one, as `top` has said."""
        task = self.pop()
        assert task is not None
        return task

    def pop(self) -> Task | None:
        """The next ready task."""
        while self._order:
            priority = -self._order[0]
            lane = self._by_priority[priority]
            while lane:
                task = lane.popleft()
                if task.state is TaskState.READY:
                    self._length -= 1
                    return task
            del self._by_priority[priority], self._order[0]
        return None

    def take_where(self, condition: Callable[[Task], object]) -> Task | None:
        """The next task for which that holds. Searches: only for engines where a task waits."""
        found = next((task for task in self if condition(task)), None)
        if found is not None:
            self.remove(found)
        return found

    def remove(self, task: Task) -> None:
        """Take out one that goes to another queue. Searches for it: only for what is rare."""
        self._by_priority[task.priority].remove(task)
        self._length -= 1

    def discard(self) -> None:
        """One of the tasks inside has stopped being ready."""
        self._length -= 1
        self._dead += 1
        if self._dead > max(self._length, DEAD_KEPT):
            self._dead = 0
            for lane in self._by_priority.values():
                alive = [task for task in lane if task.state is TaskState.READY]
                lane.clear()
                lane.extend(alive)

    def _lane(self, priority: int) -> deque[Task]:
        lane = self._by_priority.get(priority)
        if lane is None:
            lane = self._by_priority[priority] = deque()
            insort(self._order, -priority)
        return lane


class BalancedQueues:
    """Ready tasks that are addressed to no engine, by where they may go."""

    __slots__ = ("_restricted", "anywhere")

    def __init__(self) -> None:
        self.anywhere = ReadyQueue()
        self._restricted: dict[Destination, ReadyQueue] = {}

    def __len__(self) -> int:
        return len(self.anywhere) + sum(map(len, self._restricted.values()))

    def __repr__(self) -> str:
        return f"<BalancedQueues of {len(self)} tasks, to {1 + len(self._restricted)} destinations>"

    def of(self, destination: Destination) -> ReadyQueue:
        if destination == ANYWHERE:
            return self.anywhere
        queue = self._restricted.get(destination)
        if queue is None:
            queue = self._restricted[destination] = ReadyQueue()
        return queue

    def restricted(self) -> list[tuple[Destination, ReadyQueue]]:
        """Those that may not go anywhere; what has been emptied is gone."""
        if self._restricted:
            self._restricted = {there: queue for there, queue in self._restricted.items() if queue}
        return list(self._restricted.items())

    def take_affected(self, gone: EngineId) -> list[Task]:
        """An engine has left: take out those for whom that makes a difference."""
        affected: list[Task] = []
        for destination, queue in self.restricted():
            if gone in destination.engines or destination.refused:
                affected += queue
                del self._restricted[destination]
        return affected

    def check(self) -> list[ReadyQueue]:
        """Assert every invariant; returns all queues."""
        for destination, queue in self._restricted.items():
            assert all(task.destination == destination for task in queue), destination
        return [self.anywhere, *self._restricted.values()]
