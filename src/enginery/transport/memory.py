"""The contract of `channel`, kept in memory: for tests, with a fault for any message.

Messages are copied when they are sent, as a wire would. What 0MQ does and this does too: a message sent while
the connection is down waits and goes out on the next one; what was under way is lost; a new connection is a
new route; nobody is told.

>>> network = MemoryNetwork(up=[Fault.PASS, Fault.DROP])
>>> channel = network.dial(Role.CLIENT)
>>> [channel.send(header) for header in (b"1", b"2", b"3")]
[True, True, True]
>>> [bytes(message.header) for message in network.exchange.drain()]
[b'1', b'3']
>>> network.close()
"""

from __future__ import annotations

import enum
import math
import select
import threading
from collections import deque
from collections.abc import Iterable, Sequence

from enginery.protocol.codec import Buffer
from enginery.transport.channel import (
    NO_FILE,
    Delivery,
    HasFileno,
    Incoming,
    Rejected,
    Role,
    Route,
    Waker,
)

Message = tuple[Buffer, list[Buffer]]


class Fault(enum.Enum):
    """What happens to one message on its way."""

    PASS = "pass"
    DROP = "drop"
    DUPLICATE = "duplicate"
    REORDER = "reorder"  # arrives after the next one of its connection
    TEAR = "tear"  # arrives without its last frame; without frames, with half its header
    HOLD = "hold"  # waits for `MemoryNetwork.release`


class _Way:
    """One direction of one connection: applies the faults and keeps what is held back."""

    def __init__(self, faults: deque[Fault]) -> None:
        self._faults = faults
        self._reordered: list[Message] = []
        self._held: list[Message] = []

    def carry(self, message: Message) -> list[Message]:
        fault = self._faults.popleft() if self._faults else Fault.PASS
        if fault is Fault.HOLD:
            self._held.append(message)
            return []
        if fault is Fault.REORDER:
            self._reordered.append(message)
            return []
        late, self._reordered = self._reordered, []
        return [*_APPLY[fault](message), *late]

    def release(self) -> list[Message]:
        messages = self._reordered + self._held
        self._reordered, self._held = [], []
        return messages


