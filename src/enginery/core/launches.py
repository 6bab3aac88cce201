"""Orders to start engines, from the client that gave them to the host that carries them out.

An order that comes before any host has said hello waits for one: the first host of a cluster is a few
milliseconds behind its controller. An order that no host takes within `HOST_WAIT_S` is refused.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from enginery.ids import ClientId, EngineId, HostKey

HOST_WAIT_S = 3.0


class LaunchOrder(NamedTuple):
    """Who asked, under which number of his, for how many engines."""

    client: ClientId
    request: int
    engines: int


class Launches:
    """All orders that are not answered. Hosts know launches by their numbers, whoever gave them."""

    def __init__(self, *, first_number: int = 1) -> None:
        self._waiting: deque[tuple[float, LaunchOrder]] = deque()  # with their deadlines, ascending
        self._under_way: dict[int, tuple[HostKey, LaunchOrder]] = {}
        self._wanted: dict[int, list[EngineId]] = {}  # of these, the ids that they are to have
        self._next = first_number

    def __repr__(self) -> str:
        return f"<Launches: {len(self._waiting)} waiting, {len(self._under_way)} under way>"

    def on_ordered(self, order: LaunchOrder, *, now: float) -> None:
        self._waiting.append((now + HOST_WAIT_S, order))

    def take_waiting(self, host: HostKey) -> list[tuple[int, LaunchOrder]]:
        """A host is there: all waiting orders, each with the number that the host answers to."""
        taken = []
        while self._waiting:
            _, order = self._waiting.popleft()
            launch = self.new_number()
            self._under_way[launch] = host, order
            taken.append((launch, order))
        return taken

    def new_number(self) -> int:
        """A number that no launch has had: what a host answers to."""
        self._next += 1
        return self._next - 1

    def on_told(self, launch: int, engines: list[EngineId]) -> None:
        """The host is told of it, with the ids that the engines are to have."""
        self._wanted[launch] = engines

    def under_way_at(self, host: HostKey) -> list[tuple[int, list[EngineId]]]:
        """What this host has not answered."""
        return [
            (launch, engines)
            for launch, engines in self._wanted.items()
            if self._under_way[launch][0] == host
        ]

    def on_answered(self, launch: int) -> LaunchOrder | None:
        """A host has answered; None if it had before."""
        self._wanted.pop(launch, None)
        _, order = self._under_way.pop(launch, (None, None))
        return order

    def on_host_gone(self, host: HostKey) -> list[LaunchOrder]:
        """The orders that this host had and will not carry out."""
        lost = [launch for launch, (holder, _) in self._under_way.items() if holder == host]
        for launch in lost:
            self._wanted.pop(launch, None)
        return [self._under_way.pop(launch)[1] for launch in lost]

    def next_deadline(self) -> float | None:
        return self._waiting[0][0] if self._waiting else None

    def take_overdue(self, *, now: float) -> list[LaunchOrder]:
        """Orders that no host has come for."""
        overdue = []
        while self._waiting and self._waiting[0][0] <= now:
            overdue.append(self._waiting.popleft()[1])
        return overdue

    def check(self) -> None:
        deadlines = [deadline for deadline, _ in self._waiting]
        assert deadlines == sorted(deadlines)
        assert all(launch < self._next for launch in self._under_way)
        assert self._wanted.keys() <= self._under_way.keys()
