"""imap: a map that is read lazily on both sides, so that inputs may be endless.

A feeder's thread pulls the inputs and sends one call for each, never more than the bound ahead of the results
that have been taken. What has been taken is let go: a million items need the memory of `max_outstanding`.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Self

from enginery.client.constants import ConstantsOfIterators
from enginery.client.contract import TaskSession
from enginery.client.flags import flag_names
from enginery.client.results.async_result import AsyncResult
from enginery.client.sources import Feeder, check_iterable
from enginery.errors import ClientClosed, NoEnginesRegistered, TaskCancelled

if TYPE_CHECKING:
    from enginery.client.views.view import View


class LazyMapIterator:
    """Iterate over the results of an `imap`; made by `view.imap`.

    An item that failed raises its error, and `next` then goes on with the one after it. Dropping the iterator
    ends the reading of inputs; `cancel` also ends the calls that wait or run.

    >>> results = view.imap(abs, itertools.count(-3))                   # doctest: +SKIP
    >>> next(results), next(results)                                    # doctest: +SKIP
    (3, 2)
    >>> results.cancel()                                                # doctest: +SKIP
    """

    def __init__(
        self, session: TaskSession, window: Window, feeder: Feeder, *, return_exceptions: bool
    ) -> None:
        self._session = session
        self._window = window
        self._feeder = feeder
        self._return_exceptions = return_exceptions
        self._is_cancelled = False

    def __repr__(self) -> str:
        state = "cancelled" if self._is_cancelled else "ended" if self._window.is_over else "running"
        return f"<LazyMapIterator: {self._window.taken} results taken, {state}>"

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        window = self._window
        while True:
            self._session.wait_until(window.is_ready)
            result = window.take()
            if result is None:
                self._raise_end()
            self._feeder.look()
            try:
                return result.result(0)
            except TaskCancelled as error:
                if self._is_cancelled:
                    continue
                if not self._return_exceptions:
                    raise
                return error
            except Exception as error:
                if not self._return_exceptions:
                    raise
                return error

    def _raise_end(self) -> NoReturn:
        error, self._window.error = self._window.error, None
        if error is not None:
            raise error
        if not self._window.is_closed and self._session.closed:
            raise ClientClosed(self._session.end_reason)
        raise StopIteration

    def cancel(self) -> None:
        """Read no more inputs, and end the calls that wait or run, as `AsyncResult.cancel` does.

        What was done can still be iterated over. Repeating it does nothing.
        """
        self._is_cancelled = True
        self._feeder.stop()
        for result in self._window.close():
            result.cancel()

    def __del__(self) -> None:
        # It may run anywhere, so nothing is sent here and no lock is taken.
        self._feeder.stop()


class Window:
    """The calls of one `imap` whose results have not been taken; what its feeder feeds."""

    def __init__(
        self,
        session: TaskSession,
        submit: Callable[..., AsyncResult],
        *,
        constants: ConstantsOfIterators,
        limit: int,
        is_ordered: bool,
    ) -> None:
        self._session = session
        self._submit = submit
        self._constants = constants
        self._limit = limit
        self._is_ordered = is_ordered
        self._lock = threading.Lock()
        self._pending: set[Future[Any]] = set()
        self._queue: deque[Future[Any]] = deque()  # to be taken, entered when they are sent or when they end
        self.started = 0
        self.taken = 0
        self.is_closed = False
        """There are no more inputs."""
        self._on_done = partial(_tell_window, weakref.ref(self))  # not held by what it holds
        self.error: BaseException | None = None
        """What reading the inputs raised, for whoever comes to their end."""

    def __repr__(self) -> str:
        return f"<Window: {self.started - self.taken} of {self._limit or 'any number'} under way>"

    # ------------------------------------------------------------ from the feeder

    def has_room(self) -> bool:
        if self.is_closed:
            return False  # the feeder sleeps until it is stopped
        return not self._limit or self.started - self.taken < self._limit

    def on_row(self, row: tuple[Any, ...]) -> None:
        result: Future[Any]
        try:
            result = self._submit(*self._constants.in_row(row))
        except ClientClosed as error:
            self.on_end(error)
            return
        except Exception as error:  # noqa: BLE001 - whatever pickling raises is this item's error
            result = Future()
            result.set_exception(error)
        with self._lock:
            is_late = self.is_closed
            if not is_late:
                self.started += 1
                self._pending.add(result)
        if is_late:
            result.cancel()
            return
        if self._is_ordered:
            self._queue.append(result)
        result.add_done_callback(self._on_done)
        self._session.notify()

    def on_end(self, error: BaseException | None) -> None:
        with self._lock:
            if not self.is_closed:
                self.is_closed, self.error = True, error
        self._session.notify()

    def on_done(self, result: Future[Any]) -> None:
        self._pending.discard(result)
        if not self._is_ordered:
            self._queue.append(result)

    # ------------------------------------------------------------ from the iterator

    @property
    def is_over(self) -> bool:
        return self.is_closed and self.taken == self.started

    def is_ready(self) -> bool:
        """Whether there is something to take, or nothing will be."""
        with self._lock:
            return self._has_next() or self.is_over

    def take(self) -> Future[Any] | None:
        """The next result, which has ended; None if there is none."""
        with self._lock:
            if not self._has_next():
                return None
            self.taken += 1
            return self._queue.popleft()

    def _has_next(self) -> bool:
        return bool(self._queue) and self._queue[0].done()

    def close(self) -> list[Future[Any]]:
        """There are no more inputs; returns the calls that have not ended."""
        self.on_end(None)
        with self._lock:
            return list(self._pending)


def _tell_window(window: weakref.ref[Window], result: Future[Any]) -> None:
    there = window()
    if there is not None:
        there.on_done(result)


def imap(
    view: View,
    f: Callable[..., Any],
    *sequences: Iterable[Any],
    ordered: bool = True,
    max_outstanding: int | str = "auto",
    return_exceptions: bool = False,
) -> LazyMapIterator:
    """Begin an `imap` through a view; of a direct view, each call goes to whichever of its targets is free.

    Raises TypeError or ValueError for what cannot be, NoEnginesRegistered.
    """
    check_iterable(sequences, what="imap")
    engines = len(view)
    if not engines:
        raise NoEnginesRegistered()
    limit = _check_limit(engines if max_outstanding == "auto" else max_outstanding)
    client = view.client
    if not view.balanced:
        flags = {name: getattr(view, name) for name in flag_names(is_balanced=False)}
        view = client.load_balanced_view(view.targets, **flags)
    session = client.session
    # The feeder's thread sends the calls, but under the label that holds here.
    submit = partial(copy_context().run, view.apply_async, f)
    constants = ConstantsOfIterators(len(sequences))
    window = Window(session, submit, constants=constants, limit=limit, is_ordered=ordered)
    # The window stands where the feeder expects the result: dropping the iterator ends the feeder by itself.
    feeder = Feeder(zip(*sequences, strict=False), window, window)
    client.feeders.start(feeder)
    return LazyMapIterator(session, window, feeder, return_exceptions=return_exceptions)


def _check_limit(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"max_outstanding is a whole number of calls or 'auto', not {value!r}")
    if value < 0:
        raise ValueError(f"max_outstanding is at least 0, which means any number, not {value}")
    return value
