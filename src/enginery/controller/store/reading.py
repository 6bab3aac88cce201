"""The history's tables, asked: rows of SQLite as rows of the store."""

from __future__ import annotations

import contextlib
import math
import sqlite3
import threading
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from enginery.controller.store.conditions import Condition
from enginery.controller.store.rows import EngineRow, Place, TaskRow
from enginery.core.left_over import Undelivered
from enginery.ids import BlobId, ClientId, EngineId, TaskId, make_task_id, task_number
from enginery.protocol import history as h
from enginery.protocol.messages import Kind, Ranges, Status

_BLOB_ID_BYTES = 16
_PAGE_ROWS = 200

_PAGE_BYTES = 4 << 20
_SQL_EXPRESSIONS = 100
_SQL_VALUES = 30_000
"""SQLite takes 1,000 and 32,766 in one statement."""

_SMALL = (
    "task, first, kind, status, engine, engine_key, direct, submitted, started, completed, delivered, "
    "payload_bytes, buffer_bytes, owed, name, label, detail"
)
# All have the columns of `_task_row`; what is not asked for is empty.
_ALL = f"{_SMALL}, stdout, stderr, blobs, published, call, payload"
_WITHOUT_CALLS = f"{_SMALL}, stdout, stderr, blobs, x'', NULL, NULL"
_WITHOUT_PAYLOADS = f"{_SMALL}, x'', x'', x'', x'', NULL, NULL"
_FIRST_PAYLOAD = _SMALL.count(",") + 1


