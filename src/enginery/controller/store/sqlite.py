"""The history in an SQLite file, written by a thread of its own.

The controller's loop encodes a batch (0.3 µs a task) and puts it on a queue; `writer` does the rest. A query
has the writer bring the tables up to date first and then reads on the caller's thread: one place to look,
whatever is asked.

What "committed" means is chosen by `durability`:

* ``"fast"``: the batch outlives the controller, `kill -9` included, but the last of it not a power cut.
* ``"strict"``: the batch outlives a power cut too, at the price of one `fsync` a commit.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from enginery.controller.store.buffers import BufferFiles, KeptBuffers
from enginery.controller.store.conditions import Condition
from enginery.controller.store.memory import MemoryStore
from enginery.controller.store.reading import TableReader
from enginery.controller.store.rows import EngineRow, Place, TaskRow
from enginery.controller.store.store import FILE_LIMITS, Limits, StoreStatistics
from enginery.controller.store.tables import SCHEMA_VERSION, Tables, create_tables
from enginery.controller.store.writer import Batch, HistoryWriter
from enginery.core.left_over import Undelivered
from enginery.errors import HistoryError
from enginery.ids import BlobId, ClientId, EngineId, TaskId
from enginery.protocol import history as h
from enginery.protocol.codec import Buffer
from enginery.protocol.history import HistoryFact, MalformedHistory
from enginery.protocol.messages import Ranges
from enginery.transport import clock

Durability = Literal["fast", "strict"]
Answer = TypeVar("Answer")
Item = TypeVar("Item")

_JOURNAL_SIZE_LIMIT_BYTES = 32 << 20
"""To which the write-ahead log is cut once it has been emptied."""
_BUSY_TIMEOUT_S = 5.0
_QUERY_TIMEOUT_S = 30.0
_CLOSE_TIMEOUT_S = 30.0


class SqliteStore:
    """A `HistoryStore` in a file; made by `open`."""

    def __init__(
        self,
        path: Path,
        tables: Tables,
        reader: TableReader,
        writer: HistoryWriter,
        files: BufferFiles,
        *,
        queue_limit_bytes: int,
    ) -> None:
        self.path = path
        self._tables = tables
        self._reader = reader
        self._writer = writer
        self._files = files
        self._queue_limit_bytes = queue_limit_bytes
        # Counted here by the appending thread alone, and by the writer alone: the difference needs no lock.
        self._appended_bytes = 0
        self._refused: tuple[Sequence[HistoryFact], bytes] | None = None  # which will be offered again
        self._closed = False

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        durability: Durability = "fast",
        record_limit: int = FILE_LIMITS.records,
        payload_limit_bytes: int = FILE_LIMITS.payload_bytes,
        payload_age_s: float | None = None,
        record_age_s: float | None = None,
        queue_limit_bytes: int = 64 << 20,
        resumes: bool = True,
        on_failure: Callable[[Exception], None] | None = None,
        now: Callable[[], float] = clock.now,
    ) -> SqliteStore:
        """Open or make the file (mode 0600) and start the writer.

        What a former life committed and did not copy to the tables is copied before this returns. Unless it
        `resumes` that life, what was unfinished counts as given up.
        `on_failure` is called at most once, from the writer, with a `HistoryError`.
        Raises `HistoryError` if the file cannot be used.
        """
        connection = _connect(path, durability)
        try:
            limits = Limits(record_limit, payload_limit_bytes, payload_age_s, record_age_s)
            files = BufferFiles(path.with_name(f"{path.stem}-results"), is_synced=durability == "strict")
            tables = Tables(connection, limits=limits, files=files, now=now)
            while tables.fill() != (0, 0):
                pass
            if not resumes:
                tables.begin_anew()
            tables.open_files()
            reader = TableReader(path, busy_timeout_s=_BUSY_TIMEOUT_S)
        except (sqlite3.Error, MalformedHistory) as error:
            connection.close()
            raise _unusable(path, error) from error
        writer = HistoryWriter(path, connection, tables, reader, files, on_failure)
        writer.start()
        return cls(path, tables, reader, writer, files, queue_limit_bytes=queue_limit_bytes)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "in memory only" if self._writer.failure else "open"
        return f"<SqliteStore {self.path} {state}>"

    def append(
        self,
        facts: Sequence[HistoryFact],
        *,
        buffers: KeptBuffers = (),
        on_committed: Callable[[], None] | None = None,
    ) -> bool:
        """Take over one batch of facts; see `HistoryStore.append`."""
        if self._closed:
            return False
        refused = self._refused
        encoded = refused[1] if refused is not None and refused[0] is facts else h.encode_facts(facts)
        batch = Batch(encoded, len(facts), on_committed, buffers)
        queued_bytes = self._appended_bytes - self._writer.taken_bytes
        # An empty queue takes any batch: one above the limit would never get in otherwise.
        if queued_bytes and queued_bytes + batch.size_bytes > self._queue_limit_bytes:
            self._refused = facts, encoded
            return False
        self._refused = None
        self._appended_bytes += batch.size_bytes
        self._writer.put(batch)
        return True

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was appended is committed; False if `timeout_s` passed before."""
        return self._closed or self._writer.reach(fill=False, timeout_s=timeout_s)

    def close(self) -> None:
        """Commit what was appended, end the writer and close the file."""
        if self._closed:
            return
        self._closed = True
        if not self._writer.stop(_CLOSE_TIMEOUT_S):
            advice = "what was not written yet is lost; check the disk"
            raise HistoryError(str(self.path), f"was not written within {_CLOSE_TIMEOUT_S:.0f} s", advice)
        self._reader.close()

    def statistics(self) -> StoreStatistics:
        """Counts as they stand; tasks that are in the journal only are not among `records` yet."""
        writer = self._writer
        counted = self._tables if writer.memory is None else writer.memory.statistics()
        return StoreStatistics(
            records=counted.records + writer.records_on_disk_only,
            unfinished=counted.unfinished,
            payload_bytes=counted.payload_bytes,
            queued_bytes=self._appended_bytes - writer.taken_bytes,
            unfilled_facts=writer.lag_facts,
            commits=writer.commits,
            failure=writer.failure,
        )

    # ------------------------------------------------------------ queries

    def buffer(self, blob: BlobId) -> Buffer | None:
        """A large buffer of a result, if it is kept."""
        return self._files.read(blob)

    def _catch_up(self) -> None:
        if self._closed:
            raise ValueError(f"the history {self.path} is closed; open it again to ask it")
        if not self._writer.reach(fill=True, timeout_s=_QUERY_TIMEOUT_S):
            raise HistoryError(
                str(self.path), f"gave no answer in {_QUERY_TIMEOUT_S:.0f} s", "check the disk"
            )

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, MalformedHistory) as error:
            raise HistoryError(str(self.path), f"cannot be read ({error})", "check the disk") from error

    def _left_over(self, ask: Callable[[], Answer], otherwise: Answer) -> Answer:
        """What the file still says, after a failure that has been reported."""
        try:
            return ask()
        except (sqlite3.Error, MalformedHistory):
            return otherwise

    def task(self, task_id: TaskId) -> TaskRow | None:
        """Everything known of a task."""
        self._catch_up()
        memory = self._writer.memory
        if memory is None:
            with self._reading():
                return self._reader.task(task_id)
        return memory.task(task_id) or self._left_over(lambda: self._reader.task(task_id), None)

    def tasks(self, *, limit: int = 1000) -> list[TaskRow]:
        """The tasks submitted last, the newest first, without `call` and `payload`."""
        self._catch_up()
        memory = self._writer.memory
        if memory is None:
            with self._reading():
                return self._reader.tasks(limit=limit)
        nothing: list[TaskRow] = []
        rows = {row.task: row for row in self._left_over(lambda: self._reader.tasks(limit=limit), nothing)}
        rows.update((row.task, row) for row in memory.tasks(limit=limit))
        return heapq.nlargest(limit, rows.values(), key=lambda row: (row.submitted, row.task))

    def find(self, tasks: Iterable[TaskId], *, with_payloads: bool = True) -> Iterator[TaskRow]:
        """What is known of these tasks, in the order of their ids; unknown ones are left out."""
        wanted = list(tasks)
        self._catch_up()
        memory = self._writer.memory
        on_disk = self._reader.find(wanted, with_payloads=with_payloads)
        if memory is None:
            return self._on_disk(on_disk)
        found = memory.find(wanted, with_payloads=with_payloads), self._only_on_disk(memory, on_disk)
        return heapq.merge(*found, key=lambda row: row.task)

    def search(self, conditions: Sequence[Condition], *, with_payloads: bool) -> Iterator[TaskRow]:
        """The tasks for which all conditions hold, the oldest submission first."""
        self._catch_up()
        memory = self._writer.memory
        on_disk = self._reader.search(conditions, with_payloads=with_payloads)
        if memory is None:
            return self._on_disk(on_disk)
        found = memory.search(conditions, with_payloads=with_payloads), self._only_on_disk(memory, on_disk)
        return heapq.merge(*found, key=lambda row: (row.submitted, row.task))

    def ended_tasks(self, engines: Collection[EngineId] | None = None) -> list[TaskId]:
        """The tasks that have ended, in the order of their ids: on these engines, or all."""
        self._catch_up()
        memory = self._writer.memory
        if memory is not None:
            return memory.ended_tasks(engines)  # nothing can be purged from the file
        with self._reading():
            return self._reader.ended_tasks(engines)

    def _on_disk(self, rows: Iterator[Item]) -> Iterator[Item]:
        with self._reading():
            yield from rows

    def _only_on_disk(self, memory: MemoryStore, rows: Iterator[TaskRow]) -> Iterator[TaskRow]:
        """What the file still says, after a failure that has been reported, of tasks not in memory."""
        try:
            yield from (row for row in rows if not memory.remembers(row.task))
        except (sqlite3.Error, MalformedHistory):
            return

    def count(self) -> int:
        """How many tasks are remembered."""
        self._catch_up()
        memory = self._writer.memory
        if memory is not None:
            return memory.count() + self._writer.records_on_disk_only
        with self._reading():
            return self._reader.count()

    def engines(self) -> list[EngineRow]:
        """Every life of an engine."""
        return self._ask(MemoryStore.engines, TableReader.engines)

    def clients(self) -> list[h.ClientSeen]:
        """Every client that has not left, as it was seen last."""
        return self._ask(MemoryStore.clients, TableReader.clients)

    def blob_places(self) -> list[h.BlobPlaced]:
        """Where blobs are that are needed."""
        return self._ask(MemoryStore.blob_places, TableReader.blob_places)

    def gone_clients(self) -> list[ClientId]:
        """Those that have left."""
        return self._ask(MemoryStore.gone_clients, TableReader.gone_clients)

    def numbers(self, client: ClientId) -> Ranges:
        """The numbers of this client's tasks that are remembered."""
        return self._ask(lambda memory: memory.numbers(client), lambda reader: reader.numbers(client))

    def undelivered(self, client: ClientId) -> list[Undelivered]:
        """Its results that are not known to have arrived."""
        return self._ask(lambda memory: memory.undelivered(client), lambda reader: reader.undelivered(client))

    def places(self) -> list[Place]:
        """Where unfinished tasks are."""
        return self._ask(MemoryStore.places, TableReader.places)

    def _ask(
        self, in_memory: Callable[[MemoryStore], Answer], on_disk: Callable[[TableReader], Answer]
    ) -> Answer:
        self._catch_up()
        memory = self._writer.memory
        if memory is not None:
            return in_memory(memory)
        with self._reading():
            return on_disk(self._reader)

    def unfinished(self) -> Iterator[h.TaskAccepted]:
        """The tasks that have not ended, in the order of their ids."""
        self._catch_up()
        memory = self._writer.memory
        if memory is not None:
            return memory.unfinished()
        return self._on_disk(row.call for row in self._reader.unfinished() if row.call is not None)

    def blobs(self) -> Iterator[h.BlobKept]:
        """The blobs that are kept."""
        self._catch_up()
        memory = self._writer.memory
        return self._on_disk(self._reader.blobs()) if memory is None else memory.blobs()


def _connect(path: Path, durability: Durability) -> sqlite3.Connection:
    if sqlite3.sqlite_version_info < (3, 33):  # UPDATE … FROM; 32,766 values in a statement came with 3.32
        advice = "use a newer Python or db='memory'"
        raise HistoryError(str(path), f"needs SQLite 3.33, and this is {sqlite3.sqlite_version}", advice)
    try:
        # SQLite would make it with the user's umask, and gives its own side files the mode of this one.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
        connection = sqlite3.connect(
            path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
    except (OSError, sqlite3.Error) as error:
        raise _unusable(path, error) from error
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'strict' else 'NORMAL'}")
        connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_SIZE_LIMIT_BYTES}").fetchall()
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            create_tables(connection)
        elif version != SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"it has format {version}, this enginery writes {SCHEMA_VERSION}")
    except sqlite3.Error as error:
        connection.close()
        raise _unusable(path, error) from error
    return connection


def _unusable(path: Path, error: Exception) -> HistoryError:
    advice = "move the file away or start with db='memory'"
    return HistoryError(str(path), f"cannot be used ({error})", advice)
