"""What engines say on their two connections, and what the controller says to them.

Import them from `messages`, which has all records.
"""

from __future__ import annotations

from typing import TypeAlias

from enginery.ids import BlobId, EngineId, HostKey, TaskId
from enginery.protocol.endings import EndCalls, Interrupt, SkipItems, TakeBack
from enginery.protocol.questions import MemoryUse
from enginery.protocol.sayings import EngineData, EngineDisplay, EngineOutput, EngineProgress
from enginery.protocol.words import (
    Attempt,
    DropBlobs,
    Engine,
    FreeSegments,
    Goodbye,
    HelloFirst,
    Key,
    Kind,
    Pid,
    Ping,
    PutBlob,
    Record,
    Refused,
    Report,
    Segment,
    Serial,
    ShareBlob,
    Small,
    Status,
    Task,
    Versions,
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
    pool: Segment = ""  # of its segments; empty: it has no shared memory with the controller
    lent: list[Segment] = []  # segments whose blobs the controller has had
    maps_host: bool = False  # it shares memory with its supervisor instead, which can hand blobs on


class EngineResult(Record):
    task: Task
    attempt: Attempt
    status: Status
    payload: bytes
    blobs: tuple[BlobId, ...] = ()
    started: float = 0.0
    completed: float = 0.0
    stdout: str = ""  # all that it wrote, if that is short and `outputs` is 0
    stderr: str = ""
    outputs: Small = 0  # texts, marks and pieces of displays that were sent on their own
    error: str = ""  # of one that failed: class and message in one line
    error_types: tuple[str, ...] = ()  # its class and the bases of that, as "module.qualname"
    unpickle_s: float = 0.0  # of the time between `started` and `completed`,
    pickle_s: float = 0.0  # and this
    report: Report | None = None
    items: Small = 0  # of a part of a map; 0 = it is none, or did not begin
    failed: Small = 0  # of these
    cancelled: Small = 0  # likewise
    written: Serial = 0  # number of the last that it wrote, see `LastWord`; 0 = it wrote nothing
    lingers: bool = False  # it has left something running that may still write


class Results(Record, tag=51):
    """Results `first`, `first + 1`, …; kept by the engine until `Stored`."""

    first: Serial
    results: list[EngineResult]


class Started(Record, tag=52):
    """Sent for tasks whose options asked for it (`RunOptions.announce`)."""

    task: Task
    attempt: Attempt


class Lends(Record, tag=54):
    """A task waits for others, and its engine is there for its descendants meanwhile; or it waits no longer.

    To be said again after each hello.
    """

    task: Task
    attempt: Attempt
    is_over: bool = False


class BlobsMissing(Record, tag=53):
    """The engine has forgotten these blobs; send them and the task again."""

    task: Task
    attempt: Attempt
    blobs: list[BlobId]
    unreadable: bool = False  # it could not map them: send them as frames


FromEngine: TypeAlias = (
    EngineHello | Results | Started | BlobsMissing | Lends | PutBlob | ShareBlob | Ping | Goodbye
)


class RunOptions(Record):
    kind: Kind
    function: BlobId
    name: str
    announce: bool
    writeable: bool = False
    time_limit_s: float = -1.0  # for each call of the function; negative = none


class EngineCall(Record):
    task: TaskId
    attempt: int
    payload: bytes
    blobs: tuple[BlobId, ...] = ()
    inside: TaskId = TaskId(
        0
    )  # may begin while this task waits, or any if this one has ended; 0 = while none does


class EngineWelcome(Record, tag=70):
    controller: str
    engine: EngineId
    stored: int  # results below this number need not be sent again
    result_byte_window: int
    unwanted: list[tuple[TaskId, int]] = []  # of what it holds: not to be begun, see `TakeBack`


class Run(Record, tag=71):
    options: RunOptions
    calls: list[EngineCall]
    skips: list[tuple[TaskId, list[int]]] = []  # items of these calls that are not to run, see `SkipItems`


class Stored(Record, tag=72):
    """Results below this number are safe."""

    below: int


ToEngine: TypeAlias = (
    EngineWelcome
    | Run
    | PutBlob
    | ShareBlob
    | FreeSegments
    | Stored
    | DropBlobs
    | HelloFirst
    | Refused
    | Ping
    | Goodbye
)


# ---------------------------------------------------------------- engine's control connection


class ControlHello(Record, tag=90):
    key: Key
    secret: bytes


class TakenBack(Record, tag=91):
    """The engine's claim: `taken` will never run there, `kept` have started or ended."""

    taken: list[tuple[Task, Attempt]]
    kept: list[tuple[Task, Attempt]]


class Holds(Record, tag=98):
    """What `EngineHello.held` says, to another controller than the task connection knows.

    Nothing that this has received before is taken in any more.
    """

    controller: str
    held: list[tuple[Task, Attempt]]


class Obeyed(Record, tag=94):
    """The order of this number (`ClearNamespace`, `Interrupt`) has been carried out."""

    order: Small


class EngineMemory(Record, tag=96):
    """What the engine holds; with `freed` it has forgotten its kept blobs."""

    order: Small
    use: MemoryUse
    freed: bool = False


FromControl: TypeAlias = (
    ControlHello
    | TakenBack
    | Holds
    | EngineOutput
    | EngineData
    | EngineDisplay
    | EngineProgress
    | Obeyed
    | EngineMemory
    | Ping
    | Goodbye
)


class ControlWelcome(Record, tag=100):
    engine: EngineId
    grace_s: float = -1.0  # of tasks that have run longer than their limit, see `EndCalls`
    controller: str = ""  # key of this controller's life


class StopEngine(Record, tag=102):
    """End this engine now, whatever it runs."""


class ClearNamespace(Record, tag=103):
    """Reset the namespace now, whatever runs."""

    order: int


class ReportMemory(Record, tag=104):
    """Say what you hold, whatever runs; with `free`, let go first of what can be had again."""

    order: int
    free: bool = False


ToControl: TypeAlias = (
    ControlWelcome
    | TakeBack
    | EndCalls
    | SkipItems
    | Interrupt
    | StopEngine
    | ClearNamespace
    | ReportMemory
    | HelloFirst
    | Refused
    | Ping
    | Goodbye
)
