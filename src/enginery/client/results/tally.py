"""What a result counts beside the ends of its tasks: failures, and tasks that say how far they are.

Most results have nothing of that, so there is a tally only once there is something to count. The result's own
lock guards it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from enginery.client.results.outcome import Outcome


class UnderWay(NamedTuple):
    """Unfinished tasks of one result that have said how far they are."""

    outcomes: tuple[Outcome, ...] = ()
    done: int = 0
    """Items of maps that have ended in them."""
    failed: int = 0
    cancelled: int = 0
    ahead: float = 0.0
    """What is done of single things, by the tasks' own account, added up."""


class Tally:
    """Of one result."""

    __slots__ = ("_moving", "cancelled", "failed")

    def __init__(self) -> None:
        self.failed = 0
        """Things that have failed, and were not cancelled."""
        self.cancelled = 0
        self._moving: dict[Outcome, None] = {}

    def __repr__(self) -> str:
        return f"<Tally: {self.failed} failed, {self.cancelled} cancelled, {len(self._moving)} under way>"

    def on_moved(self, outcome: Outcome) -> None:
        """A task has said how far it is."""
        self._moving[outcome] = None

    def on_ended(self, outcome: Outcome) -> None:
        """A task has ended; said once of each."""
        self._moving.pop(outcome, None)
        if outcome.has_failed:
            failed, cancelled = outcome.troubles()
            self.failed += failed
            self.cancelled += cancelled

    def under_way(self, is_counted: Callable[[Outcome], bool]) -> UnderWay:
        """What is not finished; `is_counted` tells which tasks the result counts as ended."""
        done = failed = cancelled = 0
        ahead = 0.0
        found = []
        for outcome in list(self._moving):
            moved = outcome.moved
            if moved is None or is_counted(outcome):
                del self._moving[outcome]  # it has said so after its end
                continue
            found.append(outcome)
            done += min(moved.done, outcome.size)
            failed += moved.failed
            cancelled += moved.cancelled
            if outcome.size == 1 and not moved.done and moved.report is not None:
                ahead += moved.report.fraction or 0.0
        found.sort(key=lambda outcome: (outcome.place, outcome.moved.engine if outcome.moved else 0))
        return UnderWay(tuple(found), done, failed, cancelled, ahead)
