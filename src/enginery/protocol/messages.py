"""Every record that crosses a connection: one closed union per direction and role.

A message is ``[route] [header] [frame]*``. The header is an `Envelope` with a batch of records, so
whatever waits when a connection is ready travels together. Only `PutBlob` owns a frame, exactly one:
all other records are small and complete in the header.

Two planes:

* *records* carry tasks, results and facts. What a task's call needs beyond a few KiB is not in it.
* *blobs* carry functions and big buffers, cut in frames of at most `FRAME_LIMIT` bytes. A record names the
  blobs it needs; they travel before it on the same connection, at the pace of the link's bulk window.

Payloads (`Call.payload`, `EngineResult.payload`) are opaque here and in the controller, which never
unpickles. Records are arrays on the wire, tagged with a number, and are never changed after they were made.
"""

from __future__ import annotations

import enum
from typing import Annotated, Generic, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from enginery.ids import NO_ENGINE, BlobId, ClientId, EngineId, EngineKey, HostKey, TaskId

PROTOCOL_VERSION = 1
FRAME_LIMIT = 1 << 20
"""Bytes in one frame at most: a heartbeat cannot overtake a frame, and half a frame is no sign of life."""
MESSAGE_LIMIT = FRAME_LIMIT + (1 << 16)
"""What a socket accepts as one frame, header frames included."""
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


# Ranges are part of the types: what is outside is refused by the decoder, at its sender's door.
Client = Annotated[ClientId, Meta(ge=0, lt=1 << 31)]
Number = Annotated[int, Meta(ge=1, lt=1 << 32)]
"""Of a task within its client."""
Task = Annotated[TaskId, Meta(ge=0, le=(1 << 63) - 1)]
Attempt = Annotated[int, Meta(ge=1, lt=1 << 31)]
Engine = Annotated[EngineId, Meta(ge=-1, lt=1_000_000)]
Serial = Annotated[int, Meta(ge=0, lt=1 << 62)]
"""A running number of deliveries, results or messages."""
Small = Annotated[int, Meta(ge=0, lt=1 << 31)]
SizeBytes = Annotated[int, Meta(ge=0, lt=1 << 48)]
Pid = Annotated[int, Meta(ge=0, lt=1 << 31)]
Signum = Annotated[int, Meta(ge=0, le=64)]
Key = Annotated[EngineKey, Meta(max_length=64)]