def _tear(message: Message) -> list[Message]:
    header, frames = message
    return [(header, frames[:-1]) if frames else (header[: len(header) // 2], [])]


_APPLY = {
    Fault.PASS: lambda message: [message],
    Fault.DROP: lambda message: [],
    Fault.DUPLICATE: lambda message: [message, message],
    Fault.TEAR: _tear,
}


class MemoryNetwork:
    """An exchange and the channels that were dialled to it.

    `up` and `down` are the faults of the next messages towards and from the exchange, in the order in which
    they are sent; add to them at any time. Messages beyond them pass.
    """

    def __init__(self, *, up: Iterable[Fault] = (), down: Iterable[Fault] = ()) -> None:
        self.up = deque(up)
        self.down = deque(down)
        self.lock = threading.RLock()
        self.channels: dict[Route, MemoryChannel] = {}
        self._routes = 0
        self.exchange = MemoryExchange(self)

    def __repr__(self) -> str:
        return f"<MemoryNetwork with {len(self.channels)} connections>"

    def dial(self, role: Role) -> MemoryChannel:
        return MemoryChannel(self, role)

    def connect(self, channel: MemoryChannel) -> None:
        """Give a channel a new route; what it queued while it was down arrives now. For `dial` and tests."""
        with self.lock:
            self.disconnect(channel)
            self._routes += 1
            channel.route = Route(b"\x00" + self._routes.to_bytes(4, "big"))
            self.channels[channel.route] = channel
            channel.up, channel.down = _Way(self.up), _Way(self.down)
            queued, channel.queued = channel.queued, []
            for message in queued:
                self.exchange.deliver(channel, channel.up.carry(message))

    def disconnect(self, channel: MemoryChannel) -> None:
        """Cut a connection: its route is gone, and so is what was held on the way."""
        with self.lock:
            if channel.route is not None:
                del self.channels[channel.route]
                channel.route = None

    def release(self) -> None:
        """Let everything that was held arrive."""
        with self.lock:
            for channel in list(self.channels.values()):
                self.exchange.deliver(channel, channel.up.release())
                channel.deliver(channel.down.release())

    def close(self) -> None:
        for channel in list(self.channels.values()):
            channel.close()
        self.exchange.close()


class MemoryChannel:
    """A `Channel` in memory; see `MemoryNetwork.dial`."""

    def __init__(self, network: MemoryNetwork, role: Role) -> None:
        self.role = role
        self.route: Route | None = None
        self.queued: list[Message] = []
        self.up = self.down = _Way(deque())
        self._network = network
        self._waker = Waker()
        self._inbox: deque[Message] = deque()
        self._closed = False
        self.tear_next_send: BaseException | None = None
        """Raised in the middle of the next `send`, as Ctrl-C would be."""
        self._broken = False
        network.connect(self)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "broken" if self._broken else "open"
        return f"<MemoryChannel {self.role.value}, {state}>"

    @property
    def broken(self) -> bool:
        return self._broken

    @property
    def address(self) -> str:
        return "memory"

    def fileno(self) -> int:
        return self._waker.fileno()

    def send(self, header: Buffer, frames: Sequence[Buffer] = ()) -> bool:
        with self._network.lock:
            if self._broken:
                return False
            if self.tear_next_send is not None:
                error, self.tear_next_send = self.tear_next_send, None
                self._broken = True
                raise error
            message = _copied(header, frames)
            if self.route is None:
                self.queued.append(message)
            else:
                self._network.exchange.deliver(self, self.up.carry(message))
            return True

    def receive(self) -> Message | None:
        with self._network.lock:
            self._waker.clear()
            return self._inbox.popleft() if self._inbox else None

    def pending(self) -> bool:
        return bool(self._inbox)

    def wait(self, timeout_s: float | None, wakers: Sequence[HasFileno] = ()) -> bool:
        if not self.pending() and not self._closed:
            _poll(timeout_s, (self._waker, *wakers))
        return self.pending()

    def redial(self) -> None:
        with self._network.lock:
            if not self._closed:
                self.queued.clear()
                self._inbox.clear()
                self._network.connect(self)
                self._broken = False

    def close(self, linger_s: float = 0.0) -> None:
        with self._network.lock:
            self._network.disconnect(self)
            self._inbox.clear()
            self._closed = self._broken = True
            self._waker.close()

    def deliver(self, messages: Iterable[Message]) -> None:
        """Put messages into the inbox. For the network."""
        self._inbox.extend(messages)
        if self._inbox:
            self._waker.wake()


class MemoryExchange:
    """An `Exchange` in memory; see `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        self._waker = Waker()
        self._inbox: deque[Incoming] = deque()
        self._closed = False
        self._messages_in = self._messages_out = 0

    def __repr__(self) -> str:
        return f"<MemoryExchange{' closed' if self._closed else ''}>"

    @property
    def tcp_addresses(self) -> tuple[str, ...]:
        return ()

    @property
    def ipc_address(self) -> str:
        return ""

    def wait(self, timeout_s: float | None, wakers: Sequence[HasFileno] = ()) -> None:
        if not self._inbox and not self._closed:
            _poll(timeout_s, (self._waker, *wakers))

    def receive(self) -> Incoming | None:
        with self._network.lock:
            self._waker.clear()
            if not self._inbox:
                return None
            self._messages_in += 1
            return self._inbox.popleft()

    def drain(self) -> list[Incoming]:
        """All messages that have arrived. For tests."""
        return list(iter(self.receive, None))

    def send(self, route: Route, header: Buffer, frames: Sequence[Buffer] = ()) -> Delivery:
        with self._network.lock:
            channel = self._network.channels.get(route)
            if channel is None or self._closed:
                return Delivery.GONE
            self._messages_out += 1
            channel.deliver(channel.down.carry(_copied(header, frames)))
            return Delivery.SENT

    def rejections(self) -> list[Rejected]:
        return []

    def statistics(self) -> dict[str, int]:
        return {"messages_in": self._messages_in, "messages_out": self._messages_out, "rejected": 0}

    def close(self) -> None:
        with self._network.lock:
            self._closed = True
            self._inbox.clear()
            self._waker.close()

    def deliver(self, channel: MemoryChannel, messages: Iterable[Message]) -> None:
        """Put messages of a channel into the inbox. For the network."""
        if self._closed or channel.route is None:
            return
        route = channel.route
        self._inbox.extend(Incoming(route, channel.role, header, list(frames)) for header, frames in messages)
        if self._inbox:
            self._waker.wake()


def _copied(header: Buffer, frames: Sequence[Buffer]) -> Message:
    return bytes(header), [memoryview(bytes(frame)) for frame in frames]


def _poll(timeout_s: float | None, sources: Sequence[HasFileno]) -> None:
    poll = select.poll()
    for source in sources:
        if source.fileno() != NO_FILE:
            poll.register(source.fileno(), select.POLLIN)
    poll.poll(None if timeout_s is None else max(0, math.ceil(timeout_s * 1000)))
