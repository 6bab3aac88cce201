"""The history's tables in SQLite: a journal in front, tables that can be asked behind.

Problem: each task has three facts or more, tens of thousands of tasks come in a second, and all of it shares
a processor and the GIL with the controller's loop.

Choice: what was handed over between two commits goes into the journal as ONE row of encoded facts, in one
statement that is its own transaction. Later, with nothing else to do, `fill` copies the oldest entries of the
journal to the tables and deletes them in the same transaction. By then a short task has ended and been
delivered, so it is written once, in its final state.

Python's sqlite3 lets go of the GIL in every step of a statement. Beside a busy thread each return may cost
the interpreter's switch interval (5 ms), so nothing here works row by row: statements take up to
`_CHUNK_ROWS` rows at once. Measured beside a spinning thread: 1,700 µs a row with `executemany`, 15 µs with
256 rows a statement; 3.6 and 2.9 µs without it.

Guarantee: the journal is exactly what the tables lack. Whatever is committed is in one of the two, so a file
that was left at any instant is complete after `fill` has emptied the journal.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from enginery.controller.store.buffers import BufferFiles
from enginery.controller.store.changes import Changes
from enginery.controller.store.reading import cut_ids
from enginery.controller.store.store import (
    ENDED_WITH_CLUSTER,
    NOT_TAKEN_OVER,
    SEEN_LIMIT,
    TEXT_LIMIT_BYTES,
    Limits,
)
from enginery.ids import BlobId, TaskId
from enginery.protocol import history as h
from enginery.protocol.history import HistoryFact
from enginery.protocol.messages import Status

SCHEMA_VERSION = 5
FILL_FACTS = 2000
"""Facts in one transaction of `fill`: about 10 ms, which is how long a commit may have to wait for it."""
FILL_BYTES = 8 << 20
"""The same in bytes; one entry of the journal is copied whatever its size."""

_CHUNK_ROWS = 256

# Small columns come first: SQLite reads a long row only as far as it is asked for.
_SCHEMA = f"""
CREATE TABLE journal (id INTEGER PRIMARY KEY, facts BLOB NOT NULL);
CREATE TABLE task (
    task INTEGER PRIMARY KEY,
    client INTEGER GENERATED ALWAYS AS (task >> 32) VIRTUAL,
    number INTEGER GENERATED ALWAYS AS (task & 0xffffffff) VIRTUAL,
    first INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    status INTEGER,
    engine INTEGER NOT NULL,
    engine_key TEXT NOT NULL,
    direct INTEGER NOT NULL,
    submitted REAL NOT NULL,
    started REAL NOT NULL,
    completed REAL NOT NULL,
    delivered INTEGER NOT NULL,
    payload_bytes INTEGER NOT NULL,
    buffer_bytes INTEGER NOT NULL,
    owed INTEGER NOT NULL,
    name TEXT NOT NULL,
    label TEXT NOT NULL,
    detail TEXT NOT NULL,
    stdout BLOB NOT NULL,
    stderr BLOB NOT NULL,
    blobs BLOB NOT NULL,
    published BLOB NOT NULL,
    call BLOB,
    payload BLOB
);
CREATE INDEX task_by_submission ON task (submitted);
CREATE INDEX task_by_payload ON task (delivered DESC, submitted) WHERE payload_bytes > 0;
CREATE INDEX task_unfinished ON task (task) WHERE status IS NULL;
CREATE INDEX task_with_buffers ON task (task) WHERE buffer_bytes > 0;
CREATE INDEX task_owed ON task (task) WHERE owed;
CREATE TABLE totals (records INTEGER NOT NULL, unfinished INTEGER NOT NULL, payload_bytes INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0, 0);
CREATE TABLE blob (number INTEGER PRIMARY KEY, blob BLOB NOT NULL UNIQUE, data BLOB NOT NULL);
CREATE TABLE blob_place (
    blob BLOB PRIMARY KEY, size_bytes INTEGER NOT NULL, keep INTEGER NOT NULL, segment TEXT NOT NULL
);
CREATE TABLE place (
    task INTEGER PRIMARY KEY, engine_key TEXT NOT NULL, attempt INTEGER NOT NULL,
    retries_left INTEGER NOT NULL
);
CREATE TABLE engine (
    key TEXT PRIMARY KEY, engine INTEGER, host TEXT, pid INTEGER, joined REAL, gone REAL, cause TEXT,
    secret BLOB NOT NULL, host_key TEXT NOT NULL
);
CREATE TABLE client (
    client INTEGER PRIMARY KEY, secret BLOB NOT NULL, seen REAL NOT NULL, gone REAL NOT NULL DEFAULT 0
);
PRAGMA user_version = {SCHEMA_VERSION};
"""

_TASK_COLUMNS = (
    "task, first, kind, status, engine, engine_key, direct, submitted, started, completed, delivered, "
    "payload_bytes, buffer_bytes, owed, name, label, detail, stdout, stderr, blobs, published, call, payload"
)
_INSERT_TASKS = f"INSERT OR IGNORE INTO task ({_TASK_COLUMNS}) VALUES {{rows}}"


def _joined(stream: str) -> str:
    # Text is kept as bytes: SQLite's functions on TEXT stop at the first NUL. `substr` of nothing is NULL.
    both = f"CAST(task.{stream} || change.{stream} AS BLOB)"
    return f"ifnull(substr({both}, -{TEXT_LIMIT_BYTES}), x'')"


_END_TASKS = f"""
WITH change
    (task, status, engine, engine_key, started, completed, detail, stdout, stderr, blobs, payload, owed)
    AS (VALUES {{rows}})
