"""The words of the protocol: what every record is made of, and what travels in both directions.

Import them from `messages`, which has all records.
"""

from __future__ import annotations

import enum
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from enginery.ids import NO_ENGINE, BlobId, ClientId, EngineId, EngineKey, TaskId

PROTOCOL_VERSION = 1
FRAME_LIMIT = 1 << 20
"""Bytes in one frame at most: a heartbeat cannot overtake a frame, and half a frame is no sign of life."""
MESSAGE_LIMIT = FRAME_LIMIT + (1 << 16)
"""What a socket accepts as one frame, header frames included."""
RECORDED = 0
"""In the place of an attempt's number: not as it was said, but as it was kept."""
CALL_LIMIT_BYTES = 16 << 30
"""Of all buffers of one call, or of one result."""
ENGINES_PER_CALL = 10_000
INLINE_LIMIT = 1 << 16
"""Payload bytes that ride inside a record; larger buffers become blobs."""


class Record(msgspec.Struct, array_like=True, gc=False):
    """Base of everything on the wire."""


class Kind(enum.IntEnum):
    """What an engine does with a task's payload."""

    CALL = 0  # function(*args, **kwargs)
    MAP = 1  # function over a part of the items
    EXECUTE = 2  # source text
    PUSH = 3  # names to set
    PULL = 4  # expressions to evaluate


class Status(enum.IntEnum):
    """How a task ended. The words users see are in `enginery.errors`."""

    OK = 0
    ERROR = 1  # user code raised; the payload is a portable failure
    ABORTED = 2  # taken out of the queue before it started
    ENGINE_DIED = 3  # its engine ended; `detail` says why
    ENGINE_LOST = 4  # its engine vanished without proof of death
    NO_ENGINE = 5  # addressed to an engine that is not there
    REFUSED = 6  # the controller would not take it; `detail` says why
    UNMET = 7  # a function that the task depends on said no, on the engine that says so
    IMPOSSIBLE = 8  # its dependencies can never be met; `detail` says why
    INVALID = 9  # it depends on a task that nobody knows; `detail` says which
    TIMED_OUT = 10  # its dependencies were not met in time
    UNKNOWN = 11  # asked for by its id: nobody knows (any more) a task of this id
    DROPPED = 12  # asked for by its id: it has ended, and its payload is no longer kept
    CANCELLED = 13  # by a user: before it started, or while it ran
    OVER_LIMIT = 14  # it ran longer than its `time_limit`


# Ranges are part of the types: what is outside is refused by the decoder, at its sender's door.
Client = Annotated[ClientId, Meta(ge=0, lt=1 << 31)]
Number = Annotated[int, Meta(ge=1, lt=1 << 32)]
"""Of a task within its client."""
Task = Annotated[TaskId, Meta(ge=0, le=(1 << 63) - 1)]
FirstNumber = Annotated[int, Meta(ge=0, lt=1 << 32)]
Attempt = Annotated[int, Meta(ge=1, lt=1 << 31)]
ENGINE_LIMIT = 1_000_000
Engine = Annotated[EngineId, Meta(ge=-1, lt=ENGINE_LIMIT)]
Addressed = Annotated[EngineId, Meta(ge=0, lt=ENGINE_LIMIT)]
"""An engine that a call is meant for."""
Serial = Annotated[int, Meta(ge=0, lt=1 << 62)]
"""A running number of deliveries, results or messages."""
Small = Annotated[int, Meta(ge=0, lt=1 << 31)]
SizeBytes = Annotated[int, Meta(ge=0, lt=1 << 48)]
Pid = Annotated[int, Meta(ge=0, lt=1 << 31)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Signum = Annotated[int, Meta(ge=0, le=64)]
Priority = Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)]
"""Of tasks that wait: higher ones leave first."""
Key = Annotated[EngineKey, Meta(max_length=64)]


def text_size(text: str) -> int:
    """Bytes of a text in a header."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "backslashreplace"))


def clean_text(text: str) -> str:
    """The text, with what UTF-8 cannot say (lone surrogates, as in file names) written out."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


class Versions(Record):
    """Who is speaking, for the table of versions that must agree."""

    enginery: str
    python: tuple[int, int]


# ---------------------------------------------------------------- both directions


class PutBlob(Record, tag=1):
    """One piece of a blob, in the frame that goes with this record."""

    blob: BlobId
    size_bytes: SizeBytes  # of the whole blob
    offset: SizeBytes
    keep: bool  # content-addressed and likely to be named again


class HelloFirst(Record, tag=2):
    """To a peer whose hello is not known here: say hello again, then replay."""

    reason: str = ""


class Refused(Record, tag=3):
    """This connection is of no use; `reason` is a sentence for the user."""

    reason: str


