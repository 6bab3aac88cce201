"""The contract of `transport.channel` in virtual time, with faults: the network of a `World` without sockets.

Messages take `delay_s`, keep their order within a connection and are copied on the way, as a wire would. A
`Fate` for each message says what goes wrong. After a cut the channel goes on in mid-stream on a new route and
nobody is told, which is what 0MQ does; the exchange learns of it when it sends to the old route.

>>> clock = VirtualClock()
>>> network = VirtualNetwork(clock, fates={1: Fate.DROP})
>>> channel = network.dial(Role.CLIENT, "c")
>>> [channel.send(header) for header in (b"0", b"1", b"2")]
[True, True, True]
>>> clock.jump_to(clock.now() + 1.0)
>>> clock.run_due()
True
>>> [bytes(message.header) for message in iter(network.exchange.receive, None)]
[b'0', b'2']
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from enginery.protocol.codec import Buffer
from enginery.testing.clock import VirtualClock
from enginery.transport.channel import NO_FILE, Delivery, HasFileno, Incoming, Rejected, Role, Route

DELAY_S = 0.001
LATE_S = 0.25

Message = tuple[bytes, list[Buffer]]


class Fate(enum.Enum):
    """What happens to one message on its way."""

    PASS = "pass"
    DROP = "drop"
    DUPLICATE = "duplicate"
    REORDER = "reorder"  # messages sent after it arrive before it
    TEAR = "tear"  # arrives without its last frame; without frames, with half its header
    LATE = "late"  # it and all behind it take `LATE_S` longer
    CUT = "cut"  # it is lost with its connection and all that was under way there


class Passing(NamedTuple):
    """A message as it enters the network, for observers."""

    at: float
    channel: VirtualChannel
    upwards: bool  # towards the exchange
    header: bytes
    frames: list[Buffer]
    fate: Fate


class VirtualNetwork:
    """An exchange, and the channels dialled to it.

    `fates` are the faults by the number of the message, counted over the whole network; others pass.
    """

    def __init__(self, clock: VirtualClock, *, fates: Mapping[int, Fate] | None = None) -> None:
        self.clock = clock
        self.delay_s = DELAY_S
        self.fates = dict(fates or {})
        self.observers: list[Callable[[Passing], None]] = []
        self.channels: dict[Route, VirtualChannel] = {}
        self.exchange = VirtualExchange(self)
        self.carried = 0
        self._routes = 0

    def __repr__(self) -> str:
        return f"<VirtualNetwork with {len(self.channels)} connections, {self.carried} messages>"

    def dial(self, role: Role, name: str) -> VirtualChannel:
        """A new connection; `name` is for observers."""
        channel = VirtualChannel(self, role, name)
        self.connect(channel)
        return channel

    def connect(self, channel: VirtualChannel) -> None:
        """Give a channel a new route; what it queued while it had none goes out first."""
        self.disconnect(channel)
        if channel.is_unplugged:
            return
        self._routes += 1
        channel.route = Route(b"\x00" + self._routes.to_bytes(4, "big"))
        self.channels[channel.route] = channel
        channel.busy_until = {True: 0.0, False: 0.0}
        queued, channel.queued = channel.queued, []
        for message in queued:
            self.carry(channel, True, message)

    def disconnect(self, channel: VirtualChannel) -> None:
        """Take a channel's route away with all that is under way on it."""
        if channel.route is not None:
            del self.channels[channel.route]
            channel.route = None

    def unplug(self, channel: VirtualChannel) -> None:
        """Cut a connection and keep it from being made again, until `plug`."""
        channel.is_unplugged = True
        self.disconnect(channel)

    def plug(self, channel: VirtualChannel) -> None:
        """End an outage: what was sent meanwhile goes out on a new route."""
        channel.is_unplugged = False
        if not channel.is_closed:
            self.connect(channel)

    def carry(self, channel: VirtualChannel, upwards: bool, message: Message) -> None:
        """Send a message on its way. For channels and the exchange."""
        fate = self.fates.pop(self.carried, Fate.PASS)
        self.carried += 1
        passing = Passing(self.clock.now(), channel, upwards, *message, fate)
        for observe in self.observers:
            observe(passing)
        if fate is Fate.DROP:
            return
        if fate is Fate.CUT:
            self.connect(channel)
            return
        arrival = max(channel.busy_until[upwards], self.clock.now() + self.delay_s)
        if fate is Fate.TEAR:
            message = _tear(message)
        if fate is Fate.LATE:
            arrival += LATE_S
        if fate is Fate.REORDER:
            self._schedule(channel, upwards, message, arrival + LATE_S)
            return
        channel.busy_until[upwards] = arrival
        for _ in range(2 if fate is Fate.DUPLICATE else 1):
            self._schedule(channel, upwards, message, arrival)

    def _schedule(self, channel: VirtualChannel, upwards: bool, message: Message, arrival: float) -> None:
        route = channel.route

        def arrive() -> None:
            if channel.route != route or route is None:
                return  # lost with its connection
            header, frames = message
            if upwards:
                self.exchange.inbox.append(Incoming(route, channel.role, header, list(frames)))
            else:
                channel.inbox.append((header, list(frames)))

        self.clock.call_at(arrival, arrive)


