"""The thread that writes the history.

It takes all batches that wait, commits them as one entry of the journal, and only then calls their
`on_committed`. When nothing waits, or the journal grows long, it copies the journal to the tables (`tables`).

A disk that fails never stops the controller: the first error is reported through `on_failure`, and from there
on the history lives in a `MemoryStore`, within its bounds. Commits go on being reported.
"""

from __future__ import annotations

import functools
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from enginery.controller.store.memory import MemoryStore
from enginery.controller.store.reading import TableReader
from enginery.controller.store.store import HistoryError
from enginery.controller.store.tables import Tables
from enginery.protocol import history as h
from enginery.protocol.history import MalformedHistory

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
        on_failure: Callable[[Exception], None] | None,
    ) -> None:
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
        size_bytes = len(first.facts)
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
                size_bytes += len(entry.facts)
        self._commit(group)
        self.taken_bytes += size_bytes
        for batch in group:
            _call(batch.on_committed)
        return mark is not None and self._pass(mark)

    def _commit(self, group: list[Batch]) -> None:
        entry = h.join_batches([batch.facts for batch in group])
        self.commits += 1
        if self.memory is None:
            try:
                self._tables.add_entry(entry)
            except sqlite3.Error as error:
                self._fail(error)
        if self.memory is not None:
            self.memory.append(h.decode_journal(entry))
            return
        self.lag_facts += sum(batch.count for batch in group)
        self.lag_bytes += len(entry)
        self._checkpoint(len(entry))

    def _pass(self, mark: Mark) -> bool:
        while mark.fill and self.lag_bytes:
            self._fill()
        mark.done.set()
        return mark.last

    def _fill(self) -> None:
        if self.memory is not None:
            return
        try:
            facts, size_bytes = self._tables.fill()
        except (sqlite3.Error, MalformedHistory) as error:
            self._fail(error)
            return
        self.lag_facts -= facts
        self.lag_bytes -= size_bytes
        self._checkpoint(size_bytes)

    def _checkpoint(self, size_bytes: int) -> None:
        # By hand and not by SQLite's own rule: that one runs inside a commit, before it is reported.
        self._unchecked_bytes += size_bytes + _COMMIT_OVERHEAD_BYTES
        if self._unchecked_bytes > _CHECKPOINT_BYTES:
            self._unchecked_bytes = 0
            try:
                self._tables.checkpoint()
            except sqlite3.Error as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Go on in memory, with as much of what is unfinished as the file still gives."""
        memory = MemoryStore()
        for rescue in (self._rescue_tables, self._rescue_journal):
            try:
                rescue(memory)
            except (sqlite3.Error, MalformedHistory) as unreadable:
                _log.warning("the history %s cannot be read any more: %s", self._path, unreadable)
        self.failure = str(error)
        self.memory = memory
        self.lag_facts = self.lag_bytes = 0
        advice = "it goes on in memory and ends with the controller; make room and start the controller again"
        failure = HistoryError(str(self._path), f"cannot be written ({error})", advice)
        failure.__cause__ = error
        _log.error("%s", failure)
        if self._on_failure is not None:
            _call(functools.partial(self._on_failure, failure))

    def _rescue_tables(self, memory: MemoryStore) -> None:
        rows = list(self._reader.unfinished())
        memory.adopt(rows, self._reader.engines())
        self.records_on_disk_only = self._reader.count() - len(rows)
        memory.append(self._reader.clients())
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
