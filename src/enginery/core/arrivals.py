"""Tasks on their way into an engine's workload, in the order in which they came.

A task whose blobs the engine has forgotten is asked for again, and what came behind it waits: calls to one
engine see what those before them have left in its namespace.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Generic, TypeVar

from enginery.core.workload import Attempt

Work = TypeVar("Work")


class Arrivals(Generic[Work]):
    """The line before the workload; empty but for the time in which blobs are missing."""

    def __init__(self) -> None:
        self._line: OrderedDict[Attempt, Work | None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._line)

    def __repr__(self) -> str:
        return f"<Arrivals: {len(self._line)} waiting>"

    def on_task(self, attempt: Attempt, work: Work | None) -> list[tuple[Attempt, Work]]:
        """A task has come, without its work if blobs are missing. Returns what may go in now, in order."""
        if work is not None and not self._line:
            return [(attempt, work)]
        if work is not None or attempt not in self._line:
            self._line[attempt] = work  # a task that comes again takes the place that it had
        return self._take_ready()

    def on_taken_back(self, attempts: Iterable[Attempt]) -> list[tuple[Attempt, Work]]:
        """These will not come any more. Returns what waited for them, and may go in now."""
        for attempt in attempts:
            self._line.pop(attempt, None)
        return self._take_ready()

    def restart(self) -> None:
        """A hello was answered: what has not gone in comes again."""
        self._line.clear()

    def _take_ready(self) -> list[tuple[Attempt, Work]]:
        ready = []
        while self._line:
            attempt, work = next(iter(self._line.items()))
            if work is None:
                break
            del self._line[attempt]
            ready.append((attempt, work))
        return ready
