"""Every record that crosses a connection: one closed union per direction and role.

A message is ``[route] [header] [frame]*``. The header is an `Envelope` with a batch of records, so
whatever waits when a connection is ready travels together. Only `PutBlob` owns a frame, exactly one:
all other records are small and complete in the header.

Two planes:

* *records* carry tasks, results and facts. What a task's call needs beyond a few KiB is not in it.
* *blobs* carry functions and big buffers, cut in frames of at most `FRAME_LIMIT` bytes. A record names the
  blobs it needs; they travel before it on the same connection, at the pace of the link's bulk window. Between
  processes of one host big ones stay where they are, in shared memory, and their names travel.

Payloads (`Call.payload`, `EngineResult.payload`) are opaque here and in the controller, which never
unpickles. Records are arrays on the wire, tagged with a number, and are never changed after they were made.
"""

from __future__ import annotations

from typing import Generic, TypeAlias, TypeVar

import msgspec

from enginery.ids import BlobId
from enginery.protocol.endings import (
    Abort,
    Cancel,
    CancelItems,
    EndCalls,
    Interrupt,
    InterruptEngines,
    SetPriority,
    SkipItems,
    TakeBack,
)
from enginery.protocol.engines import (
    BlobsMissing,
    ClearNamespace,
    ControlHello,
    ControlWelcome,
    EngineCall,
    EngineHello,
    EngineMemory,
    EngineResult,
    EngineWelcome,
    FromControl,
    FromEngine,
    Holds,
    Lends,
    Obeyed,
    ReportMemory,
    Results,
    Run,
    RunOptions,
    Started,
    StopEngine,
    Stored,
    TakenBack,
    ToControl,
    ToEngine,
)
from enginery.protocol.hosts import (
    BlobDeclined,
    EngineExited,
    EnginesStarted,
    FromHost,
    HostHello,
    HostUse,
    HostWelcome,
    KillProcess,
    LastWord,
    LaunchEngines,
    ProcessInfo,
    ProcessText,
    ReportUse,
    SignalProcesses,
    StopProcesses,
    ToHost,
)
from enginery.protocol.overview import (
    AskReasons,
    AskStatus,
    DeathNote,
    EngineStatus,
    FailureNote,
    HostStatus,
    ProcessUse,
    Reason,
    ReasonsAnswer,
    StatusAnswer,
    TaskCounts,
)
from enginery.protocol.questions import (
    START_LIMIT,
    Answer,
    AskCalls,
    AskHistory,
    AskMemory,
    AskQueues,
    AskResults,
    AskSetUp,
    CallsAnswer,
    ClearEngines,
    EngineMemoryUse,
    EngineQueues,
    ForgetSetUp,
    HistoryAnswer,
    HistoryRecord,
    KeptStep,
    MemoryAnswer,
    MemoryUse,
    NamedObject,
    PurgeHistory,
    QueuesAnswer,
    RestartEngines,
    ResultsAnswer,
    SetUpAnswer,
    ShutDown,
    SignalEngines,
    StartEngines,
    StopEngines,
    StoredCall,
    Term,
)
from enginery.protocol.sayings import (
    Data,
    Display,
    EngineData,
    EngineDisplay,
    EngineOutput,
    EngineProgress,
    Output,
    Progress,
)
from enginery.protocol.words import (
    CALL_LIMIT_BYTES,
    ENGINE_LIMIT,
    ENGINES_PER_CALL,
    FRAME_LIMIT,
    INLINE_LIMIT,
    MESSAGE_LIMIT,
    PROTOCOL_VERSION,
    RECORDED,
    REPORT_TEXT_LIMIT,
    Attempt,
    Call,
    Client,
    Dependency,
    DropBlobs,
    Engine,
    EngineInfo,
    EngineLeft,
    FreeSegments,
    Goodbye,
    HelloFirst,
    Key,
    Kind,
    Number,
    Pid,
    Ping,
    PutBlob,
    Ranges,
    Record,
    Refused,
    Report,
    Segment,
    Serial,
    ShareBlob,
    Signum,
    SizeBytes,
    Small,
    Status,
    Task,
    TaskOptions,
    TaskResult,
    Versions,
    clean_text,
    text_size,
)

