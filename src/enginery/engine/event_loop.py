"""The event loop of an engine: one for all that awaits, made when something first does.

What a task leaves running in it goes on when the next one awaits.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

CLOSE_S = 1.0
"""How long what still runs may take to end when it is cancelled for good."""

Result = TypeVar("Result")


class EventLoop:
    """Runs coroutines in the thread that calls it, one at a time."""

    def __init__(self) -> None:
        self._loop: AbstractEventLoop | None = None
        self._has_left_some = False

    def __repr__(self) -> str:
        return f"<EventLoop, {'not begun' if self._loop is None else 'open'}>"

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """The coroutine's result. An interrupt cancels it, so that it does not go on in a later task."""
        import asyncio

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        before = asyncio.all_tasks(self._loop)
        task = self._loop.create_task(coroutine)
        try:
            return self._loop.run_until_complete(task)
        except BaseException:
            if not task.done():
                task.cancel()
                self._loop.run_until_complete(asyncio.wait([task]))
            raise
        finally:
            self._has_left_some = self._has_left_some or not asyncio.all_tasks(self._loop) <= before

    def take_left_over(self) -> bool:
        """Whether coroutines that were run since this was asked last have left others running."""
        has_left_some, self._has_left_some = self._has_left_some, False
        return has_left_some

    def close(self) -> None:
        """Cancel what still runs, and give back what the loop holds."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        import asyncio

        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=CLOSE_S))
        asyncio.set_event_loop(None)
        loop.close()
