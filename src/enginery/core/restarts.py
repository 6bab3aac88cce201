"""Engines in whose places others are started, under the same ids: by order, or because they are overdue.

The next process is started when its host has proof of the old one's end and not before: two of them would
share a log, a port, a GPU. An order is answered when each of its engines has been started again or cannot be;
they say hello as any other engine does.

An engine is overdue if it does not end a task that it is to end. Its host is then told to kill it, should it
still run that task, again and again until one of both has ended; so one that ends within `OVERDUE_S` of being
told has been killed for that, and another takes its place. Nobody waits for an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from enginery.ids import ClientId, EngineId, EngineKey, HostKey

OVERDUE_S = 10.0
"""How long before its end a process has been told to go, at most, if that is the cause of it."""


class Place(NamedTuple):
    """Where a process runs, and as which engine."""

    host: HostKey
    engine: EngineId


class Overdue(NamedTuple):
    """What becomes of a process that is to be killed, and why."""

    place: Place
    cause: str
    told_at: float


class RestartOrder:
    """Who asked, under which number of his, and which processes are not replaced yet.

    The client is None where nobody has asked.
    """

    __slots__ = ("client", "engines", "errors", "pending", "request")

    def __init__(self, client: ClientId | None, request: int, processes: Mapping[EngineKey, Place]) -> None:
        self.client = client
        self.request = request
        self.engines = sorted(place.engine for place in processes.values())
        self.pending = set(processes)
        self.errors: dict[str, None] = {}  # in order, each once

    def __repr__(self) -> str:
        return f"<RestartOrder of engines {self.engines}, {len(self.pending)} not decided>"

    @property
    def error(self) -> str:
        return "; ".join(self.errors)


class Restarts:
    """All orders that are not answered. Facts that decide something return the orders they complete."""

    def __init__(self) -> None:
        self._orders: list[RestartOrder] = []
        self._ending: dict[EngineKey, Place] = {}
        self._starting: dict[int, tuple[EngineKey, Place]] = {}  # by the number of their launch
        self._overdue: dict[EngineKey, Overdue] = {}

    def __repr__(self) -> str:
        return (
            f"<Restarts: {len(self._orders)} orders, {len(self._ending)} processes to end, "
            f"{len(self._starting)} to start>"
        )

    def __contains__(self, key: EngineKey) -> bool:
        """Whether this process is to end so that another takes its place."""
        return key in self._ending

    # ------------------------------------------------------------ facts

    def on_ordered(self, client: ClientId | None, request: int, processes: Mapping[EngineKey, Place]) -> None:
        """These processes are told to stop. One that was told before serves both orders."""
        self._orders.append(RestartOrder(client, request, processes))
        self._ending.update(processes)

    def on_overdue(self, key: EngineKey, place: Place, cause: str, *, now: float) -> None:
        """The host of this process is told to kill it, perhaps once more."""
        self._overdue = {
            other: overdue for other, overdue in self._overdue.items() if now <= overdue.told_at + OVERDUE_S
        }
        self._overdue[key] = Overdue(place, cause, now)

    def on_engine_gone(self, key: EngineKey, *, now: float) -> str:
        """A process has ended. Why it had to be replaced, and now is; empty if that was not the cause."""
        overdue = self._overdue.pop(key, None)
        if overdue is None or now > overdue.told_at + OVERDUE_S or key in self._ending:
            return ""
        self.on_ordered(None, 0, {key: overdue.place})
        return overdue.cause

    def on_ended(self, key: EngineKey, host: HostKey, *, launch: int) -> EngineId | None:
        """A process is gone, its host says.

        Returns the engine that this host is to start again as the launch of this number, if any.
        """
        place = self._ending.get(key)
        if place is None or place.host != host:
            return None
        self._starting[launch] = key, self._ending.pop(key)
        return place.engine

    def on_launched(self, launch: int, error: str) -> list[RestartOrder]:
        """The host has started a process in the place of one, or says why it could not."""
        key, _ = self._starting.pop(launch, (None, None))
        return [] if key is None else self._decide([key], error)

    def on_stopped(self, keys: Iterable[EngineKey], error: str) -> list[RestartOrder]:
        """These processes are to end for good."""
        keys = list(keys)
        for key in keys:
            self._overdue.pop(key, None)
        found = [key for key in keys if self._ending.pop(key, None) is not None]
        return self._decide(found, error)

    def on_host_gone(self, host: HostKey, error: str) -> list[RestartOrder]:
        ending = [key for key, place in self._ending.items() if place.host == host]
        starting = [launch for launch, (_, place) in self._starting.items() if place.host == host]
        for key in ending:
            del self._ending[key]
        self._overdue = {key: one for key, one in self._overdue.items() if one.place.host != host}
        return self._decide([*ending, *(self._starting.pop(launch)[0] for launch in starting)], error)

    # ------------------------------------------------------------ looking

    def place_of(self, launch: int) -> Place | None:
        """Where a process was to be started as this launch; None if it has been, or is none of these."""
        return self._starting[launch][1] if launch in self._starting else None

    def starting_at(self, host: HostKey) -> list[tuple[int, EngineId]]:
        """The launches that this host has not answered."""
        return [(launch, place.engine) for launch, (_, place) in self._starting.items() if place.host == host]

    def statistics(self) -> dict[str, int]:
        return {"orders": len(self._orders), "ending": len(self._ending), "starting": len(self._starting)}

    def check(self) -> None:
        under_way = {*self._ending, *(key for key, _ in self._starting.values())}
        assert all(order.pending for order in self._orders)
        assert under_way == {key for order in self._orders for key in order.pending}

    def _decide(self, keys: list[EngineKey], error: str) -> list[RestartOrder]:
        for order in self._orders:
            if error and not order.pending.isdisjoint(keys):
                order.errors[error] = None
            order.pending.difference_update(keys)
        complete = [order for order in self._orders if not order.pending]
        self._orders = [order for order in self._orders if order.pending]
        return complete
