"""What views and results need of a session, and what a session needs of them.

The session owns the connection; this room's other files never see a socket. Tests put a session that runs
everything in process behind the same contract.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

from enginery.client.ticking import Tickers
from enginery.core.submissions import Blob
from enginery.core.watching import Saying
from enginery.core.wishes import ABORT, Wish
from enginery.ids import BlobId, ClientId, EngineId, TaskId
from enginery.objects.functions import FunctionCache
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import (
    Answer,
    CallsAnswer,
    EngineInfo,
    EngineLeft,
    HistoryAnswer,
    MemoryAnswer,
    MemoryUse,
    QueuesAnswer,
    ReasonsAnswer,
    Record,
    ResultsAnswer,
    SetUpAnswer,
    StatusAnswer,
    TaskOptions,
    TaskResult,
)

AnswerRecord = (
    Answer
    | StatusAnswer
    | ReasonsAnswer
    | QueuesAnswer
    | ResultsAnswer
    | CallsAnswer
    | HistoryAnswer
    | MemoryAnswer
    | SetUpAnswer
)


class FetchedCalls(NamedTuple):
    """A `CallsAnswer`, and the blobs that its calls need."""

    answer: CallsAnswer
    blobs: Mapping[BlobId, Buffer]


AnyAnswer = (
    Answer
    | StatusAnswer
    | ReasonsAnswer
    | QueuesAnswer
    | ResultsAnswer
    | FetchedCalls
    | HistoryAnswer
    | MemoryAnswer
    | SetUpAnswer
)

EngineListener = Callable[[list[EngineInfo], list[EngineLeft]], None]


class Promise(Protocol):
    """One task's place in a result. Called by whichever thread reads the socket, outside all locks but once.

    It may hear of the same result twice. Weak references to it are kept for what comes late.
    """

    def on_result(self, result: TaskResult, buffers: Sequence[Buffer], /) -> None:
        """The task has ended; `buffers` are the result's blobs, in order."""

    def on_said(self, saying: Saying, /) -> None:
        """The task has written, displayed or published something, perhaps before its result came.

        Called with the session's lock held, so that it comes in order: it is to be noted, nothing more.
        """

    def on_heard(self) -> None:
        """Now is the time to do something about what was said."""


class TaskSession(Protocol):
    """The session as views, maps and results use it."""

    @property
    def client_id(self) -> ClientId: ...

    @property
    def functions(self) -> FunctionCache: ...

    cancel_grace_s: float | None
    """How long engines may take to end tasks that this client cancels; None = what the cluster says."""

    @property
    def tickers(self) -> Tickers:
        """What is shown of the session while it goes on."""
        ...

    @property
    def closed(self) -> bool: ...

    @property
    def end_reason(self) -> str:
        """Why the session is over; empty while it is not."""
        ...

    def submit(
        self,
        options: TaskOptions,
        payload: bytes,
        blobs: Sequence[Blob],
        promises: Sequence[Promise],
        engines: tuple[EngineId, ...] = (),
        *,
        first: TaskId | None = None,
    ) -> TaskId:
        """Send one call. Returns the first of its consecutive task ids.

        What a user calls may be sent in parts: `first` is the first task of the first part.

        Maps call it from promises too: there it must not wait for the backlog to shrink.
        """
        ...

    def mark(self) -> int:
        """What is submitted from now on is after this mark; for `cancel_since`."""
        ...

    def cancel_since(self, mark: int) -> list[TaskId]:
        """End what this thread has submitted after a mark, by its own will; returns those tasks."""
        ...

    def withdraw(self, tasks: Iterable[TaskId], wish: Wish = ABORT) -> None:
        """Take these tasks out if they have not started, or end them in any case."""
        ...

    def cancel_items(self, task: TaskId, items: Iterable[int]) -> None:
        """Do not run these items of a part of a map, by their places in it; end the one that runs."""
        ...

    def set_priority(self, tasks: Iterable[TaskId], priority: int) -> None:
        """Have tasks that wait leave the queues by this priority."""
        ...

    def wait_until(self, predicate: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until the cheap, thread-safe predicate holds. None or a negative time-out means for ever."""
        ...

    def notify(self) -> None:
        """Predicates may have changed for another reason than a message."""

    def ask(self, make: Callable[[int], Record]) -> Future[AnyAnswer]:
        """Send a question or an order; `make` gets its number. The pages of an answer come as one.

        Buffers of results are not handed out here; `follow` does that.
        """
        ...

    def follow(self, promises: Mapping[TaskId, Promise]) -> None:
        """Have tasks of any client fulfil these promises: at once if they have ended, else when they do.

        A task that nobody knows ends with the status UNKNOWN, one whose payload is gone with DROPPED.
        """
        ...

    def is_accepted(self, tasks: Iterable[TaskId]) -> bool:
        """Whether the controller has all of these safe, so that no buffer of theirs is read any more."""
        ...

    def promise(self, task: TaskId) -> Promise | None:
        """A promise of a task that this client has sent or follows, until it has ended or a moment longer."""
        ...

    def options(self, task: TaskId) -> TaskOptions | None:
        """With what options a task of this client was submitted, while it has not ended."""
        ...

    def engines(self) -> Mapping[EngineId, EngineInfo]: ...

    def outstanding(self) -> set[TaskId]: ...

    def is_outstanding(self, task: TaskId) -> bool:
        """Whether it is a task of this client that has not ended."""
        ...

    def nest(self) -> None:
        """Calls of a task that runs in this process are that task's, and its engine serves while it waits."""

    def memory_use(self, *, free: bool = False) -> MemoryUse:
        """What this process holds; with `free`, less shared memory that was kept to be used again."""
        ...

    def add_engine_listener(self, listener: EngineListener) -> None: ...

    def add_end_listener(self, listener: Callable[[str], object]) -> None:
        """Call `listener(reason)` once, when the session is over and every promise has been told."""
        ...

    def close(self, linger_s: float = ...) -> None: ...
