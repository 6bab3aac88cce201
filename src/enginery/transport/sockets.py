"""0MQ sockets as this project uses them: every option in one table, and sending without tearing.

One Context belongs to each owner of connections. Sockets never set a routing id: 0MQ's own are random and
cannot be taken over; who a peer is, its hello says.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence

import zmq

from enginery.errors import TooLarge
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import MESSAGE_LIMIT
from enginery.transport.authentication import DOMAIN
from enginery.transport.channel import Role
from enginery.transport.keys import ClusterKeys, RoleCredentials

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]

HEARTBEAT_S = 1.0
HEARTBEAT_TIMEOUT_S = 3.0
HANDSHAKE_S = 3.0
COPY_LIMIT = 1 << 16
"""Frames from this size on are sent without copying: 5 us instead of 15 to 240 us in the sending thread."""

# As plain integers: pyzmq makes enums of them at every call, which costs more than the call.
MORE = int(zmq.SNDMORE | zmq.NOBLOCK)
LAST = int(zmq.NOBLOCK)
EVENTS, HAS_MORE, READABLE = int(zmq.EVENTS), int(zmq.RCVMORE), int(zmq.POLLIN)
_get = zmq.backend.Socket.get

OPTIONS_OF_ALL: dict[int, int] = {
    # Bounds are the links' windows and the core's credits. With a bound of 0MQ's own a ROUTER refuses while
    # it still polls as writable, and a DEALER blocks with its owner's lock held.
    zmq.SNDHWM: 0,
    zmq.RCVHWM: 0,
    # Half a frame is no sign of life, so frames are small; what is larger is an attack or a mistake.
    zmq.MAXMSGSIZE: MESSAGE_LIMIT,
    # Answered by 0MQ's own thread: an engine that holds the GIL is busy, not dead.
    zmq.HEARTBEAT_IVL: round(HEARTBEAT_S * 1000),
    zmq.HEARTBEAT_TIMEOUT: round(HEARTBEAT_TIMEOUT_S * 1000),
    # Half-open connections hold descriptors; the default is 30 s.
    zmq.HANDSHAKE_IVL: round(HANDSHAKE_S * 1000),
    # What is queued for a peer when we close is replayed after the next hello, by whoever is next.
    zmq.LINGER: 0,
}

OPTIONS_OF_ROUTERS: dict[int, int] = {
    # A route that is gone is an error and not silence. This is also how silent routes are probed.
    zmq.ROUTER_MANDATORY: 1,
    # A second connection with the same id must not take the first one's route.
    zmq.ROUTER_HANDOVER: 0,
    # A thousand engines dial at once, and with a full backlog they wait for TCP's second try.
    zmq.BACKLOG: 4096,
}

OPTIONS_OF_DEALERS: dict[int, int] = {
    # A controller that restarts is back within a second; nobody hammers one that is away.
    zmq.RECONNECT_IVL: 10,
    zmq.RECONNECT_IVL_MAX: 1000,
    # Queue before the connection stands: the first message should not wait for another turn of the loop.
    zmq.IMMEDIATE: 0,
}


def open_router(context: Context, keys: ClusterKeys, *, curve: bool, ipv6: bool = False) -> Socket:
    """A server socket that is not bound yet."""
    socket = context.socket(zmq.ROUTER)
    _set(socket, OPTIONS_OF_ALL, OPTIONS_OF_ROUTERS)
    socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
    if curve:
        socket.setsockopt(zmq.IPV6, ipv6)
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.server_secret.encode())
    else:
        socket.setsockopt(zmq.PLAIN_SERVER, 1)
    return socket


def open_dealer(context: Context, credentials: RoleCredentials, address: str) -> Socket:
    """A socket that has begun to dial."""
    socket = context.socket(zmq.DEALER)
    _set(socket, OPTIONS_OF_ALL, OPTIONS_OF_DEALERS)
    if address.startswith("ipc:"):
        socket.setsockopt(zmq.PLAIN_USERNAME, credentials.role.value.encode())
        socket.setsockopt(zmq.PLAIN_PASSWORD, credentials.token.encode())
    else:
        socket.setsockopt(zmq.IPV6, "[" in address)
        socket.setsockopt(zmq.CURVE_SERVERKEY, credentials.server_key.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, credentials.public_key.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, credentials.secret_key.encode())
    socket.connect(address)
    return socket


def _set(socket: Socket, *tables: dict[int, int]) -> None:
    for table in tables:
        for option, value in table.items():
            socket.setsockopt(option, value)


def raw_option(socket: Socket, option: int) -> int:
    """An integer option, without pyzmq's conversions to enums."""
    value = _get(socket, option)
    assert isinstance(value, int)
    return value


def send_parts(socket: Socket, header: Buffer, frames: Sequence[Buffer]) -> None:
    """Send a message that may be the rest of one; never block. What it raises has torn the message."""
    if not frames:
        socket.send(header, LAST)
        return
    socket.send(header, MORE)
    last = len(frames) - 1
    for index, frame in enumerate(frames):
        socket.send(frame, LAST if index == last else MORE, copy=len(frame) < COPY_LIMIT)


def check_sizes(header: Buffer, frames: Sequence[Buffer]) -> None:
    """Raise TooLarge for what the other side would answer by cutting the connection, again and again."""
    if len(header) > MESSAGE_LIMIT:
        raise TooLarge("the header of a message", size_bytes=len(header), limit_bytes=MESSAGE_LIMIT)
    for frame in frames:
        if len(frame) > MESSAGE_LIMIT:
            raise TooLarge("a frame", size_bytes=len(frame), limit_bytes=MESSAGE_LIMIT)


def receive_frames(socket: Socket) -> list[Buffer]:
    """The frames that are left of a message."""
    frames: list[Buffer] = []
    more = True
    while more:
        frame = socket.recv(zmq.NOBLOCK, copy=False)
        frames.append(frame.buffer)
        more = frame.more
    return frames


def drop_rest(socket: Socket) -> None:
    """Take the parts that are left of a message which was taken in part."""
    while socket.getsockopt(zmq.RCVMORE):
        socket.recv(zmq.NOBLOCK)


def is_gone(error: zmq.ZMQError) -> bool:
    return error.errno == errno.EHOSTUNREACH


ROLES: dict[str, Role] = {role.value: role for role in Role}


def raise_descriptor_limit() -> None:
    """Allow as many open connections as the system lets this process have."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where the hard limit is none at all, the kernel still refuses to set that as the soft one.
    wanted = 1 << 20 if hard == resource.RLIM_INFINITY else hard
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):
        return  # sandboxes forbid it: then the limit that was there holds