UPDATE task SET status = change.status, engine = change.engine, engine_key = change.engine_key,
    started = change.started, completed = change.completed, detail = change.detail,
    stdout = {_joined("stdout")}, stderr = {_joined("stderr")}, blobs = change.blobs,
    payload = change.payload, owed = change.owed,
    payload_bytes = CASE WHEN change.owed THEN 0 ELSE length(task.call) + length(change.payload)
        + length(task.published) + length({_joined("stdout")}) + length({_joined("stderr")}) END
FROM change WHERE task.task = change.task AND task.status IS NULL
"""
_ADD_TEXT = f"""
WITH change (task, stdout, stderr) AS (VALUES {{rows}})
UPDATE task SET stdout = {_joined("stdout")}, stderr = {_joined("stderr")},
    payload_bytes = CASE WHEN task.status IS NULL OR task.owed THEN 0
        ELSE length(task.call) + length(task.payload) + task.buffer_bytes
        + length(task.published) + length({_joined("stdout")}) + length({_joined("stderr")}) END
FROM change WHERE task.task = change.task AND (task.status IS NULL OR task.payload IS NOT NULL)
"""
_PUBLISHED = "SELECT published FROM task WHERE task = ? AND (status IS NULL OR payload IS NOT NULL)"
_PUBLISH = """
UPDATE task SET published = :published, payload_bytes = CASE WHEN status IS NULL OR owed THEN 0
    ELSE payload_bytes - length(published) + length(:published) END
WHERE task = :task
"""
_SUM_OF_PAYLOADS = """length(task.call) + length(task.payload) + length(task.published)
    + length(task.stdout) + length(task.stderr)"""
_ADD_BUFFERS = f"""
WITH change (task, size_bytes) AS (VALUES {{rows}})
UPDATE task SET buffer_bytes = change.size_bytes,
    payload_bytes = CASE WHEN task.owed THEN 0 ELSE {_SUM_OF_PAYLOADS} + change.size_bytes END
FROM change WHERE task.task = change.task AND task.payload IS NOT NULL
"""
_RELEASE_TASKS = f"""
UPDATE task SET owed = 0, payload_bytes = {_SUM_OF_PAYLOADS} + buffer_bytes
WHERE owed AND task IN (VALUES {{rows}})
"""
_WITH_BUFFERS = "SELECT task, blobs FROM task WHERE buffer_bytes > 0"
_END_UNFINISHED = """
UPDATE task SET status = ?, completed = ?, detail = ?, payload = x'',
    payload_bytes = length(call) + length(published) + length(stdout) + length(stderr)
