"""AsyncMapResult: the future of a map, item by item.

Its tasks are chunks (`MapOutcome`), which come in any order and of which, in long maps and with iterators,
not all are known from the start: a `MapDriver` adds them. The result is finished when the number of items
is known and all of them have come. Values are handed out chunk by chunk; nothing here is done per item but
yielding it.
"""

from __future__ import annotations

import operator
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, NoReturn, Protocol

from enginery.client.contract import TaskSession
from enginery.client.partition import Reassembly
from enginery.client.results.async_result import AsyncResult, Origin
from enginery.client.results.bars import ProgressBar, weak_look
from enginery.client.results.outcome import MapOutcome, Outcome
from enginery.client.results.partial import Partial
from enginery.client.results.verdicts import combine
from enginery.core.wishes import Wish
from enginery.errors import TaskCancelled
from enginery.ids import EngineId, TaskId


class MapDriver(Protocol):
    """Whoever adds the chunks of a map while it runs."""

    def on_chunk(self, outcome: MapOutcome, /) -> None:
        """A chunk has ended."""

    def on_taken(self) -> None:
        """Results have been taken, or `takes_all` has changed: more may be read."""

    def abort(self) -> None:
        """Send no more. Items that have not been sent end with TaskAborted."""

    def set_priority(self, priority: int) -> None:
        """What is sent from now on has this priority."""

    def close(self) -> None:
        """Let go of everything; there is nothing left to do."""