class VirtualChannel:
    """A `Channel`; see `VirtualNetwork.dial`."""

    def __init__(self, network: VirtualNetwork, role: Role, name: str) -> None:
        self.role = role
        self.name = name
        self.route: Route | None = None
        self.inbox: deque[Message] = deque()
        self.queued: list[Message] = []  # sent while there was no route
        self.busy_until: dict[bool, float] = {}
        self.is_closed = False
        self.is_unplugged = False
        self._network = network

    def __repr__(self) -> str:
        return f"<VirtualChannel {self.name}{', closed' if self.is_closed else ''}>"

    @property
    def broken(self) -> bool:
        return self.is_closed

    @property
    def address(self) -> str:
        return "virtual"

    def send(self, header: Buffer, frames: Sequence[Buffer] = ()) -> bool:
        if self.is_closed:
            return False
        message = _copied(header, frames)
        if self.route is None:
            self.queued.append(message)
        else:
            self._network.carry(self, True, message)
        return True

    def receive(self) -> tuple[Buffer, list[Buffer]] | None:
        return self.inbox.popleft() if self.inbox else None

    def pending(self) -> bool:
        return bool(self.inbox)

    def wait(self, timeout_s: float | None, wakers: Sequence[HasFileno] = ()) -> bool:
        """Time is virtual: nobody waits."""
        return self.pending()

    def fileno(self) -> int:
        return NO_FILE

    def redial(self) -> None:
        if not self.is_closed:
            self.inbox.clear()
            self.queued.clear()
            self._network.connect(self)

    def close(self, linger_s: float = 0.0) -> None:
        """End the connection; what has been sent still arrives if there is a linger."""
        self.is_closed = True
        self.inbox.clear()
        if linger_s:
            self._network.clock.call_at(self._network.clock.now() + linger_s, self._end)
        else:
            self._end()

    def _end(self) -> None:
        self._network.disconnect(self)


class VirtualExchange:
    """An `Exchange`; see `VirtualNetwork`."""

    def __init__(self, network: VirtualNetwork) -> None:
        self.inbox: deque[Incoming] = deque()
        self._network = network

    def __repr__(self) -> str:
        return f"<VirtualExchange, {len(self.inbox)} messages wait>"

    @property
    def tcp_addresses(self) -> tuple[str, ...]:
        return ()

    @property
    def ipc_address(self) -> str:
        return ""

    def wait(self, timeout_s: float | None, wakers: Sequence[HasFileno] = ()) -> None:
        """Time is virtual: nobody waits."""

    def receive(self) -> Incoming | None:
        return self.inbox.popleft() if self.inbox else None

    def send(self, route: Route, header: Buffer, frames: Sequence[Buffer] = ()) -> Delivery:
        channel = self._network.channels.get(route)
        if channel is None:
            return Delivery.GONE
        self._network.carry(channel, False, _copied(header, frames))
        return Delivery.SENT

    def rejections(self) -> list[Rejected]:
        return []

    def statistics(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        self.inbox.clear()


def _copied(header: Buffer, frames: Sequence[Buffer]) -> Message:
    return bytes(header), [memoryview(bytes(frame)) for frame in frames]


def _tear(message: Message) -> Message:
    header, frames = message
    return (header, frames[:-1]) if frames else (header[: len(header) // 2], [])
