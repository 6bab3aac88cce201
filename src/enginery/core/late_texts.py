"""Which texts and displays of tasks have come.

They come on another connection than results: some come late. They are numbered, and a result says how many
there were. Whoever is given the text of a task from the history has to wait until the history has all of it,
or until `LATE_S` have passed: what has not come by then was lost with a connection.

The history appends texts in the order in which it hears of them. So the last ones of a late task, which come
with its result, wait here for those that were written before them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import msgspec

from enginery.ids import NO_ENGINE, EngineId, TaskId
from enginery.protocol.history import TaskText
from enginery.protocol.messages import TaskResult

LATE_S = 5.0
LATE_KEPT = 10_000
LAST_KEPT_BYTES = 32 << 20
"""Of texts that wait; more of them are recorded at once, before what comes late."""

Place = tuple[int, int]
"""Of something in what a task says: attempt and number."""


class _Late(NamedTuple):
    last: Place  # what has to come
    engine: EngineId
    deadline: float | None


class LateTexts:
    """What was heard last of unfinished tasks, and which of those that have ended have more to say."""

    def __init__(self) -> None:
        self._heard: dict[TaskId, Place] = {}
        self._late: OrderedDict[TaskId, _Late] = OrderedDict()
        self._fresh: list[TaskId] = []  # late ones without a deadline
        self._last: dict[TaskId, list[TaskText]] = {}
        self._last_bytes = 0

    def __repr__(self) -> str:
        return f"<LateTexts: {len(self._heard)} tasks speak, {len(self._late)} have ended before their text>"

    def __contains__(self, task: object) -> bool:
        """Whether a task has ended and has more to say."""
        return task in self._late

    def on_said(self, task: TaskId, place: Place, *, has_ended: bool) -> bool:
        """Something of a task has come; whether it is the last of one that has ended."""
        if not has_ended:
            self._heard[task] = max(place, self._heard.get(task, place))
            return False
        if task not in self._late or place < self._late[task].last:
            return False
        del self._late[task]
        return True

    def on_ended(self, task: TaskId, last: Place, engine: EngineId = NO_ENGINE) -> None:
        """A task has ended, with so much to say in its last attempt."""
        heard = self._heard.pop(task, (0, 0))
        if last[1] and heard < last:
            self._late[task] = _Late(last, engine, None)
            self._fresh.append(task)

    def hold_last(self, result: TaskResult) -> TaskResult:
        """Keep the last texts of a late task; returns its end as the history is to know it now."""
        size_bytes = len(result.stdout) + len(result.stderr)
        if not size_bytes or self._last_bytes + size_bytes > LAST_KEPT_BYTES:
            return result
        self._last_bytes += size_bytes
        streams = (("stdout", result.stdout), ("stderr", result.stderr))
        self._last[result.task] = [
            TaskText(result.task, result.engine, stream, text) for stream, text in streams if text
        ]
        return msgspec.structs.replace(result, stdout="", stderr="")

    def take_last(self, task: TaskId) -> list[TaskText]:
        """What has waited for what a task has said before, for the history."""
        texts = self._last.pop(task, [])
        self._last_bytes -= sum(len(text.text) for text in texts)
        return texts

    def take_of_engine(self, engine: EngineId) -> list[TaskId]:
        """An engine is gone: its tasks are waited for no longer."""
        found = [task for task, late in self._late.items() if late.engine == engine]
        for task in found:
            del self._late[task]
        return found

    def on_settled(self, *, now: float) -> None:
        """Wait no longer than from now on for what has ended since this was said last."""
        for task in self._fresh:
            if task in self._late:
                self._late[task] = self._late[task]._replace(deadline=now + LATE_S)
        self._fresh.clear()

    def next_deadline(self) -> float | None:
        return next(iter(self._late.values())).deadline if self._late else None

    def take_overdue(self, *, now: float) -> list[TaskId]:
        """Tasks that are waited for no longer."""
        overdue = []
        while self._late:
            task, late = next(iter(self._late.items()))
            if len(self._late) <= LATE_KEPT and (late.deadline is None or late.deadline > now):
                break
            del self._late[task]
            overdue.append(task)
        return overdue

    def check(self) -> None:
        """Assert every invariant."""
        assert not self._heard.keys() & self._late.keys()
        assert self._last.keys() <= self._late.keys()
        assert self._last_bytes == sum(len(text.text) for texts in self._last.values() for text in texts)