WHERE status IS NULL
"""
_PLACE_TASKS = "INSERT OR REPLACE INTO place (task, engine_key, attempt, retries_left) VALUES {rows}"
_LEAVE_PLACES = "DELETE FROM place WHERE task IN (VALUES {rows})"
_IS_PLACED = "SELECT 1 FROM blob_place WHERE blob = ?"
_IS_BUFFER = "SELECT 1 FROM task WHERE buffer_bytes > 0 AND instr(blobs, ?) LIMIT 1"
_PURGE_TASKS = "DELETE FROM task WHERE status IS NOT NULL AND task IN (VALUES {rows})"
_DELIVER_TASKS = "UPDATE task SET delivered = 1 WHERE task IN (VALUES {rows})"
_COUNT_TASKS = """
SELECT count(*), count(*) - count(status), ifnull(sum(payload_bytes), 0) FROM task
WHERE task IN (VALUES {rows})
"""
# The oldest payloads that must go for `excess` bytes to be free; the inner limit bounds one round.
_DROPPABLE = """
SELECT task, payload_bytes FROM (
    SELECT task, payload_bytes,
        sum(payload_bytes) OVER (ORDER BY delivered DESC, submitted, task ROWS UNBOUNDED PRECEDING)
            - payload_bytes AS freed_before
    FROM (SELECT task, payload_bytes, delivered, submitted FROM task WHERE payload_bytes > 0
          ORDER BY delivered DESC, submitted, task LIMIT 1000)
) WHERE freed_before < :excess
"""
_OLDEST = """
SELECT task, payload_bytes FROM task WHERE status IS NOT NULL AND NOT owed
ORDER BY submitted, task LIMIT :excess
"""
# Only looked for where there is a limit on age, and so is the index that they need.
_INDEX_BY_END = "CREATE INDEX IF NOT EXISTS task_by_end ON task (completed) WHERE status IS NOT NULL"
_ENDED_BEFORE = (
    "SELECT task, payload_bytes FROM task WHERE status IS NOT NULL AND completed < :before AND NOT owed"
)
_PAYLOADS_BEFORE = f"{_ENDED_BEFORE} AND payload_bytes > 0"


def _drop_payloads(selection: str) -> str:
    return f"""
UPDATE task SET payload_bytes = 0, buffer_bytes = 0, call = NULL, payload = NULL, blobs = x'',
    published = x'', stdout = x'', stderr = x''
