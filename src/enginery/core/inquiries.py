"""What the core asks the history, and what it is told.

The history is on a disk and reading it takes its time, so the core never does: it says what it wants to know
(an *inquiry*), the service has a thread find it, and what was *found* comes back as a fact, in pages of
bounded size where it may be much: of what a client has asked the next page comes when the core says so. An
inquiry sees everything that the core remembered before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from enginery.core.watching import Saying
from enginery.ids import BlobId, ClientId, EngineId, EngineKey, TaskId, format_task_id
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import (
    HistoryRecord,
    StoredCall,
    TaskResult,
    Term,
    text_size,
)

TASKS_NAMED = 5


class Asker(NamedTuple):
    """Whom an answer is for: one connection of a client, which asks again after its next hello."""

    client: ClientId
    request: int
    epoch: int


# ---------------------------------------------------------------- asked


class FindResults(NamedTuple):
    """How these tasks ended."""

    asker: Asker
    tasks: list[TaskId]


class FindCalls(NamedTuple):
    """What was submitted as these tasks."""

    asker: Asker
    tasks: list[TaskId]


class FindRecords(NamedTuple):
    """Which tasks meet all terms."""

    asker: Asker
    terms: list[Term]
    with_payloads: bool


class FindEnded(NamedTuple):
    """Which tasks have ended: of those named, of those of these engines, or of all."""

    asker: Asker
    tasks: list[TaskId]
    engines: list[EngineId]
    everything: bool


class FindEnds(NamedTuple):
    """Whether tasks that others depend on have returned, and where: (who depends, on which)."""

    asked: list[tuple[TaskId, tuple[TaskId, ...]]]


class FindDeliveries(NamedTuple):
    """How these tasks ended, to be delivered to a client; all that was kept of them."""

    client: ClientId
    tasks: list[TaskId]


PagedInquiry: TypeAlias = FindResults | FindCalls | FindRecords
Inquiry: TypeAlias = PagedInquiry | FindEnded | FindEnds | FindDeliveries


class NextPage(NamedTuple):
    """The next page of this answer is wanted."""

    asker: Asker


class NoMorePages(NamedTuple):
    """Nobody waits for the rest of this answer."""

    asker: Asker


Order: TypeAlias = Inquiry | NextPage | NoMorePages

# ---------------------------------------------------------------- found


class Ended(NamedTuple):
    """How a task ended, and what it has said, which is not in the result."""

    result: TaskResult
    said: list[Saying]
    buffers: dict[BlobId, Buffer]
    """Those of the result's blobs that the history has."""


class ResultsFound(NamedTuple):
    """UNKNOWN and DROPPED ones among them."""

    asker: Asker
    ended: list[Ended]
    is_last: bool


class DeliveriesFound(NamedTuple):
    client: ClientId
    ended: list[Ended]
    is_last: bool


class CallsFound(NamedTuple):
    asker: Asker
    calls: list[StoredCall]
    missing: list[TaskId]
    is_last: bool


class RecordsFound(NamedTuple):
    asker: Asker
    records: list[HistoryRecord]
    is_last: bool


class EndedFound(NamedTuple):
    """`error` says which of those that were named there are not."""

    asker: Asker
    tasks: list[TaskId]
    error: str
    is_last: bool = True


class End(NamedTuple):
    """How a task ended."""

    ok: bool
    engine: EngineId
    engine_key: EngineKey  # the life of the engine


class EndsFound(NamedTuple):
    """What is not in `ends` nobody knows."""

    inquiry: FindEnds
    ends: dict[TaskId, End]
    is_last: bool = True


class InquiryFailed(NamedTuple):
    """The history could not be read, or the question has no meaning; `error` is a sentence."""

    inquiry: Inquiry
    error: str
    is_last: bool = True


Found: TypeAlias = (
    ResultsFound | DeliveriesFound | CallsFound | RecordsFound | EndedFound | EndsFound | InquiryFailed
)


def list_tasks(tasks: Sequence[TaskId]) -> str:
    """Tasks, for a sentence; the first of them by their ids."""
    first = ", ".join(map(format_task_id, tasks[:TASKS_NAMED]))
    others = f" and {len(tasks) - TASKS_NAMED} more" if len(tasks) > TASKS_NAMED else ""
    return f"{'task' if len(tasks) == 1 else 'tasks'} {first}{others}"


def call_size(call: StoredCall) -> int:
    """What a call weighs in a header."""
    options = call.options
    texts = text_size(options.name) + text_size(options.label) + sum(map(text_size, options.retry_on or ()))
    return 160 + len(call.payload) + 17 * len(call.blobs) + 9 * len(options.candidates) + texts


def record_size(record: HistoryRecord) -> int:
    """What a record weighs in a header."""
    texts = (record.name, record.label, record.detail, record.stdout, record.stderr)
    return 160 + len(record.call) + len(record.result) + sum(map(text_size, texts))
