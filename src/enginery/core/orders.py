"""Orders to several engines, from the client that gave them until each engine has answered.

An order reaches an engine over its control connection, again after each hello of that if twice does no harm,
until the engine says that it has carried it out. An engine that leaves counts as having done so. What is not
answered within `ANSWER_WAIT_S` is not waited for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from enginery.ids import ClientId, EngineId

ANSWER_WAIT_S = 10.0


class Order(NamedTuple):
    """Who asked, under which number of his, for what, which engines, and who has not answered."""

    client: ClientId
    request: int
    deed: str  # "the namespace was cleared"
    is_repeated: bool
    engines: list[EngineId]
    open: set[EngineId]
    deadline: float


class Orders:
    """All orders that are not answered, by their numbers."""

    def __init__(self) -> None:
        self._orders: dict[int, Order] = {}  # by deadline, ascending
        self._next = 1

    def __repr__(self) -> str:
        return f"<Orders: {len(self._orders)} under way>"

    def on_ordered(
        self,
        client: ClientId,
        request: int,
        engines: Iterable[EngineId],
        *,
        deed: str,
        is_repeated: bool = True,
        now: float,
    ) -> int:
        """Begin an order to some engines, one at least; returns its number."""
        wanted = sorted(set(engines))
        number, self._next = self._next, self._next + 1
        deadline = now + ANSWER_WAIT_S
        self._orders[number] = Order(client, request, deed, is_repeated, wanted, set(wanted), deadline)
        return number

    def on_answered(self, number: int, engine: EngineId) -> Order | None:
        """An engine has carried out an order. Returns the order if that completes it."""
        order = self._orders.get(number)
        if order is None or engine not in order.open:
            return None
        order.open.discard(engine)
        return None if order.open else self._orders.pop(number)

    def on_engine_gone(self, engine: EngineId) -> list[Order]:
        """An engine has left. Returns the orders that this completes."""
        done = [self.on_answered(number, engine) for number in list(self._orders)]
        return [order for order in done if order is not None]

    def engines(self, number: int) -> list[EngineId]:
        """Those that an order is for."""
        return self._orders[number].engines

    def of(self, engine: EngineId) -> list[int]:
        """The orders that this engine has not answered and that are to be said again."""
        return [
            number for number, order in self._orders.items() if order.is_repeated and engine in order.open
        ]

    def next_deadline(self) -> float | None:
        return next((order.deadline for order in self._orders.values()), None)

    def take_overdue(self, *, now: float) -> list[Order]:
        """Orders that are waited for no longer."""
        overdue = [number for number, order in self._orders.items() if order.deadline <= now]
        return [self._orders.pop(number) for number in overdue]

    def check(self) -> None:
        deadlines = [order.deadline for order in self._orders.values()]
        assert deadlines == sorted(deadlines)
        assert all(order.open for order in self._orders.values())