WHERE task IN (SELECT task FROM ({selection}))
"""


def _delete(selection: str) -> str:
    return f"DELETE FROM task WHERE task IN (SELECT task FROM ({selection}))"


def create_tables(connection: sqlite3.Connection) -> None:
    """Lay out an empty file."""
    connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")


class Tables:
    """The writing side, over one connection in autocommit mode. Used by one thread at a time.

    Every method may raise `sqlite3.Error`, after which nothing of what it wanted to change has changed.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        limits: Limits,
        files: BufferFiles,
        now: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._limits = limits
        self._files = files
        self._unwanted: list[BlobId] = []  # buffers whose rows change in the present transaction
        self._now = now
        if limits.has_ages:
            connection.execute(_INDEX_BY_END)
        row = connection.execute("SELECT records, unfinished, payload_bytes FROM totals").fetchone()
        self.records, self.unfinished, self.payload_bytes = row

    def open_files(self) -> None:
        """Remove the buffers that no row names."""
        places = self._connection.execute("SELECT blob FROM blob_place WHERE segment = ''")
        self._files.open({*self._buffers(_WITH_BUFFERS, ()), *(BlobId(blob) for (blob,) in places)})

    def begin_anew(self) -> None:
        """Let go of a former life: owe nothing to its clients, and know that nothing of it goes on."""
        owed = [(task,) for (task,) in self._connection.execute("SELECT task FROM task WHERE owed")]
        with self._transaction():
            self._count(owed, -1)
            self._change(_RELEASE_TASKS, owed)
            self._count(owed, 1)
            self._forget()
            self._connection.execute("UPDATE client SET gone = ? WHERE gone = 0", (self._now(),))
            self._connection.execute(
                "UPDATE engine SET gone = ?, cause = ? WHERE gone = 0", (self._now(), ENDED_WITH_CLUSTER)
            )
            self._connection.execute("DELETE FROM place")
            self._connection.execute("DELETE FROM blob_place")
            self._end_unfinished()

    def _end_unfinished(self) -> None:
        self._connection.execute(_END_UNFINISHED, (Status.REFUSED.value, self._now(), NOT_TAKEN_OVER))
        row = self._connection.execute("SELECT ifnull(sum(payload_bytes), 0) FROM task").fetchone()
        self.unfinished, self.payload_bytes = 0, row[0]

    def add_entry(self, entry: bytes) -> None:
        """Commit one entry of the journal."""
        self._connection.execute("INSERT INTO journal (facts) VALUES (?)", (entry,))

    def fill(self) -> tuple[int, int]:
        """Copy about `FILL_FACTS` of the oldest facts to the tables; how many facts and bytes that were.

        (0, 0) says that the journal is empty.
        """
        facts: list[HistoryFact] = []
        size_bytes = last = 0
        while len(facts) < FILL_FACTS and size_bytes < FILL_BYTES:
            row = self._connection.execute(
                "SELECT id, facts FROM journal WHERE id > ? ORDER BY id LIMIT 1", (last,)
            ).fetchone()
            if row is None:
                break
            last, entry = row
            facts += h.decode_journal(entry)
            size_bytes += len(entry)
        if last:
            self._copy(facts, last)
        return len(facts), size_bytes

    def checkpoint(self) -> None:
        """Move what is in the write-ahead log into the file, as far as no reader is in the way."""
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def forget_old(self) -> None:
        """Apply the limits on age while no facts come."""
        if self._limits.has_ages:
            with self._transaction():
                self._forget_old()

    def _copy(self, facts: list[HistoryFact], last: int) -> None:
        with self._transaction():
            self._apply(Changes(facts))
            self._forget_old()
            self._forget()
            self._connection.execute("DELETE FROM journal WHERE id <= ?", (last,))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, the totals included."""
        before = self.records, self.unfinished, self.payload_bytes
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute(
                "UPDATE totals SET records = ?, unfinished = ?, payload_bytes = ?",
                (self.records, self.unfinished, self.payload_bytes),
            )
            self._connection.execute("COMMIT")
        except BaseException:
            self._unwanted = []
            self.records, self.unfinished, self.payload_bytes = before
            if self._connection.in_transaction:  # SQLite ends it by itself after some errors
                self._connection.execute("ROLLBACK")
            raise
        unwanted, self._unwanted = self._unwanted, []
        self._files.remove(unwanted)

    def _apply(self, changes: Changes) -> None:
        touched = [(task,) for task in changes.touched()]
        self._count(touched, -1)
        self._change(_INSERT_TASKS, changes.new_rows())
        self._change(_END_TASKS, changes.late_ends())
        self._change(_ADD_TEXT, changes.late_texts())
        self._change(_DELIVER_TASKS, [(task,) for task in changes.late_deliveries()])
        for task in changes.late_publishers():
            self._publish(task, changes)
        self._add_buffers(changes.buffers)
        self._change(_RELEASE_TASKS, [(task,) for task in changes.released()])
        self._purge([(task,) for task in changes.purged()])
        self._change(_LEAVE_PLACES, [(task,) for task in changes.left_places()])
        self._change(_PLACE_TASKS, changes.places())
        self._count(touched, 1)
        for fact in changes.others:
            self._learn(fact)

    def _publish(self, task: TaskId, changes: Changes) -> None:
        row = self._connection.execute(_PUBLISHED, (task,)).fetchone()
        if row is not None:
            published = h.decode_published(row[0])
            changes.publish(task, published)
            self._connection.execute(_PUBLISH, {"task": task, "published": h.encode_published(published)})

    def _add_buffers(self, kept: Mapping[TaskId, h.BuffersKept]) -> None:
        self._change(_ADD_BUFFERS, [(task, fact.size_bytes) for task, fact in kept.items()])
        for chunk in _chunks([(task,) for task in kept]):
            statement = f"{_WITH_BUFFERS} AND task IN (VALUES {{rows}})"
            there = {task for task, _ in self._connection.execute(*_with_rows(statement, chunk))}
            for (task,) in chunk:
                if task not in there:  # its payloads have been dropped, or it was purged
                    self._unwanted += kept[task].blobs

    def _purge(self, tasks: Sequence[tuple[TaskId]]) -> None:
        for chunk in _chunks(tasks):
            statement = f"{_WITH_BUFFERS} AND task IN (VALUES {{rows}})"
            self._unwanted += self._buffers(*_with_rows(statement, chunk))
            self._connection.execute(*_with_rows(_PURGE_TASKS, chunk))

    def _buffers(self, statement: str, values: Any) -> list[BlobId]:
        """The blobs of all rows that this selects."""
        rows = self._connection.execute(statement, values).fetchall()
        return [blob for _, blobs in rows for blob in cut_ids(blobs)]

    def _change(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        for chunk in _chunks(rows):
            self._connection.execute(*_with_rows(statement, chunk))

    def _count(self, tasks: Sequence[tuple[TaskId]], sign: int) -> None:
        for chunk in _chunks(tasks):
            row = self._connection.execute(*_with_rows(_COUNT_TASKS, chunk)).fetchone()
            self.records += sign * row[0]
            self.unfinished += sign * row[1]
            self.payload_bytes += sign * row[2]

    def _learn(self, fact: HistoryFact) -> None:
        """The rare facts, one by one."""
        execute = self._connection.execute
        match fact:
            case h.BlobKept(blob, data):
                execute("INSERT OR IGNORE INTO blob (blob, data) VALUES (?, ?)", (blob, data))
            case h.BlobDropped(blob):
                execute("DELETE FROM blob WHERE blob = ?", (blob,))
                if execute(_IS_PLACED, (blob,)).fetchone():
                    execute("DELETE FROM blob_place WHERE blob = ?", (blob,))
                    if not execute(_IS_BUFFER, (blob,)).fetchone():
                        self._unwanted.append(blob)
            case h.BlobPlaced(blob, size_bytes, keep, segment):
                execute(
                    "INSERT OR REPLACE INTO blob_place VALUES (?, ?, ?, ?)",
                    (blob, size_bytes, int(keep), segment),
                )
            case h.EngineJoined(info, at, secret, host_key):
                execute(
                    "INSERT OR REPLACE INTO engine VALUES (?, ?, ?, ?, ?, 0, '', ?, ?)",
                    (info.key, info.engine, info.host, info.pid, at, secret, host_key),
                )
            case h.EngineGone(left, at):
                execute(
                    "INSERT INTO engine VALUES (?, ?, '', 0, 0, ?, ?, x'', '') "
                    "ON CONFLICT (key) DO UPDATE SET gone = excluded.gone, cause = excluded.cause",
                    (left.key, left.engine, at, left.cause),
                )
                execute(
                    "DELETE FROM engine WHERE key IN "
                    "(SELECT key FROM engine WHERE gone > 0 ORDER BY gone DESC LIMIT -1 OFFSET ?)",
                    (SEEN_LIMIT,),
                )
            case h.ClientSeen(client, secret, at):
                execute("INSERT OR REPLACE INTO client VALUES (?, ?, ?, 0)", (client, secret, at))
                execute(
                    "DELETE FROM client WHERE client IN "
                    "(SELECT client FROM client ORDER BY seen DESC LIMIT -1 OFFSET ?)",
                    (SEEN_LIMIT,),
                )
            case h.ClientGone(client):
                execute("UPDATE client SET gone = ? WHERE client = ?", (self._now(), client))

    def _forget(self) -> None:
        while (excess := self.payload_bytes - self._limits.payload_bytes) > 0:
            if not self._drop_payloads_of(_DROPPABLE, {"excess": excess}):
                break
        if (excess := self.records - self._limits.records) > 0:
            self._delete_tasks(_OLDEST, {"excess": excess})

    def _forget_old(self) -> None:
        payload_age_s, record_age_s = self._limits.payload_age_s, self._limits.record_age_s
        if payload_age_s is not None:
            self._drop_payloads_of(_PAYLOADS_BEFORE, {"before": self._now() - payload_age_s})
        if record_age_s is not None:
            self._delete_tasks(_ENDED_BEFORE, {"before": self._now() - record_age_s})

    def _drop_payloads_of(self, selection: str, values: dict[str, Any]) -> int:
        """Drop the payloads of these ended tasks; returns of how many."""
        count, freed = self._sum(selection, values)
        if count:
            self._forget_buffers(selection, values)
            self._connection.execute(_drop_payloads(selection), values)
            self.payload_bytes -= freed
        return count

    def _delete_tasks(self, selection: str, values: dict[str, Any]) -> None:
        """Forget these ended tasks."""
        count, freed = self._sum(selection, values)
        if count:
            self._forget_buffers(selection, values)
            self._connection.execute(_delete(selection), values)
            self.records -= count
            self.payload_bytes -= freed

    def _forget_buffers(self, selection: str, values: dict[str, Any]) -> None:
        statement = f"{_WITH_BUFFERS} AND task IN (SELECT task FROM ({selection}))"
        self._unwanted += self._buffers(statement, values)

    def _sum(self, selection: str, values: dict[str, Any]) -> tuple[int, int]:
        row = self._connection.execute(
            f"SELECT count(*), ifnull(sum(payload_bytes), 0) FROM ({selection})", values
        ).fetchone()
        return row[0], row[1]


def _chunks(rows: Sequence[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Cut in powers of four, so that few different statements are ever compiled."""
    start, size = 0, _CHUNK_ROWS
    while start < len(rows):
        while size > len(rows) - start:
            size //= 4
        yield rows[start : start + size]
        start += size


def _with_rows(statement: str, rows: Sequence[tuple[Any, ...]]) -> tuple[str, list[Any]]:
    row = f"({','.join('?' * len(rows[0]))})"
    values = [value for values in rows for value in values]
    return statement.replace("{rows}", ",".join([row] * len(rows))), values