class Ping(Record, tag=4):
    """Nothing; shows that the route is alive."""


class Goodbye(Record, tag=5):
    """The peer leaves on purpose."""

    started: list[tuple[Task, Attempt]] | None = []
    """Of an engine: what it has begun, and whose results may not have come; None = too many to say."""


Segment = Annotated[str, Meta(max_length=200)]
"""Name of a buffer in shared memory, see `enginery.transport.shared_memory`."""


class ShareBlob(Record, tag=6):
    """A whole blob, in shared memory: for peers of the controller's host."""

    blob: BlobId
    size_bytes: SizeBytes
    keep: bool
    segment: Segment


class FreeSegments(Record, tag=7):
    """To the writer of these: no reader will come to them any more."""

    segments: list[Segment]


class DropBlobs(Record, tag=8):
    """To an engine or a host: no task will name these again."""

    blobs: list[BlobId]


# ---------------------------------------------------------------- tasks


class Dependency(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Tasks that must have ended, all or any of them, with success, failure or either."""

    tasks: tuple[Task, ...]
    all: bool = True
    success: bool = True
    failure: bool = False


KEPT_NAME_LIMIT = 1000
"""Characters of the name under which a call is kept."""


class TaskOptions(Record):
    """What the tasks of one batch share. The client keeps one object per view, flags and function."""

    kind: Kind
    function: BlobId = BlobId(b"")
    name: str = ""
    candidates: tuple[Engine, ...] = ()  # balanced tasks: allowed engines; none named = all
    label: str = ""
    priority: Priority = 0
    retries: Small = 0
    retry_on: tuple[str, ...] | None = None  # classes as "module.qualname"; None = any, () = only death
    after: Dependency | None = None  # balanced tasks: start when these are met,
    follow: Dependency | None = None  # on an engine where these are met,
    wait_timeout_s: float = -1.0  # but wait no longer than this; negative = for ever
    writeable: bool = False  # arrays arrive as private ones that may be changed
    time_limit_s: float = -1.0  # for each call of the function; negative = none
    most_calls: Small = 1  # of the function in one of these tasks: the items of the largest part of a map
    keep: Annotated[str, Meta(max_length=KEPT_NAME_LIMIT)] = (
        ""  # direct tasks: do the same on engines that come later; of one name the last one counts
    )
    keep_for_all: bool = False  # not only on those that come under the same ids


class Call(Record):
    """One submission: one balanced task, or one direct task per engine named.

    A call to k engines takes the k numbers from `number` on, in the order of `engines`. What a user calls may
    be several submissions, a map's chunks for one: `first` is the number of the first task of the first one.
    """

    number: Number
    payload: bytes
    blobs: tuple[BlobId, ...] = ()
    engines: Annotated[tuple[Addressed, ...], Meta(max_length=ENGINES_PER_CALL)] = ()
    first: FirstNumber = 0  # 0 = `number`
    parent: Task = TaskId(0)  # the task that makes it, while it runs; 0 = none


REPORT_TEXT_LIMIT = 200
"""Characters that a task may report of itself."""


class Report(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """How far a task is by its own account: `enginery.report`. A fraction of None is "not known"."""

    fraction: Fraction | None = None
    text: Annotated[str, Meta(max_length=REPORT_TEXT_LIMIT)] = ""


class TaskResult(Record):
    """How a task ended, as its client learns it. Times are seconds since the epoch, 0 = never."""

    task: TaskId
    status: Status
    payload: bytes = b""
    blobs: tuple[BlobId, ...] = ()
    engine: EngineId = NO_ENGINE
    submitted: float = 0.0
    started: float = 0.0
    completed: float = 0.0
    stdout: str = ""
    stderr: str = ""
    outputs: int = 0  # numbered texts and displays of its last attempt; they may still be on their way
    detail: str = ""
    attempt: int = 1  # the last one, whose texts are meant
    sent: float = 0.0  # to its engine
    unpickle_s: float = 0.0  # of the time between `started` and `completed`,
    pickle_s: float = 0.0  # and this
    engine_key: EngineKey = EngineKey("")  # the life of that engine; empty = none had the task
    report: Report | None = None  # the last one of that attempt
    items: int = 0  # of a part of a map, if the engine has said; 0 = ask the payload
    failed: int = 0  # of these
    cancelled: int = 0  # likewise


class EngineInfo(Record):
    """An engine, as clients see it."""

    engine: EngineId
    key: EngineKey
    host: str
    pid: int


class EngineLeft(Record):
    engine: EngineId
    key: EngineKey
    cause: str
    expected: bool = False  # it was told to


Ranges: TypeAlias = list[tuple[int, int]]
"""Sorted, disjoint, closed intervals of numbers."""
