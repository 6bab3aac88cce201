"""A `Future` whose callbacks are called when all that has come together with its end is handed out."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from enginery.client.fulfilling import present

ENDED = frozenset({"CANCELLED", "CANCELLED_AND_NOTIFIED", "FINISHED"})
"""States of a `Future`, as `concurrent.futures` itself and asyncio read them."""


class CalledFuture(Future[Any]):
    """Base of results."""

    _state: str
    _condition: threading.Condition
    _waiters: list[Any]
    _done_callbacks: list[Any]

    def _set_cancelled(self) -> None:
        """What `Future` itself does in two steps, between which others must not come."""
        with self._condition:
            if self._state in ENDED:
                return
            self._state = "CANCELLED_AND_NOTIFIED"
            for waiter in self._waiters:
                waiter.add_cancelled(self)
            self._condition.notify_all()
        self._invoke_callbacks()

    def _invoke_callbacks(self) -> None:
        """Of `Future`, when it ends. A callback may wait for whatever has come at the same time."""
        later = present.callbacks
        if later is None:
            super()._invoke_callbacks()  # type: ignore[misc]
        elif self._done_callbacks:
            later.append(super()._invoke_callbacks)  # type: ignore[misc]
