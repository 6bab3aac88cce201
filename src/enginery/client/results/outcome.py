"""One task's place in a result: takes what arrives, and makes a value of it when somebody asks.

Unpickling runs code of the user's, so it does not happen in the thread that reads the socket, and not at
all for values that nobody looks at.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from traceback import format_exception
from typing import Any, Protocol

import msgspec

from enginery.client.results.said import Entry, Said, last_texts
from enginery.client.results.verdicts import verdict_of
from enginery.core.watching import Saying
from enginery.errors import RemoteError, TaskCancelled
from enginery.ids import EngineId, TaskId, format_task_id
from enginery.objects.arrays import writeable_arrivals
from enginery.objects.failures import unpack_failure
from enginery.objects.packing import unpack
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import Progress, Report, Status, TaskResult

LAST_TEXT = 8_000
"""Characters of what a task wrote that are in the error about the death of its engine."""
_UNREAD: Any = object()
_NO_TASK = TaskId(0)
_FROM_ENGINE = frozenset({Status.OK, Status.ERROR, Status.UNMET, Status.CANCELLED, Status.OVER_LIMIT})
_followers_lock = threading.Lock()  # one for all: following is rare, and a lock in each outcome is not free
_LARGE_BYTES = 1 << 10  # payloads from here on are let go once they were read


class OutcomeOwner(Protocol):
    """A result that an outcome is a part of."""

    @property
    def is_writeable(self) -> bool:
        """Whether arrays among its values may be changed."""
        ...

    def on_outcome(self, outcome: Any, /) -> None:
        """The outcome is there. It may be said again."""

    def on_moved(self, outcome: Any, /) -> None:
        """The task has said how far it is, see `Outcome.moved`."""


class Outcome:
    """A promise for one task."""

    __slots__ = (
        "__weakref__",
        "_buffers",
        "_error",
        "_followers",
        "_is_writeable",
        "_lock",
        "_owner",
        "_said",
        "_value",
        "is_cancelling",
        "is_counted",
        "moved",
        "received",
        "result",
        "target",
        "task",
        "watch",
    )

    size: int = 1
    """How many items of the call it stands for."""
    place: int = 0
    """Of the first of them, among those of its call."""

    def __init__(self, owner: OutcomeOwner, target: EngineId | None = None) -> None:
        # Let go when the task has ended: a result is then freed with its last reference, not by the
        # collector.
        self._owner: OutcomeOwner | None = owner
        self._followers: tuple[OutcomeOwner, ...] = ()
        self.target = target
        """The engine that was asked for, if one was."""
        self.result: TaskResult | None = None
        self.task: TaskId | None = None  # set by who submits, or by the result if that is faster
        self.received = 0.0
        self.is_cancelling = False
        """Its user wants it back if it has not started, and calls that a cancel."""
        self.is_counted = False
        """Kept by the owner: it has heard of the end. An interrupted delivery is made again."""
        self.watch: Callable[[Outcome], None] | None = None
        """Told when the task has said something, and when it has ended."""
        self.moved: Progress | None = None
        """How far the task is, if it has said so."""
        self._buffers: Sequence[Buffer] = ()
        self._is_writeable = False
        self._value = _UNREAD
        self._error: Exception | None = None
        self._lock = threading.Lock()
        self._said: Said | None = None

    # ------------------------------------------------------------ from the session

    def on_result(self, result: TaskResult, buffers: Sequence[Buffer], /) -> None:
        owner = self._owner
        if owner is None:
            return  # a delivery that was made twice
        if self.result is None:
            self.received = time.time()
            self._buffers = buffers
            self._is_writeable = owner.is_writeable
            if self.task is None and result.task != _NO_TASK:
                self.task = result.task
            if self.is_cancelling and result.status is Status.ABORTED:
                self._error, self._value = verdict_of(result, cancelled=True), None
            if self._said is not None:
                self._said.note_last(result)
            self.result = result
        self._tell(owner)

    def _tell(self, owner: OutcomeOwner) -> None:
        # The owner last: who waits for it then finds that all others have heard.
        for follower in self._followers:
            follower.on_outcome(self)
            self._forget(follower)
        owner.on_outcome(self)
        if self.watch is not None:
            self.watch(self)
        self._owner = None  # not before: Ctrl-C in between makes the session deliver again

    def on_said(self, saying: Saying, /) -> None:
        if isinstance(saying, Progress):
            if self.moved is None or saying.attempt >= self.moved.attempt:
                self.moved = saying
            return
        if self._said is None:
            said = Said()
            if self.result is not None:
                said.note_last(self.result)
            self._said = said
        self._said.note(saying)

    def on_heard(self) -> None:
        if self.watch is not None:
            self.watch(self)
        elif self._said is not None:
            self._said.entries(sys.maxsize)  # sorts in what was noted, which bounds it
        if self.moved is not None and self.result is None:
            for owner in (self._owner, *self._followers):
                if owner is not None:
                    owner.on_moved(self)

    # ------------------------------------------------------------ for the result

    def tell_also(self, owner: OutcomeOwner) -> None:
        """Have another result hear of the end too: when it comes, or now if it is there."""
        with _followers_lock:
            self._followers = (*self._followers, owner)
        # Looked at after the entry: who delivers the result looks at the entries after it has set the result.
        if self.result is not None:
            self._forget(owner)
            owner.on_outcome(self)

    def _forget(self, follower: OutcomeOwner) -> None:
        with _followers_lock:
            self._followers = tuple(one for one in self._followers if one is not follower)

    @property
    def owner(self) -> OutcomeOwner | None:
        """The result that it is a part of; None when it has ended."""
        return self._owner

    @property
    def known_size(self) -> int | None:
        """The same, or None as long as nobody has said."""
        return self.size

    @property
    def is_done(self) -> bool:
        return self.result is not None

    @property
    def has_failed(self) -> bool:
        """Whether the task is known to have failed, without looking into its value."""
        return self.result is not None and self.result.status != Status.OK

    @property
    def error_line(self) -> str:
        """What went wrong, in a line; empty if nothing did. Nothing of the user's is unpickled for it."""
        result = self.result
        if result is None or not self.has_failed:
            return ""
        if result.status in _FROM_ENGINE and result.detail:
            return result.detail
        error = self._error or verdict_of(msgspec.structs.replace(result, stderr=""))
        return f"{type(error).__name__}: {error}"

    @property
    def was_cancelled(self) -> bool:
        """Whether the task, or some of its items, were cancelled, and nothing else went wrong.

        It does not look into the value.
        """
        if self.result is None:
            return False
        return self.result.status is Status.CANCELLED or isinstance(self._error, TaskCancelled)

    def troubles(self) -> tuple[int, int]:
        """How many of its items have failed, and how many were cancelled."""
        if not self.has_failed:
            return 0, 0
        return (0, 1) if self.was_cancelled else (1, 0)

    @property
    def report(self) -> Report | None:
        """What the task has last reported of itself."""
        if self.result is not None:
            return self.result.report
        return None if self.moved is None else self.moved.report

    @property
    def has_died(self) -> bool:
        """Whether the task ended without having run to its end: nothing was measured."""
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
                value, self._error = self._decode_as_wanted(self.result)
                self._value = value
                self._buffers = ()
                if len(self.result.payload) > _LARGE_BYTES:
                    self.result = msgspec.structs.replace(self.result, payload=b"")
        return self._value, self._error

    def errors(self) -> list[Exception]:
        """What went wrong: an error for each item that failed. The task must have ended."""
        error = self.read()[1]
        return [] if error is None else [error]

    def settled(self) -> Any:
        """The value, with exceptions in the places of what failed. The task must have ended."""
        value, error = self.read()
        return value if error is None else error

    # ------------------------------------------------------------ beside the value

    def text(self, stream: str = "") -> str:
        """What the task has written to ``stdout`` or ``stderr`` so far, or to both."""
        if self._said is not None:
            return self._said.text(stream)
        return "".join(entry.text for entry in last_texts(self.result) if stream in ("", entry.stream))

    def entries(self, start: int = 0) -> tuple[list[Entry], int]:
        """What it has written and displayed from an entry on, and the number of the next one."""
        if self._said is not None:
            return self._said.entries(start)
        texts = last_texts(self.result)
        return [*texts[start:]], max(start, len(texts))

    @property
    def has_all_output(self) -> bool:
        """Whether the task has ended and everything that it has said is here."""
        result = self.result
        if result is None or not result.outputs:
            return result is not None
        return self._said is not None and self._said.last >= (result.attempt, result.outputs)

    @property
    def heard_at(self) -> float:
        """When something of this task, its end above all, came last."""
        return max(self.received, 0.0 if self._said is None else self._said.heard_at)

    def outputs(self) -> list[dict[str, Any]]:
        """What the task displays, each as a dictionary of `data`, `metadata` and `transient`."""
        return [] if self._said is None else self._said.displays()

    def data(self) -> dict[str, Any]:
        """What the task has published so far, the latest value of each name.

        In the place of a value that cannot be unpickled here is the exception.
        """
        if self._said is None:
            return {}
        return {name: _read_data(payload) for name, payload in self._said.values().items()}

    # ------------------------------------------------------------ inside

    def _decode_as_wanted(self, result: TaskResult) -> tuple[Any, Exception | None]:
        if not self._is_writeable:
            return self._decode(result, self._buffers)
        with writeable_arrivals():
            return self._decode(result, self._buffers)

    def _decode(self, result: TaskResult, buffers: Sequence[Buffer]) -> tuple[Any, Exception | None]:
        if result.status is Status.OK:
            try:
                return unpack(result.payload, buffers), None
            except StopIteration as error:  # a future that holds it would never wake who awaits it
                return None, RemoteError("StopIteration", str(error), "".join(format_exception(error)))
            except Exception as error:  # noqa: BLE001 - whatever the user's classes raise is this task's error
                error.add_note(f"The result of task {format_task_id(result.task)} cannot be unpickled here.")
                return None, error
        if result.status in _FROM_ENGINE and result.payload:
            return None, unpack_failure(result.payload, buffers)
        return None, self._verdict(result)

    def _verdict(self, result: TaskResult) -> RemoteError:
        """The error of a task whose engine may have had no time for words of its own."""
        return verdict_of(result, last_output=_end_of(self.text()))