# Numbers of one client in runs without gaps.
_NUMBERS = """
SELECT min(task), max(task) FROM (
    SELECT task, task - row_number() OVER (ORDER BY task) AS run FROM task WHERE task >= ? AND task < ?
) GROUP BY run ORDER BY run
"""
_UNDELIVERED = """
SELECT task, length(ifnull(payload, x'')) + buffer_bytes, blobs FROM task
WHERE task >= ? AND task < ? AND status IS NOT NULL AND NOT delivered ORDER BY completed, task
"""


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
        rows = self._rows(f"SELECT {_ALL} FROM task WHERE task = ?", task_id)
        return _task_row(rows[0]) if rows else None

    def tasks(self, *, limit: int) -> list[TaskRow]:
        order = "ORDER BY submitted DESC, task DESC LIMIT ?"
        return [_task_row(row) for row in self._rows(f"SELECT {_WITHOUT_CALLS} FROM task {order}", limit)]

    def find(self, tasks: Iterable[TaskId], *, with_payloads: bool) -> Iterator[TaskRow]:
        wanted = sorted(set(tasks))
        columns = _ALL if with_payloads else _WITHOUT_PAYLOADS
        start = 0
        while start < len(wanted):
            page = wanted[start : start + _PAGE_ROWS]
            marks = ",".join("?" * len(page))
            statement = f"SELECT {columns} FROM task WHERE task IN ({marks}) ORDER BY task"
            rows, is_cut = self._page(statement, page)
            yield from map(_task_row, rows)
            start = bisect_right(wanted, rows[-1][0]) if is_cut else start + len(page)

    def search(self, conditions: Sequence[Condition], *, with_payloads: bool) -> Iterator[TaskRow]:
        expressions = ["(submitted, task) > (?, ?)"]
        values: list[Any] = []
        others: list[Condition] = []
        for condition in conditions:
            sql = condition.sql()
            if sql is None or len(expressions) == _SQL_EXPRESSIONS or len(values) + len(sql[1]) > _SQL_VALUES:
                others.append(condition)
            else:
                expressions.append(sql[0])
                values += sql[1]
        needs_all = with_payloads or any(condition.needs_payloads for condition in others)
        statement = (
            f"SELECT {_ALL if needs_all else _WITHOUT_PAYLOADS} FROM task WHERE {' AND '.join(expressions)} "
            f"ORDER BY submitted, task LIMIT {_PAGE_ROWS}"
        )
        last: tuple[float, int] = (-math.inf, -1)
        while rows := self._page(statement, [*last, *values])[0]:
            for row in map(_task_row, rows):
                if all(condition.holds(row) for condition in others):
                    yield row if with_payloads else row.without_payloads()
            last = row.submitted, row.task

    def ended_tasks(self, engines: Collection[EngineId] | None) -> list[TaskId]:
        condition = "" if engines is None else f"AND engine IN ({','.join('?' * len(engines))})"
        statement = f"SELECT task FROM task WHERE status IS NOT NULL {condition} ORDER BY task"
        return [TaskId(task) for (task,) in self._rows(statement, *(engines or ()))]

    def count(self) -> int:
        return int(self._rows("SELECT records FROM totals")[0][0])

    def engines(self) -> list[EngineRow]:
        rows = self._rows(
            "SELECT key, engine, host, pid, joined, gone, cause, secret, host_key "
            "FROM engine ORDER BY joined, key"
        )
        names = "key", "engine", "host", "pid", "joined", "left", "cause", "secret", "host_key"
        return [EngineRow(**dict(zip(names, row, strict=True))) for row in rows]

    def clients(self) -> list[h.ClientSeen]:
        rows = self._rows("SELECT client, secret, seen FROM client WHERE gone = 0 ORDER BY seen, client")
        return [h.ClientSeen(client, secret, seen) for client, secret, seen in rows]

    def gone_clients(self) -> list[ClientId]:
        rows = self._rows("SELECT client FROM client WHERE gone > 0 ORDER BY gone, client")
        return [ClientId(client) for (client,) in rows]

    def numbers(self, client: ClientId) -> Ranges:
        rows = self._rows(_NUMBERS, make_task_id(client, 0), make_task_id(ClientId(client + 1), 0))
        return [(task_number(first), task_number(last)) for first, last in rows]

    def undelivered(self, client: ClientId) -> list[Undelivered]:
        rows = self._rows(_UNDELIVERED, make_task_id(client, 0), make_task_id(ClientId(client + 1), 0))
        return [Undelivered(TaskId(task), size, tuple(cut_ids(blobs))) for task, size, blobs in rows]

    def blob_places(self) -> list[h.BlobPlaced]:
        rows = self._rows("SELECT blob, size_bytes, keep, segment FROM blob_place")
        return [h.BlobPlaced(BlobId(blob), size, bool(keep), segment) for blob, size, keep, segment in rows]

    def places(self) -> list[Place]:
        rows = self._rows("SELECT task, engine_key, attempt, retries_left FROM place ORDER BY task")
        return [Place(*row) for row in rows]

    def unfinished(self) -> Iterator[TaskRow]:
        statement = f"SELECT {_ALL} FROM task WHERE status IS NULL AND task > ? ORDER BY task LIMIT ?"
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

    def _page(self, statement: str, values: Sequence[Any]) -> tuple[list[tuple[Any, ...]], bool]:
        """Rows of tasks up to `_PAGE_BYTES`; whether there are more."""
        rows: list[tuple[Any, ...]] = []
        size = 0
        with self._lock, contextlib.closing(self._connection.execute(statement, values)) as cursor:
            for row in cursor:
                if size > _PAGE_BYTES:
                    return rows, True
                rows.append(row)
                size += sum(len(value) for value in row[_FIRST_PAYLOAD:] if value is not None)
        return rows, False

    def _rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(statement, values).fetchall()


def _task_row(row: tuple[Any, ...]) -> TaskRow:
    task, first, kind, status, engine, engine_key, direct, submitted, started, completed = row[:10]
    delivered, payload_bytes, buffer_bytes, owed, name, label, detail = row[10:17]
    stdout, stderr, blobs, published, call, payload = row[17:]
    return TaskRow(
        task=task,
        first=first,
        kind=Kind(kind),
        name=name,
        label=label,
        status=None if status is None else Status(status),
        engine=engine,
        engine_key=engine_key,
        direct=bool(direct),
        submitted=submitted,
        started=started,
        completed=completed,
        delivered=bool(delivered),
        payload_bytes=payload_bytes,
        buffer_bytes=buffer_bytes,
        owed=bool(owed),
        # The limit on text may have cut a character in two.
        stdout=stdout.decode(errors="replace"),
        stderr=stderr.decode(errors="replace"),
        detail=detail,
        blobs=tuple(cut_ids(blobs)),
        published=h.decode_published(published),
        call=None if call is None else h.decode_call(call),
        payload=payload,
    )


def cut_ids(blobs: bytes) -> list[BlobId]:
    """The ids that a column has in one."""
    return [BlobId(blobs[start : start + _BLOB_ID_BYTES]) for start in range(0, len(blobs), _BLOB_ID_BYTES)]
