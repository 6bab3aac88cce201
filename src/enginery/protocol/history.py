"""What the controller remembers: typed facts, from the core to the history store and to its journal.

Like the records of a connection these are one closed union, arrays on disk, tagged with a number. The order
of facts is the order in which they became true: a task is accepted before it ends, ends before it is
delivered, and a blob is kept before the first task that names it. Numbers of tags are never used again: a
journal outlives the program that wrote it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from enginery.ids import NO_ENGINE, BlobId, ClientId, EngineId, TaskId
from enginery.protocol.messages import EngineInfo, EngineLeft, Record, TaskOptions, TaskResult

# ---------------------------------------------------------------- tasks


class TaskAccepted(Record, tag=1):
    """A task as it came, complete enough to be run by another life of the controller."""

    task: TaskId
    submitted: float  # seconds since the epoch
    options: TaskOptions
    payload: bytes
    blobs: tuple[BlobId, ...] = ()
    engine: EngineId = NO_ENGINE  # target of a direct task; NO_ENGINE = balanced


class TaskEnded(Record, tag=2):
    """The final word on a task; retries that went before are no facts of their own."""

    result: TaskResult


class TaskDelivered(Record, tag=3):
    """The task's client has acknowledged the result: nobody waits for it any longer."""

    task: TaskId


class TaskText(Record, tag=4):
    """Text that a task wrote while it ran, sent on its own; `TaskResult` holds the rest."""

    task: TaskId
    engine: EngineId
    stream: str  # "stdout" | "stderr"
    text: str


# ---------------------------------------------------------------- blobs, engines, clients


class BlobKept(Record, tag=10):
    """A blob that tasks will name more than once, functions above all."""

    blob: BlobId
    data: bytes


class BlobDropped(Record, tag=11):
    """No unfinished task names this blob and none will, unless it is kept anew."""

    blob: BlobId


class EngineJoined(Record, tag=20):
    info: EngineInfo
    at: float


class EngineGone(Record, tag=21):
    left: EngineLeft
    at: float


class ClientSeen(Record, tag=22):
    """A client has said hello; its secret is what later hellos under this id must repeat."""

    client: ClientId
    secret: bytes
    at: float


HistoryFact: TypeAlias = (
    TaskAccepted
    | TaskEnded
    | TaskDelivered
    | TaskText
    | BlobKept
    | BlobDropped
    | EngineJoined
    | EngineGone
    | ClientSeen
)


# ---------------------------------------------------------------- bytes

_encode = msgspec.msgpack.Encoder().encode
_decode_journal = msgspec.msgpack.Decoder(list[list[HistoryFact]]).decode
_decode_call = msgspec.msgpack.Decoder(TaskAccepted).decode


class MalformedHistory(Exception):
    """Bytes that are no facts of this version of the program."""


def encode_facts(facts: Sequence[HistoryFact]) -> bytes:
    """One batch of facts as bytes, for `join_batches`."""
    return _encode(facts)


def join_batches(batches: Sequence[bytes]) -> bytes:
    """What several calls of `encode_facts` gave, as one entry of the journal."""
    return _encode([msgspec.Raw(batch) for batch in batches])


def decode_journal(entry: bytes) -> list[HistoryFact]:
    """All facts of an entry of the journal, in order; raises `MalformedHistory`."""
    try:
        return [fact for batch in _decode_journal(entry) for fact in batch]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedHistory(f"not an entry of the journal: {error}") from None


def encode_call(accepted: TaskAccepted) -> bytes:
    """One accepted task as bytes, for `decode_call`."""
    return _encode(accepted)


def decode_call(data: bytes) -> TaskAccepted:
    """The inverse of `encode_call`; raises `MalformedHistory`."""
    try:
        return _decode_call(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedHistory(f"not an accepted task: {error}") from None
