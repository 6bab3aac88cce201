"""Waiting in an event loop for parts of a result, which other threads bring."""

from __future__ import annotations

import contextlib
from collections.abc import Callable


class LoopWaits:
    """Who waits in event loops for news of one result. `tell` may be called by any thread."""

    def __init__(self) -> None:
        self._wakers: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<LoopWaits: {len(self._wakers)}>"

    def tell(self) -> None:
        """Predicates may have changed."""
        for wake in list(self._wakers):
            with contextlib.suppress(RuntimeError):  # its loop has been closed
                wake()

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Wait until the predicate holds; it is asked in the loop, after each `tell`."""
        import asyncio  # 15 ms, and only who awaits needs it

        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(news.set)

        self._wakers.append(wake)
        try:
            while not predicate():
                await news.wait()
                news.clear()
        finally:
            self._wakers.remove(wake)
