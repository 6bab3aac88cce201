"""The order in which ready tasks leave: higher priority first, first in first out among equals."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterable, Iterator

from enginery.core.tasks import Task, TaskState

DEAD_KEPT = 64
"""Discarded tasks that may stay in a queue, however short it is."""


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

    def push(self, task: Task) -> None:
        self._lane(task.options.priority).append(task)
        self._length += 1

    def push_front(self, tasks: Iterable[Task]) -> None:
        """Put tasks that had left back where they were, in their order."""
        for task in sorted(tasks, key=lambda task: task.task_id, reverse=True):
            self._lane(task.options.priority).appendleft(task)
            self._length += 1

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
