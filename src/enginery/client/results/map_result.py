"""AsyncMapResult: the future of a map, item by item.

Its tasks are chunks (`MapOutcome`), which come in any order and of which, in long maps and with iterators,
not all are known from the start: a `MapDriver` adds them. The result is finished when the number of items
is known and all of them have come. Values are handed out chunk by chunk; nothing here is done per item but
yielding it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, Protocol

from enginery.client.contract import TaskSession
from enginery.client.partition import Reassembly
from enginery.client.results.async_result import AsyncResult, Origin
from enginery.client.results.bars import ProgressBar
from enginery.client.results.outcome import MapOutcome
from enginery.client.results.verdicts import combine
from enginery.ids import TaskId


class MapDriver(Protocol):
    """Whoever adds the chunks of a map while it runs."""

    def on_chunk(self, outcome: MapOutcome, /) -> None:
        """A chunk has ended."""

    def on_taken(self) -> None:
        """Results have been taken, or `takes_all` has changed: more may be read."""

    def abort(self) -> None:
        """Send no more. Items that have not been sent end with TaskAborted."""

    def close(self) -> None:
        """Let go of everything; there is nothing left to do."""


class AsyncMapResult(AsyncResult):
    """Hold the places of a map's results; iterate over it to have them as they come.

    Items come in order, or with `ordered=False` as they arrive. `len`, `progress` and failures count items;
    `msg_ids` and `metadata` have an entry for each task, which may be many items.
    """

    _unit = "items"

    def __init__(
        self,
        session: TaskSession,
        origin: Origin,
        *,
        total: int | None,
        ordered: bool = True,
        bar: ProgressBar | None = None,
    ) -> None:
        super().__init__(session, origin, tasks=0)
        self._total = total
        self._ordered = ordered
        self._bar = bar
        self._pieces: Reassembly[MapOutcome] = Reassembly()
        self._arrivals: list[MapOutcome] = []
        self._driver: MapDriver | None = None
        self._input_error: BaseException | None = None
        self._whole: list[Any] | None = None
        self._failed_items = 0
        self.taken = 0
        """Items that have been handed out by iteration, at the furthest."""
        self.is_iterated = False
        self.takes_all = False
        """Somebody waits for the whole: results count as taken when they arrive."""

    # ------------------------------------------------------------ from the driver

    @property
    def arrived(self) -> int:
        """Items whose results are here."""
        return self._pieces.count

    def follow(self, driver: MapDriver) -> None:
        """Tell `driver` of chunks that end and of results that are taken."""
        self._driver = driver

    def new_chunk(self, start: int, size: int) -> MapOutcome:
        """The place of a chunk that is about to be sent."""
        outcome = MapOutcome(self, start, size)
        self._outcomes.append(outcome)
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

    def on_input_end(self, total: int, error: BaseException | None = None) -> None:
        """There are so many items and no more; `error` is what the caller's iterator raised, if it did."""
        self._total = total
        self._input_error = error
        if self._bar is not None:
            self._bar.set_total(total)
        self._finish_if_over()
        self._session.notify()

    def on_outcome(self, outcome: Any, /) -> None:
        """A chunk has ended. Saying it again does no harm."""
        with self._state_lock:
            if not outcome.is_counted:
                outcome.is_counted = True
                self._arrivals.append(outcome)
                self._pieces.add(outcome.start, outcome.size, outcome)
        if self._bar is not None:
            self._count_failed(outcome)
            self._bar.move_to(self._pieces.count, self._failed_items)
        if self._driver is not None:
            self._driver.on_chunk(outcome)
        self._finish_if_over()

    def _count_failed(self, outcome: MapOutcome) -> None:
        if outcome.has_failed:
            outcome.read()  # only a look inside tells how many
            with self._state_lock:
                self._failed_items += len(outcome.failures)

    def _finish_if_over(self) -> None:
        with self._state_lock:
            if self.done() or self._total is None or self._pieces.count < self._total:
                return
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.close()
        if self._bar is not None:
            self._bar.close()
        if self._input_error is not None:
            self._failure = self._input_error
        self._finish()

    # ------------------------------------------------------------ the value

    def _value(self) -> list[Any]:
        if self._whole is None:
            self._whole = [item for piece in self._pieces.in_order() for item in piece.items()]
        return self._whole

    def _values_and_errors(self) -> list[Any]:
        if self._input_error is not None:
            raise self._input_error
        return self._value()

    def _error(self) -> BaseException | None:
        if self._failure is None:
            errors: list[Exception] = []
            for piece in self._pieces.in_order():
                piece.read()
                errors.extend(error for _, error in sorted(piece.failures.items(), key=lambda pair: pair[0]))
            if errors:
                self._failure = combine(errors, of=len(self), what=f"items of {self._origin.name}")
        return self._failure

    def get_dict(self, timeout: float | None = -1) -> dict[int, Any]:
        """Return the items by engine id; raises ValueError if an engine ran more than one of the tasks."""
        self.get(timeout)
        pieces = list(self._pieces.in_order())
        found = {int(piece.result.engine): piece.items() for piece in pieces if piece.result is not None}
        if len(found) < len(pieces):
            raise ValueError(
                "an engine ran several of these tasks, so there is no dictionary by engine; use get()"
            )
        return found

    # ------------------------------------------------------------ waiting and taking

    def wait(self, timeout: float | None = -1) -> bool:
        """Wait until all of it has ended; False if that took longer than `timeout`."""
        if not self.done() and not self.takes_all:
            self.takes_all = True
            self._tell_taken()
        return super().wait(timeout)

    def wait_interactive(
        self, interval: float = 0.1, timeout: float | None = -1, widget: bool | None = None
    ) -> bool:
        """Wait with a progress bar; False if that took longer than `timeout`. `interval` is in seconds."""
        self.takes_all = True
        self._tell_taken()
        return super().wait_interactive(interval, timeout, widget)

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

    def cancel(self) -> bool:
        """Take out of the queues what has not started; it then fails with `TaskCancelled`.

        Returns False if all has ended.
        """
        self.is_cancelling = not self.done()
        driver = self._driver
        if driver is not None:
            driver.abort()
        return super().cancel() or self.is_cancelling

    def _tell_taken(self) -> None:
        driver = self._driver
        if driver is not None:
            driver.on_taken()

    def _each(self) -> Iterator[Any]:
        self.is_iterated = True
        pieces = self._each_piece() if self._ordered else self._each_arrival()
        count = 0
        for piece in pieces:
            for item, error in _pairs(piece):
                count += 1
                if count > self.taken:
                    self.taken = count
                    if self._driver is not None:
                        self._driver.on_taken()
                if error is not None and not self._origin.return_exceptions:
                    raise error
                yield item if error is None else error
        if self._input_error is not None:
            raise self._input_error

    def _each_piece(self) -> Iterator[MapOutcome]:
        start = 0
        while True:
            self._wait_for(partial(self._has_piece, start))
            found = self._pieces.at(start)
            if found is None:
                return
            size, piece = found
            yield piece
            start += size

    def _each_arrival(self) -> Iterator[MapOutcome]:
        seen = count = 0
        while True:
            self._wait_for(partial(self._has_arrivals, seen, count))
            if len(self._arrivals) == seen:
                return
            piece = self._arrivals[seen]
            seen += 1
            count += piece.size
            yield piece

    def _has_piece(self, start: int) -> bool:
        return self._pieces.at(start) is not None or self._ends_at(start)

    def _has_arrivals(self, seen: int, count: int) -> bool:
        return len(self._arrivals) > seen or self._ends_at(count)

    def _ends_at(self, count: int) -> bool:
        return self._total is not None and count >= self._total

    # ------------------------------------------------------------ what is known of it

    def __len__(self) -> int:
        if self._total is None:
            raise TypeError("the length of this map is known when its iterator has been read to the end")
        return self._total

    @property
    def progress(self) -> int:
        """How many items have ended."""
        return self._pieces.count

    def __repr__(self) -> str:
        total = "?" if self._total is None else self._total
        return f"<{type(self).__name__}: {self._origin.name or 'map'}: {self._pieces.count} of {total} items>"

    def _length_hint(self) -> int | None:
        return self._total

    def _failed_count(self) -> int:
        failed = 0
        for piece in list(self._arrivals):
            if piece.has_failed:
                piece.read()
                failed += len(piece.failures)
        return failed

    def _refuse_early(self, timeout: float | None) -> Any:
        total = "" if self._total is None else f" of {self._total}"
        limit = "" if timeout is None else f" after {timeout:g} s"
        raise TimeoutError(
            f"{self._origin.name or 'the map'} has not ended{limit} ({self.progress}{total} items done)"
        )


def _pairs(piece: MapOutcome) -> Iterator[tuple[Any, Exception | None]]:
    values, _ = piece.read()
    failures = piece.failures
    if not failures:
        for value in values:
            yield value, None
        return
    for row in range(piece.size):
        yield (None if values is None else values[row]), failures.get(row)
