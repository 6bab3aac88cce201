"""AsyncHubResult: the future of tasks that are named by their ids, whoever has submitted them.

Its outcomes are filled by the session that follows the tasks: at once by what the controller remembers, or
when they end. Outcomes that belong to a call of this client are shared with that call's own result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from enginery.client.contract import TaskSession
from enginery.client.results.async_result import AsyncResult, Origin
from enginery.client.results.outcome import MapOutcome, Outcome
from enginery.client.results.tally import Tally
from enginery.core.watching import Saying
from enginery.ids import TaskId
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import Kind, TaskResult


class AsyncHubResult(AsyncResult):
    """Hold the places of results of tasks that other clients, or other lives of this program, have submitted.

    Everything that an `AsyncResult` has works; a task that nobody knows fails with UnknownTask, a KeyError.

    >>> rc.get_result("3fa9c01b-17").get()                              # doctest: +SKIP
    1024
    """

    def _last_received(self) -> float:
        """When the last one ended: what was recorded was received by somebody else."""
        return float(
            max(outcome.result.completed or outcome.received for outcome in self._outcomes if outcome.result)
        )

    @classmethod
    def over(
        cls, session: TaskSession, origin: Origin, outcomes: Sequence[Outcome], *, submitted: float
    ) -> AsyncResult:
        """A result of these outcomes, each of which is there once."""
        result = cls(session, origin, tasks=0)
        result._outcomes += outcomes
        result._open = len(outcomes)
        result._ended = set()
        if submitted:
            result._submitted = submitted
        for outcome in outcomes:
            outcome.tell_also(result)
        return result


class AsyncHubMapResult(AsyncHubResult):
    """The same for a map: its value is the list of the items of all its tasks, in order."""

    _unit = "items"
    _is_map = True

    def _value(self) -> list[Any]:
        return [item for part in super()._value() for item in part]

    def _values_and_errors(self) -> list[Any]:
        return [item for outcome in self._outcomes for item in outcome.settled()]

    def _each(self) -> Iterator[Any]:
        for part in super()._each():
            yield from part

    def __len__(self) -> int:
        self._look_inside()
        total = self._length_hint()
        if total is None:
            raise TypeError(
                "how many items this map has is known when its tasks have ended; call wait() first"
            )
        return total

    @property
    def progress(self) -> int:
        """How many items have ended, those of running tasks included as far as engines have said so."""
        return self.standing().done

    def _look_inside(self) -> None:
        for outcome in list(self._outcomes):
            if outcome.is_done and (outcome.has_failed or outcome.known_size is None):
                outcome.read()  # what comes out of the history does not say how many items it has

    def _troubles(self, tally: Tally) -> tuple[int, int]:
        found = [outcome.troubles() for outcome in self._outcomes if self._is_counted(outcome)]
        return sum(failed for failed, _ in found), sum(cancelled for _, cancelled in found)

    def _length_hint(self) -> int | None:
        sizes = [outcome.known_size for outcome in self._outcomes]
        return None if None in sizes else sum(sizes)

    def _ended_count(self) -> int:
        return sum(outcome.known_size or 0 for outcome in self._outcomes if self._is_counted(outcome))


class FollowedMapOutcome(MapOutcome):
    """A promise for a part of a map; how many items it has is known when it has said so, or at its end."""

    __slots__ = ("_is_sized",)

    def __init__(self) -> None:
        super().__init__(_nobody, 0, 1)
        self._is_sized = False

    @property
    def known_size(self) -> int | None:
        return self.size if self._is_sized else None

    def on_said(self, saying: Saying, /) -> None:
        super().on_said(saying)
        if self.moved is not None and self.moved.items:
            self._set_size(self.moved.items)

    def on_result(self, result: TaskResult, buffers: Sequence[Buffer], /) -> None:
        if result.items:
            self._set_size(result.items)
        super().on_result(result, buffers)

    def read(self) -> tuple[Any, Exception | None]:
        found = super().read()
        self._is_sized = True
        return found

    def _set_size(self, items: int) -> None:
        self.size = items
        self._is_sized = True

    def _decode(self, result: TaskResult, buffers: Sequence[Buffer]) -> tuple[Any, Exception | None]:
        values, error = super()._decode(result, buffers)
        if values is not None:
            self.size = len(values)
        return values, error


class _Nobody:
    """The first owner of outcomes that are made before their result."""

    is_writeable = False

    def on_outcome(self, outcome: Any, /) -> None:
        """Whoever wants to know uses `Outcome.tell_also`."""

    def on_moved(self, outcome: Any, /) -> None:
        """Likewise."""


_nobody = _Nobody()


def new_outcome(kind: Kind, task: TaskId | None = None) -> Outcome:
    """The place of a task's result, told of its kind."""
    outcome = FollowedMapOutcome() if kind is Kind.MAP else Outcome(_nobody)
    outcome.task = task
    return outcome
