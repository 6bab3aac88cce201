"""What the supervisor and the parent of all processes say to each other, over a pair of connected sockets.

Only the parent can start, signal and reap without mistaking one process for another, so the supervisor
orders and the parent does. Each record is a length in four bytes and its encoding. Neither side trusts the
other to listen: what cannot be sent at once waits in a buffer.
"""

from __future__ import annotations

import select
import socket
import struct
from typing import Generic, TypeAlias, TypeVar

import msgspec

from enginery.ids import EngineKey
from enginery.protocol.specs import EngineSpec

_LENGTH = struct.Struct("=I")
_CHUNK_BYTES = 1 << 16


class Order(msgspec.Struct, array_like=True, gc=False):
    """Base of what is said."""


# ---------------------------------------------------------------- supervisor -> parent


class StartEngine(Order, tag=1):
    spec: EngineSpec


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
    key: EngineKey
    pid: int


class EngineNotStarted(Order, tag=21):
    key: EngineKey
    error: str


class EngineEnded(Order, tag=22):
    key: EngineKey
    status: int  # exit code, or negative signal number


class ControllerBound(Order, tag=23):
    """The connection files are there."""


class EndAll(Order, tag=24):
    """Stop all engines and leave."""

    reason: str


ToSupervisor: TypeAlias = EngineStarted | EngineNotStarted | EngineEnded | ControllerBound | EndAll

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

    def send(self, order: Order) -> None:
        data = self._encode(order)
        if self._is_heard:
            self._out += _LENGTH.pack(len(data)) + data
            self.flush()

    def flush(self, *, timeout_s: float = 0.0) -> None:
        """Send what waits; with a time, wait up to that long for the other side to take it."""
        while self._out:
            try:
                sent = self._socket.send(self._out)
            except BlockingIOError:
                if not timeout_s or not _wait_writable(self._socket, timeout_s):
                    return
            except (BrokenPipeError, ConnectionResetError):
                # Nobody hears us any more. What the other side has said before is still to be received.
                self._is_heard = False
                self._out.clear()
            else:
                del self._out[:sent]

    def receive(self) -> list[Incoming]:
        """All records that are there; `ended` is true after the last of them."""
        while not self.ended:
            try:
                chunk = self._socket.recv(_CHUNK_BYTES)
            except BlockingIOError:
                break
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                self.ended = True
            self._in += chunk
        return self._take()

    def close(self) -> None:
        """Repeating it does nothing."""
        self.ended = True
        self._is_heard = False
        self._out.clear()
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


def _wait_writable(end: socket.socket, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(end.fileno(), select.POLLOUT)
    return bool(poll.poll(timeout_s * 1000))
