"""What is shown of a session while it goes on: bars, and what a notebook displays of clients and results.

They are told that time passes by whoever reads the connection, a caller that waits or the background thread,
so nothing here needs a thread, and what is shown moves in a blocking call as well as without one.
"""

from __future__ import annotations

import logging
import math
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

TICK_S = 0.25

log = logging.getLogger("enginery.client")


class Ticker(Protocol):
    """Something that is shown and changes."""

    def on_tick(self) -> bool:
        """Look at what has changed; any thread may call it, none that holds a lock. It must not wait.

        Returns whether to be called again after `TICK_S`, or only when something has come.
        """


class Tickers:
    """Those of one session. They are kept alive by who shows them, not by this."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake  # makes somebody read, who looks at `due`
        self.due = math.inf
        """When to call `run` next."""
        self._lock = threading.Lock()
        self._tickers: list[weakref.ref[Ticker]] = []
        self._last = 0.0
        self._news = 0  # how often something has come, which may be while they are told

    def __repr__(self) -> str:
        return f"<Tickers: {len(self._tickers)}>"

    def add(self, ticker: Ticker) -> None:
        """Tell it that time passes, from whichever thread reads, for as long as somebody holds it."""
        with self._lock:
            self._tickers = [one for one in self._tickers if one() not in (None, ticker)]
            self._tickers.append(weakref.ref(ticker))
        self.due = 0.0
        self._wake()

    def remove(self, ticker: Ticker) -> None:
        with self._lock:
            self._tickers = [one for one in self._tickers if one() not in (None, ticker)]

    def on_news(self) -> None:
        """Something has come: those that had nothing to do may have."""
        if self._tickers:
            self._news += 1
            self.due = min(self.due, self._last + TICK_S)

    def run_if_any(self, now: Callable[[], float]) -> None:
        """Somebody is about to look at what he has waited for."""
        if self._tickers:
            self.run(now())

    def run(self, now: float) -> None:
        """Tell all of them. One that fails is told no more."""
        self._last = now
        self.due = now + TICK_S
        goes_on, news = False, self._news
        for reference in list(self._tickers):
            ticker = reference()
            if ticker is None:
                continue
            try:
                goes_on |= ticker.on_tick()
            except Exception:
                log.exception("%r cannot be shown any longer", ticker)
                self.remove(ticker)
        if not goes_on and self._news == news and self.due > now:  # else one has been added meanwhile
            self.due = math.inf
