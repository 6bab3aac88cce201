"""AsyncResult: the future of one call, on one engine or several.

One task per engine, one `Outcome` per task. The future is finished when the last outcome has come; values are
unpickled when they are asked for, by the thread that asks. `concurrent.futures.wait`, `as_completed` and
`asyncio.wrap_future` see a `Future` like any other: the lazy value is behind `result` and `exception`.

The parts of a result, and several results joined, are results too: over outcomes that have other owners.

Making one costs about 2 µs, of which `Future` itself takes 0.7.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    InvalidStateError,
)
from functools import partial
from itertools import chain
from typing import Any, Literal, NoReturn, Self, overload

from enginery.client.contract import TaskSession
from enginery.client.numbers import read_priority
from enginery.client.results.awaiting import LoopWaits
from enginery.client.results.bars import ProgressBar
from enginery.client.results.called_future import ENDED, CalledFuture
from enginery.client.results.description import Described, Origin
from enginery.client.results.explanation import Explanation, explain_outcomes
from enginery.client.results.metadata import METADATA_KEYS, Metadata
from enginery.client.results.outcome import Outcome
from enginery.client.results.partial import Partial
from enginery.client.results.tally import Tally
from enginery.client.results.verdicts import combine
from enginery.core.wishes import ABORT, Wish
from enginery.errors import TaskCancelled
from enginery.ids import EngineId, TaskId

__all__ = ["AsyncResult", "Origin", "When"]

When = Literal["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"]
"""The constants of `concurrent.futures`."""
Parts = set["AsyncResult"]

_LAZY = Exception("look into the outcomes")


class AsyncResult(Described, CalledFuture):
    """Hold the place of a call's result; a `concurrent.futures.Future`.

    A call to one engine has that engine's bare value, one to a list of engines a list in the order of
    targets. The time-outs are in seconds; None and negative ones mean for ever.

    >>> ar = view.apply_async(pow, 2, 10)                               # doctest: +SKIP
    >>> ar.get(timeout=5)                                               # doctest: +SKIP
    1024
    """

    owner: bool = True
    """Whether the client forgets the tasks' entries in `results` and `metadata` with this result."""
    _ended: set[Outcome] | None = None  # of tasks that other results count as well
    _parts: dict[Outcome, AsyncResult] | None = None
    _failure: BaseException | None = None
    _loop_waits: LoopWaits | None = None
    _tally: Tally | None = None  # once there is something to count

    def __init__(
        self, session: TaskSession, origin: Origin, *, engines: Sequence[EngineId] = (), tasks: int = 1
    ) -> None:
        super().__init__()
        self._session = session
        self._origin = origin
        if engines:
            self._outcomes = [Outcome(self, engine) for engine in engines]
        else:
            self._outcomes = [Outcome(self)] if tasks == 1 else [Outcome(self) for _ in range(tasks)]
        self._open = len(self._outcomes)
        self._submitted = time.time()
        self._state_lock = threading.RLock()  # a signal handler may look at what it has interrupted
        self._metadata: dict[Outcome, Metadata] = {}

    @classmethod
    def _over(
        cls, session: TaskSession, origin: Origin, outcomes: Iterable[Outcome], *, submitted: float
    ) -> Self:
        """A result over tasks that belong to other results as well."""
        result = cls(session, origin, tasks=0)
        result._outcomes += outcomes
        result._submitted = submitted
        result._open = len(result._outcomes)
        result._ended = set()
        for outcome in result._outcomes:
            outcome.tell_also(result)
        return result

    # ------------------------------------------------------------ from the session

    @property
    def is_writeable(self) -> bool:
        """Whether arrays among its values may be changed: the flag `writeable` of its call."""
        return self._origin.writeable

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
            if self._ended is not None:
                is_new = outcome not in self._ended
                self._ended.add(outcome)
                self._open = len(self._outcomes) - len(self._ended)
            elif is_new := not outcome.is_counted:
                outcome.is_counted = True
                self._open -= 1
            if is_new and (outcome.has_failed or self._tally is not None):
                self._tally_of_it().on_ended(outcome)
            is_over = not self._open
        if is_over:
            self._finish()
        if self._loop_waits is not None:
            self._loop_waits.tell()

    def on_moved(self, outcome: Outcome, /) -> None:
        """One of the tasks has said how far it is."""
        with self._state_lock:
            self._tally_of_it().on_moved(outcome)

    def _tally_of_it(self) -> Tally:
        if self._tally is None:
            self._tally = Tally()
        return self._tally

    def _is_counted(self, outcome: Outcome) -> bool:
        """Whether it is among those that have ended; under the lock."""
        return outcome.is_counted if self._ended is None else outcome in self._ended

    def _finish(self) -> None:
        if self.done():
            return
        self._finished = time.time() if self._ended is None else self._last_received()
        failed = []
        if not self._origin.return_exceptions:
            failed = [outcome for outcome in self._outcomes if outcome.has_failed]
        try:
            if not failed:
                self.set_result(None)
            elif all(outcome.was_cancelled for outcome in failed):
                self._set_cancelled()
            else:
                self.set_exception(_LAZY)  # so that those who wait for the first exception hear of it
        except InvalidStateError:
            pass  # the last two outcomes came in two threads, and the other one was faster

    def _last_received(self) -> float:
        return float(max(outcome.received for outcome in self._outcomes))

    # ------------------------------------------------------------ the value

    def get(
        self,
        timeout: float | None = None,
        return_exceptions: bool | None = None,
        return_when: When | None = None,
    ) -> Any:
        """Return the value when it is there.

        Raises TimeoutError; the task's own error, which also is a `RemoteError`; `CompositeError` for
        several. With `return_exceptions=True` errors are returned in the places of values.

        With `return_when` ``FIRST_COMPLETED`` or ``FIRST_EXCEPTION`` it need not be the whole: of what has
        ended by then it returns the list of values, or raises the errors.
        """
        if return_when not in (None, ALL_COMPLETED):
            if not self._wait_for(self._when(return_when), timeout):
                self._refuse_early(timeout)
            if not self.done():
                return self._get_ended(return_exceptions)
        elif not self.wait(timeout):
            self._refuse_early(timeout)
        if return_exceptions is None:
            return_exceptions = self._origin.return_exceptions
        if return_exceptions:
            found = self._values_and_errors()
            return found[0] if self._origin.is_single else found
        if self._origin.is_single and not self._outcomes[0].has_failed:
            value, unreadable = self._hand_out(self._outcomes[0])
            if unreadable is None:
                return value
        error = self._error()
        if error is not None:
            try:
                raise error
            finally:
                del error  # a traceback that holds this frame would hold the error
        return self._value()

    def _get_ended(self, return_exceptions: bool | None) -> list[Any]:
        ended = [outcome for outcome in list(self._outcomes) if outcome.is_done]
        origin = self._origin._replace(is_single=False)
        values: list[Any] = AsyncResult._over(self._session, origin, ended, submitted=self._submitted).get(
            0, return_exceptions
        )
        return values

    def result(self, timeout: float | None = None) -> Any:
        """Return the value when it is there; the same as `get`."""
        return self.get(timeout)

    @property
    def r(self) -> Any:
        """The value, waited for."""
        return self.get()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error that `get` would raise, or None.

        Raises TimeoutError, or TaskCancelled if it was cancelled.
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

    @property
    def result_dict(self) -> dict[int, Any]:
        """The values by engine id, waited for; the same as `get_dict`."""
        return self.get_dict()

    def partial(self) -> Partial:
        """Return the values that are there now, and what is missing or failed, without waiting or raising.

        >>> ar.partial()                                                # doctest: +SKIP
        <Partial: 3 of 4 values, 1 missing, 0 failed>
        """
        values: list[Any] = []
        missing: list[int] = []
        failed: dict[int, Exception] = {}
        for position, outcome in enumerate(list(self._outcomes)):
            if not outcome.is_done:
                values.append(None)
                missing.append(position)
                continue
            value, error = self._hand_out(outcome)
            values.append(value)
            if error is not None:
                failed[position] = error
        return Partial(values, missing, failed)

    def _value(self) -> Any:
        values = [self._hand_out(outcome)[0] for outcome in self._outcomes]
        return values[0] if self._origin.is_single else values

    def _values_and_errors(self) -> list[Any]:
        if self._origin.source is None:
            return [outcome.settled() for outcome in self._outcomes]
        return [value if error is None else error for value, error in map(self._hand_out, self._outcomes)]

    def _error(self) -> BaseException | None:
        if self._failure is None:
            errors = [error for outcome in self._outcomes for error in outcome.errors()]
            if errors:
                size = sum(outcome.size for outcome in self._outcomes)
                what = "calls" if size == len(self._outcomes) else "items"
                self._failure = combine(errors, of=size, what=f"{what} of {self._origin.name}")
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

    @overload
    def wait(self, timeout: float | None = -1, return_when: None = None) -> bool: ...

    @overload
    def wait(self, timeout: float | None, return_when: When) -> tuple[Parts, Parts]: ...

    @overload
    def wait(self, timeout: float | None = -1, *, return_when: When) -> tuple[Parts, Parts]: ...

    def wait(self, timeout: float | None = -1, return_when: When | None = None) -> bool | tuple[Parts, Parts]:
        """Wait until all of it has ended; False if that took longer than `timeout`.

        With `return_when`, a constant of `concurrent.futures`, wait for that instead, and return two sets of
        results of single tasks: those that have ended, and those that have not.
        """
        if return_when is not None:
            self._wait_for(self._when(return_when), timeout)
            return self._sorted_parts()
        self._wait_for_whole()
        is_over = self.done() or self._session.wait_until(self.done, timeout)
        if self._live is not None:
            self._live.on_tick()  # whoever sees it in his notebook is to see the end
        return is_over

    def _wait_for_whole(self) -> None:
        """Somebody is about to wait for all of it."""

    def _when(self, return_when: When | None) -> Callable[[], bool]:
        if return_when == ALL_COMPLETED:
            self._wait_for_whole()
            return self.done
        if return_when == FIRST_COMPLETED:
            return lambda: self.done() or any(outcome.is_done for outcome in self._outcomes)
        if return_when == FIRST_EXCEPTION:
            return lambda: self.done() or any(outcome.has_failed for outcome in self._outcomes)
        raise ValueError(
            f"return_when is {ALL_COMPLETED}, {FIRST_COMPLETED} or {FIRST_EXCEPTION}, not {return_when!r}"
        )

    def _sorted_parts(self) -> tuple[Parts, Parts]:
        done: Parts = set()
        pending: Parts = set()
        for part in self.split():
            outcome = part._outcomes[0]
            if outcome.is_done:
                part.on_outcome(outcome)  # it has ended, but who delivers that may not have told the part yet
                done.add(part)
            else:
                pending.add(part)
        return done, pending

    def done(self) -> bool:
        """Whether all of it has ended."""
        # Without the future's lock: a single attribute, and every waiting thread asks for it all the time.
        return self._state in ENDED

    def ready(self) -> bool:
        """Whether all of it has ended."""
        return self.done()

    def successful(self) -> bool:
        """Whether no error came; raises RuntimeError while it runs."""
        if not self.done():
            raise RuntimeError(f"{self!r} has not ended yet; call wait() first")
        return self._error() is None

    def wait_interactive(
        self,
        interval: float = 0.1,
        timeout: float | None = -1,
        widget: bool | None = None,
        return_when: When = "ALL_COMPLETED",
    ) -> bool:
        """Wait with a progress bar; False if that took longer than `timeout`. `interval` is in seconds.

        `widget` says whether the bar is a notebook's; by default it is where there is one.
        """
        is_over = self._when(return_when)
        deadline = None if timeout is None or timeout < 0 else time.monotonic() + timeout
        with ProgressBar(self.standing, widget=widget) as bar:
            while not is_over():
                left = interval if deadline is None else min(interval, deadline - time.monotonic())
                if left <= 0:
                    return False
                self._wait_for(is_over, left)
                bar.move()
            return True

    def __await__(self) -> Generator[Any, None, Any]:
        import asyncio  # 15 ms, and only who awaits needs it

        return asyncio.wrap_future(self).__await__()

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
        self._session.withdraw([task for _, task in self._unfinished()])

    def cancel(self) -> bool:
        """End it: what waits never runs, what runs is interrupted. Returns False if all has ended.

        A task that runs gets a KeyboardInterrupt, wherever it is: asleep, waiting or computing. Its `finally`
        blocks and context managers run, and the engine's namespace stays. How it ends is the engine's word:
        it may still come to its end in time, or catch the interrupt and return. Else the result fails with
        `TaskCancelled`, and `cancelled()` is true. An engine that has not ended it within the `cancel_grace`
        of client or cluster is replaced by another one under the same id, and its namespace is lost; one that
        no host has started is waited for.
        """
        return self._withdraw(Wish(True, self._session.cancel_grace_s))

    def cancel_waiting(self) -> bool:
        """The same, but what runs goes on."""
        return self._withdraw(ABORT)

    def _withdraw(self, wish: Wish) -> bool:
        if self.done():
            return False
        unfinished = self._unfinished()
        for outcome, _ in unfinished:
            outcome.is_cancelling = True
        self._session.withdraw([task for _, task in unfinished], wish)
        return True

    def set_priority(self, priority: int) -> None:
        """Change the priority of what has not started; tasks that run go on.

        Raises TypeError or ValueError for what can be none.

        >>> ar.set_priority(10)                                         # doctest: +SKIP
        """
        number = read_priority(priority)
        tasks = [task for _, task in self._unfinished()]
        if tasks:
            self._session.set_priority(tasks, number)

    def explain(self) -> Explanation:
        """Say why tasks of this call have not ended, and where the time of those that have went.

        It prints as text, and `to_dict` gives plain values. Never raises and never waits for the tasks; a
        controller that does not answer within seconds is said to be silent.

        >>> print(rc[0].apply_async(sum, [1, 2]).explain())             # doctest: +SKIP
        1 of 1 task has not ended:
          sent: engine 0 has it and is busy with task 3fa9c01b-16 (train), for 12.3 s; ...
        """
        return explain_outcomes(self._session, self._outcomes)

    def _unfinished(self) -> list[tuple[Outcome, TaskId]]:
        return [
            (outcome, outcome.task)
            for outcome in list(self._outcomes)
            if not outcome.is_done and outcome.task is not None
        ]

    # ------------------------------------------------------------ parts

    def split(self) -> tuple[AsyncResult, ...]:
        """Return a result for each of its tasks; the same ones every time.

        >>> done, pending = concurrent.futures.wait(ar.split(), 5)      # doctest: +SKIP
        """
        if len(self._outcomes) == 1 and not self._is_map:
            return (self,)
        origin = self._origin._replace(is_single=True)
        with self._state_lock:
            parts = self._parts = {} if self._parts is None else self._parts
        outcomes = list(self._outcomes)
        for outcome in outcomes:
            if outcome not in parts:
                part = AsyncResult._over(self._session, origin, [outcome], submitted=self._submitted)
                parts[outcome] = parts.get(outcome, part)
        return tuple(parts[outcome] for outcome in outcomes)

    @staticmethod
    def join(*async_results: AsyncResult) -> AsyncResult:
        """Return one result over the tasks of several: a list of their values. It undoes `split`.

        Raises ValueError for none, for results of different clients, and for a map whose tasks have not all
        been sent yet.
        """
        if not async_results:
            raise ValueError("join needs at least one result")
        for result in async_results:
            if not isinstance(result, AsyncResult):
                raise TypeError(f"join needs AsyncResults, not {result!r}")
            if result._session is not async_results[0]._session:
                raise ValueError("results of different clients cannot be joined; wait for each of them")
            if not result._is_all_sent():
                raise ValueError(f"{result!r} has not been sent as a whole yet; wait for it first")
        if len(async_results) == 1:
            return async_results[0]
        return AsyncResult._over(
            async_results[0]._session,
            async_results[0]._origin._replace(is_single=False),
            chain.from_iterable(result._outcomes for result in async_results),
            submitted=min(result._submitted for result in async_results),
        )

    _is_map = False

    # ------------------------------------------------------------ as a sequence

    def __len__(self) -> int:
        return len(self._outcomes)

    def __iter__(self) -> Iterator[Any]:
        if self._origin.is_single:
            raise TypeError("a call to one engine has one value, nothing to iterate over; use get()")
        return self._each()

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._origin.is_single:
            raise TypeError("a call to one engine has one value, nothing to iterate over; await it")
        return self._each_later()

    async def _each_later(self) -> AsyncIterator[Any]:
        for outcome in self._outcomes:
            await self._until(partial(_is_done, outcome))
            value, error = self._hand_out(outcome)
            if error is None:
                yield value
            elif self._origin.return_exceptions:
                yield error
            else:
                raise error

    async def _until(self, predicate: Callable[[], bool]) -> None:
        """Wait in the running event loop for something that outcomes bring about."""
        if self._loop_waits is None:
            self._loop_waits = LoopWaits()
        await self._loop_waits.until(predicate)

    def _each(self) -> Iterator[Any]:
        for outcome in self._outcomes:
            self._wait_for(partial(_is_done, outcome))
            value, error = self._hand_out(outcome)
            if error is None:
                yield value
            elif self._origin.return_exceptions:
                yield error
            else:
                raise error

    def __getitem__(self, key: int | slice | str) -> Any:
        """Return metadata for a key, an item of a value that is a list for an index or slice.

        Raises TimeoutError for an item while it runs, KeyError for a key that is not one of metadata.
        """
        if isinstance(key, str):
            if key not in METADATA_KEYS:
                raise KeyError(key)
            return self._column(key)
        if not isinstance(key, slice) and not hasattr(key, "__index__"):
            raise TypeError(f"a result is indexed with a position, a slice or a metadata key, not {key!r}")
        return self.get(0)[key]


def _is_done(outcome: Outcome) -> bool:
    return outcome.is_done
