"""What the supervisor and the parent of all processes say to each other, over a pair of connected sockets.

Only the parent can start, signal and reap without mistaking one process for another, so the supervisor
orders and the parent does. Each record is a length in four bytes and its encoding. Neither side trusts the
other to listen: what cannot be sent at once waits in a buffer.

The reading ends of an engine's pipes go along with the word that it has started. The system delivers them
with a byte of the stream, so they are taken in the order in which they were sent, and are there with their
record.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections import deque
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeAlias, TypeVar

import msgspec

from enginery.ids import EngineId, EngineKey
from enginery.protocol.messages import EnginesStarted
from enginery.protocol.specs import EngineSpec

_LENGTH = struct.Struct("=I")
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_CHUNK_BYTES = 1 << 16
_DESCRIPTORS_AT_ONCE = 200
"""The system takes 253 with one message."""


class Order(msgspec.Struct, array_like=True, gc=False):
    """Base of what is said."""


# ---------------------------------------------------------------- supervisor -> parent


class StartEngine(Order, tag=1):
    spec: EngineSpec
    request: int  # the number of the launch that it belongs to


class SignalEngine(Order, tag=2):
    """Send a signal, if that process is still there; SIGKILL goes to its whole group."""

    key: EngineKey
    signum: int


class Welcomed(Order, tag=3):
    """The controller knows this host."""


class Left(Order, tag=4):
    """The supervisor goes, as told, or because of a `failure`. Its engines are gone."""

    failure: str = ""


FromSupervisor: TypeAlias = StartEngine | SignalEngine | Welcomed | Left

# ---------------------------------------------------------------- parent -> supervisor


class EngineStarted(Order, tag=20):
    """With it come the reading ends of the pipes that the engine has for stdout and stderr."""

    key: EngineKey
    pid: int


class EngineNotStarted(Order, tag=21):
    key: EngineKey
    error: str


class EngineEnded(Order, tag=22):
    key: EngineKey
    status: int  # exit code, or negative signal number
    peak_bytes: int = 0  # the most memory that it had


class ControllerBound(Order, tag=23):
    """The connection files are there."""


class ControllerRestarted(Order, tag=25):
    pid: int


class EndAll(Order, tag=24):
    """Stop all engines and leave."""

    reason: str


ToSupervisor: TypeAlias = (
    EngineStarted | EngineNotStarted | EngineEnded | ControllerBound | ControllerRestarted | EndAll
)


class EndedEngine(NamedTuple):
    """An engine that has ended before its supervisor was there."""

    key: EngineKey
    wanted: EngineId
    pid: int
    status: int
    peak_bytes: int = 0


class Inheritance(NamedTuple):
    """What a supervisor begins with."""

    engines: list[EngineSpec]  # of each an order says that it has started, or has not
    ended: list[EndedEngine]  # a supervisor before may not have come to report them,
    launched: list[EnginesStarted]  # nor these
    controller_pid: int  # 0 = none here


Incoming = TypeVar("Incoming")


class OrderSocket(Generic[Incoming]):
    """One end of the pair. Used by one thread; never blocks but in `flush` with a time."""

    def __init__(self, end: socket.socket, decoder: msgspec.msgpack.Decoder[Incoming]) -> None:
        end.setblocking(False)
        self._socket = end
        self._decode = decoder.decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._in = bytearray()
        self._out = bytearray()
        self._given: deque[int] = deque()  # descriptors that came, and were not taken
        self._giving: deque[int] = deque()  # those that have not left
        self._is_heard = True
        self.ended = False  # the other side is gone, and all that it has said was taken

    def __repr__(self) -> str:
        return f"<OrderSocket{' ended' if self.ended else ''}, {len(self._out)} bytes waiting>"

    @classmethod
    def of_parent(cls, end: socket.socket) -> OrderSocket[FromSupervisor]:
        return OrderSocket(end, msgspec.msgpack.Decoder(FromSupervisor))

    @classmethod
    def of_supervisor(cls, end: socket.socket) -> OrderSocket[ToSupervisor]:
        return OrderSocket(end, msgspec.msgpack.Decoder(ToSupervisor))

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def wants_write(self) -> bool:
        return bool(self._out)

    def send(self, order: Order, descriptors: Iterable[int] = ()) -> None:
        """Send a record, and with it descriptors, which belong to this socket from now on."""
        self._giving += descriptors
        data = self._encode(order)
        if self._is_heard:
            self._out += _LENGTH.pack(len(data)) + data
        self.flush()

    def flush(self, *, timeout_s: float = 0.0) -> None:
        """Send what waits; with a time, wait up to that long for the other side to take it."""
        while self._out:
            try:
                sent = self._send_some()
            except BlockingIOError:
                if not timeout_s or not _wait_writable(self._socket, timeout_s):
                    return
            except (BrokenPipeError, ConnectionResetError):
                # Nobody hears us any more. What the other side has said before is still to be received.
                self._is_heard = False
                self._out.clear()
            else:
                del self._out[:sent]
        _close_all(self._giving)  # if nobody hears us

    def _send_some(self) -> int:
        if not self._giving:
            return self._socket.send(self._out)
        part = list(self._giving)[:_DESCRIPTORS_AT_ONCE]
        # No record may come before its descriptors: as long as there are more of them, bytes go one by one.
        data = self._out if len(part) == len(self._giving) else self._out[:1]
        sent = socket.send_fds(self._socket, [data], part)
        for descriptor in part:
            self._giving.popleft()
            os.close(descriptor)
        return sent

    def receive(self) -> list[Incoming]:
        """All records that are there; `ended` is true after the last of them."""
        while not self.ended:
            try:
                chunk, descriptors, _, _ = socket.recv_fds(
                    self._socket, _CHUNK_BYTES, _DESCRIPTORS_AT_ONCE, _CLOSE_ON_EXEC
                )
            except BlockingIOError:
                break
            except ConnectionResetError:
                chunk, descriptors = b"", []
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
            self._given += descriptors
            if not chunk:
                self.ended = True
            self._in += chunk
        return self._take()

    def take_descriptors(self, count: int) -> list[int]:
        """The next ones that have come with records; the caller closes them."""
        return [self._given.popleft() for _ in range(min(count, len(self._given)))]

    def close(self) -> None:
        """Repeating it does nothing."""
        self.ended = True
        self._is_heard = False
        self._out.clear()
        _close_all(self._giving)
        _close_all(self._given)
        self._socket.close()

    def _take(self) -> list[Incoming]:
        records: list[Incoming] = []
        offset, data = 0, self._in
        while len(data) >= offset + _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, offset)
            begin = offset + _LENGTH.size
            if len(data) < begin + length:
                break
            records.append(self._decode(bytes(data[begin : begin + length])))
            offset = begin + length
        del self._in[:offset]
        return records


def _close_all(descriptors: deque[int]) -> None:
    while descriptors:
        os.close(descriptors.popleft())


def _wait_writable(end: socket.socket, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(end.fileno(), select.POLLOUT)
    return bool(poll.poll(timeout_s * 1000))
