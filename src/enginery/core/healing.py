"""Which engines are started again when they have died, where that is wanted.

One that has served is started again whatever it died of: a task that kills engines is stopped by its own
count, see `retries`. One that dies before it is ready, at its start or while it is set up, may do so again
for the same reason, and is given up after `DEATHS_IN_A_ROW` of that.
"""

from __future__ import annotations

from typing import NamedTuple

from enginery.core.restarts import Place
from enginery.ids import EngineId, EngineKey

DEATHS_IN_A_ROW = 3
AGAIN = "another one is started in its place"
GIVEN_UP = (
    f"no other one is started in its place, because {DEATHS_IN_A_ROW} in a row have died there before they "
    "were ready: its log says more (enginery logs), rc.setup() lists what was to be made there; start one "
    "again with Cluster.start_engines"
)


class Sequel(NamedTuple):
    """What becomes of an engine's place."""

    place: Place | None  # where one is to be started again
    note: str  # for people


class Healing:
    """All places of a cluster."""

    def __init__(self, *, is_wanted: bool = False) -> None:
        self._is_wanted = is_wanted
        self._in_a_row: dict[EngineId, int] = {}  # deaths of processes that were not ready
        self._coming: dict[EngineKey, Place] = {}  # processes that have not said hello

    def __repr__(self) -> str:
        return f"<Healing{'' if self._is_wanted else ' not wanted'}, {len(self._coming)} to come>"

    def on_started(self, key: EngineKey, place: Place) -> None:
        """A process has been started in the place of one."""
        self._coming[key] = place

    def on_hello(self, key: EngineKey) -> None:
        self._coming.pop(key, None)

    def on_died(self, key: EngineKey, place: Place | None, *, is_ready: bool) -> Sequel:
        """Nobody had told it to end. The place is None if it had not said hello."""
        place = self._coming.pop(key, None) or place
        if not self._is_wanted or place is None:
            return Sequel(None, "")
        if is_ready:
            self._in_a_row.pop(place.engine, None)
            return Sequel(place, AGAIN)
        deaths = self._in_a_row.pop(place.engine, 0) + 1
        if deaths >= DEATHS_IN_A_ROW:
            return Sequel(None, GIVEN_UP)
        self._in_a_row[place.engine] = deaths
        return Sequel(place, AGAIN)

    def on_stopped(self, key: EngineKey) -> None:
        """It was told to end."""
        self._coming.pop(key, None)