def _end_of(text: str) -> str:
    """The last lines of a text, `LAST_TEXT` characters at most."""
    if len(text) <= LAST_TEXT:
        return text
    end = text[-LAST_TEXT:]
    return end[end.find("\n") + 1 :]


def _read_data(payload: bytes) -> Any:
    try:
        return unpack(payload)
    except Exception as error:  # noqa: BLE001 - whatever the user's classes raise belongs to this value
        return error


class MapOutcome(Outcome):
    """A promise for one chunk of a map: `size` items from `start` on.

    `read` gives a list, which has None for failed items.
    """

    __slots__ = ("failures", "size", "start")

    def __init__(self, owner: OutcomeOwner, start: int, size: int, target: EngineId | None = None) -> None:
        super().__init__(owner, target)
        self.start = start
        self.size = size
        self.failures: dict[int, Exception] = {}
        """Errors by row of the chunk; complete once it was read."""

    @property
    def place(self) -> int:  # type: ignore[override]
        return self.start

    def troubles(self) -> tuple[int, int]:
        result = self.result
        if result is None or not self.has_failed:
            return 0, 0
        if result.failed or result.cancelled:
            return result.failed, result.cancelled
        if not result.items and result.payload and self.size > 1:  # the history does not say
            cancelled = sum(isinstance(error, TaskCancelled) for error in self.errors())
            return len(self.failures) - cancelled, cancelled
        failed, cancelled = super().troubles()  # all of them alike
        return failed * self.size, cancelled * self.size

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

    def errors(self) -> list[Exception]:
        self.read()
        return [error for _, error in sorted(self.failures.items(), key=lambda pair: pair[0])]

    def settled(self) -> list[Any]:
        """One entry per item: its value, or the exception in its place."""
        values, _ = self.read()
        if not self.failures:
            return list(values)
        found: list[Any] = [None] * self.size if values is None else list(values)
        for row, error in self.failures.items():
            found[row] = error
        return found

    def _decode(self, result: TaskResult, buffers: Sequence[Buffer]) -> tuple[Any, Exception | None]:
        if result.status not in _FROM_ENGINE or not result.payload:
            return None, self._verdict(result)
        if result.status is Status.UNMET:
            return None, unpack_failure(result.payload, buffers)
        try:
            values, failures = unpack(result.payload, buffers)
            if type(values) is not list:  # a failure: the engine could not begin with the first row
                return None, unpack_failure(result.payload, buffers)
        except Exception as error:  # noqa: BLE001 - whatever the user's classes raise is this task's error
            error.add_note(f"The results of task {format_task_id(result.task)} cannot be unpickled here.")
            return None, error
        for place, inline, *parts in failures:
            rows = range(*place) if isinstance(place, tuple) else (place,)
            self.failures.update(dict.fromkeys(rows, unpack_failure(inline, parts)))
        return values, None