def text_size(text: str) -> int:
    """Bytes of a text in a header."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "backslashreplace"))


def clean_text(text: str) -> str:
    """The text, with what UTF-8 cannot say (lone surrogates, as in file names) written out."""
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

    running: Task = TaskId(0)  # of an engine: the task that it will not finish; 0 = none


# ---------------------------------------------------------------- tasks


class TaskOptions(Record):
    """What the tasks of one batch share. The client keeps one object per view, flags and function."""

    kind: Kind
    function: BlobId = BlobId(b"")
    name: str = ""
    candidates: tuple[Engine, ...] = ()  # balanced tasks: allowed engines; none named = all
    label: str = ""
    priority: Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)] = 0
    retries: Small = 0
    retry_on_exception: bool = True


class Call(Record):
    """One submission: one balanced task, or one direct task per engine named.

    A call to k engines takes the k numbers from `number` on, in the order of `engines`.
    """

    number: Number
    payload: bytes
    blobs: tuple[BlobId, ...] = ()
    engines: tuple[Engine, ...] = ()


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
    outputs: int = 0  # `Output` records sent on their own; they may still be on their way
    detail: str = ""


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


Ranges: TypeAlias = list[tuple[int, int]]
"""Sorted, disjoint, closed intervals of numbers."""


# ---------------------------------------------------------------- client -> controller


class ClientHello(Record, tag=10):
    client: Client
    secret: bytes  # first hello binds it to the id, later ones must repeat it
    versions: Versions
    pid: Pid
    received: Serial = 0  # all deliveries below this number have been taken, see `Finished`


class Submit(Record, tag=11):
    options: TaskOptions
    calls: list[Call]


class Abort(Record, tag=12):
    """Take these tasks out of the queues if they have not started."""

    tasks: list[Task]


class Received(Record, tag=13):
    """All deliveries below this number have arrived."""

    below: Serial


class AskStatus(Record, tag=14):
    request: Small


class StartEngines(Record, tag=15):
    request: Small
    count: Annotated[int, Meta(ge=1, le=10_000)]


class StopEngines(Record, tag=16):
    request: Small
    engines: list[Engine]


class SignalEngines(Record, tag=17):
    request: Small
    engines: list[Engine]
    signum: Signum


class ShutDown(Record, tag=18):
    """End the cluster: engines, hosts, controller."""

    request: Small


FromClient: TypeAlias = (
    ClientHello
    | Submit
    | PutBlob
    | Abort
    | Received
    | AskStatus
    | StartEngines
    | StopEngines
    | SignalEngines
    | ShutDown
    | Ping
    | Goodbye
)


# ---------------------------------------------------------------- controller -> client


class ClientWelcome(Record, tag=30):
    controller: str  # key of this controller's life
    cluster: str
    accepted: Ranges  # of this client's task numbers
    engines: list[EngineInfo]
    first_delivery: int  # number of the next delivery
    task_window: int
    byte_window: int


class Accepted(Record, tag=31):
    """These task numbers are committed to the store: no need to send them again."""

    ranges: Ranges


class Resend(Record, tag=37):
    """These calls named blobs that are not here (any more): send the blobs and the calls again."""

    numbers: list[int]
    blobs: list[BlobId]


class Finished(Record, tag=32):
    """Deliveries `first`, `first + 1`, …; kept by the controller until `Received`."""

    first: int
    results: list[TaskResult]


class Output(Record, tag=33):
    """Text that a task wrote while it ran."""

    task: TaskId
    engine: EngineId
    stream: str  # "stdout" | "stderr"
    text: str


class EnginesChanged(Record, tag=34):
    joined: list[EngineInfo]
    left: list[EngineLeft]


class EngineStatus(Record):
    engine: EngineId
    key: EngineKey
    host: str
    pid: int
    state: str  # "ready" | "disconnected"
    direct_queue: int  # waiting in the controller for this engine
    in_flight: int  # sent and not finished
    running: TaskId  # 0 = idle
    completed: int


class StatusAnswer(Record, tag=35):
    request: int
    cluster: str
    uptime_s: float
    engines: list[EngineStatus]
    clients: int
    ready: int  # balanced tasks that no engine has been given
    sent: int
    running: int
    done: int
    failed: int
    cancelled: int


class Answer(Record, tag=36):
    """Yes or no to a request; `error` is empty or a sentence."""

    request: int
    error: str = ""
    engines: list[EngineId] = []


ToClient: TypeAlias = (
    ClientWelcome
    | Accepted
    | Resend
    | Finished
    | Output
    | EnginesChanged
    | StatusAnswer
    | Answer
    | PutBlob
    | HelloFirst
    | Refused
    | Ping
    | Goodbye
)


# ---------------------------------------------------------------- engine's task connection


class EngineHello(Record, tag=50):
    key: Key
    secret: bytes
    versions: Versions
    host: str
    host_key: HostKey  # of the supervisor that watches it; empty = nobody does
    pid: Pid
    wanted: Engine  # NO_ENGINE = any
    held: list[tuple[Task, Attempt]]  # (task, attempt) received, their results not known to be stored
    first_result: Serial  # number of the oldest result that is not known to be stored


class EngineResult(Record):
    task: Task
    attempt: Attempt
    status: Status
    payload: bytes
    blobs: tuple[BlobId, ...] = ()
    started: float = 0.0
    completed: float = 0.0
    stdout: str = ""
    stderr: str = ""
    outputs: Small = 0


class Results(Record, tag=51):
    """Results `first`, `first + 1`, …; kept by the engine until `Stored`."""

    first: Serial
    results: list[EngineResult]


class Started(Record, tag=52):
    """Sent for tasks whose options asked for it (`RunOptions.announce`)."""

    task: Task
    attempt: Attempt


class BlobsMissing(Record, tag=53):
    """The engine has forgotten these blobs; send them and the task again."""

    task: Task
    attempt: Attempt
    blobs: list[BlobId]


FromEngine: TypeAlias = EngineHello | Results | Started | BlobsMissing | PutBlob | Ping | Goodbye


class RunOptions(Record):
    kind: Kind
    function: BlobId
    name: str
    announce: bool


class EngineCall(Record):
    task: TaskId
    attempt: int
    payload: bytes
    blobs: tuple[BlobId, ...] = ()


class EngineWelcome(Record, tag=70):
    controller: str
    engine: EngineId
    stored: int  # results below this number need not be sent again
    result_byte_window: int


class Run(Record, tag=71):
    options: RunOptions
    calls: list[EngineCall]


class Stored(Record, tag=72):
    """Results below this number are safe."""

    below: int


class DropBlobs(Record, tag=73):
    """No task will name these again."""

    blobs: list[BlobId]


ToEngine: TypeAlias = (
    EngineWelcome | Run | PutBlob | Stored | DropBlobs | HelloFirst | Refused | Ping | Goodbye
)


# ---------------------------------------------------------------- engine's control connection


class ControlHello(Record, tag=90):
    key: Key
    secret: bytes


class TakenBack(Record, tag=91):
    """The engine's claim: `taken` will never run there, `kept` have started or ended."""

    taken: list[tuple[Task, Attempt]]
    kept: list[tuple[Task, Attempt]]


