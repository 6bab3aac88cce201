"""What there is to see of results, clients, views and clusters at one moment.

Small values without behaviour: who has the state makes them, `frontends` makes text and HTML of them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

LINES_SHOWN = 8
"""Tasks that have a line of their own at most."""

ResultState = Literal["waiting", "running", "done", "failed", "cancelled"]


class TaskLine(NamedTuple):
    """What an unfinished task has last reported of itself."""

    where: str
    """``"item 3, engine 0"``"""
    fraction: float | None = None
    text: str = ""


class Standing(NamedTuple):
    """How far something is that consists of a number of things."""

    done: int = 0
    """Failed and cancelled ones included."""
    total: int | None = None
    """None as long as nobody knows."""
    failed: int = 0
    cancelled: int = 0
    name: str = ""
    unit: str = "tasks"
    elapsed_s: float = 0.0
    ahead: float = 0.0
    """What unfinished ones have done already, in things."""
    lines: tuple[TaskLine, ...] = ()
    more_lines: int = 0
    """Tasks that have reported and have no line."""

    @property
    def is_over(self) -> bool:
        return self.total is not None and self.done >= self.total

    @property
    def left_s(self) -> float | None:
        """How long the rest will take if it goes on like this; None if there is nothing to judge by."""
        done = self.done + self.ahead
        if self.total is None or self.is_over or done <= 0:
            return None
        return self.elapsed_s * max(self.total - done, 0.0) / done


class ResultSnapshot(NamedTuple):
    """A result."""

    kind: str
    state: ResultState
    standing: Standing
    label: str = ""
    engines: tuple[int, ...] = ()
    """Where its tasks run, or have run."""
    running: int | None = None
    """Tasks that run, as far as it is known; None = it is not."""
    serial_s: float = 0.0
    """What its tasks have taken on the engines, added up."""
    error: str = ""
    """The first one's class and message."""
    end: str = ""
    """Why nothing more will be heard of it; empty while its client is open."""


class EngineSnapshot(NamedTuple):
    """An engine."""

    engine: int
    host: str = ""
    state: str = ""
    """``"idle"``, ``"busy"``, ``"disconnected"``, ``"stopping"``; empty = nobody has said."""
    queued: int = 0
    completed: int = 0


class TaskCounts(NamedTuple):
    """All tasks that a controller has had."""

    queued: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0


class ClusterSnapshot(NamedTuple):
    """A cluster, a client of it, or a view of some of its engines."""

    kind: str
    name: str
    state: str = ""
    """``"closed"``, ``"not running"``; empty = all is well."""
    engines: tuple[EngineSnapshot, ...] = ()
    counts: TaskCounts | None = None
    """None = the controller has not said."""
    outstanding: int | None = None
    """Unfinished tasks of this client."""
    uptime_s: float | None = None
    clients: int | None = None
    flags: tuple[tuple[str, str], ...] = ()
    note: str = ""
    """A sentence: why it is closed, why there are no counts."""


Snapshot = Standing | ResultSnapshot | ClusterSnapshot
