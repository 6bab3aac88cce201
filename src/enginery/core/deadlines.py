"""By when something is to be done about tasks, each at its own time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from enginery.ids import TaskId

DEADLINES_KEPT = 64
"""Deadlines that count no longer which may stay, however few do."""


class Deadlines:
    """At most one for each task."""

    __slots__ = ("_at", "_heap")

    def __init__(self) -> None:
        self._at: dict[TaskId, float] = {}
        self._heap: list[tuple[float, TaskId]] = []

    def __len__(self) -> int:
        return len(self._at)

    def set(self, task_id: TaskId, at: float) -> None:
        self._at[task_id] = at
        heappush(self._heap, (at, task_id))

    def at(self, task_id: TaskId) -> float:
        """The deadline of a task; infinite if it has none."""
        return self._at.get(task_id, math.inf)

    def forget(self, task_id: TaskId) -> None:
        if self._at.pop(task_id, None) is None:
            return
        if len(self._heap) > 2 * len(self._at) + DEADLINES_KEPT:
            self._heap = [(at, task_id) for task_id, at in self._at.items()]
            heapify(self._heap)

    def next(self) -> float | None:
        heap = self._heap
        while heap and self._at.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def take_due(self, *, now: float) -> Iterable[TaskId]:
        while (at := self.next()) is not None and at <= now:
            task_id = heappop(self._heap)[1]
            del self._at[task_id]
            yield task_id
