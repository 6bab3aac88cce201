"""Sends the chunks of a map: all of them at once where they are known, else each as others come back.

A long map over sequences needs no thread: the next chunks go out from the promises of those that have
ended. Over iterators a `Feeder` reads ahead, and what it has read is cut by the same rules. Packing is done
outside the lock.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from enginery.client.calls import CallMaker, once, pack_columns
from enginery.client.constants import ConstantsOfIterators, with_constants
from enginery.client.contract import TaskSession
from enginery.client.partition import ChunkPlanner, split_evenly
from enginery.client.results.async_result import Origin
from enginery.client.results.map_result import AsyncMapResult
from enginery.client.results.outcome import MapOutcome
from enginery.client.sources import (
    BufferSource,
    Columns,
    Feeder,
    Feeders,
    SequenceSource,
    check_iterable,
    listed_columns,
    sized_columns,
)
from enginery.core.submissions import Blob
from enginery.errors import EngineryError, TaskAborted, TaskCancelled
from enginery.ids import EngineId, TaskId
from enginery.objects.packing import Packed
from enginery.protocol.messages import Kind, TaskOptions

BUFFER_ITEMS = 10_000
"""Items that are read ahead of an iterator's results unless `buffersize` says otherwise."""


class MapFlags(NamedTuple):
    """How one map is to be run, as far as its view has no word in it."""

    chunksize: int | None = None
    ordered: bool = True
    buffersize: int | None = None
    progress: bool = False


class MapSender:
    """Sends chunks of one map to the session."""

    def __init__(
        self, session: TaskSession, options: TaskOptions, function: Sequence[Blob], result: AsyncMapResult
    ) -> None:
        self._session = session
        self.options = options
        self._function = function
        self._first: TaskId | None = None  # of the map's tasks
        # The result holds the driver, so not the other way round.
        self.result_reference = weakref.ref(result)

    def send(self, outcome: MapOutcome, packed: Packed, engines: tuple[EngineId, ...] = ()) -> TaskId:
        blobs = (*self._function, *once(packed.buffers)) if packed.buffers else self._function
        task = self._session.submit(
            self.options, packed.inline, blobs, (outcome,), engines, first=self._first
        )
        if self._first is None:
            self._first = task
        result = self.result_reference()
        if result is not None:
            result.on_chunk_submitted(outcome, task)
        else:
            outcome.task = task
        return task

    def send_all(self, chunks: Iterable[tuple[MapOutcome, Packed, tuple[EngineId, ...]]]) -> None:
        """Send chunks that are all packed. What is interrupted leaves nothing outstanding."""
        with self.whole():
            for outcome, packed, engines in chunks:
                self.send(outcome, packed, engines)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """What raises in the block leaves nothing outstanding of what was sent in it."""
        mark = self._session.mark()
        try:
            yield
        except BaseException:
            self._session.cancel_since(mark)
            raise


