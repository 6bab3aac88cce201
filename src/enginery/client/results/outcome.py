"""One task's place in a result: takes what arrives, and makes a value of it when somebody asks.

Unpickling runs code of the user's, so it does not happen in the thread that reads the socket, and not at
all for values that nobody looks at.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from enginery.client.results.verdicts import verdict_of
from enginery.ids import TaskId, format_task_id
from enginery.objects.failures import unpack_failure
from enginery.objects.packing import unpack
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import Status, TaskResult

_UNREAD: Any = object()
_NO_TASK = TaskId(0)
_LARGE_BYTES = 1 << 10  # payloads from here on are let go once they were read


class OutcomeOwner(Protocol):
    """The result that an outcome is a part of."""

    def on_outcome(self, outcome: Any, /) -> None: ...

    @property
    def is_cancelling(self) -> bool: ...


class Outcome:
    """A promise for one task."""

    __slots__ = (
        "__weakref__",
        "_buffers",
        "_error",
        "_lock",
        "_owner",
        "_texts",
        "_value",
        "is_counted",
        "received",
        "result",
        "task",
    )

    def __init__(self, owner: OutcomeOwner) -> None:
        # Let go when the task has ended: a result is then freed with its last reference, not by the
        # collector.
        self._owner: OutcomeOwner | None = owner
        self.result: TaskResult | None = None
        self.task: TaskId | None = None  # set by who submits
        self.received = 0.0
        self.is_counted = False
        """Kept by the owner: it has heard of the end. An interrupted delivery is made again."""
        self._buffers: Sequence[Buffer] = ()
        self._value = _UNREAD
        self._error: Exception | None = None
        self._lock = threading.Lock()
        self._texts: list[tuple[str, str]] | None = None

    # ------------------------------------------------------------ from the session

    def on_result(self, result: TaskResult, buffers: Sequence[Buffer], /) -> None:
        owner = self._owner
        if owner is None:
            return  # a delivery that was made twice
        if self.result is None:
            self.received = time.time()
            self._buffers = buffers
            if owner.is_cancelling and result.status is Status.ABORTED:
                self._error, self._value = verdict_of(result, cancelled=True), None
            self.result = result
        self._tell(owner)

    def _tell(self, owner: OutcomeOwner) -> None:
        owner.on_outcome(self)
        self._owner = None  # not before: Ctrl-C in between makes the session deliver again

    def on_output(self, stream: str, text: str, /) -> None:
        if self._texts is None:
            self._texts = []
        self._texts.append((stream, text))

    # ------------------------------------------------------------ for the result

    @property
    def is_done(self) -> bool:
        return self.result is not None

    @property
    def has_failed(self) -> bool:
        """Whether the task is known to have failed, without looking into its value."""
        return self.result is not None and self.result.status != Status.OK

    @property
    def has_died(self) -> bool:
        """Whether the task ended without an engine's word: nothing was measured."""
        return self.result is not None and self.result.status not in (Status.OK, Status.ERROR)

    @property
    def duration_s(self) -> float:
        """Seconds that the task took on its engine; 0 if it did not run."""
        return 0.0 if self.result is None else max(0.0, self.result.completed - self.result.started)

    def read(self) -> tuple[Any, Exception | None]:
        """The value, or the error in its place. The task must have ended."""
        if self._value is not _UNREAD:
            return self._value, self._error
        with self._lock:
            if self._value is _UNREAD:
                assert self.result is not None
                # The value last: who sees it without the lock sees the rest as well.
                value, self._error = self._decode(self.result, self._buffers)
                self._value = value
                self._buffers = ()
                if len(self.result.payload) > _LARGE_BYTES:
                    self.result = msgspec.structs.replace(self.result, payload=b"")
        return self._value, self._error

    def text(self, stream: str) -> str:
        """What the task has written to ``stdout`` or ``stderr`` so far."""
        early = "".join(text for name, text in self._texts or () if name == stream)
        return early if self.result is None else early + str(getattr(self.result, stream))

    def _decode(self, result: TaskResult, buffers: Sequence[Buffer]) -> tuple[Any, Exception | None]:
        if result.status is Status.OK:
            try:
                return unpack(result.payload, buffers), None
            except Exception as error:  # noqa: BLE001 - whatever the user's classes raise is this task's error
                error.add_note(f"The result of task {format_task_id(result.task)} cannot be unpickled here.")
                return None, error
        if result.status is Status.ERROR:
            return None, unpack_failure(result.payload, buffers)
        return None, verdict_of(result)


class MapOutcome(Outcome):
    """A promise for one chunk of a map: `size` items from `start` on.

    `read` gives a list, which has None for failed items.
    """

    __slots__ = ("failures", "size", "start")

    def __init__(self, owner: OutcomeOwner, start: int, size: int) -> None:
        super().__init__(owner)
        self.start = start
        self.size = size
        self.failures: dict[int, Exception] = {}
        """Errors by row of the chunk; complete once it was read."""

    @property
    def is_local(self) -> bool:
        """Whether it has ended without ever having been a task."""
        return self.result is not None and self.result.task == _NO_TASK

    def fail(self, error: Exception) -> None:
        """End without a task: these items could not be sent."""
        self._error, self._value = error, None
        self.result = TaskResult(_NO_TASK, Status.REFUSED)
        self.failures = dict.fromkeys(range(self.size), error)
        if self._owner is not None:
            self._tell(self._owner)

    def read(self) -> tuple[Any, Exception | None]:
        values, error = super().read()
        if error is not None and not self.failures:
            self.failures = dict.fromkeys(range(self.size), error)
        return values, error

    def items(self) -> list[Any]:
        """One entry per item: its value, or the exception in its place."""
        values, _ = self.read()
        if not self.failures:
            return list(values)
        found: list[Any] = [None] * self.size if values is None else list(values)
        for row, error in self.failures.items():
            found[row] = error
        return found

    def _decode(self, result: TaskResult, buffers: Sequence[Buffer]) -> tuple[Any, Exception | None]:
        if result.status not in (Status.OK, Status.ERROR):
            return None, verdict_of(result)
        try:
            values, failures = unpack(result.payload, buffers)
            if type(values) is not list:  # a failure: the engine could not begin with the first row
                return None, unpack_failure(result.payload, buffers)
        except Exception as error:  # noqa: BLE001 - whatever the user's classes raise is this task's error
            error.add_note(f"The results of task {format_task_id(result.task)} cannot be unpickled here.")
            return None, error
        self.failures = {row: unpack_failure(inline, parts) for row, inline, *parts in failures}
        return values, None
