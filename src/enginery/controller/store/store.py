"""What every history store promises, and the rows that it answers with.

The controller's loop hands over facts in batches and goes on at once; whoever asks gets rows. A store never
decides anything: the scheduler's record is the only truth while a task lives, the store is where it is
remembered.

Rules, the same for all stores:

* *Payloads* are the call, the result, the text, the displays and the published values of a task; they go
  together. So do the large buffers of its result, where the store was given those: they lie in files of their
  own (`buffers`).
* What is *owed* (`TaskEnded.is_owed`) is kept whatever the bounds say, and counts when it is released.
* Only ended tasks are ever forgotten, the oldest first: their payloads when `payload_limit_bytes` is passed
  (those that their client has acknowledged before the others), their rows when `record_limit` is. Where
  `payload_age_s` and `record_age_s` are given, so are payloads and rows of tasks that ended longer ago.
* Facts about a task that was never accepted, or has been forgotten, are ignored; its first end counts. Those
  that are purged are forgotten at once, if they have ended.
* Text of a task is kept up to `TEXT_LIMIT_BYTES` per stream, the last of it; likewise its displays, up to
  `DISPLAYS_LIMIT_BYTES`. Of the values that it publishes one that would bring all of them above
  `VALUES_LIMIT_BYTES` is not kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import msgspec

from enginery.controller.store.buffers import KeptBuffers
from enginery.controller.store.conditions import Condition
from enginery.controller.store.rows import EngineRow, Place, TaskRow
from enginery.core.left_over import Undelivered
from enginery.ids import BlobId, ClientId, EngineId, TaskId
from enginery.protocol.codec import Buffer
from enginery.protocol.history import (
    BlobKept,
    BlobPlaced,
    ClientSeen,
    HistoryFact,
    KeptDisplay,
    Published,
    TaskAccepted,
    TaskData,
    TaskDisplay,
    TaskEnded,
)
from enginery.protocol.messages import Ranges

TEXT_LIMIT_BYTES = 1 << 20
"""Of each of stdout and stderr of one task."""
DISPLAYS_LIMIT_BYTES = 8 << 20
"""Of all displays of one task."""
VALUES_LIMIT_BYTES = 1 << 20
"""Of all values that one task publishes, names included."""
ENDED_WITH_CLUSTER = "its cluster has ended, and was started anew"
NOT_TAKEN_OVER = "its cluster has ended before it, and was started anew without taking it over"
SEEN_LIMIT = 10_000
"""Engines that have left, and clients, that are remembered."""


class Limits(NamedTuple):
    """What a store keeps at most; see the rules above. An age of None is no limit."""

    records: int
    payload_bytes: int
    payload_age_s: float | None = None
    record_age_s: float | None = None

    @property
    def has_ages(self) -> bool:
        return self.payload_age_s is not None or self.record_age_s is not None


MEMORY_LIMITS = Limits(100_000, 64 << 20)
FILE_LIMITS = Limits(1_000_000, 256 << 20)


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

    def append(
        self,
        facts: Sequence[HistoryFact],
        *,
        buffers: KeptBuffers = (),
        on_committed: Callable[[], None] | None = None,
    ) -> bool:
        """Take over one batch of facts, and the buffers that they speak of; never raises for want of disk.

        `on_committed` is called once, from any thread, when the batch is as safe as this store makes it.
        Batches are committed in the order in which they came. A buffer that cannot be written is missing when
        it is asked for.

        False: the queue is full (or the store closed). Nothing of the batch was taken and its `on_committed`
        will not be called. Keep the facts, accept no new tasks, and offer them again, as they are and first,
        when an earlier `on_committed` has been called.
        """

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was appended is committed; False if `timeout_s` passed before."""

    def close(self) -> None:
        """Commit what was appended and let go of threads and files. May be called twice."""

    def statistics(self) -> StoreStatistics:
        """Counts as they stand, without waiting for the disk."""

    # Queries run on the caller's thread and see all that is committed when they are asked.

    def buffer(self, blob: BlobId) -> Buffer | None:
        """A buffer that is kept; None if it is not. It stays whole as long as somebody holds it."""

    def task(self, task_id: TaskId) -> TaskRow | None:
        """Everything known of a task; None if it was never accepted or has been forgotten."""

    def tasks(self, *, limit: int = 1000) -> list[TaskRow]:
        """The tasks submitted last, the newest first, without `call` and `payload`."""

    def find(self, tasks: Iterable[TaskId], *, with_payloads: bool = True) -> Iterator[TaskRow]:
        """What is known of these tasks, in the order of their ids; unknown ones are left out.

        Read piece by piece while it is consumed.
        """

    def search(self, conditions: Sequence[Condition], *, with_payloads: bool) -> Iterator[TaskRow]:
        """The tasks for which all conditions hold, the oldest submission first.

        Read piece by piece while it is consumed.
        """

    def ended_tasks(self, engines: Collection[EngineId] | None = None) -> list[TaskId]:
        """The tasks that have ended, in the order of their ids: on these engines, or all."""

    def count(self) -> int:
        """How many tasks are remembered."""

    def engines(self) -> list[EngineRow]:
        """Every life of an engine, in the order of joining."""

    def clients(self) -> list[ClientSeen]:
        """Every client that has not left, as it was seen last, in the order of that."""

    def gone_clients(self) -> list[ClientId]:
        """Those that have left, in the order of that."""

    def numbers(self, client: ClientId) -> Ranges:
        """The numbers of this client's tasks that are remembered."""

    def undelivered(self, client: ClientId) -> list[Undelivered]:
        """Its tasks that have ended without its word that it has their results."""

    def places(self) -> list[Place]:
        """Where unfinished tasks are; those that never were in an engine are missing."""

    def unfinished(self) -> Iterator[TaskAccepted]:
        """The tasks that have not ended, in the order of their ids: what a restored controller runs."""

    def blob_places(self) -> list[BlobPlaced]:
        """Where further blobs are that unfinished tasks or undelivered results need."""

    def blobs(self) -> Iterator[BlobKept]:
        """The blobs that are kept, in the order in which they came."""


def publish(published: Published, fact: TaskData | TaskDisplay | TaskEnded) -> None:
    """Add what a task has published, displayed or reported, as far as there is room for it."""
    if isinstance(fact, TaskEnded):
        published.report = published.report or fact.result.report  # the first end counts
        return
    if isinstance(fact, TaskDisplay):
        published.displays.append(KeptDisplay(fact.kind, fact.content, fact.offset, fact.is_last))
        published.display_bytes += len(fact.content)
        while published.display_bytes > DISPLAYS_LIMIT_BYTES:
            published.display_bytes -= len(published.displays.pop(0).content)
            published.dropped += 1
        return
    values, name, payload = published.values, fact.name, fact.payload
    others = sum(len(other) + len(value) for other, value in values.items() if other != name)
    if others + len(name) + len(payload) <= VALUES_LIMIT_BYTES:
        values[name] = payload


def valid_time(seconds: float) -> float:
    """A time in whole microseconds, as users are shown it, so that asking for that time finds it.

    What is not a number, an engine may say that, is no time, and would be NULL in a table.
    """
    return 0.0 if math.isnan(seconds) else round(seconds, 6)
