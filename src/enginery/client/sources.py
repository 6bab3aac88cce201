"""What a map goes over: sequences, which are cut where they lie, or iterators, which a feeder reads ahead.

A chunk is a tuple of columns, one per argument of the function, cut out of the sequences by slices: what is
done for each item is the interpreter's own.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

Columns = tuple[Sequence[Any], ...]


class Source(Protocol):
    """The items of one map that have not been cut off yet."""

    @property
    def waiting(self) -> int:
        """Items that are ready to be taken."""
        ...

    @property
    def is_read(self) -> bool:
        """Whether nothing follows those that wait."""
        ...

    def take(self, size: int) -> Columns: ...


class SequenceSource:
    """Sequences of known lengths; the map ends with the shortest."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self.total = min(map(len, columns))
        self._start = 0

    @property
    def waiting(self) -> int:
        return self.total - self._start

    @property
    def is_read(self) -> bool:
        return True

    def take(self, size: int) -> Columns:
        return self.slice(range(self._start, self._start + size))

    def slice(self, part: range) -> Columns:
        self._start = part.stop
        return tuple(column[part.start : part.stop] for column in self._columns)


class BufferSource:
    """Rows that a feeder has read and nobody has taken yet. The map driver's lock guards it."""

    def __init__(self) -> None:
        self._rows: deque[tuple[Any, ...]] = deque()
        self.read = 0
        self.is_read = False

    @property
    def waiting(self) -> int:
        return len(self._rows)

    def add(self, row: tuple[Any, ...]) -> None:
        self._rows.append(row)
        self.read += 1

    def take(self, size: int) -> Columns:
        rows = [self._rows.popleft() for _ in range(size)]
        return tuple(map(list, zip(*rows, strict=True)))


def sized_columns(sequences: Sequence[Iterable[Any]]) -> Columns | None:
    """The sequences in a form whose slices are parts of them; None if one of them is an iterator."""
    columns: list[Sequence[Any]] = []
    for sequence in sequences:
        if isinstance(sequence, (tuple, range, str, bytes)) or _is_array(sequence):
            columns.append(sequence)  # type: ignore[arg-type]
        elif hasattr(sequence, "__len__"):
            columns.append(list(sequence))  # a copy: the caller may go on to change his
        else:
            return None
    return tuple(columns)


def listed_columns(sequences: Sequence[Iterable[Any]]) -> Columns:
    """All items of sequences and iterators, to the end of the shortest."""
    columns = sized_columns(sequences)
    if columns is None:
        rows = list(zip(*sequences, strict=False))
        columns = tuple(map(list, zip(*rows, strict=True))) if rows else tuple([] for _ in sequences)
    return columns


def check_iterable(sequences: Sequence[Any], *, what: str = "map") -> None:
    """Raise TypeError unless there is something, and all of it can be iterated over."""
    if not sequences:
        raise TypeError(f"{what} needs at least one sequence after the function")
    for number, sequence in enumerate(sequences):
        try:
            iter(sequence)
        except TypeError:
            kind = type(sequence).__name__
            raise TypeError(
                f"sequence {number} of the {what} is of type {kind}, which cannot be iterated over"
            ) from None


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray) and value.ndim > 0


# ---------------------------------------------------------------- feeder

_STOP = object()
_LOOK = object()


class FedMap(Protocol):
    """The map driver, as its feeder sees it."""

    def has_room(self) -> bool:
        """Whether one more row may be read now."""
        ...

    def on_row(self, row: tuple[Any, ...]) -> None: ...

    def on_end(self, error: BaseException | None) -> None: ...


class Feeder:
    """A thread that reads the caller's iterators for one map, and ends with it.

    While there is room it holds the map's result, so that a map whose result nobody kept still runs. When
    it has to wait for somebody to take results, it does not: if everybody has dropped the result, it ends.
    What wakes it is a `SimpleQueue`, whose `put` may be called from finalizers.
    """

    def __init__(self, rows: Iterator[tuple[Any, ...]], fed: FedMap, result: object) -> None:
        self._fed = fed
        self._is_stalled = False
        self._is_stopped = False
        wake = self._wake = queue.SimpleQueue[object]()
        self._result = weakref.ref(result, lambda _: wake.put(_STOP))
        self.thread = threading.Thread(
            target=self._run, args=(rows,), name="enginery-map-feeder", daemon=True
        )

    def __repr__(self) -> str:
        state = "stopped" if self._is_stopped else "stalled" if self._is_stalled else "reading"
        return f"<Feeder {state}>"

    def look(self) -> None:
        """There may be room again."""
        if self._is_stalled:
            self._wake.put(_LOOK)

    def stop(self) -> None:
        """Read no more. An iterator that is just being waited for is left to the caller."""
        self._is_stopped = True
        self._wake.put(_STOP)

    def _run(self, rows: Iterator[tuple[Any, ...]]) -> None:
        try:
            self._feed(rows)
        finally:
            del self._fed  # which holds the feeder: both go without the collector's help

    def _feed(self, rows: Iterator[tuple[Any, ...]]) -> None:
        error: BaseException | None = None
        held = self._result()
        while held is not None and not self._is_stopped:
            if not self._fed.has_room():
                del held
                if not self._wait_for_room():
                    return
                held = self._result()
                continue
            try:
                row = next(rows)
            except StopIteration:
                break
            except BaseException as raised:  # noqa: BLE001 - it is the caller's, handed to him with the map
                error = raised
                break
            if not self._is_stopped:
                self._fed.on_row(row)
            del row
        if held is not None and not self._is_stopped:
            self._fed.on_end(error)

    def _wait_for_room(self) -> bool:
        self._is_stalled = True
        try:
            # Only now: room that came before `_is_stalled` was set has woken nobody.
            while not self._fed.has_room():
                if self._wake.get() is _STOP:
                    return False
            return True
        finally:
            self._is_stalled = False


class Feeders:
    """The feeders of one client, so that they end with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._feeders: list[Feeder] = []

    def start(self, feeder: Feeder) -> None:
        with self._lock:
            self._feeders = [known for known in self._feeders if known.thread.is_alive()]
            self._feeders.append(feeder)
        feeder.thread.start()

    def close(self, timeout_s: float) -> None:
        """Stop all, and wait for them so long together: a caller's iterator may never come back."""
        with self._lock:
            feeders, self._feeders = self._feeders, []
        for feeder in feeders:
            feeder.stop()
        deadline = time.monotonic() + timeout_s
        for feeder in feeders:
            if feeder.thread is not threading.current_thread():
                feeder.thread.join(max(0.0, deadline - time.monotonic()))