class BalancedMap:
    """The driver of one balanced map whose chunks are not all known from the start."""

    def __init__(
        self,
        sender: MapSender,
        source: SequenceSource | BufferSource,
        planner: ChunkPlanner,
        *,
        buffersize: int | None = None,
        constants: ConstantsOfIterators | None = None,
    ) -> None:
        self._sender = sender
        self._constants = constants
        self._source = source
        self._planner = planner
        self._is_strict = buffersize is not None
        self._buffersize = BUFFER_ITEMS if buffersize is None else buffersize
        self._lock = threading.Lock()
        self._next_start = 0
        self._under_way = 0
        self._is_stopped = False
        self._returned: list[tuple[MapOutcome, Columns]] = []  # by an interrupt, on the way out
        self.feeder: Feeder | None = None

    def __repr__(self) -> str:
        return f"<BalancedMap: {self._under_way} chunks under way, {self._source.waiting} items waiting>"

    def start(self) -> None:
        """Send the first chunks.

        Raises what keeps one of them from being sent; then nothing is left outstanding.
        """
        with self._sender.whole():
            try:
                while (chunk := self._next_chunk()) is not None:
                    outcome, columns = chunk
                    self._sender.send(outcome, self._pack(outcome, columns))
            except BaseException:
                self.close()
                raise

    # ------------------------------------------------------------ facts

    def on_chunk(self, outcome: MapOutcome, /) -> None:
        with self._lock:
            self._under_way -= 1
            if outcome.is_local:
                return  # who let it fail goes on with the next
            if not outcome.has_died:
                self._planner.on_finished(outcome.size, outcome.duration_s)
        self._pump()
        if self.feeder is not None:
            self.feeder.look()

    def on_taken(self) -> None:
        if self.feeder is not None:
            self.feeder.look()

    def on_row(self, row: tuple[Any, ...]) -> None:
        assert isinstance(self._source, BufferSource)
        with self._lock:
            self._source.add(row)
        self._pump()

    def on_end(self, error: BaseException | None) -> None:
        assert isinstance(self._source, BufferSource)
        with self._lock:
            if self._is_stopped:
                return
            self._source.is_read = True
            total = self._source.read
        self._pump()
        result = self._sender.result_reference()
        if result is not None:
            result.on_input_end(total, error)

    def has_room(self) -> bool:
        """Whether the feeder may read on.

        Without a `buffersize`, results count as taken when they arrive until somebody begins to iterate: a
        map that is only waited for, by whatever means, must come to its end.
        """
        result = self._sender.result_reference()
        if result is None:
            return False
        assert isinstance(self._source, BufferSource)
        by_arrival = result.takes_all or not (self._is_strict or result.is_iterated)
        done = result.arrived if by_arrival else result.taken
        return self._source.read - done < self._buffersize

    def abort(self) -> None:
        """Send no more. What has not been sent ends with TaskAborted, or TaskCancelled after `cancel`."""
        result = self._sender.result_reference()
        cancelled = result is not None and result.is_cancelling
        kind = TaskCancelled if cancelled else TaskAborted
        self._give_up(
            kind(f"these items had not been sent when the map was {'cancelled' if cancelled else 'aborted'}")
        )

    def set_priority(self, priority: int) -> None:
        self._sender.options = msgspec.structs.replace(self._sender.options, priority=priority)

    def close(self) -> None:
        with self._lock:
            self._is_stopped = True
        if self.feeder is not None:
            self.feeder.stop()

    # ------------------------------------------------------------ inside

    def _next_chunk(self) -> tuple[MapOutcome, Columns] | None:
        result = self._sender.result_reference()
        with self._lock:
            if self._is_stopped or result is None:
                return None
            if self._returned:
                return self._returned.pop()
            window = self._planner.window()
            if window is not None and self._under_way >= window:
                return None
            size = self._planner.next_size(self._source.waiting, is_rest=self._source.is_read)
            if size == 0:
                return None
            columns = self._source.take(size)
            outcome = result.new_chunk(self._next_start, size)
            self._next_start += size
            self._under_way += 1
            return outcome, columns

    def _pump(self) -> None:
        """Send what may be sent. What cannot be, fails by itself: nobody is there to raise it to."""
        while (chunk := self._next_chunk()) is not None:
            try:
                self._send_or_fail(*chunk)
            except BaseException:  # Ctrl-C: the delivery that this serves comes again, and so does this chunk
                self._returned.append(chunk)
                raise

    def _send_or_fail(self, outcome: MapOutcome, columns: Columns) -> None:
        pending = [(outcome, columns)]
        while pending:
            outcome, columns = pending.pop()
            try:
                packed = self._pack(outcome, columns)
            except Exception as error:  # noqa: BLE001 - whatever pickling raises becomes the item's error
                halves = self._halve(outcome, columns)
                if not halves:
                    outcome.fail(error)
                pending.extend(halves)
                continue
            try:
                self._sender.send(outcome, packed)
            except EngineryError as error:  # the client has been closed
                outcome.fail(error)
                self._give_up(error)

    def _pack(self, outcome: MapOutcome, columns: Columns) -> Packed:
        if self._constants is not None:
            columns = self._constants.in_chunk(columns)
        return pack_columns(columns, outcome.start)

    def _halve(self, outcome: MapOutcome, columns: Columns) -> list[tuple[MapOutcome, Columns]]:
        """Halves of a chunk, so that one bad item spoils no others; nothing if there is only one item."""
        result = self._sender.result_reference()
        if result is None or outcome.size == 1:
            return []
        parts = split_evenly(outcome.size, 2)
        with self._lock:
            self._under_way += len(parts) - 1
        outcomes = result.split_chunk(outcome, [len(part) for part in parts])
        cut = [tuple(column[part.start : part.stop] for column in columns) for part in parts]
        return list(zip(outcomes, cut, strict=True))[::-1]

    def _give_up(self, error: Exception) -> None:
        """Stop, and let all items that were not sent fail."""
        result = self._sender.result_reference()
        with self._lock:
            if self._is_stopped:
                return
            self._is_stopped = True
            size = self._source.waiting
            start, self._next_start = self._next_start, self._next_start + size
            if size:
                self._source.take(size)
                self._under_way += 1
            total = self._source.total if isinstance(self._source, SequenceSource) else self._source.read
        if self.feeder is not None:
            self.feeder.stop()
        if result is None:
            return
        if size:
            result.new_chunk(start, size).fail(error)
        if isinstance(self._source, BufferSource):
            result.on_input_end(total)


