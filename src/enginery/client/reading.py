"""Who reads the connection: the reader's role, held by one thread at a time.

Whoever waits takes the role if it is free, else sleeps until its wish is fulfilled by the present reader or
the role is free. A reader that leaves wakes one sleeper. All of it survives an interrupt (Ctrl-C) at any
point: a thread that finds itself in the role was interrupted while it left, and `heal`, called by the
background thread now and then, wakes a sleeper whom nobody woke.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from enginery.client.shield import Lowered
from enginery.transport import clock
from enginery.transport.channel import Waker

NOBODY = 0


class _Sleeper:
    __slots__ = ("event", "predicate")

    def __init__(self, predicate: Callable[[], bool]) -> None:
        self.predicate = predicate
        self.event = threading.Event()


class _Listener(NamedTuple):
    """Somebody who waits, and has something else to do meanwhile than to read."""

    predicate: Callable[[], bool]
    wake: Callable[[], None]


class ReaderRole:
    """The role, those who wait for it, and the waker that interrupts the reader's poll."""

    def __init__(self) -> None:
        self.waker = Waker()
        self.left_at = 0.0
        self._lock = threading.Lock()
        self._holder = NOBODY  # ident of the thread that reads
        self._sleepers: list[_Sleeper] = []
        self._listeners: list[_Listener] = []

    def __repr__(self) -> str:
        return f"<ReaderRole of thread {self._holder}, {len(self._sleepers)} sleepers>"

    @property
    def is_taken(self) -> bool:
        return self._holder != NOBODY

    @property
    def is_wanted(self) -> bool:
        """Whether somebody sleeps who would rather read."""
        return bool(self._sleepers)

    def take(self) -> bool:
        """Become the reader; False if another thread is."""
        with self._lock:
            if self._holder not in (NOBODY, threading.get_ident()):
                return False
            self._holder = threading.get_ident()
            return True

    def leave(self) -> None:
        """Give the role back, if this thread has it."""
        if self._holder != threading.get_ident():
            return
        try:
            with self._lock:
                self.left_at = clock.now()
                self._holder = NOBODY
                if self._sleepers:
                    self._sleepers[0].event.set()
        finally:
            if self._holder == threading.get_ident():
                self._holder = NOBODY

    def sleep(self, predicate: Callable[[], bool], deadline: float | None, *, kick: bool) -> None:
        """Sleep until the predicate holds, the role may be free, or the deadline has come.

        `kick` wakes the reader, who may be one that makes room.
        """
        sleeper = _Sleeper(predicate)
        try:
            with self._lock:
                if self._holder == NOBODY:
                    return
                self._sleepers.append(sleeper)
            if kick:
                self.waker.wake()
            if not predicate():
                with Lowered():
                    sleeper.event.wait(None if deadline is None else max(deadline - clock.now(), 0.0))
        finally:
            with self._lock:
                if sleeper in self._sleepers:
                    self._sleepers.remove(sleeper)
                if sleeper.event.is_set() and self._holder == NOBODY and self._sleepers:
                    self._sleepers[0].event.set()  # woken to read, but leaving: the next one's turn

    @contextmanager
    def listen(self, predicate: Callable[[], bool], wake: Callable[[], None]) -> Iterator[None]:
        """Have `wake` called when the predicate may hold. It does not count as a wish to read."""
        listener = _Listener(predicate, wake)
        with self._lock:
            self._listeners.append(listener)
        try:
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener)

    def wake_satisfied(self, *, everybody: bool = False) -> None:
        """Wake the sleepers whose predicates hold, and a reader that may poll for what has come already."""
        if self._holder not in (NOBODY, threading.get_ident()):
            self.waker.wake()  # it took the role while we, who read before, were fulfilling promises
        if not self._sleepers and not self._listeners:
            return
        with self._lock:
            sleepers, listeners = list(self._sleepers), list(self._listeners)
        for listener in listeners:
            if everybody or listener.predicate():
                listener.wake()
        for sleeper in sleepers:
            if everybody or sleeper.predicate():
                sleeper.event.set()

    def heal(self) -> None:
        """If the role is free and somebody sleeps all the same, wake the first of them."""
        with self._lock:
            if self._holder == NOBODY and self._sleepers:
                self._sleepers[0].event.set()
