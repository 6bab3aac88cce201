"""The peers' side of the lane: a `Channel` over a unix socket.

`fileno()` is an epoll object that holds the socket, so one descriptor lasts as long as the channel, whatever
becomes of its connections, and stays silent while there is none.

What 0MQ does behind the scenes when a connection ends is the owner's here: the kernel says so at once, the
channel is broken, and `redial` makes a new one. While nobody listens yet, messages wait and dialling is tried
again in `send`, `receive` and `wait`, with growing pauses; a connection on which nothing was ever heard also
counts as a failure, so that a controller that turns us away is not hammered.

A forked child gives its copies of the descriptors back at once: while one of them were open the controller
would not see the parent's end. Nothing is shut down by that, and the shared epoll object is not touched.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import time
import weakref
from collections import deque
from collections.abc import Sequence

from enginery.errors import ForkedClientError
from enginery.protocol.codec import Buffer
from enginery.transport.channel import NO_FILE, HasFileno
from enginery.transport.keys import RoleCredentials
from enginery.transport.lane import (
    READ_BYTES,
    Inflow,
    LaneViolation,
    Message,
    check_message,
    lane_address,
    make_greeting,
    widen,
)
from enginery.transport.lane_sender import LaneSender

FIRST_PAUSE_S = 0.01
LAST_PAUSE_S = 1.0

_process = os.getpid()
_open: weakref.WeakSet[LaneChannel] = weakref.WeakSet()


class LaneChannel:
    """A `Channel` over the lane; see `dialling.dial`."""

    def __init__(self, credentials: RoleCredentials, path: str) -> None:
        self._credentials = credentials
        self._path = path
        self._process = _process
        self._socket: socket.socket | None = None
        self._epoll = select.epoll()
        self._descriptor = self._epoll.fileno()
        self._sender = LaneSender()
        self._inflow = Inflow()
        self._messages: deque[Message] = deque()
        self._is_drained = False  # the last read took all there was
        self._was_heard = False  # a message has come on this connection
        self._retry_at = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._broken = False
        self._closed = False
        self._wakers: tuple[HasFileno, ...] = ()
        self._poll = self._make_poll()
        _open.add(self)
        self._connect()

    def __repr__(self) -> str:
        state = (
            "closed" if self._closed else "broken" if self._broken else "open" if self._socket else "dialling"
        )
        return f"<LaneChannel {self._credentials.role.value} to {self.address}, {state}>"

    @property
    def broken(self) -> bool:
        return self._broken

    @property
    def address(self) -> str:
        return lane_address(self._path)

    def fileno(self) -> int:
        return self._descriptor

    # ------------------------------------------------------------ messages

    def send(self, header: Buffer, frames: Sequence[Buffer] = ()) -> bool:
        if self._process != _process:
            raise ForkedClientError(self._process, _process)
        if self._broken:
            return False
        check_message(header, frames)
        if self._socket is None:
            self._connect()
        whole = False
        try:
            self._sender.send(header, frames)
            whole = True
        except ConnectionError:
            return False  # what has come before the end can still be received
        finally:
            if not whole:
                self._broken = True
        return True

    def receive(self) -> Message | None:
        if self._process != _process:
            raise ForkedClientError(self._process, _process)
        if not self._messages:
            if self._socket is None:
                self._connect()
            if self._is_drained:
                self._is_drained = False  # whatever comes later shows in the descriptor
                return None
            self._read()
            if not self._messages:
                self._is_drained = False
                return None
        return self._messages.popleft()

    def pending(self) -> bool:
        if self._process != _process:
            raise ForkedClientError(self._process, _process)
        return bool(self._messages)

    def wait(self, timeout_s: float | None, wakers: Sequence[HasFileno] = ()) -> bool:
        if self.pending():
            return True
        if self._broken:
            self._read()  # its owner is to redial; what came before the end is not lost
            return bool(self._messages)
        if tuple(wakers) != self._wakers:
            self._wakers = tuple(wakers)
            self._poll = self._make_poll()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            events = self._poll.poll(self._left_ms(deadline))
            if any(descriptor != self._descriptor for descriptor, _ in events):
                self._connect_or_read()
                return bool(self._messages)
            self._connect_or_read()
            if self._messages:
                return True
            if self._broken:
                return False  # its owner wants to redial
            if not events and deadline is not None and time.monotonic() >= deadline:
                return False

    def _left_ms(self, deadline: float | None) -> int | None:
        if self._socket is None and not self._broken:
            deadline = self._retry_at if deadline is None else min(deadline, self._retry_at)
        if deadline is None:
            return None
        return max(0, math.ceil((deadline - time.monotonic()) * 1000))

    def _connect_or_read(self) -> None:
        if self._socket is None:
            self._connect()
        self._read()

    def _read(self) -> None:
        """Read once, if there is something to be read."""
        connection = self._socket
        if connection is None:
            return
        whole = False
        try:
            count = self._inflow.read(connection, self._messages)
            whole = count > 0
            self._is_drained = count < READ_BYTES
        except BlockingIOError:
            whole = True
        except (ConnectionError, LaneViolation):
            pass
        finally:
            if not whole:
                # The end; or Ctrl-C in the middle: then the rest must not be taken for the next message.
                self._lose()
        if self._messages:
            self._was_heard = True

    # ------------------------------------------------------------ the connection

    def _connect(self) -> None:
        """Dial, if it is time to; whatever fails is tried again."""
        now = time.monotonic()
        if self._broken or now < self._retry_at:
            return
        try:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError:  # this process, or the system, has no descriptor left
            self._postpone(now)
            return
        try:
            connection.setblocking(False)
            connection.connect(self._path)
            widen(connection)
            connection.send(make_greeting(self._credentials))  # a new socket has room for it
            self._epoll.register(connection.fileno(), select.EPOLLIN)
        except OSError:
            connection.close()
            self._postpone(now)
            return
        except BaseException:
            connection.close()
            raise
        self._socket = connection
        self._was_heard = False
        whole = False
        try:
            self._sender.attach(connection)
            whole = True
        except ConnectionError:
            pass
        finally:
            if not whole:
                self._lose()

    def _postpone(self, now: float) -> None:
        self._retry_at = now + self._pause_s
        self._pause_s = min(self._pause_s * 2, LAST_PAUSE_S)

    def _lose(self) -> None:
        """The connection is over."""
        self._broken = True
        self._drop()
        if self._was_heard:
            self._pause_s = FIRST_PAUSE_S
            self._retry_at = 0.0
        else:
            self._postpone(time.monotonic())

    def _drop(self) -> None:
        connection, self._socket = self._socket, None
        self._sender.detach()
        self._inflow = Inflow()
        self._is_drained = False
        if connection is not None:
            # Copies that a child holds in spite of all must neither hide the end nor stay in the epoll.
            try:
                self._epoll.unregister(connection.fileno())
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other side was first
            finally:
                connection.close()

    def redial(self) -> None:
        if self._process != _process:
            raise ForkedClientError(self._process, _process)
        if self._closed:
            return
        self._broken = True
        self._drop()
        self._messages.clear()
        self._broken = False
        self._connect()

    def close(self, linger_s: float = 0.0) -> None:
        if self._closed or self._process != _process:
            return
        if linger_s > 0 and not self._broken:
            with contextlib.suppress(ConnectionError):
                self._sender.drain(time.monotonic() + linger_s)
        self._closed = self._broken = True
        self._descriptor = NO_FILE
        self._messages.clear()
        self._drop()
        self._sender.close()
        self._epoll.close()
        _open.discard(self)

    def _make_poll(self) -> select.poll:
        poll = select.poll()
        for source in (self._descriptor, *(waker.fileno() for waker in self._wakers)):
            poll.register(source, select.POLLIN)
        return poll

    def _let_go(self) -> None:
        """In a forked child."""
        self._descriptor = NO_FILE
        if self._socket is not None:
            self._socket.close()
        self._epoll.close()


def _let_go_of_inherited() -> None:
    global _process
    _process = os.getpid()
    for channel in list(_open):
        channel._let_go()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_of_inherited)
