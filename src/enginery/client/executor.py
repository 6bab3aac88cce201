"""ViewExecutor: a view as an executor of `concurrent.futures` (PEP 3148)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from enginery.client.results import AsyncMapResult, AsyncResult
from enginery.client.sources import listed_columns

if TYPE_CHECKING:
    from enginery.client.views.view import View

_Result = TypeVar("_Result", bound=AsyncResult)


class ViewExecutor(Executor):
    """Run calls through a view, as ``concurrent.futures`` does; made by `view.executor` and `rc.executor()`.

    Its futures are AsyncResults. Shutting it down leaves engines and client as they are.

    >>> with rc.executor() as executor:                                 # doctest: +SKIP
    ...     executor.submit(pow, 2, 10).result()
    1024
    """

    def __init__(self, view: View) -> None:
        self.view = view
        self._is_shut_down = False
        self._pending: set[AsyncResult] = set()

    def __repr__(self) -> str:
        state = "shut down" if self._is_shut_down else f"{len(self._pending)} calls pending"
        return f"<ViewExecutor over {self.view!r}: {state}>"

    @property
    def _max_workers(self) -> int:
        # Not public, but read by libraries that take any executor.
        return len(self.view)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Call ``fn(*args, **kwargs)`` and return its future.

        Raises RuntimeError after `shutdown`, TypeError or PicklingError naming an argument that cannot be
        sent.
        """
        return self._keep(lambda: self.view.apply_async(fn, *args, **kwargs))

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Return an iterator over the values of ``fn(*items)``, in order; the first error ends it.

        All items are read and sent at once, or with `buffersize` only so many chunks ahead of the values that
        were taken. `chunksize` is how many items are one task; by default that is decided by what is
        measured, and a chunk of a lazy map is one item. What has not started is taken back when the iterator
        is closed or ends with an error; it raises TimeoutError if a value is not there `timeout` seconds
        after this call.
        """
        for name, value in (("chunksize", chunksize), ("buffersize", buffersize)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise TypeError(f"{name} must be a whole number, not {value!r}")
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        deadline = None if timeout is None else time.monotonic() + timeout
        if buffersize is None:
            whole = self._map(fn, listed_columns(iterables), chunksize)
            return _values(deque([whole]), iter(()), deadline)
        size = chunksize or 1
        rows = zip(*iterables, strict=False)
        chunks = iter(lambda: list(islice(rows, size)), [])
        maps = (self._map(fn, list(zip(*chunk, strict=True)), size) for chunk in chunks)
        return _values(deque(islice(maps, buffersize)), maps, deadline)

    def _map(
        self, fn: Callable[..., Any], columns: Sequence[Sequence[Any]], chunksize: int | None
    ) -> AsyncMapResult:
        flags = {"chunksize": chunksize} if chunksize is not None and self.view.balanced else {}
        return self._keep(lambda: self.view.map_async(fn, *columns, **flags))

    def _keep(self, start: Callable[[], _Result]) -> _Result:
        """Start a call, and remember it until it has ended."""
        # No lock is held meanwhile: a call may wait for others to end, whose callbacks may start calls.
        self._check_open()
        result = start()
        self._pending.add(result)
        result.add_done_callback(self._pending.discard)
        if self._is_shut_down:
            result.cancel()
            self._check_open()
        return result

    def _check_open(self) -> None:
        if self._is_shut_down:
            raise RuntimeError(f"the executor over {self.view!r} has been shut down and takes no new calls")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no new calls, and wait for those that were made; engines and client stay as they are.

        With `cancel_futures` calls that have not started are taken back. Repeating it does no harm.
        """
        self._is_shut_down = True
        pending = list(self._pending)
        if cancel_futures:
            _cancel(pending)
        if wait:
            for result in pending:
                result.wait()


def _values(
    started: deque[AsyncMapResult], more: Iterator[AsyncMapResult], deadline: float | None
) -> Iterator[Any]:
    try:
        while started:
            started.extend(islice(more, 1))
            for value, error in started[0].pairs(deadline):
                if error is not None:
                    raise error
                yield value
            del started[0]
    finally:
        _cancel(started)


def _cancel(results: Iterable[AsyncResult]) -> None:
    """As PEP 3148 has it: what runs goes on."""
    for result in results:
        result.cancel_waiting()
