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

from enginery.ids import NO_ENGINE, BlobId, ClientId, EngineId, EngineKey, HostKey, TaskId
from enginery.protocol.messages import EngineInfo, EngineLeft, Record, Report, TaskOptions, TaskResult

# ---------------------------------------------------------------- tasks


class TaskAccepted(Record, tag=1):
    """A task as it came, complete enough to be run by another life of the controller."""

    task: TaskId
    submitted: float  # seconds since the epoch
    options: TaskOptions
    payload: bytes
    blobs: tuple[BlobId, ...] = ()
    engine: EngineId = NO_ENGINE  # target of a direct task; NO_ENGINE = balanced
    first: TaskId = TaskId(0)  # of the tasks of what its user called; 0 = itself
    parent: TaskId = TaskId(0)  # that has made it while it ran; 0 = none


class TaskEnded(Record, tag=2):
    """The final word on a task; retries that went before are no facts of their own."""

    result: TaskResult
    is_owed: bool = False  # nobody but the store has it for those it is for, until `ResultsReleased`


class TaskDelivered(Record, tag=3):
    """The task's client has acknowledged the result: nobody waits for it any longer."""

    task: TaskId


class TaskText(Record, tag=4):
    """Text that a task wrote while it ran, sent on its own; `TaskResult` holds the rest."""

    task: TaskId
    engine: EngineId
    stream: str  # "stdout" | "stderr"
    text: str


class TaskData(Record, tag=5):
    """A value that a task has published under a name; the last one counts."""

    task: TaskId
    name: str
    payload: bytes


class TasksPurged(Record, tag=6):
    """These ended tasks are to be forgotten."""

    tasks: list[TaskId]


class TaskDisplay(Record, tag=7):
    """What a task has shown in rich form, or a piece of it; see `messages.Display`."""

    task: TaskId
    kind: str
    content: bytes
    offset: int = 0
    is_last: bool = True


class BuffersKept(Record, tag=8):
    """The large buffers of an ended task's result, which the store is given beside the facts."""

    task: TaskId
    blobs: list[BlobId]
    size_bytes: int  # of all


class ResultsReleased(Record, tag=9):
    """These results are owed to nobody any more: they may be forgotten as those of other tasks."""

    tasks: list[TaskId]


class TasksMoved(Record, tag=12):
    """Unfinished tasks are in an engine now, or (no key) wait again after having been in one."""

    key: EngineKey  # the life of that engine
    places: list[tuple[TaskId, int, int]]  # task, attempt, retries that it has left


# ---------------------------------------------------------------- blobs, engines, clients


class BlobKept(Record, tag=10):
    """A blob that tasks will name more than once, functions above all."""

    blob: BlobId
    data: bytes


class BlobDropped(Record, tag=11):
    """No unfinished task names this blob and none will, unless it is kept anew."""

    blob: BlobId


class BlobPlaced(Record, tag=13):
    """A blob that unfinished tasks need, or results that have not arrived, lies here until it is dropped."""

    blob: BlobId
    size_bytes: int
    keep: bool
    segment: str  # of shared memory; empty = among the buffers that the store is given beside the facts


class EngineJoined(Record, tag=20):
    info: EngineInfo
    at: float
    secret: bytes = b""  # what later hellos under this key must repeat
    host_key: HostKey = HostKey("")  # of the supervisor that watches it


class EngineGone(Record, tag=21):
    left: EngineLeft
    at: float


class ClientSeen(Record, tag=22):
    """A client has said hello; its secret is what later hellos under this id must repeat."""

    client: ClientId
    secret: bytes
    at: float


class ClientGone(Record, tag=23):
    """A client has left, or is given up: what it has not taken is owed to it no longer."""

    client: ClientId


HistoryFact: TypeAlias = (
    TaskAccepted
    | TaskEnded
    | TaskDelivered
    | TaskText
    | TaskData
    | TasksPurged
    | TaskDisplay
    | BuffersKept
    | ResultsReleased
    | TasksMoved
    | BlobKept
    | BlobDropped
    | BlobPlaced
    | EngineJoined
    | EngineGone
    | ClientSeen
    | ClientGone
)


# ---------------------------------------------------------------- what is kept of a task's sayings


class KeptDisplay(Record):
    """A display that is kept, or a piece of it."""

    kind: str
    content: bytes
    offset: int = 0
    is_last: bool = True


class Published(msgspec.Struct, array_like=True):
    """What a task has published, displayed and reported, as far as it is kept. It grows with the task."""

    values: dict[str, bytes] = {}
    displays: list[KeptDisplay] = []
    display_bytes: int = 0
    dropped: int = 0  # pieces of displays, the first ones
    report: Report | None = None

    def copy(self) -> Published:
        return Published(
            dict(self.values), list(self.displays), self.display_bytes, self.dropped, self.report
        )


# ---------------------------------------------------------------- bytes

_encode = msgspec.msgpack.Encoder().encode
_decode_journal = msgspec.msgpack.Decoder(list[list[HistoryFact]]).decode
_decode_call = msgspec.msgpack.Decoder(TaskAccepted).decode
_decode_published = msgspec.msgpack.Decoder(Published).decode


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


def encode_published(published: Published) -> bytes:
    """What a task has published and displayed as bytes for `decode_published`; nothing is no bytes."""
    is_empty = not (published.values or published.displays or published.dropped or published.report)
    return b"" if is_empty else _encode(published)


def decode_published(data: bytes) -> Published:
    """The inverse of `encode_published`; raises `MalformedHistory`."""
    try:
        return _decode_published(data) if data else Published()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedHistory(f"not what a task has published: {error}") from None