class EngineOutput(Record, tag=92):
    task: Task
    stream: str
    text: str


FromControl: TypeAlias = ControlHello | TakenBack | EngineOutput | Ping | Goodbye


class ControlWelcome(Record, tag=100):
    engine: EngineId


class TakeBack(Record, tag=101):
    calls: list[tuple[TaskId, int]]


class StopEngine(Record, tag=102):
    """End this engine now, whatever it runs."""


ToControl: TypeAlias = ControlWelcome | TakeBack | StopEngine | HelloFirst | Refused | Ping | Goodbye


# ---------------------------------------------------------------- host (supervisor)


class ProcessInfo(Record):
    """An engine process that a supervisor started."""

    key: Key
    pid: Pid
    wanted: Engine


class HostHello(Record, tag=110):
    key: HostKey
    secret: bytes
    host: str
    pid: Pid
    processes: list[ProcessInfo]


class EngineExited(Record, tag=111):
    """Proof of death, and what is known of it."""

    key: Key
    pid: Pid
    cause: str  # "exited with code 3", "killed by SIGKILL", …
    started: list[Task]  # what it began last, from its status page: proof that the rest has not started
    proof: bool  # whether `started` could be read
    expected: bool  # it was told to stop


class EnginesStarted(Record, tag=112):
    request: Small
    processes: list[ProcessInfo]
    error: str = ""


FromHost: TypeAlias = HostHello | EngineExited | EnginesStarted | Ping | Goodbye


class HostWelcome(Record, tag=120):
    cluster: str


class LaunchEngines(Record, tag=121):
    request: Small
    wanted: list[EngineId]


class SignalProcesses(Record, tag=122):
    keys: list[EngineKey]
    signum: Signum


class StopProcesses(Record, tag=123):
    """End these engines; none named = all, and the host itself."""

    keys: list[EngineKey]


ToHost: TypeAlias = (
    HostWelcome | LaunchEngines | SignalProcesses | StopProcesses | HelloFirst | Refused | Ping | Goodbye
)


# ---------------------------------------------------------------- envelope

Body = TypeVar("Body")


class Envelope(msgspec.Struct, Generic[Body], array_like=True, gc=False):
    """Header of a message.

    `epoch` counts the hellos of the dialling peer; `number` counts the messages of this direction within
    an epoch, from 0. `bulk_received` is the running total of frame bytes that the sender of this message
    has taken in this epoch: the bulk window's acknowledgement.
    """

    version: int
    epoch: Serial
    number: Serial
    bulk_received: Serial
    records: list[Body]