class AsyncMapResult(AsyncResult):
    """Hold the places of a map's results; iterate over it to have them as they come.

    Items come in order, or with `ordered=False` as they arrive. `len`, `progress` and failures count items;
    `msg_ids` and `metadata` have an entry for each task, which may be many items.
    """

    _unit = "items"
    _is_map = True

    def __init__(
        self,
        session: TaskSession,
        origin: Origin,
        *,
        total: int | None,
        ordered: bool = True,
        with_bar: bool = False,
    ) -> None:
        super().__init__(session, origin, tasks=0)
        self._total = total
        self._ordered = ordered
        self._bar: ProgressBar | None = None
        self._pieces: Reassembly[MapOutcome] = Reassembly()
        self._arrivals: list[MapOutcome] = []
        self._driver: MapDriver | None = None
        self._input_error: BaseException | None = None
        self._whole: list[Any] | None = None
        self._unwanted: set[int] = set()  # items that were cancelled one by one
        self.is_cancelling = False
        """The whole is: what was not sent counts as cancelled."""
        self.taken = 0
        """Items that have been handed out by iteration, at the furthest."""
        self.is_iterated = False
        self.takes_all = False
        """Somebody waits for the whole: results count as taken when they arrive."""
        if with_bar:
            self._bar = ProgressBar(weak_look(self.standing), session=session)

    # ------------------------------------------------------------ from the driver

    @property
    def arrived(self) -> int:
        """Items whose results are here."""
        return self._pieces.count

    def follow(self, driver: MapDriver) -> None:
        """Tell `driver` of chunks that end and of results that are taken."""
        self._driver = driver

    def new_chunk(self, start: int, size: int, target: EngineId | None = None) -> MapOutcome:
        """The place of a chunk that is about to be sent."""
        outcome = MapOutcome(self, start, size, target)
        self._outcomes.append(outcome)
        stream = self._stream
        if stream is not None:
            stream.add(outcome)
        return outcome

    def split_chunk(self, outcome: MapOutcome, sizes: Sequence[int]) -> list[MapOutcome]:
        """Replace a chunk that was not sent by smaller ones."""
        self._outcomes.remove(outcome)
        starts = accumulate(sizes, initial=outcome.start)
        return [self.new_chunk(start, size) for start, size in zip(starts, sizes, strict=False)]

    def on_chunk_submitted(self, outcome: MapOutcome, task: TaskId) -> None:
        outcome.task = task
        if self._origin.history is not None:
            self._origin.history(task, 1)
        if self._unwanted:  # looked at after the task is set: who cancels items looks at the task afterwards
            self._cancel_items_of(outcome)

    def on_input_end(self, total: int, error: BaseException | None = None) -> None:
        """There are so many items and no more; `error` is what the caller's iterator raised, if it did."""
        self._total = total
        self._input_error = error
        if self._bar is not None:
            self._bar.move()
        self._finish_if_over()
        self._session.notify()
        if self._loop_waits is not None:
            self._loop_waits.tell()

    def on_outcome(self, outcome: Any, /) -> None:
        """A chunk has ended. Saying it again does no harm."""
        with self._state_lock:
            if not outcome.is_counted:
                outcome.is_counted = True
                if outcome.has_failed or self._tally is not None:
                    self._tally_of_it().on_ended(outcome)
                self._arrivals.append(outcome)
                self._pieces.add(outcome.start, outcome.size, outcome)
        if self._bar is not None:
            self._bar.move()
        if self._driver is not None:
            self._driver.on_chunk(outcome)
        self._finish_if_over()
        if self._loop_waits is not None:
            self._loop_waits.tell()

    def on_moved(self, outcome: Any, /) -> None:
        super().on_moved(outcome)
        if self._bar is not None:
            self._bar.move()

    def _finish_if_over(self) -> None:
        with self._state_lock:
            if self.done() or self._total is None or self._pieces.count < self._total:
                return
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.close()
        self.close_bar()
        if self._input_error is not None:
            self._failure = self._input_error
        self._finish()

    def close_bar(self) -> None:
        """Leave the last state of its progress bar on the screen, if it has one."""
        if self._bar is not None:
            self._bar.close()

    # ------------------------------------------------------------ the value

    def _value(self) -> list[Any]:
        if self._whole is None:
            self._whole = [item for piece in self._pieces.in_order() for item in piece.settled()]
        return self._whole

    def _values_and_errors(self) -> list[Any]:
        if self._input_error is not None:
            raise self._input_error
        return self._value()

    def _get_ended(self, return_exceptions: bool | None) -> list[Any]:
        return [item for piece in super()._get_ended(return_exceptions) for item in piece]

    def partial(self) -> Partial:
        """Return the items that are there now, and what is missing or failed, without waiting or raising.

        Of an iterator that has not been read to its end, items that were not read are not missing yet.
        """
        outcomes = list(self._outcomes)
        total = self._total
        if total is None:
            total = max((outcome.start + outcome.size for outcome in outcomes), default=0)
        values: list[Any] = [None] * total
        missing = set(range(total))
        failed: dict[int, Exception] = {}
        for outcome in sorted(outcomes, key=lambda outcome: int(outcome.start)):
            if not outcome.is_done:
                continue
            positions = range(outcome.start, outcome.start + outcome.size)
            missing.difference_update(positions)
            for position, (value, error) in zip(positions, _pairs(outcome), strict=True):
                values[position] = value
                if error is not None:
                    failed[position] = error
        return Partial(values, sorted(missing), failed)

    def _error(self) -> BaseException | None:
        if self._failure is None:
            errors = [error for piece in self._pieces.in_order() for error in piece.errors()]
            if errors:
                self._failure = combine(errors, of=len(self), what=f"items of {self._origin.name}")
        return self._failure

    def get_dict(self, timeout: float | None = -1) -> dict[int, Any]:
        """Return the items by engine id; raises ValueError if an engine ran more than one of the tasks."""
        self.get(timeout)
        pieces = list(self._pieces.in_order())
        found = {int(piece.result.engine): piece.settled() for piece in pieces if piece.result is not None}
        if len(found) < len(pieces):
            raise ValueError(
                "an engine ran several of these tasks, so there is no dictionary by engine; use get()"
            )
        return found

    # ------------------------------------------------------------ waiting and taking

    def _wait_for_whole(self) -> None:
        if not self.done() and not self.takes_all:
            self.takes_all = True
            self._tell_taken()

    def abort(self) -> None:
        """Take out of the queues what has not started; it then fails with `TaskAborted`.

        Raises RuntimeError if all has ended.
        """
        driver = self._driver
        if driver is not None:
            driver.abort()
            if self.done():
                return
        super().abort()

    def cancel(self, *items: int) -> bool:
        """End it, or single items of it, by their positions. Returns False if all of that has ended.

        Items that have not started never run, those that run are interrupted, see `AsyncResult.cancel`; the
        others keep their values. An item that is alone in its task can cost its engine, like any task; one of
        several is waited for instead. Raises IndexError for an item that there is not.

        >>> ar.cancel(17)                                               # doctest: +SKIP
        True
        """
        if not items:
            return super().cancel()
        places = [self._place(item) for item in items]
        self._unwanted.update(places)
        outcomes = [
            outcome
            for outcome in list(self._outcomes)
            if any(outcome.start <= place < outcome.start + outcome.size for place in places)
        ]
        for outcome in outcomes:
            self._cancel_items_of(outcome)
        sent = sum(self._size_in(places, outcome) for outcome in outcomes if outcome.is_done)
        return sent < len(set(places))

    def _place(self, item: int) -> int:
        place = operator.index(item)
        if place < 0 and self._total is not None:
            place += self._total
        if place < 0 or (self._total is not None and place >= self._total):
            raise IndexError(f"there is no item {item} in {self!r}")
        return place

    @staticmethod
    def _size_in(places: Iterable[int], outcome: MapOutcome) -> int:
        return len({place for place in places if outcome.start <= place < outcome.start + outcome.size})

    def _cancel_items_of(self, outcome: MapOutcome) -> None:
        """Of a chunk: tell whoever has it; one that was not sent is looked at when it is."""
        task = outcome.task
        if task is None or outcome.is_done:
            return
        rows = [row for row in range(outcome.size) if outcome.start + row in self._unwanted]
        if len(rows) == outcome.size:
            self._session.withdraw([task], Wish(True, self._session.cancel_grace_s))
        elif rows:
            self._session.cancel_items(task, rows)

    def _withdraw(self, wish: Wish) -> bool:
        self.is_cancelling = not self.done()
        driver = self._driver
        if driver is not None:
            driver.abort()
        return super()._withdraw(wish) or self.is_cancelling

    def set_priority(self, priority: int) -> None:
        """Change the priority of all that has not started, also of what has not been sent yet."""
        super().set_priority(priority)
        driver = self._driver
        if driver is not None:
            driver.set_priority(priority)

    def _tell_taken(self) -> None:
        driver = self._driver
        if driver is not None:
            driver.on_taken()

    def _each(self) -> Iterator[Any]:
        for item, error in self.pairs():
            if error is None:
                yield item
            elif self._origin.return_exceptions:
                yield error
            else:
                raise error

    def pairs(self, deadline: float | None = None) -> Iterator[tuple[Any, Exception | None]]:
        """Each item as (value, None) or (None, error), as they come.

        Raises TimeoutError if the next one is not there at `deadline`, a time of `time.monotonic`.
        """
        self.is_iterated = True
        count = 0
        for piece in self._each_piece(deadline):
            yield from self._take(piece, count)
            count += piece.size
        if self._input_error is not None:
            raise self._input_error

    def _take(self, piece: MapOutcome, before: int) -> Iterator[tuple[Any, Exception | None]]:
        """The items of a piece, as `pairs` gives them; so many have been handed out before it."""
        for count, pair in enumerate(_pairs(piece), before + 1):
            if count > self.taken:
                self.taken = count
                if self._driver is not None:
                    self._driver.on_taken()
            yield pair

    async def _each_later(self) -> AsyncIterator[Any]:
        self.is_iterated = True
        count = seen = 0
        while True:
            await self._until(partial(self._has_next, seen, count))
            piece = self._next_piece(seen, count)
            if piece is None:
                break
            for item, error in self._take(piece, count):
                if error is not None and not self._origin.return_exceptions:
                    raise error
                yield item if error is None else error
            seen += 1
            count += piece.size
        if self._input_error is not None:
            raise self._input_error

    def _has_next(self, seen: int, count: int) -> bool:
        return self._has_piece(count) if self._ordered else self._has_arrivals(seen, count)

    def _next_piece(self, seen: int, count: int) -> MapOutcome | None:
        if not self._ordered:
            return self._arrivals[seen] if len(self._arrivals) > seen else None
        found = self._pieces.at(count)
        return None if found is None else found[1]

    def _each_piece(self, deadline: float | None = None) -> Iterator[MapOutcome]:
        seen = count = 0
        while True:
            self._wait_until_deadline(partial(self._has_next, seen, count), deadline)
            piece = self._next_piece(seen, count)
            if piece is None:
                return
            yield piece
            seen += 1
            count += piece.size

    def _wait_until_deadline(self, predicate: Callable[[], bool], deadline: float | None) -> None:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not self._wait_for(predicate, left) and deadline is not None and time.monotonic() >= deadline:
            self._refuse_early(None)

    def _has_piece(self, start: int) -> bool:
        return self._pieces.at(start) is not None or self._ends_at(start)

    def _has_arrivals(self, seen: int, count: int) -> bool:
        return len(self._arrivals) > seen or self._ends_at(count)

    def _ends_at(self, count: int) -> bool:
        return self._total is not None and count >= self._total

    # ------------------------------------------------------------ what is known of it

    def _is_all_sent(self) -> bool:
        sent = [outcome for outcome in list(self._outcomes) if outcome.task is not None or outcome.is_done]
        return self._total == sum(int(outcome.size) for outcome in sent)

    def __len__(self) -> int:
        if self._total is None:
            raise TypeError("the length of this map is known when its iterator has been read to the end")
        return self._total

    @property
    def progress(self) -> int:
        """How many items have ended, those of running chunks included as far as engines have said so."""
        return self.standing().done

    def __repr__(self) -> str:
        total = "?" if self._total is None else self._total
        standing = self._standing()
        trouble = standing.failed + standing.cancelled
        failed = f", {trouble} failed" if trouble else ""
        how_far = f"{standing.done} of {total} {self._unit}{failed}"
        return f"<{type(self).__name__}: {self._origin.name or 'map'}: {how_far}>"

    def _length_hint(self) -> int | None:
        return self._total

    def _ended_count(self) -> int:
        return self._pieces.count

    def _place_of(self, outcome: Outcome) -> str:
        if outcome.size == 1:
            return f"{self._unit.removesuffix('s')} {outcome.place}"
        return f"{self._unit} {outcome.place}–{outcome.place + outcome.size - 1}"

    def _refuse_early(self, timeout: float | None) -> NoReturn:
        total = "" if self._total is None else f" of {self._total}"
        limit = "" if timeout is None else f" after {timeout:g} s"
        raise TimeoutError(
            f"{self._origin.name or 'the map'} has not ended{limit} ({self.progress}{total} items done)"
        )


def _count(errors: Sequence[Exception]) -> tuple[int, int]:
    """How many have failed, and how many were cancelled."""
    cancelled = sum(isinstance(error, TaskCancelled) for error in errors)
    return len(errors) - cancelled, cancelled


def _pairs(piece: MapOutcome) -> Iterator[tuple[Any, Exception | None]]:
    values, _ = piece.read()
    failures = piece.failures
    if not failures:
        for value in values:
            yield value, None
        return
    for row in range(piece.size):
        yield (None if values is None else values[row]), failures.get(row)
