"""The contract between the shells and whatever carries their messages.

A message is a header and some frames. A peer dials one `Channel`; the controller has one `Exchange` where all
of them meet. Three implementations keep this contract and pass the same tests: 0MQ (`dialling`, `exchange`),
the same-host lane (`lane_channel`, `lane_exchange`) and memory (`memory`). What a connection promises is
little, on purpose, because 0MQ promises no more:

* messages of one connection arrive whole and in order, or not at all;
* nobody is told about a message that was lost; a connection that broke is dialled again behind the scenes and
  goes on in mid-stream, or the channel is `broken` until its owner redials. Numbers, acknowledgements and
  replay belong to the layer above;
* sends never block.

Nothing here knows records: headers and frames are bytes.
"""

from __future__ import annotations

import enum
import os
import sys
import threading
from collections.abc import Sequence
from typing import NamedTuple, NewType, Protocol

from enginery.protocol.codec import Buffer

Route = NewType("Route", bytes)
"""Names one connection at the exchange, for as long as it lasts. Opaque; never chosen by the peer."""

NO_FILE = -1
_ONE = (1).to_bytes(8, sys.byteorder)


class Role(enum.Enum):
    """Whose credentials a peer has shown. Both connections of an engine show the engine's."""

    CLIENT = "client"
    ENGINE = "engine"
    HOST = "host"


class Delivery(enum.Enum):
    """What became of a message that the exchange was to send."""

    SENT = "sent"  # handed to the connection; it may still be lost with it
    WOULD_BLOCK = "would block"
    GONE = "gone"  # there is no such connection any more


class Incoming(NamedTuple):
    """A message from an authenticated peer."""

    route: Route
    role: Role
    header: Buffer
    frames: list[Buffer]


class Rejected(NamedTuple):
    """Something that was dropped at the door: material for one log line."""

    reason: str
    peer: str  # address, or empty if unknown


class HasFileno(Protocol):
    """Whatever `select.poll` can wait for."""

    def fileno(self) -> int: ...


class Channel(Protocol):
    """One dialled connection to the controller.

    Not thread-safe: its owner holds a lock around every call but `fileno`. Any thread that holds the lock
    may call any method.

    Waiting without the lock is possible on `fileno()`, under two rules, because the descriptor tells of
    *changes*, and any call can use a change up:

    * before polling the descriptor, call `receive` until it returns None;
    * after a `send`, while another thread polls the descriptor, ask `pending()`, and if it is true receive
      yourself or wake that thread: it will not be woken by the descriptor.

    After `redial` the descriptor is another one.
    """

    @property
    def broken(self) -> bool:
        """True once a message may have been torn or the connection has ended; only `redial` mends it.

        Sends return False until then. What had come before the end can still be received.
        """
        ...

    @property
    def address(self) -> str:
        """What is dialled, for people."""
        ...

    def send(self, header: Buffer, frames: Sequence[Buffer] = ()) -> bool:
        """Queue a message; False, with nothing sent, if that would block or the connection is broken.

        Frames of 64 KiB and more are not copied: leave them as they are until the peer has acknowledged
        them. Raises `TooLarge` above the size of one frame, `ForkedClientError` in a forked child. Any
        exception that hits in the middle (Ctrl-C) marks the connection broken and goes on.
        """
        ...

    def receive(self) -> tuple[Buffer, list[Buffer]] | None:
        """Take the next message, or None if there is none; never block."""
        ...

    def pending(self) -> bool:
        """Tell whether `receive` would return a message."""
        ...

    def wait(self, timeout_s: float | None, wakers: Sequence[HasFileno] = ()) -> bool:
        """Wait for a message, one of the `wakers`, or the end of the time; return `pending()`.

        For owners that use the channel from one thread. None waits without end.
        """
        ...

    def fileno(self) -> int:
        """The descriptor to poll for reading, under the rules above; -1 when closed."""
        ...

    def redial(self) -> None:
        """Drop the connection with all that is queued in it, and dial the same address again."""
        ...

    def close(self, linger_s: float = 0.0) -> None:
        """End the connection; what is queued has `linger_s` to leave. Repeating it does nothing."""
        ...


class Exchange(Protocol):
    """The controller's side: all connections meet here. Used by one thread only.

    The loop of its owner is: `wait`, then `receive` until None or until the batch is large enough, then send.
    """

    @property
    def tcp_addresses(self) -> tuple[str, ...]: ...

    @property
    def ipc_address(self) -> str: ...

    def wait(self, timeout_s: float | None, wakers: Sequence[HasFileno] = ()) -> None:
        """Wait for messages, one of the `wakers`, or the end of the time (None: no end).

        Newcomers are authenticated meanwhile.
        """
        ...

    def receive(self) -> Incoming | None:
        """Take a message of those that had arrived at the last `wait`; None when there are no more.

        What comes without a proven role is dropped, counted, and listed in `rejections`.
        """
        ...

    def send(self, route: Route, header: Buffer, frames: Sequence[Buffer] = ()) -> Delivery:
        """Queue a message for one connection; never block. An empty batch of records makes a probe.

        What the system does not take at once leaves during `wait`.
        """
        ...

    def rejections(self) -> list[Rejected]:
        """Hand out, once, what was turned away lately: the last 64 at most."""
        ...

    def statistics(self) -> dict[str, int]: ...

    def close(self) -> None:
        """Close all connections at once. Repeating it does nothing."""
        ...


class Waker:
    """Wakes a thread that polls, from any other thread. Close it when nobody will wake it any more.

    >>> waker = Waker()
    >>> waker.wake(); waker.wake(); waker.clear()
    True
    >>> waker.clear()
    False
    >>> waker.close()
    """

    __slots__ = ("_lock", "_read", "_write")

    def __init__(self) -> None:
        # A wake-up must never be written to a descriptor that was closed meanwhile and is somebody else's by
        # now. Re-entrant, because signal handlers wake too.
        self._lock = threading.RLock()
        if hasattr(os, "eventfd"):
            self._read = self._write = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._read, self._write = os.pipe()
            os.set_blocking(self._read, False)
            os.set_blocking(self._write, False)

    def __repr__(self) -> str:
        return f"<Waker{' closed' if self._read == NO_FILE else ''}>"

    def fileno(self) -> int:
        return self._read

    def wake(self) -> None:
        """Make the descriptor readable, until `clear`. Does nothing after `close`."""
        with self._lock:
            if self._write == NO_FILE:
                return
            try:
                os.write(self._write, _ONE if self._read == self._write else b"\1")
            except BlockingIOError:
                pass  # it is full of wake-ups already

    def clear(self) -> bool:
        """Take all wake-ups back; True if there were any."""
        with self._lock:
            if self._read == NO_FILE:
                return False
            try:
                return bool(os.read(self._read, 4096))
            except BlockingIOError:
                return False

    def close(self) -> None:
        with self._lock:
            descriptors = {self._read, self._write} - {NO_FILE}
            self._read = self._write = NO_FILE
            for descriptor in descriptors:
                os.close(descriptor)
