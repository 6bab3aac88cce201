"""The history in memory: for clusters that keep nothing in files, and for what comes after a broken disk.

A batch is committed when `append` returns. All bounds hold after every batch.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

from enginery.controller.store.buffers import BufferFiles, KeptBuffers
from enginery.controller.store.conditions import Condition
from enginery.controller.store.rows import EngineRow, Place, TaskRow
from enginery.controller.store.store import (
    MEMORY_LIMITS,
    SEEN_LIMIT,
    TEXT_LIMIT_BYTES,
    Limits,
    StoreStatistics,
    publish,
    valid_time,
)
from enginery.controller.store.written_behind import WrittenBehind
from enginery.core.left_over import Undelivered
from enginery.ids import (
    NO_ENGINE,
    BlobId,
    ClientId,
    EngineId,
    EngineKey,
    TaskId,
    task_client,
    task_number,
)
from enginery.protocol import history as h
from enginery.protocol.codec import Buffer
from enginery.protocol.history import HistoryFact
from enginery.protocol.messages import Ranges
from enginery.protocol.ranges import collect_ranges
from enginery.transport import clock

Item = TypeVar("Item")

_IN_FILE = b"in a file"
"""Stands for a payload that is owed."""

log = logging.getLogger("enginery.controller.store")


class MemoryStore:
    """A `HistoryStore` that ends with its process.

    `record_limit` bounds the tasks that are remembered (those that have not ended always are),
    `payload_limit_bytes` what is kept of ended ones' payloads. What is owed is not in memory but in `files`,
    as large buffers are; they go with the store.
    """

    def __init__(
        self,
        *,
        record_limit: int = MEMORY_LIMITS.records,
        payload_limit_bytes: int = MEMORY_LIMITS.payload_bytes,
        payload_age_s: float | None = None,
        record_age_s: float | None = None,
        files: BufferFiles | WrittenBehind | None = None,
        now: Callable[[], float] = clock.now,
    ) -> None:
        self._files: BufferFiles | WrittenBehind = files or BufferFiles()
        self.limits = Limits(record_limit, payload_limit_bytes, payload_age_s, record_age_s)
        self._now = now
        self._lock = threading.Lock()
        self._rows: dict[TaskId, TaskRow] = {}
        # Dictionaries as ordered sets, oldest first: what may be forgotten, and what has payloads.
        self._ended: dict[TaskId, None] = {}
        self._owed: set[TaskId] = set()  # which have ended too
        self._delivered_payloads: dict[TaskId, None] = {}
        self._other_payloads: dict[TaskId, None] = {}
        self._payload_bytes = 0
        self._engines: dict[EngineKey, EngineRow] = {}
        self._gone: dict[EngineKey, None] = {}
        self._clients: dict[ClientId, h.ClientSeen] = {}
        self._gone_clients: dict[ClientId, None] = {}
        self._places: dict[TaskId, Place] = {}  # of unfinished tasks
        self._blob_places: dict[BlobId, h.BlobPlaced] = {}
        self._buffered: set[BlobId] = set()  # which are kept as results' buffers
        self._blobs: dict[BlobId, bytes] = {}
        self._commits = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self._rows)} tasks, {self._payload_bytes} payload bytes>"

    # ------------------------------------------------------------ facts

    def append(
        self,
        facts: Sequence[HistoryFact],
        *,
        buffers: KeptBuffers = (),
        on_committed: Callable[[], None] | None = None,
    ) -> bool:
        """Take over one batch and call `on_committed` at once, on this thread.

        False after `close`, and while too much waits for the files.
        """
        with self._lock:
            if self._closed or not self._files.has_room:
                return False
            if buffers:
                self._write(buffers)
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
            case h.TaskEnded():
                self._end(fact)
            case h.TaskDelivered(task):
                self._deliver(task)
            case h.TaskText():
                self._add_text(fact)
            case h.TaskData() | h.TaskDisplay():
                self._publish(fact)
            case h.BuffersKept(task, blobs, size_bytes):
                self._keep_buffers(task, blobs, size_bytes)
            case h.ResultsReleased(tasks):
                for task in tasks:
                    self._release(task)
            case h.TasksPurged(tasks):
                for task in tasks:
                    if (row := self._rows.get(task)) is not None and row.status is not None:
                        self._release(task)
                        self._forget_task(task)
            case h.TasksMoved(key, places):
                for task, attempt, retries_left in places:
                    row = self._rows.get(task)
                    if row is not None and row.status is None:
                        self._places[task] = Place(task, key, attempt, retries_left)
            case _:
                self._learn_of_others(fact)

    def _learn_of_others(self, fact: HistoryFact) -> None:
        """What is no fact about a task."""
        match fact:
            case h.BlobKept(blob, data):
                self._blobs.setdefault(blob, data)
            case h.BlobDropped(blob):
                self._blobs.pop(blob, None)
                if self._blob_places.pop(blob, None) is not None and blob not in self._buffered:
                    self._files.remove([blob])
            case h.BlobPlaced(blob):
                self._blob_places[blob] = fact
            case h.EngineJoined() | h.EngineGone():
                self._see_engine(fact)
            case h.ClientSeen(client):
                self._clients.pop(client, None)  # to the end: the order is that of being seen
                self._gone_clients.pop(client, None)
                self._clients[client] = fact
            case h.ClientGone(client):
                if self._clients.pop(client, None) is not None:
                    self._gone_clients[client] = None

    def _end(self, fact: h.TaskEnded) -> None:
        result = fact.result
        row = self._rows.get(result.task)
        if row is None or row.status is not None:
            return
        self._places.pop(result.task, None)
        row.status = result.status
        row.engine = result.engine
        row.engine_key = result.engine_key
        row.started = valid_time(result.started)
        row.completed = valid_time(result.completed)
        row.stdout = (row.stdout + result.stdout)[-TEXT_LIMIT_BYTES:]
        row.stderr = (row.stderr + result.stderr)[-TEXT_LIMIT_BYTES:]
        row.detail = result.detail
        row.payload = result.payload
        row.blobs = result.blobs
        row.published.report = result.report
        if fact.is_owed:
            self._owe(row)
            return
        self._ended[row.task] = None
        self._other_payloads[row.task] = None
        self._count_payload(row)

    def _owe(self, row: TaskRow) -> None:
        row.owed = True
        self._owed.add(row.task)
        if row.payload:
            is_written = self._write([(_payload_name(row.task), [row.payload])])
            row.payload = _IN_FILE if is_written else None

    def _release(self, task: TaskId) -> None:
        row = self._rows.get(task)
        if row is None or not row.owed:
            return
        row.payload = self._payload(row)
        self._files.remove([_payload_name(task)])
        row.owed = False
        self._owed.discard(task)
        self._ended[task] = None
        (self._delivered_payloads if row.delivered else self._other_payloads)[task] = None
        self._count_payload(row)

    def _payload(self, row: TaskRow) -> bytes | None:
        if row.payload is not _IN_FILE:
            return row.payload
        kept = self._files.read(_payload_name(row.task))
        return None if kept is None else bytes(kept)

    def _keep_buffers(self, task: TaskId, blobs: list[BlobId], size_bytes: int) -> None:
        row = self._rows.get(task)
        if row is None or row.status is None or row.payload is None:
            self._files.remove(blobs)
            return
        row.buffer_bytes = size_bytes
        self._buffered.update(blobs)
        self._count_payload(row)

    def _write(self, buffers: KeptBuffers) -> bool:
        try:
            self._files.write(buffers)
        except OSError as error:
            log.error("results that nobody takes cannot be kept in %r: %s", self._files, error)
            return False
        return True

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

    def _publish(self, fact: h.TaskData | h.TaskDisplay) -> None:
        row = self._rows.get(fact.task)
        if row is None or (row.status is not None and row.payload is None):
            return
        publish(row.published, fact)
        if row.status is not None:
            self._count_payload(row)

    def _see_engine(self, fact: h.EngineJoined | h.EngineGone) -> None:
        if isinstance(fact, h.EngineJoined):
            info = fact.info
            self._gone.pop(info.key, None)
            self._engines[info.key] = EngineRow(
                key=info.key,
                engine=info.engine,
                host=info.host,
                pid=info.pid,
                joined=fact.at,
                secret=fact.secret,
                host_key=fact.host_key,
            )
            return
        left = fact.left
        row = self._engines.setdefault(left.key, EngineRow(key=left.key, engine=left.engine))
        row.left = fact.at
        row.cause = left.cause
        self._gone[left.key] = None

    # ------------------------------------------------------------ bounds

    def _count_payload(self, row: TaskRow) -> None:
        if row.owed:
            return
        size = row.buffer_bytes + len(row.stdout) + len(row.stderr) + len(h.encode_published(row.published))
        if row.call is not None:
            size += len(row.call.payload)
        if row.payload is not None:
            size += len(row.payload)
        self._payload_bytes += size - row.payload_bytes
        row.payload_bytes = size

    def _forget(self) -> None:
        if self.limits.has_ages:
            self._forget_old()
        while self._payload_bytes > self.limits.payload_bytes:
            queue = self._delivered_payloads or self._other_payloads
            self._drop_payload(self._rows[next(iter(queue))])
        for task in _first(self._ended, len(self._rows) - self.limits.records):
            self._forget_task(task)
        for key in _first(self._gone, len(self._gone) - SEEN_LIMIT):
            del self._gone[key]
            del self._engines[key]
        for client in _first(self._clients, len(self._clients) - SEEN_LIMIT):
            del self._clients[client]
        for client in _first(self._gone_clients, len(self._gone_clients) - SEEN_LIMIT):
            del self._gone_clients[client]

    def _forget_old(self) -> None:
        """Tasks stand in the order of their ends here."""
        if self.limits.payload_age_s is not None:
            for queue in (self._delivered_payloads, self._other_payloads):
                for task in self._ended_before(queue, self._now() - self.limits.payload_age_s):
                    self._drop_payload(self._rows[task])
        if self.limits.record_age_s is not None:
            for task in self._ended_before(self._ended, self._now() - self.limits.record_age_s):
                self._forget_task(task)

    def _ended_before(self, queue: Iterable[TaskId], at: float) -> list[TaskId]:
        return list(itertools.takewhile(lambda task: self._rows[task].completed < at, queue))

    def _forget_task(self, task: TaskId) -> None:
        self._drop_payload(self._rows[task])
        del self._ended[task]
        del self._rows[task]

    def _drop_payload(self, row: TaskRow) -> None:
        self._delivered_payloads.pop(row.task, None)
        self._other_payloads.pop(row.task, None)
        self._payload_bytes -= row.payload_bytes
        row.payload_bytes = 0
        if row.buffer_bytes:
            self._buffered.difference_update(row.blobs)
            self._files.remove(row.blobs)
            row.buffer_bytes = 0
        row.call = row.payload = None
        row.blobs = ()
        row.stdout = row.stderr = ""
        row.published = h.Published()

    # ------------------------------------------------------------ life

    def flush(self, timeout_s: float) -> bool:
        """Wait until what belongs in files is there; all else is committed already."""
        return self._files.flush(timeout_s)

    def close(self) -> None:
        """Take no further facts; what is remembered in memory can still be asked for."""
        with self._lock:
            self._closed = True
            self._files.remove_all()

    def statistics(self) -> StoreStatistics:
        """Counts as they stand."""
        with self._lock:
            return StoreStatistics(
                records=len(self._rows),
                unfinished=len(self._rows) - len(self._ended) - len(self._owed),
                payload_bytes=self._payload_bytes,
                commits=self._commits,
            )

    # ------------------------------------------------------------ queries

    # Whoever appends waits for the lock, so nothing is searched or sorted under it.

    def task(self, task_id: TaskId) -> TaskRow | None:
        """Everything known of a task."""
        with self._lock:
            if self.limits.has_ages:
                self._forget_old()
            row = self._rows.get(task_id)
            if row is None:
                return None
            return msgspec.structs.replace(row, published=row.published.copy(), payload=self._payload(row))

    def buffer(self, blob: BlobId) -> Buffer | None:
        """A large buffer of a result, if it is kept."""
        return self._files.read(blob)

    def remembers(self, task_id: TaskId) -> bool:
        """Whether a task is known."""
        return task_id in self._rows

    def find(self, tasks: Iterable[TaskId], *, with_payloads: bool = True) -> Iterator[TaskRow]:
        """What is known of these tasks, in the order of their ids; unknown ones are left out."""
        for row in self._in_order(sorted(set(tasks))):
            yield row if with_payloads else row.without_payloads()

    def search(self, conditions: Sequence[Condition], *, with_payloads: bool) -> Iterator[TaskRow]:
        """The tasks for which all conditions hold, the oldest submission first."""
        with self._lock:
            tasks = [(row.submitted, row.task) for row in self._rows.values()]
        for row in self._in_order(task for _, task in sorted(tasks)):
            if all(condition.holds(row) for condition in conditions):
                yield row if with_payloads else row.without_payloads()

    def _in_order(self, tasks: Iterable[TaskId]) -> Iterator[TaskRow]:
        for task in tasks:
            if (row := self.task(task)) is not None:
                yield row

    def ended_tasks(self, engines: Collection[EngineId] | None = None) -> list[TaskId]:
        """The tasks that have ended, in the order of their ids: on these engines, or all."""
        with self._lock:
            ended = (*self._ended, *self._owed)
            tasks = [task for task in ended if engines is None or self._rows[task].engine in engines]
        return sorted(tasks)

    def tasks(self, *, limit: int = 1000) -> list[TaskRow]:
        """The tasks submitted last, the newest first, without `call` and `payload`."""
        with self._lock:
            newest = heapq.nlargest(limit, self._rows.values(), key=lambda row: (row.submitted, row.task))
            nothing = h.Published()
            return [
                msgspec.structs.replace(row, call=None, payload=None, published=nothing) for row in newest
            ]

    def count(self) -> int:
        """How many tasks are remembered."""
        return len(self._rows)

    def engines(self) -> list[EngineRow]:
        """Every life of an engine."""
        with self._lock:
            rows = [msgspec.structs.replace(row) for row in self._engines.values()]
        return sorted(rows, key=lambda row: (row.joined, row.key))

    def clients(self) -> list[h.ClientSeen]:
        """Every client that has not left, as it was seen last."""
        with self._lock:
            return list(self._clients.values())

    def gone_clients(self) -> list[ClientId]:
        """Those that have left."""
        with self._lock:
            return list(self._gone_clients)

    def numbers(self, client: ClientId) -> Ranges:
        """The numbers of this client's tasks that are remembered."""
        with self._lock:
            return collect_ranges(task_number(task) for task in self._rows if task_client(task) == client)

    def blob_places(self) -> list[h.BlobPlaced]:
        """Where blobs are that are needed."""
        with self._lock:
            return list(self._blob_places.values())

    def undelivered(self, client: ClientId) -> list[Undelivered]:
        """Its results that are not known to have arrived."""
        with self._lock:
            rows = [row for row in self._rows.values() if row.client == client and row.status is not None]
        rows.sort(key=lambda row: (row.completed, row.task))
        return [
            Undelivered(row.task, len(row.payload or b"") + row.buffer_bytes, row.blobs)
            for row in rows
            if not row.delivered
        ]

    def places(self) -> list[Place]:
        """Where unfinished tasks are."""
        with self._lock:
            return sorted(self._places.values())

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
        first=accepted.first or accepted.task,
        kind=options.kind,
        name=options.name,
        label=options.label,
        engine=accepted.engine,
        direct=accepted.engine != NO_ENGINE,
        submitted=valid_time(accepted.submitted),
        call=accepted,
    )


def _first(queue: Iterable[Item], count: int) -> list[Item]:
    return list(itertools.islice(queue, max(0, count)))


def _payload_name(task: TaskId) -> BlobId:
    """What a payload is called among buffers."""
    return BlobId(b"payload:" + task.to_bytes(8, "big"))
