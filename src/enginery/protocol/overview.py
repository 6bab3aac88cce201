"""How the cluster is and why tasks are where they are: what clients ask, and what they are told.

Import them from `messages`, which has all records.
"""

from __future__ import annotations

from enginery.ids import NO_ENGINE, EngineId, EngineKey, HostKey, TaskId
from enginery.protocol.words import Key, Record, SizeBytes, Small, Status, Task


class AskStatus(Record, tag=14):
    """Tasks by state, and with `whole` each engine, host, and the last failures.

    Without `ask_hosts` only what the controller knows by itself: that is said at once.
    """

    request: Small
    whole: bool = False
    ask_hosts: bool = True


class AskReasons(Record, tag=27):
    """Why these tasks have not ended."""

    request: Small
    tasks: list[Task]


class ProcessUse(Record):
    """What an engine's process uses, as its host sees it."""

    key: Key
    resident: SizeBytes
    cpu_s: float  # of the processors, since its start


class TaskCounts(Record):
    """All tasks that this controller has had; `submitted` is the sum of the others."""

    submitted: int
    waiting: int  # for other tasks
    ready: int
    sent: int  # given to an engine, and not known to have begun
    running: int
    done: int
    failed: int
    cancelled: int
    impossible: int


class EngineStatus(Record):
    engine: EngineId
    key: EngineKey
    host: str
    pid: int
    state: str  # "idle" | "busy" | "disconnected" | "stopping"
    queue: int  # direct tasks that wait in the controller for this engine
    in_flight: int  # sent and not finished, the running one included
    completed: int
    task: TaskId = TaskId(0)  # what it runs now, or begins next; 0 = nothing
    name: str = ""  # of that
    running_s: float = 0.0  # for how long
    resident: int = -1  # bytes; negative: nobody can say
    cpu_s: float = 0.0


class HostStatus(Record):
    key: HostKey
    host: str
    pid: int
    engines: int
    cores: int = 0  # that its engines may use; 0: it has not answered
    load: float = 0.0  # processes that want a core, over the last minute
    available: int = 0  # bytes of memory


class FailureNote(Record):
    """A task that has failed lately."""

    task: TaskId
    name: str
    label: str
    status: Status
    engine: EngineId
    error: str  # in one line
    at: float


class DeathNote(Record):
    """An engine that has died, or was given up, lately. Nobody had told it to end."""

    engine: EngineId
    host: str
    cause: str
    tasks: list[TaskId]  # some of those that it had begun
    at: float


class StatusAnswer(Record, tag=35):
    """One page of the answer, with some of the engines; the last one says so."""

    request: int
    cluster: str
    uptime_s: float
    clients: int  # whoever asks included
    engine_count: int
    tasks: TaskCounts
    engines: list[EngineStatus] = []
    hosts: list[HostStatus] = []
    failures: list[FailureNote] = []  # the newest last
    deaths: list[DeathNote] = []  # the newest last
    is_last: bool = True


class Reason(Record):
    """Why some tasks have not ended: the same for all of them."""

    tasks: int
    first: TaskId
    state: str
    why: str
    engine: EngineId = NO_ENGINE  # where they are


class ReasonsAnswer(Record, tag=38):
    """Tasks that are not here (any more) are not counted: they have ended, or were never submitted."""

    request: int
    reasons: list[Reason]
