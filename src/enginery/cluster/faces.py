"""The two faces of a method: written once, blocking; the other is made from it, to be awaited."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Concatenate, ParamSpec, TypeVar

Owner = TypeVar("Owner")
Parameters = ParamSpec("Parameters")
Value = TypeVar("Value")

SUFFIX = "_sync"


def awaited(
    method: Callable[Concatenate[Owner, Parameters], Value],
) -> Callable[Concatenate[Owner, Parameters], Coroutine[Any, Any, Value]]:
    """Make the face to be awaited of a blocking method whose name ends in ``_sync``.

    >>> class Cluster:
    ...     def stop_cluster_sync(self) -> None: ...
    ...     stop_cluster = awaited(stop_cluster_sync)

    The method runs in a thread of its own, so the event loop goes on. Cancelled, the face first waits for the
    method to end, which all of them do in bounded time: nobody is left behind who still changes the cluster.
    """
    name = method.__name__.removesuffix(SUFFIX)

    async def face(self: Owner, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Value:
        import asyncio

        outcome: Future[Value] = Future()
        work = functools.partial(method, self, *args, **kwargs)
        run_in_thread(work, outcome, name=name)
        waiting = asyncio.wrap_future(outcome)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            await asyncio.wait([waiting])
            if not waiting.cancelled():
                waiting.exception()  # seen: the cancellation is what the caller is told
            raise

    face.__name__ = name
    face.__qualname__ = method.__qualname__.removesuffix(SUFFIX)
    face.__doc__ = f"{method.__doc__ or ''}\n\nTo be awaited; `{method.__name__}` is the blocking face."
    return face


def run_in_thread(work: Callable[[], Value], outcome: Future[Value], *, name: str) -> None:
    """Do the work in a thread of its own, where no signal handler can break into it."""
    threading.Thread(target=_run, args=(work, outcome), name=f"enginery {name}").start()


def _run(work: Callable[[], Value], outcome: Future[Value]) -> None:
    if not outcome.set_running_or_notify_cancel():
        return
    try:
        value = work()
    except BaseException as error:  # noqa: BLE001 - all of it goes to whoever awaits
        outcome.set_exception(error)
    else:
        outcome.set_result(value)
