"""What a notebook shows of a client, a view or a result, kept up to date."""

from __future__ import annotations

import threading
import time
import weakref

from enginery.client.displayed import Displayed
from enginery.frontends.faces.cards import card_of
from enginery.frontends.faces.notebook import Place

MOVE_S = 0.4
"""Between two changes at least."""
SHARE = 20
"""Of the time at most a twentieth goes into looking."""


class LiveCard:
    """One object's place; as many cells as have displayed it show it, all of them alike."""

    def __init__(self, owner: Displayed) -> None:
        self._owner = weakref.ref(owner)
        self._place = Place()
        self._lock = threading.Lock()
        self._next_at = 0.0

    def __repr__(self) -> str:
        return f"<LiveCard of {self._owner()!r}>"

    def show(self) -> None:
        """Show it in the present cell, and see to it that it changes."""
        owner = self._owner()
        if owner is None:
            return
        with self._lock:
            self._place.show_anew(card_of(owner._snapshot(may_wait=True)))
            self._next_at = time.monotonic() + MOVE_S
        session = owner._live_session()
        if session is not None:
            session.tickers.add(self)

    def on_tick(self) -> bool:
        """Show what has changed, now and then, and the end of it at once."""
        owner = self._owner()
        if owner is None or not self._lock.acquire(blocking=False):
            return False
        try:
            began = time.monotonic()
            goes_on = owner._live_session() is not None
            if goes_on and began < self._next_at:
                return True
            self._place.show(card_of(owner._snapshot(may_wait=False)))
            self._next_at = began + max(MOVE_S, SHARE * (time.monotonic() - began))
            return goes_on and owner._is_moving()
        finally:
            self._lock.release()
