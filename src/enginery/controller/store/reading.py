"""The history's tables, asked: rows of SQLite as rows of the store."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from enginery.controller.store.store import EngineRow, TaskRow
from enginery.ids import BlobId, TaskId
from enginery.protocol import history as h
from enginery.protocol.messages import Kind, Status

_BLOB_ID_BYTES = 16
_PAGE_ROWS = 200

_METADATA = (
    "task, kind, status, engine, submitted, started, completed, delivered, payload_bytes, "
    "name, label, detail, stdout, stderr, blobs"
)


class TableReader:
    """A read-only connection, shared by all threads that ask. Raises `sqlite3.Error`.

    Long answers are read page by page: no statement stays open while the caller thinks, since that would keep
    the write-ahead log from being emptied.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def task(self, task_id: TaskId) -> TaskRow | None:
        rows = self._rows(f"SELECT {_METADATA}, call, payload FROM task WHERE task = ?", task_id)
        return _task_row(rows[0]) if rows else None

    def tasks(self, *, limit: int) -> list[TaskRow]:
        order = "ORDER BY submitted DESC, task DESC LIMIT ?"
        return [
            _task_row((*row, None, None))
            for row in self._rows(f"SELECT {_METADATA} FROM task {order}", limit)
        ]

    def count(self) -> int:
        return int(self._rows("SELECT records FROM totals")[0][0])

    def engines(self) -> list[EngineRow]:
        rows = self._rows(
            "SELECT key, engine, host, pid, joined, gone, cause FROM engine ORDER BY joined, key"
        )
        return [
            EngineRow(key=key, engine=engine, host=host, pid=pid, joined=joined, left=gone, cause=cause)
            for key, engine, host, pid, joined, gone, cause in rows
        ]

    def clients(self) -> list[h.ClientSeen]:
        rows = self._rows("SELECT client, secret, seen FROM client ORDER BY seen, client")
        return [h.ClientSeen(client, secret, seen) for client, secret, seen in rows]

    def unfinished(self) -> Iterator[TaskRow]:
        statement = (
            f"SELECT {_METADATA}, call, payload FROM task "
            "WHERE status IS NULL AND task > ? ORDER BY task LIMIT ?"
        )
        last = -1
        while rows := self._rows(statement, last, _PAGE_ROWS):
            yield from map(_task_row, rows)
            last = rows[-1][0]

    def blobs(self) -> Iterator[h.BlobKept]:
        last = -1
        statement = "SELECT number, blob, data FROM blob WHERE number > ? ORDER BY number LIMIT 1"
        while rows := self._rows(statement, last):
            last, blob, data = rows[0]
            yield h.BlobKept(BlobId(blob), data)

    def journal(self) -> Iterator[list[h.HistoryFact]]:
        """What is committed and not in the tables, entry by entry."""
        last = -1
        statement = "SELECT id, facts FROM journal WHERE id > ? ORDER BY id LIMIT 1"
        while rows := self._rows(statement, last):
            last, entry = rows[0]
            yield h.decode_journal(entry)

    def _rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(statement, values).fetchall()


def _task_row(row: tuple[Any, ...]) -> TaskRow:
    task, kind, status, engine, submitted, started, completed, delivered, payload_bytes = row[:9]
    name, label, detail, stdout, stderr, blobs, call, payload = row[9:]
    return TaskRow(
        task=task,
        kind=Kind(kind),
        name=name,
        label=label,
        status=None if status is None else Status(status),
        engine=engine,
        submitted=submitted,
        started=started,
        completed=completed,
        delivered=bool(delivered),
        payload_bytes=payload_bytes,
        # The limit on text may have cut a character in two.
        stdout=stdout.decode(errors="replace"),
        stderr=stderr.decode(errors="replace"),
        detail=detail,
        blobs=tuple(
            BlobId(blobs[start : start + _BLOB_ID_BYTES]) for start in range(0, len(blobs), _BLOB_ID_BYTES)
        ),
        call=None if call is None else h.decode_call(call),
        payload=payload,
    )
