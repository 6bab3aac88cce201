"""The thread that writes the history.

It takes all batches that wait, commits them as one entry of the journal, and only then calls their
`on_committed`. When nothing waits, or the journal grows long, it copies the journal to the tables (`tables`).

A disk that fails never stops the controller, and neither does a defect: the first error is reported through
`on_failure`, and from there on the history lives in a `MemoryStore`, within its bounds. Commits go on being
reported.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from enginery.controller.store.buffers import BufferFiles, KeptBuffers
from enginery.controller.store.memory import MemoryStore
from enginery.controller.store.reading import TableReader
from enginery.controller.store.tables import Tables
from enginery.errors import HistoryError
from enginery.protocol import history as h

_ENTRY_LIMIT_BYTES = 1 << 20
"""An entry of the journal is closed when it has passed this."""
_FILL_DELAY_S = 0.2
"""How long nothing must have come before the journal is copied: by then most tasks have ended."""
_LAG_LIMIT_FACTS = 50_000
_LAG_LIMIT_BYTES = 32 << 20
"""Beyond these the journal is copied even while facts come in."""
_CHECKPOINT_BYTES = 8 << 20
_COMMIT_OVERHEAD_BYTES = 12 << 10
"""Pages that a small commit writes to the log, roughly."""

_log = logging.getLogger("enginery.controller.store")


class Batch(msgspec.Struct, gc=False):
    facts: bytes
    count: int
    on_committed: Callable[[], None] | None
    buffers: KeptBuffers = ()

    @property
    def size_bytes(self) -> int:
        return len(self.facts) + sum(len(piece) for _, pieces in self.buffers for piece in pieces)


class Mark(msgspec.Struct):
    """Set when all before it is committed and, if asked for, in the tables."""

    done: threading.Event
    fill: bool = False
    last: bool = False


class HistoryWriter:
    """Owns the writing connection from `start` on, and closes it when the thread ends."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        tables: Tables,
        reader: TableReader,
        files: BufferFiles,
        on_failure: Callable[[Exception], None] | None,
    ) -> None:
        self._files = files
        self._path = path
        self._connection = connection
        self._tables = tables
        self._reader = reader
        self._on_failure = on_failure
        self._queue: queue.SimpleQueue[Batch | Mark] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="history-writer", daemon=True)
        self._unchecked_bytes = 0
        # Written by this thread alone, read by all.
        self.taken_bytes = 0
        self.lag_facts = 0
        self.lag_bytes = 0
        self.commits = 0
        self.failure = ""
        self.memory: MemoryStore | None = None
        self.records_on_disk_only = 0

    def start(self) -> None:
        self._thread.start()

    def put(self, batch: Batch) -> None:
        """Have a batch committed; returns at once."""
        self._queue.put(batch)

    def reach(self, *, fill: bool, timeout_s: float) -> bool:
        """Wait until all that was put is committed and, with `fill`, in the tables."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("the history was asked from inside on_committed, which would wait for itself")
        mark = Mark(threading.Event(), fill=fill)
        self._queue.put(mark)
        return mark.done.wait(timeout_s)

    def stop(self, timeout_s: float) -> bool:
        """Commit what was put and end the thread; False if it has not ended in time."""
        self._queue.put(Mark(threading.Event(), last=True))
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        try:
            ended = False
            while not ended:
                entry = self._next()
                if entry is None:
                    self._fill()
                elif isinstance(entry, Batch):
                    ended = self._commit_with_followers(entry)
                else:
                    ended = self._pass(entry)
            # Others may have come between the two halves of a `close`: nobody is left waiting.
            while not self._queue.empty():
                entry = self._queue.get_nowait()
                if isinstance(entry, Batch):
                    self._commit_with_followers(entry)
                else:
                    self._pass(entry)
        finally:
            self._connection.close()

    def _next(self) -> Batch | Mark | None:
        """What comes next; None when it is time to copy the journal."""
        if self.lag_facts > _LAG_LIMIT_FACTS or self.lag_bytes > _LAG_LIMIT_BYTES:
            self._fill()
        try:
            return self._queue.get(timeout=_FILL_DELAY_S if self.lag_bytes else None)
        except queue.Empty:
            return None

    def _commit_with_followers(self, first: Batch) -> bool:
        """Commit what waits as one entry; true if the last mark was behind it."""
        group = [first]
        size_bytes = first.size_bytes
        mark: Mark | None = None
        while size_bytes < _ENTRY_LIMIT_BYTES and mark is None:
            try:
                entry = self._queue.get_nowait()
            except queue.Empty:
                break
            if isinstance(entry, Mark):
                mark = entry
            else:
                group.append(entry)
                size_bytes += entry.size_bytes
        self._commit(group)
        self.taken_bytes += size_bytes
        for batch in group:
            _call(batch.on_committed)
        return mark is not None and self._pass(mark)

    def _commit(self, group: list[Batch]) -> None:
        if buffers := [buffer for batch in group for buffer in batch.buffers]:
            self._write_buffers(buffers)
        entry = h.join_batches([batch.facts for batch in group])
        self.commits += 1
        if self.memory is None:
            with self._writing():
                self._tables.add_entry(entry)
        if self.memory is not None:
            self._remember(self.memory, entry)
            return
        self.lag_facts += sum(batch.count for batch in group)
        self.lag_bytes += len(entry)
        self._checkpoint(len(entry))

    def _write_buffers(self, buffers: KeptBuffers) -> None:
        try:
            self._files.write(buffers)
        except OSError as error:
            _log.error("results that nobody takes cannot be kept in %r: %s", self._files, error)
        except Exception:  # noqa: BLE001 - a defect, reported in full, must not end the history
            _log.exception("results that nobody takes cannot be kept in %r", self._files)

    def _remember(self, memory: MemoryStore, entry: bytes) -> None:
        try:
            memory.append(h.decode_journal(entry))
        except Exception:  # noqa: BLE001 - as above, and there is nowhere else to go
            _log.exception("a part of the history is lost, because it could not be kept in memory")

    def _pass(self, mark: Mark) -> bool:
        if mark.fill:
            while self.lag_bytes:
                self._fill()
            self._forget_old()
        mark.done.set()
        return mark.last

    def _fill(self) -> None:
        if self.memory is not None:
            return
        with self._writing():
            facts, size_bytes = self._tables.fill()
            self.lag_facts -= facts
            self.lag_bytes -= size_bytes
            self._checkpoint(size_bytes)

    def _forget_old(self) -> None:
        if self.memory is not None:
            return
        with self._writing():
            self._tables.forget_old()

    def _checkpoint(self, size_bytes: int) -> None:
        # By hand and not by SQLite's own rule: that one runs inside a commit, before it is reported.
        self._unchecked_bytes += size_bytes + _COMMIT_OVERHEAD_BYTES
        if self._unchecked_bytes > _CHECKPOINT_BYTES:
            self._unchecked_bytes = 0
            with self._writing():
                self._tables.checkpoint()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Around all that touches the file: whatever goes wrong there ends the file, and not this thread."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - nobody but this thread could report it
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Go on in memory, with as much of what is unfinished as the file still gives."""
        memory = MemoryStore(files=self._files)
        for rescue in (self._rescue_tables, self._rescue_journal):
            try:
                rescue(memory)
            except Exception as unreadable:  # noqa: BLE001 - whatever it is, the rest goes on without
                _log.warning("the history %s cannot be read any more: %s", self._path, unreadable)
        self.failure = str(error)
        self.memory = memory
        self.lag_facts = self.lag_bytes = 0
        advice = "it goes on in memory and ends with the controller; make room and start the controller again"
        failure = HistoryError(str(self._path), f"cannot be written ({error})", advice)
        failure.__cause__ = error
        is_disk = isinstance(error, sqlite3.Error | OSError)
        _log.error("%s", failure, exc_info=None if is_disk else error)
        if self._on_failure is not None:
            _call(functools.partial(self._on_failure, failure))

    def _rescue_tables(self, memory: MemoryStore) -> None:
        rows = list(self._reader.unfinished())
        memory.adopt(rows, self._reader.engines())
        self.records_on_disk_only = self._reader.count() - len(rows)
        memory.append(self._reader.clients())
        places = self._reader.places()
        memory.append([h.TasksMoved(place.engine_key, [(place[0], *place[2:])]) for place in places])
        memory.append(list(self._reader.blobs()))

    def _rescue_journal(self, memory: MemoryStore) -> None:
        for facts in self._reader.journal():
            memory.append(facts)


def _call(callback: Callable[[], None] | None) -> None:
    if callback is None:
        return
    try:
        callback()
    except Exception:  # noqa: BLE001 - somebody else's mistake, reported in full, must not end the history
        _log.exception("a callback of the history failed")