# ---------------------------------------------------------------- entries


def start_balanced_map(
    session: TaskSession,
    maker: CallMaker,
    function: Callable[..., Any],
    sequences: Sequence[Iterable[Any]],
    *,
    origin: Origin,
    flags: MapFlags,
    engines: int,
    feeders: Feeders,
) -> AsyncMapResult:
    """Begin a map over single items or chunks, each run by whichever engine is free."""
    check_iterable(sequences)
    _check_flags(flags)
    options, blobs = maker.function(Kind.MAP, function)
    is_limited = options.time_limit_s >= 0
    if is_limited and flags.chunksize is not None:
        options = msgspec.structs.replace(options, most_calls=flags.chunksize)
    columns = sized_columns(sequences)
    source = BufferSource() if columns is None else SequenceSource(with_constants(columns))
    total = source.total if isinstance(source, SequenceSource) else None
    result = AsyncMapResult(session, origin, total=total, ordered=flags.ordered, with_bar=flags.progress)
    sender = MapSender(session, options, blobs, result)
    # With a limit each item is a task, unless told otherwise: so an engine can be held to it in any case.
    planner = ChunkPlanner(engines=engines, total=total, chunksize=flags.chunksize, one_each=is_limited)
    try:
        if isinstance(source, SequenceSource) and planner.is_decided:
            _send_at_once(sender, result, source, planner)
            return result
        buffersize = flags.buffersize
        if buffersize is not None and flags.chunksize is not None:
            buffersize = max(buffersize, flags.chunksize)  # a whole chunk must fit
        constants = ConstantsOfIterators(len(sequences)) if isinstance(source, BufferSource) else None
        driver = BalancedMap(sender, source, planner, buffersize=buffersize, constants=constants)
        result.follow(driver)
        if isinstance(source, BufferSource):
            driver.feeder = Feeder(zip(*sequences, strict=False), driver, result)
            feeders.start(driver.feeder)
        else:
            driver.start()
    except BaseException:
        result.close_bar()
        raise
    return result


def start_direct_map(
    session: TaskSession,
    maker: CallMaker,
    function: Callable[..., Any],
    sequences: Sequence[Iterable[Any]],
    *,
    origin: Origin,
    flags: MapFlags,
    engines: Sequence[EngineId],
) -> AsyncMapResult:
    """Begin a map in which each engine has one contiguous part."""
    check_iterable(sequences)
    options, blobs = maker.function(Kind.MAP, function)
    source = SequenceSource(with_constants(listed_columns(sequences)))
    packed = []
    if options.time_limit_s >= 0:
        most = max(1, math.ceil(source.total / len(engines)))
        options = msgspec.structs.replace(options, most_calls=most)
    for engine, part in zip(engines, split_evenly(source.total, len(engines)), strict=False):
        packed.append((engine, part, pack_columns(source.slice(part), part.start)))
    result = AsyncMapResult(session, origin, total=source.total, with_bar=flags.progress)
    sender = MapSender(session, options, blobs, result)
    try:
        sender.send_all(
            (result.new_chunk(part.start, len(part), engine), data, (engine,))
            for engine, part, data in packed
        )
    except BaseException:
        result.close_bar()
        raise
    _end_if_empty(result)
    return result


def _send_at_once(
    sender: MapSender, result: AsyncMapResult, source: SequenceSource, planner: ChunkPlanner
) -> None:
    # All are packed before the first is sent, so that one that cannot be leaves nothing outstanding.
    chunks = []
    while (size := planner.next_size(source.waiting, is_rest=True)) > 0:
        start = source.total - source.waiting
        packed = pack_columns(source.take(size), start)
        chunks.append((result.new_chunk(start, size), packed, ()))
    sender.send_all(chunks)
    _end_if_empty(result)


def _end_if_empty(result: AsyncMapResult) -> None:
    if not len(result):
        result.on_input_end(0)


def _check_flags(flags: MapFlags) -> None:
    for name in ("chunksize", "buffersize"):
        value = getattr(flags, name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be a whole number of items, not {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
