"""AsyncResult: the future of one call, on one engine or several.

One task per engine, one `Outcome` per task. The future is finished when the last outcome has come; values are
unpickled when they are asked for, by the thread that asks. `concurrent.futures.wait`, `as_completed` and
`asyncio.wrap_future` see a `Future` like any other: the lazy value is behind `result` and `exception`.

Making one costs about 2 µs, of which `Future` itself takes 0.7.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from functools import partial
from typing import Any, NamedTuple, NoReturn

from enginery.client.contract import TaskSession
from enginery.client.results.metadata import METADATA_KEYS, Metadata, describe_end, describe_task
from enginery.client.results.outcome import Outcome
from enginery.client.results.verdicts import combine
from enginery.errors import TaskCancelled
from enginery.ids import EngineId, TaskId, format_task_id

_LAZY = Exception("look into the outcomes")
_ENDED = frozenset({"CANCELLED", "CANCELLED_AND_NOTIFIED", "FINISHED"})
"""States of a `Future`, as `concurrent.futures` itself and asyncio read them."""


class Origin(NamedTuple):
    """What a result can tell about its call. One object may serve many calls."""

    name: str = ""
    is_single: bool = True
    label: str = ""
    return_exceptions: bool = False
    source: str | None = None  # of `execute`
    history: Callable[[TaskId, int], None] | None = None
    """Told of each submission: its first task id and how many follow it."""


class AsyncResult(Future[Any]):
    """Hold the place of a call's result; a `concurrent.futures.Future`.

    A call to one engine has that engine's bare value, one to a list of engines a list in the order of
    targets. The time-outs are in seconds; None and negative ones mean for ever.

    >>> ar = view.apply_async(pow, 2, 10)                               # doctest: +SKIP
    >>> ar.get(timeout=5)                                               # doctest: +SKIP
    1024
    """

    _state: str

    def __init__(
        self, session: TaskSession, origin: Origin, *, engines: Sequence[EngineId] = (), tasks: int = 1
    ) -> None:
        super().__init__()
        self._session = session
        self._origin = origin
        self._engines = engines
        self._outcomes: list[Any] = [Outcome(self)] if tasks == 1 else [Outcome(self) for _ in range(tasks)]
        self._open = tasks
        self._submitted = time.time()
        self._finished = 0.0
        self._state_lock = threading.Lock()
        self._metadata: dict[int, Metadata] = {}
        self._failure: BaseException | None = None
        self.is_cancelling = False

    # ------------------------------------------------------------ from the session

    @property
    def promises(self) -> Sequence[Outcome]:
        """One per task, for `Session.submit`."""
        return self._outcomes

    def on_submitted(self, first: TaskId) -> None:
        """The call's tasks have these consecutive ids."""
        outcomes = self._outcomes
        outcomes[0].task = first
        for number in range(1, len(outcomes)):
            outcomes[number].task = TaskId(first + number)
        if self._origin.history is not None:
            self._origin.history(first, len(outcomes))

    def on_outcome(self, outcome: Outcome, /) -> None:
        """One of the tasks has ended. Saying it again does no harm."""
        with self._state_lock:
            if not outcome.is_counted:
                outcome.is_counted = True
                self._open -= 1
            if self._open:
                return
        self._finish()

    def _finish(self) -> None:
        if self.done():
            return
        self._finished = time.time()
        has_failed = False
        if not self._origin.return_exceptions:
            for outcome in self._outcomes:
                if outcome.has_failed:
                    has_failed = True
                    break
        try:
            if has_failed:
                self.set_exception(_LAZY)  # so that those who wait for the first exception hear of it
            else:
                self.set_result(None)
        except InvalidStateError:
            pass  # the last two outcomes came in two threads, and the other one was faster

    # ------------------------------------------------------------ the value

    def get(self, timeout: float | None = None, return_exceptions: bool | None = None) -> Any:
        """Return the value when it is there.

        Raises TimeoutError; the task's own error, which also is a `RemoteError`; `CompositeError` for
        several. With `return_exceptions=True` errors are returned in the places of values.
        """
        if not self.wait(timeout):
            self._refuse_early(timeout)
        if return_exceptions is None:
            return_exceptions = self._origin.return_exceptions
        if return_exceptions:
            found = self._values_and_errors()
            return found[0] if self._origin.is_single else found
        if self._failure is None and self._origin.is_single:
            value, error = self._outcomes[0].read()
            if error is None:
                return value
        error = self._error()
        if error is not None:
            try:
                raise error
            finally:
                del error  # a traceback that holds this frame would hold the error
        return self._value()

    def result(self, timeout: float | None = None) -> Any:
        """Return the value when it is there; the same as `get`."""
        return self.get(timeout)

    @property
    def r(self) -> Any:
        """The value, waited for."""
        return self.get()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error that `get` would raise, or None.

        Raises TimeoutError, or TaskCancelled after `cancel`.
        """
        if not self.wait(timeout):
            self._refuse_early(timeout)
        if self._origin.return_exceptions:
            return None
        error = self._error()
        if isinstance(error, TaskCancelled):
            raise error
        return error

    def get_dict(self, timeout: float | None = -1) -> dict[int, Any]:
        """Return the values by engine id; raises ValueError if an engine ran more than one of the tasks."""
        value = self.get(timeout)
        engines = [outcome.result.engine for outcome in self._outcomes]
        if len(set(engines)) < len(engines):
            raise ValueError(
                "an engine ran several of these tasks, so there is no dictionary by engine; use get()"
            )
        return dict(zip(map(int, engines), [value] if self._origin.is_single else value, strict=True))

    def _value(self) -> Any:
        if self._origin.is_single:
            return self._outcomes[0].read()[0]
        return [outcome.read()[0] for outcome in self._outcomes]

    def _values_and_errors(self) -> list[Any]:
        found = []
        for outcome in self._outcomes:
            value, error = outcome.read()
            found.append(value if error is None else error)
        return found

    def _error(self) -> BaseException | None:
        if self._failure is None:
            errors = [error for outcome in self._outcomes if (error := outcome.read()[1]) is not None]
            if errors:
                self._failure = combine(errors, of=len(self._outcomes), what=f"calls of {self._origin.name}")
        return self._failure

    def _get_snapshot(self) -> tuple[bool, bool, Any, BaseException | None]:
        # asyncio of Python 3.14 reads a future with this, past `result` and `exception`.
        if not self.done():
            return False, False, None, None
        if self.cancelled():
            return True, True, None, None
        error = None if self._origin.return_exceptions else self._error()
        return True, False, self.get() if error is None else None, error

    # ------------------------------------------------------------ waiting

    def wait(self, timeout: float | None = -1) -> bool:
        """Wait until all of it has ended; False if that took longer than `timeout`."""
        return self.done() or self._session.wait_until(self.done, timeout)

    def done(self) -> bool:
        """Whether all of it has ended."""
        # Without the future's lock: a single attribute, and every waiting thread asks for it all the time.
        return self._state in _ENDED

    def ready(self) -> bool:
        """Whether all of it has ended."""
        return self.done()

    def successful(self) -> bool:
        """Whether no error came; raises RuntimeError while it runs."""
        if not self.done():
            raise RuntimeError(f"{self!r} has not ended yet; call wait() first")
        return self._error() is None

    def wait_interactive(
        self, interval: float = 0.1, timeout: float | None = -1, widget: bool | None = None
    ) -> bool:
        """Wait with a progress bar; False if that took longer than `timeout`. `interval` is in seconds."""
        from enginery.client.results.bars import ProgressBar

        deadline = None if timeout is None or timeout < 0 else time.monotonic() + timeout
        bar = ProgressBar(self._length_hint(), name=self._origin.name, unit=self._unit)
        try:
            while not self.done():
                left = interval if deadline is None else min(interval, deadline - time.monotonic())
                if left <= 0:
                    return False
                self._wait_for(self.done, left)
                bar.move_to(self.progress, self._failed_count())
            bar.move_to(self.progress, self._failed_count())
            return True
        finally:
            bar.close()

    def __await__(self) -> Generator[Any, None, Any]:
        import asyncio  # 15 ms, and only who awaits needs it

        return asyncio.wrap_future(self).__await__()

    def _wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        return predicate() or self._session.wait_until(predicate, timeout)

    def _refuse_early(self, timeout: float | None) -> NoReturn:
        done = f" ({self.progress} of {len(self._outcomes)} done)" if len(self._outcomes) > 1 else ""
        limit = "" if timeout is None else f" after {timeout:g} s"
        raise TimeoutError(f"{self._origin.name or 'the call'} has not ended{limit}{done}")

    # ------------------------------------------------------------ taking back

    def abort(self) -> None:
        """Take out of the queues what has not started; it then fails with `TaskAborted`.

        Raises RuntimeError if all has ended.
        """
        if self.done():
            raise RuntimeError(f"{self!r} has ended; there is nothing to abort")
        self._session.abort(self._unfinished())

    def cancel(self) -> bool:
        """Take out of the queues what has not started; it then fails with `TaskCancelled`.

        Returns False if all has ended.
        """
        if self.done():
            return False
        self.is_cancelling = True
        self._session.abort(self._unfinished())
        return True

    def cancelled(self) -> bool:
        """Whether `cancel` came in time for all of the call."""
        return (
            self.is_cancelling
            and self.done()
            and all(isinstance(outcome.read()[1], TaskCancelled) for outcome in self._outcomes)
        )

    def _unfinished(self) -> list[TaskId]:
        return [
            outcome.task
            for outcome in list(self._outcomes)
            if not outcome.is_done and outcome.task is not None
        ]

    # ------------------------------------------------------------ as a sequence

    def __len__(self) -> int:
        return len(self._outcomes)

    def __iter__(self) -> Iterator[Any]:
        if self._origin.is_single:
            raise TypeError("a call to one engine has one value, nothing to iterate over; use get()")
        return self._each()

    def _each(self) -> Iterator[Any]:
        for outcome in self._outcomes:
            self._wait_for(partial(_is_done, outcome))
            value, error = outcome.read()
            if error is None:
                yield value
            elif self._origin.return_exceptions:
                yield error
            else:
                raise error

    def __getitem__(self, key: int | slice | str) -> Any:
        """Return metadata for a key, an item of a value that is a list for an index or slice."""
        if isinstance(key, str):
            if key not in METADATA_KEYS:
                raise KeyError(key)
            return self._column(key)
        return self.get(0)[key]

    def __getattr__(self, name: str) -> Any:
        if name in METADATA_KEYS:
            return self._column(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # ------------------------------------------------------------ what is known of it

    @property
    def msg_ids(self) -> list[str]:
        """The ids of its tasks, as text, in the order of targets."""
        return [format_task_id(task) for task in self.task_ids]

    @property
    def task_ids(self) -> list[TaskId]:
        """The ids of its tasks, as numbers."""
        return [outcome.task for outcome in list(self._outcomes) if outcome.task is not None]

    @property
    def metadata(self) -> Any:
        """What is known of its tasks: a `Metadata`, or a list of them; also before they have ended."""
        found = [self._describe(number) for number in range(len(self._outcomes))]
        return found[0] if self._origin.is_single else found

    @property
    def stdout(self) -> Any:
        """What its tasks have written so far: one text, or a list."""
        return self._column("stdout")

    @property
    def stderr(self) -> Any:
        """What its tasks have written to the error stream so far: one text, or a list."""
        return self._column("stderr")

    @property
    def progress(self) -> int:
        """How many of its tasks have ended."""
        return sum(outcome.is_done for outcome in self._outcomes)

    @property
    def elapsed(self) -> float:
        """Seconds since it was sent, until it ended."""
        return (self._finished or time.time()) - self._submitted

    @property
    def wall_time(self) -> float:
        """Seconds from sending to the arrival of the last result; raises TimeoutError before."""
        self._need_end("wall_time")
        return self._finished - self._submitted

    @property
    def serial_time(self) -> float:
        """Seconds that its tasks took on the engines, added up; raises TimeoutError before the end."""
        self._need_end("serial_time")
        return sum((outcome.duration_s for outcome in self._outcomes), 0.0)

    def __repr__(self) -> str:
        state = "finished" if self.done() else f"{self.progress} of {len(self._outcomes)} done"
        if self.done() and any(outcome.has_failed for outcome in self._outcomes):
            state = "failed"
        return f"<{type(self).__name__}: {self._origin.name or 'call'}: {state}>"

    _unit = "tasks"

    def _length_hint(self) -> int | None:
        return len(self._outcomes)

    def _failed_count(self) -> int:
        return sum(outcome.has_failed for outcome in self._outcomes)

    def _need_end(self, what: str) -> None:
        if not self.done():
            raise TimeoutError(f"{what} is known when all has ended; call wait() first")

    def _column(self, key: str) -> Any:
        if key in ("stdout", "stderr"):
            found: list[Any] = [outcome.text(key) for outcome in self._outcomes]
        else:
            found = [self._describe(number)[key] for number in range(len(self._outcomes))]
        return found[0] if self._origin.is_single else found

    def _describe(self, number: int) -> Metadata:
        outcome = self._outcomes[number]
        metadata = self._metadata.get(number)
        if metadata is None:
            metadata = self._metadata[number] = describe_task(
                outcome.task,
                submitted=self._submitted,
                label=self._origin.label,
                source=self._origin.source,
                engine=int(self._engines[number]) if number < len(self._engines) else None,
            )
        metadata.update(stdout=outcome.text("stdout"), stderr=outcome.text("stderr"))
        if metadata["received"] is None and outcome.is_done and outcome.task is not None:
            error = outcome.read()[1]
            describe_end(metadata, outcome.result, received=outcome.received, error=error)
            info = self._session.engines().get(outcome.result.engine)
            metadata["engine_uuid"] = None if info is None else info.key
        return metadata


def _is_done(outcome: Outcome) -> bool:
    return outcome.is_done
