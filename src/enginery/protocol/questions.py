"""What clients ask the Hub and order from it, and its answers.

Import them from `messages`, which has all records.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from enginery.ids import NO_ENGINE, BlobId, EngineId, TaskId
from enginery.protocol.words import (
    Engine,
    Kind,
    Record,
    Signum,
    SizeBytes,
    Small,
    Status,
    Task,
    TaskOptions,
    TaskResult,
)

START_LIMIT = 10_000
"""Engines that one order may start."""

# ---------------------------------------------------------------- questions and orders


class AskQueues(Record, tag=19):
    """What waits and runs where; no engine named = all. Task ids, not just counts, if `verbose`."""

    request: Small
    engines: list[Engine]
    verbose: bool = False


class AskResults(Record, tag=20):
    """Results of tasks of any client. Those that have not ended are delivered when they do, if `watch`."""

    request: Small
    tasks: list[Task]
    watch: bool = True


class AskCalls(Record, tag=21):
    """The calls of tasks of any client, as they were submitted, to submit them again."""

    request: Small
    tasks: list[Task]


class Term(Record):
    """One condition on one field of a `HistoryRecord`; all terms of a question hold together.

    `operator` is ``eq ne lt lte gt gte in nin glob all mod exists``, `value` what the field is compared with:
    None, a bool, number, text, bytes, a list of these; times are seconds since the epoch.
    """

    field: str
    operator: str
    value: Any


class AskHistory(Record, tag=22):
    """Records of tasks that meet all terms, oldest submission first; payloads and text only if asked for."""

    request: Small
    terms: list[Term]
    with_payloads: bool = False


class PurgeHistory(Record, tag=23):
    """Forget ended tasks: those named, those of these lives of engines, or all."""

    request: Small
    tasks: list[Task]
    engines: list[Engine]
    everything: bool = False


class ClearEngines(Record, tag=24):
    """Reset the namespaces of these engines, whatever they run; none named = all."""

    request: Small
    engines: list[Engine]


class RestartEngines(Record, tag=25):
    """Stop these engines and start others in their places, under the same ids; none named = all."""

    request: Small
    engines: list[Engine]


class StartEngines(Record, tag=15):
    request: Small
    count: Annotated[int, Meta(ge=1, le=START_LIMIT)]


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


class AskMemory(Record, tag=26):
    """What the controller and these engines hold, busy or not; no engine named = all.

    With `free`, they first let go of what can be had again or is kept for later questions alone.
    """

    request: Small
    engines: list[Engine]
    free: bool = False


class AskSetUp(Record, tag=28):
    """What is kept for engines that come later."""

    request: Small


class ForgetSetUp(Record, tag=29):
    """Keep these steps no longer; none named = all."""

    request: Small
    steps: list[Small]


# ---------------------------------------------------------------- answers


class KeptStep(Record):
    """One of the calls that are made again on each engine that comes later."""

    step: int
    what: str  # its name, see `TaskOptions.keep`
    label: str
    engines: list[EngineId]  # whose places it is for; none named = all engines
    since: float  # seconds since the epoch
    size_bytes: int


class SetUpAnswer(Record, tag=47):
    request: Small
    steps: list[KeptStep]  # in the order in which they are made
    error: str = ""


class EngineQueues(Record):
    """Numbers of unfinished tasks of one engine, and the first of their ids if these were asked for."""

    engine: EngineId
    queue: int  # direct ones, the running one included
    tasks: int  # balanced ones that the engine has been given
    completed: int
    queue_ids: list[TaskId] = []
    task_ids: list[TaskId] = []
    completed_ids: list[TaskId] = []  # the last ones


class QueuesAnswer(Record, tag=39):
    """One page of the answer, with some of the engines; the last one says so."""

    request: int
    engines: list[EngineQueues]
    unassigned: int  # balanced tasks that no engine has been given
    unassigned_ids: list[TaskId] = []  # the first of them
    is_last: bool = True
    error: str = ""


class ResultsAnswer(Record, tag=40):
    """Those that have ended (UNKNOWN and DROPPED among them), and those that have not.

    One page of the answer; the last one says so. Before it come the blobs of its results, text that is too
    long for it, and what its tasks have published. A controller that cannot say sends an `Answer` instead.
    """

    request: int
    results: list[TaskResult]
    pending: list[TaskId] = []
    is_last: bool = True


class StoredCall(Record):
    """A call as it was submitted; `options` is complete but for what names other tasks."""

    task: TaskId
    options: TaskOptions
    payload: bytes
    blobs: tuple[BlobId, ...] = ()
    engine: EngineId = NO_ENGINE


class CallsAnswer(Record, tag=41):
    """One page of the answer; the last one says so. The blobs of its calls come before it, functions too.

    A controller that cannot say sends an `Answer` instead.
    """

    request: int
    calls: list[StoredCall]
    missing: list[TaskId] = []  # nobody knows them, or what they need is no longer kept
    is_last: bool = True


class HistoryRecord(Record):
    """What is remembered of a task. Times are seconds since the epoch, 0 = never."""

    task: TaskId
    kind: Kind
    name: str
    label: str
    status: Status | None  # None = has not ended
    direct: bool
    engine: EngineId  # where it ran; before its end the engine it is addressed to
    engine_key: str
    submitted: float
    started: float
    completed: float
    delivered: bool
    detail: str = ""
    stdout: str = ""
    stderr: str = ""
    call: bytes = b""
    result: bytes = b""
    first: TaskId = TaskId(
        0
    )  # of the tasks of one call, as its user knows it, which a map with its chunks is


class HistoryAnswer(Record, tag=42):
    """One page of the answer; the last one says so."""

    request: int
    records: list[HistoryRecord]
    is_last: bool = True
    error: str = ""


class NamedObject(Record):
    """An object of an engine's namespace; `size_bytes` as far as it can be told without running its code."""

    name: Annotated[str, Meta(max_length=100)]
    kind: Annotated[str, Meta(max_length=100)]
    size_bytes: SizeBytes


class MemoryUse(Record):
    """What one process holds, in bytes. Blobs in shared memory count where they are used, and in `lent`."""

    named: SizeBytes = 0  # objects of the namespace
    objects: list[NamedObject] = []  # the largest of them
    blobs: SizeBytes = 0  # functions, constants, arguments that have come or are to be passed on
    results: SizeBytes = 0  # that are kept for whoever asks, or have not left
    lent: SizeBytes = 0  # shared memory that others may read
    idle: SizeBytes = 0  # shared memory that is kept to be used again
    resident: SizeBytes = 0  # of the whole process, as the system counts it
    proportional: SizeBytes = 0  # the same, with each shared page divided by those who share it; 0 = unknown


class EngineMemoryUse(Record):
    engine: EngineId
    use: MemoryUse


class MemoryAnswer(Record, tag=45):
    """One page of the answer, with some of the engines; the last one says so."""

    request: int
    engines: list[EngineMemoryUse]
    silent: list[EngineId] = []  # engines that have not answered in time
    controller: MemoryUse | None = None
    is_last: bool = True
    error: str = ""


class Answer(Record, tag=36):
    """Yes or no to a request; `error` is empty or a sentence."""

    request: int
    error: str = ""
    engines: list[EngineId] = []
