"""Engines in sets: those that one call has started, under an id by which they are stopped together."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from enginery.ids import EngineId


@dataclass(frozen=True)
class EngineSet:
    """Engines that were started together."""

    id: str
    engines: tuple[EngineId, ...]

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self.engines)


class EngineSets(dict[str, EngineSet]):
    """The sets of one cluster by their ids, in the order in which they were started.

    Engines that have not answered yet cannot be told anything: `awaited` are those that may be on their way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.awaited: set[EngineId] = set()

    def new_id(self) -> str:
        """An id that no set has."""
        taken = {int(known[4:]) for known in self if known.startswith("set-") and known[4:].isdecimal()}
        return f"set-{max(taken, default=-1) + 1}"

    def check_new(self, set_id: str | None) -> str:
        """The id for a set that is about to be started; raises ValueError if there is one of this id."""
        if set_id in self:
            raise ValueError(f"there is a set of engines {set_id!r} already; stop it or choose another id")
        return self.new_id() if set_id is None else str(set_id)

    def add(self, set_id: str, engines: Iterable[EngineId], *, have_answered: bool = False) -> None:
        found = self[set_id] = EngineSet(set_id, tuple(engines))
        if not have_answered:
            self.awaited.update(found.engines)

    def named(self, set_id: str) -> EngineSet:
        """The set of this id; raises KeyError with those there are."""
        if set_id not in self:
            known = ", ".join(self) or "none"
            raise KeyError(f"there is no set of engines {set_id!r}; known: {known}")
        return self[set_id]

    def drop(self, engines: Collection[EngineId]) -> None:
        """These engines have been stopped; a set without engines goes with them."""
        for set_id, found in list(self.items()):
            left = tuple(engine for engine in found.engines if engine not in engines)
            if left:
                self[set_id] = EngineSet(set_id, left)
            else:
                del self[set_id]

    @property
    def count(self) -> int:
        """Engines in all sets."""
        return sum(found.n for found in self.values())
