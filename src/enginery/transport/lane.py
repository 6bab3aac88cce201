"""The lane: the same messages over a unix socket, for peers on the controller's host.

Problem: 0MQ hands every message over between threads four times on its way from client to engine and back,
which is half of a short call's time. Choice: where both ends share a host, a plain stream that the
owner's own loop reads and writes. Limits and credentials are 0MQ's: sizes are checked before anything is
allocated, and before the token of its role a newcomer is not listened to.

A stream begins with a greeting, then come messages:

    greeting   magic, length of the role's name, length of the token (2 bytes); name; token
    message    magic (1 byte), number of frames (2), size of the header (4); size of each frame (4); the bytes

What a stream cannot do is go on after a tear or a lost connection: then it ends, and a new one begins.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
from collections import deque
from collections.abc import Sequence
from itertools import islice

from enginery.protocol.codec import Buffer
from enginery.protocol.messages import MESSAGE_LIMIT
from enginery.transport.keys import RoleCredentials
from enginery.transport.sockets import check_sizes

LANE_VARIABLE = "ENGINERY_LANE"
FRAMES_LIMIT = 1 << 13
"""Frames in one message. A link puts 5,462 into one at most: a header's bytes by the least of a record's."""
READ_BYTES = 1 << 16
KEPT_BYTES = 1 << 16
"""A frame of this size or more is neither copied nor joined with others, on either side."""
_MESSAGE_MAGIC = 0xE9
_HEAD = struct.Struct("<BHI")
_GREETING_MAGIC = b"\xe8lane\1"
_GREETING = struct.Struct(f"<{len(_GREETING_MAGIC)}sBH")
GREETING_LIMIT = _GREETING.size + 255 + 1024
_BUFFERS_AT_ONCE = 256  # the kernel takes 1,024
_PEER_CREDENTIALS = struct.Struct("=iII")
_KERNEL_BYTES = 1 << 20

Message = tuple[Buffer, list[Buffer]]


class LaneViolation(Exception):
    """The other side has sent what no peer of ours sends. The stream cannot go on."""


def lane_is_supported() -> bool:
    """Tell whether this system has what the lane is made of, and nobody has turned it off."""
    return hasattr(select, "epoll") and os.environ.get(LANE_VARIABLE, "1") != "0"


def lane_address(path: str) -> str:
    """How a lane is called where people read it."""
    return f"unix://{path}"


def widen(connection: socket.socket) -> None:
    """Let the kernel hold as much as it may, so that a large frame takes few turns."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BYTES)


def peer_of(connection: socket.socket) -> tuple[int, int] | None:
    """The process and the user at the other end, as the kernel knows them; None where it does not tell."""
    if sys.platform != "linux":
        return None
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    process, user, _ = _PEER_CREDENTIALS.unpack(raw)
    return process, user


def make_greeting(credentials: RoleCredentials) -> bytes:
    name, token = credentials.role.value.encode(), credentials.token.encode()
    return _GREETING.pack(_GREETING_MAGIC, len(name), len(token)) + name + token


def take_greeting(data: bytes) -> tuple[str, str, bytes] | None:
    """Name of the role, token, and what follows; None if the greeting is not complete yet."""
    if data[: len(_GREETING_MAGIC)] != _GREETING_MAGIC[: len(data)]:
        raise LaneViolation("it did not begin with a greeting")
    if len(data) < _GREETING.size:
        return None
    _, name_size, token_size = _GREETING.unpack_from(data)
    end_of_name = _GREETING.size + name_size
    end = end_of_name + token_size
    if end > GREETING_LIMIT:
        raise LaneViolation("its greeting is too long")
    if len(data) < end:
        return None
    name = data[_GREETING.size : end_of_name].decode("utf-8", "replace")
    return name, data[end_of_name:end].decode("utf-8", "replace"), data[end:]


def check_message(header: Buffer, frames: Sequence[Buffer]) -> None:
    """Refuse, before anything is sent, what the other side would take for a violation."""
    check_sizes(header, frames)
    if len(frames) > FRAMES_LIMIT:
        raise ValueError(f"a message of {len(frames):,} frames cannot be sent; {FRAMES_LIMIT:,} are allowed")


