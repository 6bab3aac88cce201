"""What tasks write, display and publish while they run, on its way to their promises.

It comes on another connection than results: before them or after. Texts and displays are numbered and a
result says how many belong to it, so the promises of a task that has more to say are kept until it is said,
those of the last `LATE_KEPT` tasks. Not thread-safe: the session holds its lock.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Iterable

from enginery.client.contract import Promise
from enginery.core.watching import Saying
from enginery.ids import TaskId
from enginery.protocol.messages import Data, Progress, TaskResult

ENDED_KEPT = 2_000
LATE_KEPT = 10_000

Place = tuple[int, int]
"""Of something in what a task says: attempt and number."""


class Writing:
    """Promises of ended tasks that may still have something to come."""

    def __init__(self) -> None:
        self._heard: dict[TaskId, Place] = {}  # of unfinished tasks: what came last
        self._late: OrderedDict[TaskId, tuple[list[Promise], Place]] = OrderedDict()  # what comes last
        self._ended: OrderedDict[TaskId, tuple[weakref.ref[Promise], ...]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Writing: {len(self._heard)} tasks write, {len(self._late)} have ended before their text>"

    def on_said(self, saying: Saying, promises: list[Promise]) -> list[Promise]:
        """A task has said something; the promises are those of an unfinished one. Returns who is told."""
        task = saying.task
        place = (0, 0)
        if not isinstance(saying, (Data, Progress)):
            place = saying.attempt, saying.number
        if promises:
            if place > self._heard.get(task, (0, 0)):
                self._heard[task] = place
            return promises
        if task not in self._late:
            return self.ended(task)  # the last words of an attempt that was not the last one
        promises, last = self._late[task]
        if place >= last:
            del self._late[task]
        return promises

    def on_ended(self, ended: Iterable[tuple[Promise, TaskResult]]) -> None:
        """These tasks have ended; a task may have several promises."""
        writers: dict[TaskId, tuple[Place, list[Promise]]] = {}
        for promise, result in ended:
            task = result.task
            self._ended[task] = (*self._ended.get(task, ()), weakref.ref(promise))
            if result.outputs or task in self._heard:
                last = result.attempt, result.outputs
                writers.setdefault(task, (last, []))[1].append(promise)
        for task, (last, promises) in writers.items():
            if self._heard.pop(task, (0, 0)) < last and last[1]:
                self._late[task] = promises, last
        while len(self._ended) > ENDED_KEPT:
            self._ended.popitem(last=False)
        while len(self._late) > LATE_KEPT:
            self._late.popitem(last=False)

    def ended(self, task: TaskId) -> list[Promise]:
        """The promises of a task that ended a moment ago, as far as somebody else holds them."""
        found = [reference() for reference in self._ended.get(task, ())]
        return [promise for promise in found if promise is not None]
