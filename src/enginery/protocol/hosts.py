"""What hosts (their supervisors) say to the controller, and what it says to them.

Import them from `messages`, which has all records.
"""

from __future__ import annotations

from typing import TypeAlias

from enginery.ids import BlobId, EngineId, EngineKey, HostKey, TaskId
from enginery.protocol.overview import ProcessUse
from enginery.protocol.words import (
    Attempt,
    DropBlobs,
    Engine,
    FreeSegments,
    Goodbye,
    HelloFirst,
    Key,
    Pid,
    Ping,
    PutBlob,
    Record,
    Refused,
    Segment,
    Serial,
    ShareBlob,
    Signum,
    SizeBytes,
    Small,
    Task,
)

PAGE_TASKS = 1023
"""Tasks that an engine's status page names at most."""


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
    pool: Segment = ""  # of segments with which it hands blobs on to its engines; empty: it cannot
    lent: list[Segment] = []  # segments of blobs that it was sent


class LastWord(Record):
    """Text that a task had written in Python, and that may not have left its engine."""

    number: Serial  # see `EngineOutput.written`
    task: Task
    attempt: Attempt
    stream: str
    is_late: bool  # the task had ended by then
    mark: Small  # as in `EngineOutput`
    text: str


class EngineExited(Record, tag=111):
    """Proof of death, and what is known of it."""

    key: Key
    pid: Pid
    cause: str  # "exited with code 3", "killed by SIGKILL", …
    started: list[Task]  # what it began last, `PAGE_TASKS` at most, as its status page says
    proof: bool  # whether `started` could be read
    expected: bool  # it was told to stop
    words: tuple[LastWord, ...] = ()  # the last ones of its tasks, oldest first


class EnginesStarted(Record, tag=112):
    request: Small
    processes: list[ProcessInfo]
    error: str = ""


class HostUse(Record, tag=113):
    """What this host's engines use, and how busy it is."""

    order: Small
    processes: list[ProcessUse]
    cores: Small
    load: float
    available: SizeBytes  # of memory


class BlobDeclined(Record, tag=114):
    """There is no room for this blob, which was to be handed on: its engines are to get it as frames."""

    blob: BlobId


class ProcessText(Record, tag=115):
    """What was written to a standard stream of an engine past Python, by C code or by processes.

    Numbered for each engine, from 1 on. With a mark, text of this attempt up to that mark (`EngineOutput`)
    is complete with it; without one, the task is the newest of the engine.
    """

    key: Key
    number: Serial
    task: Task
    stream: str
    text: str
    attempt: Small = 0  # 0 = not known
    mark: Small = 0


FromHost: TypeAlias = (
    HostHello
    | EngineExited
    | EnginesStarted
    | HostUse
    | ShareBlob
    | BlobDeclined
    | ProcessText
    | Ping
    | Goodbye
)


class HostWelcome(Record, tag=120):
    cluster: str


class LaunchEngines(Record, tag=121):
    request: Small
    wanted: list[EngineId]


class SignalProcesses(Record, tag=122):
    keys: list[EngineKey]
    signum: Signum


class KillProcess(Record, tag=137):
    """End this engine at once, if its status page says that it runs this task."""

    key: EngineKey
    running: TaskId


class StopProcesses(Record, tag=123):
    """End these engines; none named = all, and the host itself."""

    keys: list[EngineKey]


class ReportUse(Record, tag=124):
    """Say what your engines use."""

    order: int


ToHost: TypeAlias = (
    HostWelcome
    | LaunchEngines
    | SignalProcesses
    | KillProcess
    | StopProcesses
    | ReportUse
    | PutBlob
    | FreeSegments
    | DropBlobs
    | HelloFirst
    | Refused
    | Ping
    | Goodbye
)
