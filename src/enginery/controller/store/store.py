"""What every history store promises, and the rows that it answers with.

The controller's loop hands over facts in batches and goes on at once; whoever asks gets rows. A store never
decides anything: the scheduler's record is the only truth while a task lives, the store is where it is
remembered.

Rules, the same for all stores:

* Only ended tasks are ever forgotten, the oldest first: their payloads when `payload_limit_bytes` is passed
  (those that their client has acknowledged before the others), their rows when `record_limit` is.
* Facts about a task that was never accepted, or has been forgotten, are ignored; its first end counts.
* Text of a task is kept up to `TEXT_LIMIT_BYTES` per stream, the last of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec

from enginery.errors import EngineryError
from enginery.ids import BlobId, ClientId, EngineId, EngineKey, TaskId, task_client, task_number
from enginery.protocol.history import BlobKept, ClientSeen, HistoryFact, TaskAccepted
from enginery.protocol.messages import Kind, Status

TEXT_LIMIT_BYTES = 1 << 20
"""Of each of stdout and stderr of one task."""
SEEN_LIMIT = 10_000
"""Engines that have left, and clients, that are remembered."""


class HistoryError(EngineryError, OSError):
    """Say that the history cannot be read or written, and what to do about it."""

    def __init__(self, path: str, problem: str, advice: str) -> None:
        super().__init__(path, problem, advice)
        self.path = path
        self.problem = problem
        self.advice = advice

    def __str__(self) -> str:
        return f"the history {self.path} {self.problem}; {self.advice}"


class TaskRow(msgspec.Struct, kw_only=True):
    """What is known of one task. Times are seconds since the epoch, 0 = never."""

    task: TaskId
    kind: Kind
    name: str
    label: str
    status: Status | None = None  # None = has not ended
    engine: EngineId  # where it ran; before its end the engine it is addressed to
    submitted: float
    started: float = 0.0
    completed: float = 0.0
    delivered: bool = False  # its client has acknowledged the result
    payload_bytes: int = 0  # kept in `call`, `payload` and the text of an ended task; these go together
    stdout: str = ""
    stderr: str = ""
    detail: str = ""
    blobs: tuple[BlobId, ...] = ()  # of the result
    call: TaskAccepted | None = None  # None = dropped, or not asked for
    payload: bytes | None = None  # None = has not ended, dropped, or not asked for

    @property
    def client(self) -> ClientId:
        return task_client(self.task)

    @property
    def number(self) -> int:
        return task_number(self.task)


class EngineRow(msgspec.Struct, kw_only=True):
    """One life of an engine. Times are seconds since the epoch, 0 = never."""

    key: EngineKey
    engine: EngineId
    host: str = ""
    pid: int = 0
    joined: float = 0.0
    left: float = 0.0
    cause: str = ""


class StoreStatistics(msgspec.Struct, kw_only=True):
    """Where a store stands. Cheap to take, and nothing waits for it."""

    records: int
    unfinished: int
    payload_bytes: int  # kept of ended tasks
    queued_bytes: int = 0  # handed over, not committed yet
    unfilled_facts: int = 0  # committed to the journal, not copied to the tables yet
    commits: int = 0
    failure: str = ""  # why nothing is written any more; empty = all is well


class HistoryStore(Protocol):
    """Where the controller remembers.

    `append` belongs to one thread, the controller's loop. Everything else may be called from any thread,
    but not from inside an `on_committed`.
    """

    def append(self, facts: Sequence[HistoryFact], *, on_committed: Callable[[], None] | None = None) -> bool:
        """Take over one batch of facts; never blocks and never raises for want of disk.

        `on_committed` is called once, from any thread, when the batch is as safe as this store makes it.
        Batches are committed in the order in which they came.

        False: the queue is full (or the store closed). Nothing of the batch was taken and its `on_committed`
        will not be called. Keep the facts, accept no new tasks, and offer them again when an earlier
        `on_committed` has been called.
        """

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was appended is committed; False if `timeout_s` passed before."""

    def close(self) -> None:
        """Commit what was appended and let go of threads and files. May be called twice."""

    def statistics(self) -> StoreStatistics:
        """Counts as they stand, without waiting for the disk."""

    # Queries run on the caller's thread and see all that is committed when they are asked.

    def task(self, task_id: TaskId) -> TaskRow | None:
        """Everything known of a task; None if it was never accepted or has been forgotten."""

    def tasks(self, *, limit: int = 1000) -> list[TaskRow]:
        """The tasks submitted last, the newest first, without `call` and `payload`."""

    def count(self) -> int:
        """How many tasks are remembered."""

    def engines(self) -> list[EngineRow]:
        """Every life of an engine, in the order of joining."""

    def clients(self) -> list[ClientSeen]:
        """Every client, as it was seen last, in the order of that."""

    def unfinished(self) -> Iterator[TaskAccepted]:
        """The tasks that have not ended, in the order of their ids: what a restored controller runs."""

    def blobs(self) -> Iterator[BlobKept]:
        """The blobs that are kept, in the order in which they came."""
