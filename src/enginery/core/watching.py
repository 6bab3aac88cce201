"""Who else wants to hear of a task that has not ended, and what it has said so far.

A task's own client hears of it anyway. Any other may *watch* it: it is told what the task has written and
published up to now, then all that follows, and gets its result as a delivery. So that those who come late
miss nothing, what unfinished tasks say is kept here, within `KEPT_BYTES` and `KEPT_BYTES_OF_ONE`; what is
beyond (the oldest of it) is in the history alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from enginery.ids import ClientId, TaskId
from enginery.protocol.history import TaskData, TaskDisplay, TaskText
from enginery.protocol.link import RECORD_BYTES
from enginery.protocol.messages import Data, Display, Output, Progress, text_size

KEPT_BYTES = 64 << 20
KEPT_BYTES_OF_ONE = 10 << 20
"""As much as the history keeps of a task's text and displays."""
LATE_KEPT = 1000
"""Ended tasks whose watchers are still told of text: it comes on another connection than results."""

Recorded = Output | Display | Data
Saying = Recorded | Progress


def saying_size(saying: Saying) -> int:
    """What it weighs in a header."""
    if isinstance(saying, Output):
        return RECORD_BYTES + text_size(saying.text)
    if isinstance(saying, Display):
        return RECORD_BYTES + len(saying.content)
    if isinstance(saying, Progress):
        return RECORD_BYTES + (0 if saying.report is None else text_size(saying.report.text))
    return RECORD_BYTES + text_size(saying.name) + len(saying.payload)


_PROGRESS = 0
"""Where progress is kept; what is numbered begins with 1."""


def fact_of(saying: Recorded) -> TaskText | TaskData | TaskDisplay:
    """What the history is told of it."""
    if isinstance(saying, Output):
        return TaskText(saying.task, saying.engine, saying.stream, saying.text)
    if isinstance(saying, Data):
        return TaskData(saying.task, saying.name, saying.payload)
    return TaskDisplay(saying.task, saying.kind, saying.content, saying.offset, saying.is_last)


class _Said:
    """What one task has said, in order; of the values of one name, and of its progress, the last."""

    __slots__ = ("_sayings", "count", "size_bytes")

    def __init__(self) -> None:
        # Values by name, all else by its number among all; with that number.
        self._sayings: OrderedDict[int | str, tuple[int, Saying]] = OrderedDict()
        self.count = 0
        self.size_bytes = 0

    def add(self, saying: Saying) -> None:
        self.count += 1
        key: int | str = self.count
        if isinstance(saying, Data):
            key = saying.name
        elif isinstance(saying, Progress):
            key = _PROGRESS
        replaced = self._sayings.pop(key, None)
        self.size_bytes += saying_size(saying) - (0 if replaced is None else saying_size(replaced[1]))
        self._sayings[key] = self.count, saying
        while self.size_bytes > KEPT_BYTES_OF_ONE:
            self.size_bytes -= saying_size(self._sayings.popitem(last=False)[1][1])

    def progress(self) -> Progress | None:
        found = self._sayings.get(_PROGRESS)
        return found[1] if found is not None and isinstance(found[1], Progress) else None

    def since(self, count: int) -> list[Saying]:
        return [saying for number, saying in self._sayings.values() if number >= count]


class Watching:
    """All watchers, and what they would have missed."""

    def __init__(self, *, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._watchers: dict[TaskId, dict[ClientId, None]] = {}
        self._watched: dict[ClientId, set[TaskId]] = {}
        self._late: OrderedDict[TaskId, dict[ClientId, None]] = OrderedDict()
        self._said: dict[TaskId, _Said] = {}  # least recently heard of first
        self._size_bytes = 0

    def __repr__(self) -> str:
        return f"<Watching: {len(self._watchers)} tasks watched, {self._size_bytes} bytes said>"

    def on_watched(self, client: ClientId, task: TaskId) -> bool:
        """A client watches an unfinished task from now on; False if it has done so before."""
        watchers = self._watchers.setdefault(task, {})
        if client in watchers:
            return False
        watchers[client] = None
        self._watched.setdefault(client, set()).add(task)
        return True

    def watched(self, client: ClientId) -> Collection[TaskId]:
        """What this client watches."""
        return self._watched.get(client, ())

    def said(self, task: TaskId, since: int = 0) -> list[Saying]:
        """What an unfinished task has said from that number on, as far as it is kept."""
        said = self._said.get(task)
        return [] if said is None else said.since(since)

    def progress(self, task: TaskId) -> Progress | None:
        """How far an unfinished task is, as far as it has said so."""
        said = self._said.get(task)
        return None if said is None else said.progress()

    def speakers(self) -> Collection[TaskId]:
        """The unfinished tasks of which something is kept."""
        return self._said.keys()

    def on_said(self, saying: Saying) -> int:
        """An unfinished task has written or published something; returns its number among all of that."""
        said = self._said.pop(saying.task, None) or _Said()
        self._said[saying.task] = said
        self._size_bytes -= said.size_bytes
        said.add(saying)
        self._size_bytes += said.size_bytes
        while self._size_bytes > self._kept_bytes:
            self._forget_said(next(iter(self._said)))
        return said.count

    def on_ended(self, task: TaskId) -> Collection[ClientId]:
        """The task has ended. Returns those who watched it."""
        if task in self._said:
            self._forget_said(task)
        watchers = self._watchers.pop(task, None)
        if watchers is None:
            return ()
        for client in watchers:
            self._unwatch(client, task)
        self._late[task] = watchers
        if len(self._late) > LATE_KEPT:
            self._late.popitem(last=False)
        return watchers

    def on_client_gone(self, client: ClientId) -> None:
        for task in self._watched.pop(client, ()):
            watchers = self._watchers[task]
            del watchers[client]
            if not watchers:
                del self._watchers[task]

    def watchers(self, task: TaskId) -> Collection[ClientId]:
        """Who is to hear what this task says; it may have ended a moment ago."""
        return self._watchers.get(task) or self._late.get(task) or ()

    def _unwatch(self, client: ClientId, task: TaskId) -> None:
        tasks = self._watched[client]
        tasks.discard(task)
        if not tasks:
            del self._watched[client]

    def _forget_said(self, task: TaskId) -> None:
        self._size_bytes -= self._said.pop(task).size_bytes

    def check(self) -> None:
        """Assert every invariant."""
        pairs = {(client, task) for task, watchers in self._watchers.items() for client in watchers}
        assert pairs == {(client, task) for client, tasks in self._watched.items() for task in tasks}
        assert all(self._watchers.values())
        assert all(self._watched.values())
        assert self._size_bytes == sum(said.size_bytes for said in self._said.values())
        assert self._size_bytes <= self._kept_bytes