__all__ = [
    "Abort",
    "Accepted",
    "Answer",
    "AskCalls",
    "AskHistory",
    "AskMemory",
    "AskQueues",
    "AskReasons",
    "AskResults",
    "AskSetUp",
    "AskStatus",
    "Attempt",
    "BlobDeclined",
    "BlobsMissing",
    "Body",
    "CALL_LIMIT_BYTES",
    "Call",
    "CallsAnswer",
    "Cancel",
    "CancelItems",
    "ClearEngines",
    "ClearNamespace",
    "Client",
    "ClientHello",
    "ClientWelcome",
    "ControlHello",
    "ControlWelcome",
    "Data",
    "DeathNote",
    "Dependency",
    "Display",
    "DropBlobs",
    "EndCalls",
    "ENGINES_PER_CALL",
    "ENGINE_LIMIT",
    "Engine",
    "EngineCall",
    "EngineData",
    "EngineDisplay",
    "EngineExited",
    "EngineHello",
    "EngineInfo",
    "EngineMemory",
    "EngineMemoryUse",
    "EngineLeft",
    "EngineOutput",
    "EngineProgress",
    "EngineQueues",
    "EngineResult",
    "EngineStatus",
    "EngineWelcome",
    "EnginesChanged",
    "EnginesStarted",
    "Envelope",
    "FRAME_LIMIT",
    "FailureNote",
    "Finished",
    "ForgetSetUp",
    "FreeSegments",
    "FromClient",
    "FromControl",
    "FromEngine",
    "FromHost",
    "Goodbye",
    "HelloFirst",
    "HistoryAnswer",
    "HistoryRecord",
    "Holds",
    "HostHello",
    "HostStatus",
    "HostUse",
    "HostWelcome",
    "INLINE_LIMIT",
    "Interrupt",
    "InterruptEngines",
    "KeptStep",
    "Key",
    "KillProcess",
    "Kind",
    "LastWord",
    "LaunchEngines",
    "Lends",
    "MESSAGE_LIMIT",
    "MemoryAnswer",
    "MemoryUse",
    "NamedObject",
    "Number",
    "Obeyed",
    "Output",
    "PROTOCOL_VERSION",
    "Pid",
    "Ping",
    "ProcessInfo",
    "ProcessText",
    "ProcessUse",
    "Progress",
    "PurgeHistory",
    "PutBlob",
    "QueuesAnswer",
    "RECORDED",
    "REPORT_TEXT_LIMIT",
    "Reason",
    "ReasonsAnswer",
    "Ranges",
    "Received",
    "Record",
    "Refused",
    "Report",
    "ReportMemory",
    "ReportUse",
    "Resend",
    "RestartEngines",
    "Results",
    "ResultsAnswer",
    "Run",
    "RunOptions",
    "SetPriority",
    "SetUpAnswer",
    "SkipItems",
    "START_LIMIT",
    "Segment",
    "Serial",
    "ShareBlob",
    "ShutDown",
    "SignalEngines",
    "SignalProcesses",
    "Signum",
    "SizeBytes",
    "Small",
    "StartEngines",
    "Started",
    "Status",
    "StatusAnswer",
    "StopEngine",
    "StopEngines",
    "StopProcesses",
    "Stored",
    "StoredCall",
    "Submit",
    "TakeBack",
    "TakenBack",
    "Task",
    "TaskCounts",
    "TaskOptions",
    "TaskResult",
    "Term",
    "ToClient",
    "ToControl",
    "ToEngine",
    "ToHost",
    "Versions",
    "clean_text",
    "text_size",
]

# ---------------------------------------------------------------- client -> controller


class ClientHello(Record, tag=10):
    client: Client
    secret: bytes  # first hello binds it to the id, later ones must repeat it
    versions: Versions
    pid: Pid
    received: Serial = 0  # all deliveries below this number have been taken, see `Finished`
    pool: Segment = ""  # of its segments; empty: it has no shared memory with the controller
    lent: list[Segment] = []  # segments whose blobs the controller has had
    again: Ranges = []  # calls that have been sent before and are sent again


class Submit(Record, tag=11):
    options: TaskOptions
    calls: list[Call]


class Received(Record, tag=13):
    """All deliveries below this number have arrived."""

    below: Serial


FromClient: TypeAlias = (
    ClientHello
    | Submit
    | PutBlob
    | ShareBlob
    | Abort
    | Cancel
    | CancelItems
    | SetPriority
    | InterruptEngines
    | Received
    | AskStatus
    | AskReasons
    | AskQueues
    | AskResults
    | AskCalls
    | AskHistory
    | AskMemory
    | AskSetUp
    | ForgetSetUp
    | PurgeHistory
    | ClearEngines
    | RestartEngines
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
    accepted: Ranges  # of this client's task numbers: these are safe
    engines: list[EngineInfo]
    first_delivery: int  # number of the next delivery
    task_window: int
    byte_window: int
    arrived: Ranges = []  # further numbers that are here; `Accepted` will say when they are safe


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


class EnginesChanged(Record, tag=34):
    joined: list[EngineInfo]
    left: list[EngineLeft]


ToClient: TypeAlias = (
    ClientWelcome
    | Accepted
    | Resend
    | Finished
    | Output
    | EnginesChanged
    | StatusAnswer
    | ReasonsAnswer
    | QueuesAnswer
    | ResultsAnswer
    | CallsAnswer
    | HistoryAnswer
    | MemoryAnswer
    | SetUpAnswer
    | Data
    | Display
    | Progress
    | Answer
    | PutBlob
    | ShareBlob
    | FreeSegments
    | HelloFirst
    | Refused
    | Ping
    | Goodbye
)


# ---------------------------------------------------------------- envelope

Body = TypeVar("Body")


class Envelope(msgspec.Struct, Generic[Body], array_like=True, gc=False):
    """Header of a message.

    `epoch` counts the hellos of the dialling peer; `number` counts the messages of this direction within
    an epoch, from 0. `bulk_received` and `header_received` are the running totals of bytes, of frames and of
    headers, that the sender of this message has taken in this epoch: the windows' acknowledgement.
    """

    version: int
    epoch: Serial
    number: Serial
    bulk_received: Serial
    records: list[Body]
    header_received: Serial = 0
