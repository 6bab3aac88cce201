"""The controller's side of the lane, taken alone: who comes in, what they send, what is sent to them.

A connection that has ended is unknown only after all that it sent has been handed out, as with 0MQ: what an
engine said last still counts as said by that engine.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from enginery.errors import LaunchError
from enginery.protocol.codec import Buffer
from enginery.transport.channel import Delivery, Incoming, Rejected, Role, Route
from enginery.transport.keys import ClusterKeys
from enginery.transport.lane import (
    GREETING_LIMIT,
    Inflow,
    LaneViolation,
    Message,
    Outflow,
    check_message,
    lane_address,
    peer_of,
    take_greeting,
    widen,
)
from enginery.transport.sockets import HANDSHAKE_S

LANE_PREFIX = b"\x02"
_BACKLOG = 4096
_ACCEPTED_AT_ONCE = 64
_KEPT_REJECTIONS = 64
_FULL_PAUSE_S = 0.1
"""How long newcomers wait when this process has no descriptor left for them."""


class _Connection:
    __slots__ = ("descriptor", "greeting", "inflow", "outflow", "peer", "role", "route", "socket", "watches")

    def __init__(self, connection: socket.socket, route: Route, peer: str) -> None:
        self.socket: socket.socket | None = connection
        self.descriptor = connection.fileno()
        self.route = route
        self.peer = peer
        self.role: Role | None = None
        self.greeting = b""  # as much as has come of it
        self.inflow = Inflow()
        self.outflow = Outflow()
        self.watches = False  # for room to write


class LaneListener:
    """All connections of one lane. `epoll` is its owner's."""

    def __init__(self, keys: ClusterKeys, path: str | os.PathLike[str], epoll: select.epoll) -> None:
        self.path = os.fspath(path)
        self._keys = keys
        self._epoll = epoll
        self._numbers = itertools.count(1)
        self._by_descriptor: dict[int, _Connection] = {}
        self._by_route: dict[Route, _Connection] = {}
        self._strangers: deque[tuple[float, _Connection]] = deque()  # with the time of their patience's end
        self._inbox: deque[Incoming | _Connection] = deque()  # a connection stands for its end
        self._messages: deque[Message] = deque()
        self._accepts_at: float | None = None  # when newcomers are welcome again
        self.rejections: deque[Rejected] = deque(maxlen=_KEPT_REJECTIONS)
        self.rejected = self.messages_in = self.messages_out = 0
        self._listener = _listen(self.path)
        epoll.register(self._listener.fileno(), select.EPOLLIN)

    def __repr__(self) -> str:
        return f"<LaneListener {lane_address(self.path)}, {len(self._by_route)} connections>"

    # ------------------------------------------------------------ what has happened

    def has_messages(self) -> bool:
        inbox = self._inbox
        while inbox:
            item = inbox[0]
            if isinstance(item, Incoming):
                return True
            inbox.popleft()
            self._by_route.pop(item.route, None)
        return False

    def owns(self, descriptor: int) -> bool:
        return descriptor in self._by_descriptor

    def on_event(self, descriptor: int, events: int, *, reads: bool) -> bool:
        """Handle what epoll tells of a descriptor; False if it is not one of the lane's."""
        connection = self._by_descriptor.get(descriptor)
        if connection is None:
            if descriptor != self._listener.fileno():
                return False
            self._accept()
            return True
        if events & select.EPOLLOUT:
            self._flush(connection)
        if events & ~select.EPOLLOUT and reads:
            self._read(connection)
        return True

    def next_deadline(self) -> float | None:
        deadline = self._accepts_at
        strangers = self._strangers
        while strangers and (strangers[0][1].role is not None or strangers[0][1].socket is None):
            strangers.popleft()
        if strangers and (deadline is None or strangers[0][0] < deadline):
            deadline = strangers[0][0]
        return deadline

    def on_tick(self) -> None:
        """Do what is due."""
        deadline = self.next_deadline()
        now = time.monotonic() if deadline is not None else 0.0
        if deadline is None or now < deadline:
            return
        strangers = self._strangers
        while strangers and strangers[0][0] <= now:
            _, connection = strangers.popleft()
            if connection.role is None and connection.socket is not None:
                self._reject("it did not say who it is in time", connection.peer)
                self._end(connection)
        if self._accepts_at is not None and self._accepts_at <= now:
            self._accepts_at = None
            self._epoll.register(self._listener.fileno(), select.EPOLLIN)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, _ = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError as error:
                # No descriptor is left: the listener would be readable without end.
                self._epoll.unregister(self._listener.fileno())
                self._accepts_at = time.monotonic() + _FULL_PAUSE_S
                self._reject(f"it cannot be let in: {error.strerror}", "")
                return
            self._admit(accepted)

    def _admit(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        known = peer_of(accepted)
        peer = f"process {known[0]} of user {known[1]}" if known else ""
        if known and known[1] not in (os.getuid(), 0):
            accepted.close()
            self._reject("it belongs to another user", peer)
            return
        widen(accepted)
        route = Route(LANE_PREFIX + next(self._numbers).to_bytes(8, "big"))
        connection = _Connection(accepted, route, peer)
        self._by_descriptor[connection.descriptor] = connection
        self._strangers.append((time.monotonic() + HANDSHAKE_S, connection))
        self._epoll.register(connection.descriptor, select.EPOLLIN)
        self._read(connection)  # the greeting is there already

    def _read(self, connection: _Connection) -> None:
        if connection.socket is None:
            return
        messages = self._messages
        whole = False
        try:
            if connection.role is None:
                whole = self._read_greeting(connection, connection.socket, messages)
            else:
                whole = connection.inflow.read(connection.socket, messages) > 0
        except BlockingIOError:
            whole = True
        except LaneViolation as violation:
            self._reject(str(violation), connection.peer)
        except ConnectionError:
            pass
        finally:
            role = connection.role
            if role is not None:
                while messages:
                    header, frames = messages.popleft()
                    self._inbox.append(Incoming(connection.route, role, header, frames))
            messages.clear()
            if not whole:
                self._end(connection)

    def _read_greeting(
        self, connection: _Connection, socket_: socket.socket, messages: deque[Message]
    ) -> bool:
        data = socket_.recv(GREETING_LIMIT)
        if not data:
            raise LaneViolation("it left before it had said who it is")
        connection.greeting += data
        greeting = take_greeting(connection.greeting)
        if greeting is None:
            return True
        name, token, rest = greeting
        role = self._keys.role_of_token(name, token)
        if role is None:
            raise LaneViolation("its token is not one of this cluster")
        connection.role = role
        connection.greeting = b""
        self._by_route[connection.route] = connection
        connection.inflow.feed(rest, messages)
        return True

    # ------------------------------------------------------------ messages

    def receive(self) -> Incoming | None:
        if not self.has_messages():
            return None
        item = self._inbox.popleft()
        assert isinstance(item, Incoming)
        self.messages_in += 1
        return item

    def send(self, route: Route, header: Buffer, frames: Sequence[Buffer]) -> Delivery:
        connection = self._by_route.get(route)
        if connection is None:
            return Delivery.GONE
        check_message(header, frames)
        if connection.socket is None:
            return Delivery.SENT  # lost with the connection, of which not all has been heard yet
        whole = False
        try:
            connection.outflow.send(connection.socket, header, frames)
            if connection.outflow and not connection.watches:
                self._watch(connection)
            whole = True
        except ConnectionError:
            # Its last words may still lie in the socket: the end is found by reading.
            connection.outflow.clear()
            whole = True
        finally:
            if not whole:
                self._end(connection)
        self.messages_out += 1
        return Delivery.SENT

    def _flush(self, connection: _Connection) -> None:
        if connection.socket is None:
            return
        whole = False
        try:
            connection.outflow.flush(connection.socket)
            whole = True
        except ConnectionError:
            connection.outflow.clear()
            whole = True
        finally:
            if not whole:
                self._end(connection)
        if connection.watches != bool(connection.outflow):
            self._watch(connection)

    def _watch(self, connection: _Connection) -> None:
        if connection.socket is not None:
            connection.watches = bool(connection.outflow)
            events = select.EPOLLIN | (select.EPOLLOUT if connection.watches else 0)
            self._epoll.modify(connection.descriptor, events)

    # ------------------------------------------------------------ ends

    def _reject(self, reason: str, peer: str) -> None:
        self.rejected += 1
        self.rejections.append(Rejected(reason, peer))

    def _end(self, connection: _Connection) -> None:
        """Close; the route is forgotten behind what is left of its messages."""
        ended, connection.socket = connection.socket, None
        if ended is None:
            return
        connection.outflow.clear()
        self._by_descriptor.pop(connection.descriptor, None)
        _close(ended, self._epoll)
        if self._inbox:
            self._inbox.append(connection)
        else:
            self._by_route.pop(connection.route, None)

    def close(self) -> None:
        """Close everything at once. Repeating it does nothing."""
        for connection in list(self._by_descriptor.values()):
            if connection.socket is not None:
                _close(connection.socket, self._epoll)
                connection.socket = None
        self._by_descriptor.clear()
        self._by_route.clear()
        self._strangers.clear()
        self._inbox.clear()
        if self._listener.fileno() >= 0:
            self._listener.close()
            Path(self.path).unlink(missing_ok=True)


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        Path(path).unlink(missing_ok=True)  # the caller holds the lock: whoever left it has ended
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise LaunchError(
            "the controller", f"the socket {path} cannot be bound: {error.strerror or error}"
        ) from None
    except BaseException:
        listener.close()
        raise
    return listener


def _close(connection: socket.socket, epoll: select.epoll) -> None:
    # Shut down, because a copy in a child of ours must not hide the end from the peer.
    with contextlib.suppress(OSError):
        epoll.unregister(connection.fileno())
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
