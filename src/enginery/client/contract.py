"""What views and results need of a session, and what a session needs of them.

The session owns the connection; this room's other files never see a socket. Tests put a session that runs
everything in process behind the same contract.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

from enginery.core.ledger import Blob
from enginery.ids import ClientId, EngineId, TaskId
from enginery.objects.functions import FunctionCache
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import (
    Answer,
    EngineInfo,
    EngineLeft,
    Record,
    StatusAnswer,
    TaskOptions,
    TaskResult,
)

EngineListener = Callable[[list[EngineInfo], list[EngineLeft]], None]


class Promise(Protocol):
    """One task's place in a result. Called by whichever thread reads the socket, outside all locks."""

    def on_result(self, result: TaskResult, buffers: Sequence[Buffer], /) -> None:
        """The task has ended; `buffers` are the result's blobs, in order."""

    def on_output(self, stream: str, text: str, /) -> None:
        """The task has written text. May come after the result."""


class TaskSession(Protocol):
    """The session as views, maps and results use it."""

    @property
    def client_id(self) -> ClientId: ...

    @property
    def functions(self) -> FunctionCache: ...

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
    ) -> TaskId:
        """Send one call. Returns the first of its consecutive task ids.

        Maps call it from promises too: there it must not wait for the backlog to shrink.
        """
        ...

    def abort(self, tasks: Iterable[TaskId]) -> None: ...

    def wait_until(self, predicate: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until the cheap, thread-safe predicate holds. None or a negative time-out means for ever."""
        ...

    def notify(self) -> None:
        """Predicates may have changed for another reason than a message."""

    def ask(self, make: Callable[[int], Record]) -> Future[Answer | StatusAnswer]: ...

    def engines(self) -> Mapping[EngineId, EngineInfo]: ...

    def outstanding(self) -> set[TaskId]: ...

    def add_engine_listener(self, listener: EngineListener) -> None: ...

    def close(self, linger_s: float = ...) -> None: ...
