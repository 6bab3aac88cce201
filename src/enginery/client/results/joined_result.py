"""JoinedResult: parts of one sequence, one from each task: what `gather` and `@parallel` functions give."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from enginery.client.contract import TaskSession
from enginery.client.parts import items_of, join
from enginery.client.results.async_result import AsyncResult
from enginery.client.results.description import Origin
from enginery.client.results.map_result import AsyncMapResult
from enginery.client.results.outcome import MapOutcome, Outcome
from enginery.ids import EngineId
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import TaskResult


class JoinedResult(AsyncMapResult):
    """Hold the places of parts; the value is what they make together, iteration gives its items.

    `len` and `progress` count parts.
    """

    _unit = "parts"

    def __init__(
        self,
        session: TaskSession,
        origin: Origin,
        *,
        parts: int,
        dist: str = "b",
        ordered: bool = True,
        engines: Sequence[EngineId] = (),
    ) -> None:
        super().__init__(session, origin, total=parts, ordered=ordered)
        self._dist = dist
        for number in range(parts):
            target = engines[number] if engines else None
            self._outcomes.append(PartOutcome(self, number, 1, target))

    def _value(self) -> Any:
        if self._whole is None:
            self._whole = join([piece.settled()[0] for piece in self._pieces.in_order()], self._dist)
        return self._whole

    def pairs(self, deadline: float | None = None) -> Iterator[tuple[Any, Exception | None]]:
        """Each item as (value, None), a part that failed as (None, error), as they come."""
        if self._is_interleaved:
            yield from ((item, None) for item in self.get())
        else:
            yield from super().pairs(deadline)

    async def _each_later(self) -> AsyncIterator[Any]:
        if self._is_interleaved:
            for item in await self:
                yield item
        else:
            async for item in super()._each_later():
                yield item

    @property
    def _is_interleaved(self) -> bool:
        """Whether neighbours are in different parts, so that the first items need all of them."""
        return self._dist != "b" and self._ordered

    def _take(self, piece: MapOutcome, before: int) -> Iterator[tuple[Any, Exception | None]]:
        error = piece.failures.get(0) if piece.errors() else None
        if error is None:
            yield from ((item, None) for item in items_of(piece.settled()[0]))
        else:
            yield None, error

    # All tasks are known from the start.
    _is_all_sent = AsyncResult._is_all_sent


class PartOutcome(MapOutcome):
    """A promise for one part. To the map that it belongs to, it is one item."""

    __slots__ = ()

    def _decode(self, result: TaskResult, buffers: Sequence[Buffer]) -> tuple[Any, Exception | None]:
        value, error = Outcome._decode(self, result, buffers)
        return (None if error else [value]), error
