"""The history in memory: for clusters that keep nothing in files, and for what comes after a broken disk.

A batch is committed when `append` returns. All bounds hold after every batch.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

from enginery.controller.store.store import SEEN_LIMIT, TEXT_LIMIT_BYTES, EngineRow, StoreStatistics, TaskRow
from enginery.ids import BlobId, ClientId, EngineKey, TaskId
from enginery.protocol import history as h
from enginery.protocol.history import HistoryFact
from enginery.protocol.messages import TaskResult

Item = TypeVar("Item")


class MemoryStore:
    """A `HistoryStore` that ends with its process.

    `record_limit` bounds the tasks that are remembered (those that have not ended always are),
    `payload_limit_bytes` what is kept of ended ones' payloads and text.
    """

    def __init__(self, *, record_limit: int = 100_000, payload_limit_bytes: int = 64 << 20) -> None:
        self.record_limit = record_limit
        self.payload_limit_bytes = payload_limit_bytes
        self._lock = threading.Lock()
        self._rows: dict[TaskId, TaskRow] = {}
        # Dictionaries as ordered sets, oldest first: what may be forgotten, and what has payloads.
        self._ended: dict[TaskId, None] = {}
        self._delivered_payloads: dict[TaskId, None] = {}
        self._other_payloads: dict[TaskId, None] = {}
        self._payload_bytes = 0
        self._engines: dict[EngineKey, EngineRow] = {}
        self._gone: dict[EngineKey, None] = {}
        self._clients: dict[ClientId, h.ClientSeen] = {}
        self._blobs: dict[BlobId, bytes] = {}
        self._commits = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self._rows)} tasks, {self._payload_bytes} payload bytes>"

    # ------------------------------------------------------------ facts

    def append(self, facts: Sequence[HistoryFact], *, on_committed: Callable[[], None] | None = None) -> bool:
        """Take over one batch and call `on_committed` at once, on this thread; False after `close`."""
        with self._lock:
            if self._closed:
                return False
            for fact in facts:
                self._learn(fact)
            self._forget()
            self._commits += 1
        if on_committed is not None:
            on_committed()
        return True

    def adopt(self, rows: Iterable[TaskRow], engines: Iterable[EngineRow]) -> None:
        """Take over rows of another store: tasks that have not ended, and engines."""
        with self._lock:
            self._rows.update((row.task, row) for row in rows)
            for engine in engines:
                self._engines[engine.key] = engine
                if engine.left:
                    self._gone[engine.key] = None

    def _learn(self, fact: HistoryFact) -> None:
        match fact:
            case h.TaskAccepted():
                self._rows.setdefault(fact.task, _new_row(fact))
            case h.TaskEnded(result):
                self._end(result)
            case h.TaskDelivered(task):
                self._deliver(task)
            case h.TaskText():
                self._add_text(fact)
            case h.BlobKept(blob, data):
                self._blobs.setdefault(blob, data)
            case h.BlobDropped(blob):
                self._blobs.pop(blob, None)
            case h.EngineJoined() | h.EngineGone():
                self._see_engine(fact)
            case h.ClientSeen(client):
                self._clients.pop(client, None)  # to the end: the order is that of being seen
                self._clients[client] = fact

    def _end(self, result: TaskResult) -> None:
        row = self._rows.get(result.task)
        if row is None or row.status is not None:
            return
        row.status = result.status
        row.engine = result.engine
        row.started = result.started
        row.completed = result.completed
        row.stdout = (row.stdout + result.stdout)[-TEXT_LIMIT_BYTES:]
        row.stderr = (row.stderr + result.stderr)[-TEXT_LIMIT_BYTES:]
        row.detail = result.detail
        row.payload = result.payload
        row.blobs = result.blobs
        self._ended[row.task] = None
        self._other_payloads[row.task] = None
        self._count_payload(row)

    def _deliver(self, task: TaskId) -> None:
        row = self._rows.get(task)
        if row is None:
            return
        row.delivered = True
        if task in self._other_payloads:
            del self._other_payloads[task]
            self._delivered_payloads[task] = None

    def _add_text(self, fact: h.TaskText) -> None:
        row = self._rows.get(fact.task)
        if row is None or (row.status is not None and row.payload is None):
            return
        if fact.stream == "stderr":
            row.stderr = (row.stderr + fact.text)[-TEXT_LIMIT_BYTES:]
        else:
            row.stdout = (row.stdout + fact.text)[-TEXT_LIMIT_BYTES:]
        if row.status is not None:
            self._count_payload(row)

    def _see_engine(self, fact: h.EngineJoined | h.EngineGone) -> None:
        if isinstance(fact, h.EngineJoined):
            info = fact.info
            self._gone.pop(info.key, None)
            self._engines[info.key] = EngineRow(
                key=info.key, engine=info.engine, host=info.host, pid=info.pid, joined=fact.at
            )
            return
        left = fact.left
        row = self._engines.setdefault(left.key, EngineRow(key=left.key, engine=left.engine))
        row.left = fact.at
        row.cause = left.cause
        self._gone[left.key] = None

    # ------------------------------------------------------------ bounds

    def _count_payload(self, row: TaskRow) -> None:
        size = len(row.stdout) + len(row.stderr)
        if row.call is not None:
            size += len(row.call.payload)
        if row.payload is not None:
            size += len(row.payload)
        self._payload_bytes += size - row.payload_bytes
        row.payload_bytes = size

    def _forget(self) -> None:
        while self._payload_bytes > self.payload_limit_bytes:
            queue = self._delivered_payloads or self._other_payloads
            self._drop_payload(self._rows[next(iter(queue))])
        excess = len(self._rows) - self.record_limit
        for task in _first(self._ended, excess):
            self._drop_payload(self._rows[task])
            del self._ended[task]
            del self._rows[task]
        for key in _first(self._gone, len(self._gone) - SEEN_LIMIT):
            del self._gone[key]
            del self._engines[key]
        for client in _first(self._clients, len(self._clients) - SEEN_LIMIT):
            del self._clients[client]

    def _drop_payload(self, row: TaskRow) -> None:
        self._delivered_payloads.pop(row.task, None)
        self._other_payloads.pop(row.task, None)
        self._payload_bytes -= row.payload_bytes
        row.payload_bytes = 0
        row.call = row.payload = None
        row.blobs = ()
        row.stdout = row.stderr = ""

    # ------------------------------------------------------------ life

    def flush(self, timeout_s: float) -> bool:
        """Nothing to wait for."""
        return True

    def close(self) -> None:
        """Take no further facts; what is remembered can still be asked for."""
        with self._lock:
            self._closed = True

    def statistics(self) -> StoreStatistics:
        """Counts as they stand."""
        with self._lock:
            return StoreStatistics(
                records=len(self._rows),
                unfinished=len(self._rows) - len(self._ended),
                payload_bytes=self._payload_bytes,
                commits=self._commits,
            )

    # ------------------------------------------------------------ queries

    def task(self, task_id: TaskId) -> TaskRow | None:
        """Everything known of a task."""
        with self._lock:
            row = self._rows.get(task_id)
            return None if row is None else msgspec.structs.replace(row)

    def tasks(self, *, limit: int = 1000) -> list[TaskRow]:
        """The tasks submitted last, the newest first, without `call` and `payload`."""
        with self._lock:
            newest = heapq.nlargest(limit, self._rows.values(), key=lambda row: (row.submitted, row.task))
            return [msgspec.structs.replace(row, call=None, payload=None) for row in newest]

    def count(self) -> int:
        """How many tasks are remembered."""
        return len(self._rows)

    def engines(self) -> list[EngineRow]:
        """Every life of an engine."""
        with self._lock:
            rows = [msgspec.structs.replace(row) for row in self._engines.values()]
        return sorted(rows, key=lambda row: (row.joined, row.key))

    def clients(self) -> list[h.ClientSeen]:
        """Every client, as it was seen last."""
        with self._lock:
            return list(self._clients.values())

    def unfinished(self) -> Iterator[h.TaskAccepted]:
        """The tasks that have not ended, in the order of their ids."""
        with self._lock:
            calls = [row.call for row in self._rows.values() if row.status is None and row.call is not None]
        return iter(sorted(calls, key=lambda call: call.task))

    def blobs(self) -> Iterator[h.BlobKept]:
        """The blobs that are kept."""
        with self._lock:
            return iter([h.BlobKept(blob, data) for blob, data in self._blobs.items()])


def _new_row(accepted: h.TaskAccepted) -> TaskRow:
    options = accepted.options
    return TaskRow(
        task=accepted.task,
        kind=options.kind,
        name=options.name,
        label=options.label,
        engine=accepted.engine,
        submitted=accepted.submitted,
        call=accepted,
    )


def _first(queue: Iterable[Item], count: int) -> list[Item]:
    return list(itertools.islice(queue, max(0, count)))
