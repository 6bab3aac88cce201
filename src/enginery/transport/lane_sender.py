"""Sends for a channel of the lane, and goes on when the kernel has no room.

Sends never block, and an engine that runs user code for an hour does not come back to send the rest of the
last result. So a thread does; it is started by the first message that does not fit, and sleeps between.
Everything else is done by the owner's thread, which finds the thread's failures when it reads.
"""

from __future__ import annotations

import math
import select
import socket
import threading
import time
from collections.abc import Sequence

from enginery.protocol.codec import Buffer
from enginery.transport.channel import Waker
from enginery.transport.lane import Outflow


class LaneSender:
    """What goes out on one channel, over one connection after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # around the outflow and the connection
        self._outflow = Outflow()
        self._connection: socket.socket | None = None
        self._waker: Waker | None = None  # wakes the thread
        self._thread: threading.Thread | None = None
        self._closing = False

    def __repr__(self) -> str:
        return f"<LaneSender{' behind' if self._outflow else ''}>"

    def send(self, header: Buffer, frames: Sequence[Buffer]) -> None:
        """Send or queue. What this raises has torn the message."""
        with self._lock:
            self._outflow.send(self._connection, header, frames)
            is_behind = bool(self._outflow)
        if is_behind:
            self._catch_up()

    def attach(self, connection: socket.socket) -> None:
        """From now on send over this connection, first what has waited for one."""
        with self._lock:
            self._connection = connection
            if not self._outflow:
                return
            self._outflow.flush(connection)
        self._catch_up()

    def detach(self) -> None:
        """Forget the connection and all that waits. When this returns the connection may be closed."""
        with self._lock:
            self._connection = None
            self._outflow.clear()

    def drain(self, deadline: float) -> None:
        """Wait until everything has left, there is no connection, or the time has come."""
        while True:
            with self._lock:
                connection = self._connection
                if connection is None or not self._outflow or self._outflow.flush(connection):
                    return
                poll = select.poll()
                poll.register(connection.fileno(), select.POLLOUT)
            left_ms = math.ceil((deadline - time.monotonic()) * 1000)
            if left_ms <= 0:
                return
            poll.poll(left_ms)

    def close(self) -> None:
        """End the thread. Repeating it does nothing."""
        self.detach()
        self._closing = True
        if self._waker is not None and self._thread is not None:
            self._waker.wake()
            self._thread.join()
            self._waker.close()

    def _catch_up(self) -> None:
        """Leave what waits to the thread."""
        if self._connection is None or self._closing:
            return
        if self._waker is None:
            self._waker = Waker()
        self._waker.wake()
        if self._thread is None:
            thread = threading.Thread(
                target=self._run, args=(self._waker,), name="enginery-lane", daemon=True
            )
            thread.start()
            self._thread = thread

    def _run(self, waker: Waker) -> None:
        while not self._closing:
            poll = select.poll()
            poll.register(waker.fileno(), select.POLLIN)
            with self._lock:
                if self._connection is not None and self._outflow:
                    poll.register(self._connection.fileno(), select.POLLOUT)
            poll.poll()
            waker.clear()
            with self._lock:
                if self._connection is None:
                    continue
                try:
                    self._outflow.flush(self._connection)
                except OSError:
                    self._outflow.clear()  # reading will find the end of the connection