class Outflow:
    """Messages in, bytes out: what the kernel does not take at once waits here, in order."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[Buffer] = deque()  # none is empty

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def clear(self) -> None:
        self._waiting.clear()

    def send(self, connection: socket.socket | None, header: Buffer, frames: Sequence[Buffer]) -> None:
        """Send or queue a message; without a connection, queue it. What this raises has torn the message."""
        parts: list[Buffer]
        if not frames and len(header) < KEPT_BYTES:
            parts = [_HEAD.pack(_MESSAGE_MAGIC, 0, len(header)) + header]
        else:
            head = _HEAD.pack(_MESSAGE_MAGIC, len(frames), len(header))
            sizes = struct.pack(f"<{len(frames)}I", *map(len, frames))
            parts = [head + sizes, header, *frames]
        sent = 0
        if connection is not None and not self._waiting:
            try:
                sent = connection.send(parts[0]) if len(parts) == 1 else _send_some(connection, parts)
            except BlockingIOError:
                pass
        for part in parts:
            size = len(part)
            if sent >= size:
                sent -= size
                continue
            # What may be changed after the call is copied, as 0MQ does.
            kept = part if type(part) is bytes or size >= KEPT_BYTES else bytes(part)
            self._waiting.append(memoryview(kept)[sent:] if sent else kept)
            sent = 0

    def flush(self, connection: socket.socket) -> bool:
        """Send what waits; True if all of it has left. What this raises has torn a message."""
        waiting = self._waiting
        while waiting:
            try:
                sent = _send_some(connection, list(islice(waiting, _BUFFERS_AT_ONCE)))
            except BlockingIOError:
                return False
            while sent:
                first = waiting[0]
                if sent < len(first):
                    waiting[0] = memoryview(first)[sent:]
                    break
                sent -= len(first)
                waiting.popleft()
        return True


def _send_some(connection: socket.socket, parts: list[Buffer]) -> int:
    return connection.sendmsg(parts[:_BUFFERS_AT_ONCE] if len(parts) > _BUFFERS_AT_ONCE else parts)


class Inflow:
    """Bytes in, messages out.

    Small messages are cut from what one read brought. The parts of one that is larger than a read are
    received straight into buffers of their own, each allocated when its first byte is due.
    """

    __slots__ = ("_filled", "_held", "_parts", "_sizes", "_target")

    def __init__(self) -> None:
        self._held = b""  # the beginning of a message that will be cut
        self._sizes: deque[int] = deque()  # of the parts to come of one that is received in parts
        self._parts: list[Buffer] = []
        self._target = memoryview(bytearray())  # of the first of them
        self._filled = 0

    def read(self, connection: socket.socket, messages: deque[Message]) -> int:
        """Read once and add the messages that are whole now.

        Returns the bytes read, 0 at the end of the stream. Raises BlockingIOError if there is nothing, and
        LaneViolation; whatever it raises beside BlockingIOError leaves this unusable.
        """
        if self._sizes:
            return self._fill(connection, messages)
        data = connection.recv(READ_BYTES)
        self.feed(data, messages)
        return len(data)

    def feed(self, data: bytes, messages: deque[Message]) -> None:
        """Take bytes that were read elsewhere."""
        if self._held:
            data = self._held + data
            self._held = b""
        offset, end = 0, len(data)
        while end - offset >= _HEAD.size:
            magic, count, header_size = _HEAD.unpack_from(data, offset)
            if magic != _MESSAGE_MAGIC or count > FRAMES_LIMIT or header_size > MESSAGE_LIMIT:
                raise LaneViolation("it sent what is no message")
            body = offset + _HEAD.size + 4 * count
            if body > end:
                break
            sizes = struct.unpack_from(f"<{count}I", data, offset + _HEAD.size) if count else ()
            if sizes and max(sizes) > MESSAGE_LIMIT:
                raise LaneViolation("it sent a frame above the limit")
            stop = body + header_size + sum(sizes)
            if stop <= end:
                messages.append(_cut(data, body, header_size, sizes))
            elif stop - offset > READ_BYTES:
                self._begin(data, body, (header_size, *sizes), messages)
                return
            else:
                break
            offset = stop
        if offset < end:
            self._held = data[offset:] if offset else data

    def _begin(self, data: bytes, body: int, sizes: Sequence[int], messages: deque[Message]) -> None:
        self._sizes.extend(sizes)
        self._prepare()
        rest = memoryview(data)[body:]
        while rest:
            taken = min(len(rest), len(self._target) - self._filled)
            self._target[self._filled : self._filled + taken] = rest[:taken]
            self._advance(taken, messages)
            rest = rest[taken:]

    def _fill(self, connection: socket.socket, messages: deque[Message]) -> int:
        wanted = len(self._target) - self._filled
        received = connection.recv_into(self._target[self._filled :])
        self._advance(received, messages)
        if received == wanted and self._sizes:  # the next one is likely to be there, too
            try:
                more = connection.recv_into(self._target)
            except BlockingIOError:
                return received
            self._advance(more, messages)
        return received

    def _advance(self, count: int, messages: deque[Message]) -> None:
        self._filled += count
        if self._filled == len(self._target):
            self._parts.append(self._target.toreadonly())
            self._sizes.popleft()
            self._prepare()
            if not self._sizes:
                messages.append((self._parts[0], self._parts[1:]))
                self._parts = []

    def _prepare(self) -> None:
        """Allocate the next part that has bytes."""
        while self._sizes and not self._sizes[0]:
            self._sizes.popleft()
            self._parts.append(b"")
        self._target = memoryview(bytearray(self._sizes[0] if self._sizes else 0))
        self._filled = 0


def _cut(data: bytes, body: int, header_size: int, sizes: Sequence[int]) -> Message:
    start = body + header_size
    header = data[body:start]
    frames: list[Buffer] = []
    for size in sizes:
        frames.append(data[start : start + size])
        start += size
    return header, frames
