"""The controller's side over 0MQ: one encrypted TCP port, one ipc endpoint, one poll loop.

With a lane beside it (`lane_exchange`) the loop is the lane's, and 0MQ is asked only when there is reason.

The socket on which 0MQ asks who may come in is polled with the others, so no thread stands behind it.
The role of a message is read from the message itself (its authenticated User-Id), never from a table of
routes.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket as sockets_of_system
import struct
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import zmq

from enginery.protocol.codec import Buffer
from enginery.transport.authentication import Authenticator, open_questions
from enginery.transport.binding import bind, bind_tcp, reachable, resolve, tcp_address
from enginery.transport.channel import Delivery, HasFileno, Incoming, Rejected, Route
from enginery.transport.keys import ClusterKeys
from enginery.transport.lane import lane_is_supported
from enginery.transport.lane_exchange import LaneExchange
from enginery.transport.sockets import (
    EVENTS,
    HANDSHAKE_S,
    LAST,
    MORE,
    READABLE,
    ROLES,
    Context,
    Socket,
    check_sizes,
    drop_rest,
    is_gone,
    open_router,
    raise_descriptor_limit,
    raw_option,
    receive_frames,
    send_parts,
)
from enginery.transport.strangers import Doorkeeper

_TCP = 0
_PREFIX = (b"\x00", b"\x01")
_KEPT_REJECTIONS = 64
_MONITOR = "inproc://enginery.connections"
_MONITOR_EVENT = struct.Struct("=Hi")
"""Number and value of an event; pyzmq's own parser brings asyncio along, 20 ms of every start."""
_EVENTS = (
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_FAILURES = {
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "its handshake took too long or broke off",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "its handshake was wrong (no key, or another cluster's)",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "",  # reported when it was refused, with more detail
}


def open_exchange(
    keys: ClusterKeys,
    ipc_path: str | os.PathLike[str] = "",
    *,
    lane_path: str | os.PathLike[str] = "",
    host: str = "127.0.0.1",
    port: int = 0,
) -> ZmqExchange | LaneExchange:
    """Open the controller's sockets.

    `host` is what TCP is bound to: loopback, an address, a host name, or ``"*"`` for all interfaces; port 0
    takes any that is free. `ipc_path` lies in a directory of mode 0700 whose lock the caller holds, because
    a second bind would take a live path away; empty means no ipc. `lane_path` lies there too; empty, or a
    system without what it needs, means no lane. Raises LaunchError if an address cannot be bound.
    """
    raise_descriptor_limit()
    context: Context = zmq.Context()
    try:
        exchange = ZmqExchange(context, keys, os.fspath(ipc_path), host, port)
    except BaseException:
        context.destroy(linger=0)
        raise
    if not lane_path or not lane_is_supported():
        return exchange
    try:
        return LaneExchange(exchange, keys, lane_path)
    except BaseException:
        exchange.close()
        raise


class ZmqExchange:
    """An `Exchange` over 0MQ; see `open_exchange`."""

    def __init__(self, context: Context, keys: ClusterKeys, ipc_path: str, host: str, port: int) -> None:
        self._context = context
        self._authenticator = Authenticator(keys)
        self._questions = open_questions(context)
        ip = resolve(host)
        tcp = open_router(context, keys, curve=True, ipv6=":" in ip)
        self._monitor = _open_monitor(context, tcp)
        self._doorkeeper = Doorkeeper(patience_s=2 * HANDSHAKE_S)
        bound_port = bind_tcp(tcp, ip, port)
        self._tcp_addresses = tuple(tcp_address(each, bound_port) for each in reachable(ip))
        self._sockets: tuple[Socket, ...] = (tcp,)
        self._ipc_path = ipc_path
        self._ipc_address = ""
        if ipc_path:
            ipc = open_router(context, keys, curve=False)
            self._ipc_address = f"ipc://{ipc_path}"
            bind(ipc, self._ipc_address, what=f"the socket {ipc_path}")
            self._sockets = (tcp, ipc)
        self._lanes = {socket: lane for lane, socket in enumerate(self._sockets)}
        self._ready: list[int] = []
        self._fresh = False  # the first of the ready sockets is known to be readable
        self._touched = True  # since 0MQ last said that there is nothing, its descriptors may be silent
        self._wakers: tuple[HasFileno, ...] = ()
        self._poller = self._make_poller()
        self._rejections: deque[Rejected] = deque(maxlen=_KEPT_REJECTIONS)
        self._rejected = 0
        self._messages_in = 0
        self._messages_out = 0
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else " ".join((*self._tcp_addresses, self._ipc_address)).strip()
        return f"<ZmqExchange {state}>"

    @property
    def tcp_addresses(self) -> tuple[str, ...]:
        return self._tcp_addresses

    @property
    def ipc_address(self) -> str:
        return self._ipc_address

    @property
    def lane_path(self) -> str:
        return ""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What to poll for reading; it tells of changes only, so `look` before each wait."""
        sources = (*self._sockets, self._questions, self._monitor)
        return tuple(int(source.getsockopt(zmq.FD)) for source in sources)

    def statistics(self) -> dict[str, int]:
        return {
            "messages_in": self._messages_in,
            "messages_out": self._messages_out,
            "rejected": self._rejected,
        }

    def rejections(self) -> list[Rejected]:
        if not self._rejections:
            return []
        result = list(self._rejections)
        self._rejections.clear()
        return result

    # ------------------------------------------------------------ waiting and receiving

    def wait(self, timeout_s: float | None, wakers: Sequence[HasFileno] = ()) -> None:
        if self._closed:
            return
        if tuple(wakers) != self._wakers:
            self._wakers = tuple(wakers)
            self._poller = self._make_poller()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        ready = self._ready = []
        while True:
            left_ms = None
            if deadline is not None:
                left_ms = max(0, math.ceil((deadline - time.monotonic()) * 1000))
            events = self._poller.poll(left_ms)
            woken = not events
            for source, _ in events:
                lane = self._lanes.get(source)
                if lane is not None:
                    ready.append(lane)
                elif source is self._questions:
                    self._answer_questions()
                elif source is self._monitor:
                    self._watch_connections()
                else:
                    woken = True
            if ready or woken:
                self._fresh = bool(ready)
                return

    def look(self, *, signalled: bool) -> bool:
        """Take note of what has come, without waiting; True if `receive` has something.

        Without a signal from one of the `descriptors` there is news only after a use of the sockets.
        """
        if self._closed or not (signalled or self._touched):
            return False
        self._touched = False
        for source, handle in (
            (self._questions, self._answer_questions),
            (self._monitor, self._watch_connections),
        ):
            if raw_option(source, EVENTS) & READABLE:
                handle()
                self._touched = True
        self._ready = [
            lane for lane, socket in enumerate(self._sockets) if raw_option(socket, EVENTS) & READABLE
        ]
        self._fresh = bool(self._ready)
        if self._ready:
            self._touched = True
        return self._fresh

    def receive(self) -> Incoming | None:
        ready = self._ready
        while ready:
            lane = ready[0]
            socket = self._sockets[lane]
            if self._fresh:
                self._fresh = False  # `wait` has just seen it
            elif not raw_option(socket, EVENTS) & READABLE:  # cheaper than being told by an exception
                ready.remove(lane)
                continue
            try:
                route = socket.recv(LAST)
                part = socket.recv(LAST, copy=False)
                frames = receive_frames(socket) if part.more else []
            except zmq.Again:
                ready.remove(lane)
                continue
            except BaseException:
                # Ctrl-C between two parts: the rest must not be taken for the next message.
                drop_rest(socket)
                raise
            if len(ready) > 1:
                ready.reverse()  # a flood on one socket does not hide the other
            try:
                role = ROLES.get(part.get("User-Id"))  # type: ignore[arg-type]
            except zmq.ZMQError:
                role = None
            # 0MQ's own routes are a zero byte and four more. Others were chosen by the peer, which none of
            # ours does and which could be made to collide.
            if role is None or len(route) != 5 or route[0]:
                self._reject(Rejected("it sent a message without a role", _peer_of(part)))
                continue
            self._messages_in += 1
            return Incoming(Route(_PREFIX[lane] + route), role, part.buffer, frames)
        return None

    def _answer_questions(self) -> None:
        for _ in range(_KEPT_REJECTIONS):
            try:
                question = self._questions.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            reply, rejected = self._authenticator.answer(question)
            if reply:
                self._questions.send_multipart(reply, zmq.NOBLOCK)
            if rejected is not None:
                self._reject(rejected)

    def _watch_connections(self) -> None:
        now = time.monotonic()
        for _ in range(_KEPT_REJECTIONS):
            try:
                event, *_ = self._monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            kind, value = _MONITOR_EVENT.unpack(event)
            if kind == zmq.EVENT_ACCEPTED:
                self._doorkeeper.on_accepted(value, _peer_of_descriptor(value), now=now)
            elif kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._doorkeeper.on_succeeded()
            elif kind == zmq.EVENT_DISCONNECTED:
                rejected = self._doorkeeper.on_disconnected(value, now=now)
                if rejected is not None:
                    self._reject(rejected)
            else:
                self._doorkeeper.on_failed(_FAILURES[zmq.Event(kind)])

    def _reject(self, rejected: Rejected) -> None:
        self._rejected += 1
        self._rejections.append(rejected)

    # ------------------------------------------------------------ sending

    def send(self, route: Route, header: Buffer, frames: Sequence[Buffer] = ()) -> Delivery:
        if self._closed:
            return Delivery.GONE
        check_sizes(header, frames)
        self._touched = True
        socket = self._sockets[route[0]]
        try:
            socket.send(route[1:], MORE)
        except zmq.Again:
            return Delivery.WOULD_BLOCK
        except zmq.ZMQError as error:
            if is_gone(error):
                return Delivery.GONE
            raise
        try:
            send_parts(socket, header, frames)
        except BaseException:
            # Finish the message, so that the next one is not glued on: the peer gets a short one, which it
            # recognises. If it was complete already, this is a message to a route that does not exist.
            with contextlib.suppress(zmq.ZMQError):
                socket.send(b"", zmq.NOBLOCK)
            raise
        self._messages_out += 1
        return Delivery.SENT

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._ready = []
        self._sockets[_TCP].disable_monitor()
        for socket in (self._monitor, *self._sockets, self._questions):
            socket.close(linger=0)
        self._context.term()
        if self._ipc_path:
            Path(self._ipc_path).unlink(missing_ok=True)

    def _make_poller(self) -> zmq.Poller:
        poller = zmq.Poller()
        for source in (*self._sockets, self._questions, self._monitor):
            poller.register(source, zmq.POLLIN)
        for waker in self._wakers:
            poller.register(waker.fileno(), zmq.POLLIN)
        return poller


def _open_monitor(context: Context, socket: Socket) -> Socket:
    socket.monitor(_MONITOR, _EVENTS)
    monitor = context.socket(zmq.PAIR)
    # Without a bound: 0MQ's own thread would stop for all connections if it had to wait here.
    monitor.setsockopt(zmq.RCVHWM, 0)
    monitor.linger = 0
    monitor.connect(_MONITOR)
    return monitor


def _peer_of(frame: zmq.Frame) -> str:
    try:
        return str(frame.get("Peer-Address"))
    except zmq.ZMQError:
        return ""


def _peer_of_descriptor(descriptor: int) -> str:
    # The connection may be gone by now, or the number somebody else's: then the log line says less.
    try:
        with sockets_of_system.socket(fileno=os.dup(descriptor)) as connection:
            host, port = connection.getpeername()[:2]
            return f"{host}:{port}"
    except (OSError, ValueError):
        return "an unknown address"
