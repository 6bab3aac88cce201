"""What every pair of exchange and channel keeps: 0MQ over TCP, 0MQ over ipc, the lane, and memory."""

import select
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
import zmq.utils.garbage

from enginery.protocol.messages import FRAME_LIMIT, MESSAGE_LIMIT
from enginery.transport.addresses import ClusterDirectory
from enginery.transport.channel import Channel, Delivery, Exchange, Incoming, Role, Route, Waker
from enginery.transport.connection_file import ConnectionInfo, load, publish
from enginery.transport.dialling import dial
from enginery.transport.exchange import open_exchange
from enginery.transport.keys import ClusterKeys
from enginery.transport.memory import MemoryNetwork

PATIENCE_S = 10.0


@pytest.fixture(scope="module", autouse=True)
def _pyzmq_keeps_no_thread() -> Iterator[None]:
    # pyzmq's own thread for frames that are not copied: it would stay until the interpreter ends.
    yield
    zmq.utils.garbage.gc.stop()


class Pair(Protocol):
    exchange: Exchange

    def dial(self, role: Role) -> Channel: ...

    def close(self) -> None: ...


class SocketPair:
    """Over TCP or ipc; or, from an exchange that has a lane too, over any of the three."""

    def __init__(self, directory: ClusterDirectory, *, same_host: bool, lane: bool, dials_lane: bool) -> None:
        keys = ClusterKeys.generate()
        directory.create()
        exchange = open_exchange(keys, directory.ipc_path(), lane_path=directory.lane_path() if lane else "")
        self.exchange: Exchange = exchange
        self._directory = directory
        self._files = publish(
            directory,
            keys,
            tcp=exchange.tcp_addresses,
            ipc=exchange.ipc_address,
            lane=exchange.lane_path if dials_lane else "",
        )
        self._same_host = same_host
        self._channels: list[Channel] = []

    def info(self, role: Role) -> ConnectionInfo:
        return load(self._files[role])

    def dial(self, role: Role) -> Channel:
        channel = dial(self.info(role), same_host=self._same_host)
        self._channels.append(channel)
        return channel

    def close(self) -> None:
        for channel in self._channels:
            channel.close()
        self.exchange.close()
        self._directory.remove()


class MemoryPair:
    def __init__(self) -> None:
        self._network = MemoryNetwork()
        self.exchange: Exchange = self._network.exchange

    def dial(self, role: Role) -> Channel:
        return self._network.dial(role)

    def close(self) -> None:
        self._network.close()


@pytest.fixture(params=["memory", "ipc", "tcp", "lane", "ipc beside a lane", "tcp beside a lane"])
def pair(request: pytest.FixtureRequest, runtime_directory: Path) -> Iterator[Pair]:
    made: Pair
    if request.param == "memory":
        made = MemoryPair()
    else:
        directory = ClusterDirectory("contract", runtime=runtime_directory)
        way = request.param.partition(" ")[0]
        made = SocketPair(
            directory, same_host=way != "tcp", lane="lane" in request.param, dials_lane=way == "lane"
        )
    yield made
    made.close()


def take(exchange: Exchange) -> Incoming:
    """The next message."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        message = exchange.receive()
        if message is not None:
            return message
        exchange.wait(0.2)
    pytest.fail(f"no message within {PATIENCE_S} s; rejections: {exchange.rejections()}")


def take_below(channel: Channel, exchange: Exchange | None = None) -> tuple[bytes, list[bytes]]:
    """The next message of a channel, as bytes; a newcomer is let in by the exchange meanwhile."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        message = channel.receive()
        if message is not None:
            return bytes(message[0]), [bytes(frame) for frame in message[1]]
        if exchange is not None:
            exchange.wait(0)
        channel.wait(0.02 if exchange is not None else 0.2)
    pytest.fail(f"no message within {PATIENCE_S} s")


def until(exchange: Exchange, reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline
        exchange.wait(0.01)


def introduce(pair: Pair, role: Role) -> tuple[Channel, Route]:
    channel = pair.dial(role)
    assert channel.send(b"hello")
    return channel, take(pair.exchange).route


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize("role", list(Role))
def test_a_message_arrives_with_its_role(pair: Pair, role: Role) -> None:
    channel = pair.dial(role)
    assert channel.send(b"header", [b"one", bytearray(b"two"), memoryview(b"three"), b""])
    message = take(pair.exchange)
    assert message.role is role
    assert bytes(message.header) == b"header"
    assert [bytes(frame) for frame in message.frames] == [b"one", b"two", b"three", b""]
    assert pair.exchange.send(message.route, b"back", [b"1", b"2"]) is Delivery.SENT
    assert take_below(channel) == (b"back", [b"1", b"2"])
    assert channel.receive() is None
    assert pair.exchange.receive() is None


def test_an_empty_header_is_a_message(pair: Pair) -> None:
    channel = pair.dial(Role.CLIENT)
    assert channel.send(b"")
    message = take(pair.exchange)
    assert (bytes(message.header), message.frames) == (b"", [])


def test_frames_of_full_size_go_both_ways(pair: Pair) -> None:
    channel, route = introduce(pair, Role.CLIENT)
    frames = [bytes([number]) * FRAME_LIMIT for number in range(8)]
    assert channel.send(b"h" * (1 << 16), frames)
    message = take(pair.exchange)
    assert [bytes(frame) for frame in message.frames] == frames
    assert pair.exchange.send(route, b"back", message.frames) is Delivery.SENT
    assert take_below(channel, pair.exchange) == (b"back", frames)


def test_a_thousand_messages_keep_their_order(pair: Pair) -> None:
    channel, route = introduce(pair, Role.ENGINE)
    for number in range(1000):
        assert channel.send(number.to_bytes(4, "big"), [b"x" * (number % 7 * 20_000)] * (number % 3))
    for number in range(1000):
        message = take(pair.exchange)
        assert (int.from_bytes(message.header, "big"), len(message.frames)) == (number, number % 3)
        assert message.route == route
    for number in range(1000):
        assert pair.exchange.send(route, number.to_bytes(4, "big")) is Delivery.SENT
    for number in range(1000):
        assert take_below(channel, pair.exchange) == (number.to_bytes(4, "big"), [])


def test_connections_have_routes_of_their_own(pair: Pair) -> None:
    first, first_route = introduce(pair, Role.ENGINE)
    second, second_route = introduce(pair, Role.ENGINE)
    assert first_route != second_route
    pair.exchange.send(second_route, b"for the second")
    pair.exchange.send(first_route, b"for the first")
    assert take_below(second) == (b"for the second", [])
    assert take_below(first) == (b"for the first", [])


def test_statistics_count_messages(pair: Pair) -> None:
    _, route = introduce(pair, Role.CLIENT)
    pair.exchange.send(route, b"x")
    assert pair.exchange.statistics() == {"messages_in": 1, "messages_out": 1, "rejected": 0}
    assert pair.exchange.rejections() == []


# ---------------------------------------------------------------- connections that end


def test_a_route_is_gone_after_its_peer_closed(pair: Pair) -> None:
    channel, route = introduce(pair, Role.ENGINE)
    _, other = introduce(pair, Role.CLIENT)
    channel.close()
    until(pair.exchange, lambda: pair.exchange.send(route, b"probe") is Delivery.GONE)
    assert pair.exchange.send(other, b"probe") is Delivery.SENT


def test_an_invented_route_is_gone(pair: Pair) -> None:
    _, route = introduce(pair, Role.ENGINE)
    assert pair.exchange.send(Route(route[:-1] + bytes([route[-1] ^ 0x55])), b"x") is Delivery.GONE


def test_redial_gives_a_new_route(pair: Pair) -> None:
    channel, route = introduce(pair, Role.CLIENT)
    channel.redial()
    assert not channel.broken
    assert channel.send(b"again")
    message = take(pair.exchange)
    assert bytes(message.header) == b"again"
    assert message.role is Role.CLIENT
    assert message.route != route
    until(pair.exchange, lambda: pair.exchange.send(route, b"probe") is Delivery.GONE)
    assert pair.exchange.send(message.route, b"answer") is Delivery.SENT
    assert take_below(channel) == (b"answer", [])


def test_a_closed_channel_refuses_quietly(pair: Pair) -> None:
    channel = pair.dial(Role.CLIENT)
    channel.close()
    channel.close()
    channel.redial()
    assert channel.broken
    assert channel.send(b"x") is False
    assert channel.receive() is None
    assert channel.pending() is False
    assert channel.wait(0) is False
    assert channel.fileno() == -1


def test_a_closed_exchange_refuses_quietly(pair: Pair) -> None:
    _, route = introduce(pair, Role.CLIENT)
    pair.exchange.close()
    pair.exchange.close()
    pair.exchange.wait(None)
    assert pair.exchange.receive() is None
    assert pair.exchange.send(route, b"x") is Delivery.GONE


def test_messages_that_were_sent_before_closing_with_linger_arrive(pair: Pair) -> None:
    channel, _ = introduce(pair, Role.CLIENT)
    assert channel.send(b"goodbye")
    channel.close(linger_s=5.0)
    assert bytes(take(pair.exchange).header) == b"goodbye"


# ---------------------------------------------------------------- waiting


def test_waiting_ends_with_the_time(pair: Pair) -> None:
    channel, _ = introduce(pair, Role.CLIENT)
    begin = time.monotonic()
    assert channel.wait(0.05) is False
    pair.exchange.wait(0.05)
    assert 0.1 <= time.monotonic() - begin < PATIENCE_S
    assert pair.exchange.receive() is None


def test_waiting_ends_with_a_waker(pair: Pair) -> None:
    channel, _ = introduce(pair, Role.CLIENT)
    waker = Waker()
    thread = threading.Thread(target=waker.wake)
    thread.start()
    pair.exchange.wait(PATIENCE_S, [waker])
    assert waker.clear() is True
    waker.wake()
    assert channel.wait(PATIENCE_S, [waker]) is False
    thread.join()
    waker.close()


def test_waiting_ends_with_a_message(pair: Pair) -> None:
    channel, route = introduce(pair, Role.CLIENT)
    waker = Waker()
    thread = threading.Thread(target=lambda: [channel.wait(PATIENCE_S), waker.wake()])
    thread.start()
    pair.exchange.send(route, b"x")
    pair.exchange.wait(PATIENCE_S, [waker])
    thread.join(PATIENCE_S)
    assert take_below(channel) == (b"x", [])
    waker.close()


def test_the_descriptor_wakes_a_thread_that_keeps_the_rules(pair: Pair) -> None:
    """One thread polls without the lock, another sends: the rules of `Channel` lose no wake-up."""
    channel, route = introduce(pair, Role.CLIENT)
    lock, woken, finished = threading.Lock(), Waker(), threading.Event()
    received: list[bytes] = []
    rounds = 300

    def read() -> None:
        poll = select.poll()
        poll.register(channel.fileno(), select.POLLIN)
        poll.register(woken.fileno(), select.POLLIN)
        while len(received) < rounds and not finished.is_set():
            with lock:
                message = channel.receive()
            if message is not None:
                received.append(bytes(message[0]))
                continue
            if not poll.poll(PATIENCE_S * 1000):
                return
            woken.clear()

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(rounds):
        with lock:
            channel.send(str(number).encode())
            if channel.pending():
                woken.wake()
        message = take(pair.exchange)
        assert pair.exchange.send(route, message.header) is Delivery.SENT
    reader.join(PATIENCE_S)
    finished.set()
    woken.wake()
    reader.join(PATIENCE_S)
    assert received == [str(number).encode() for number in range(rounds)]
    woken.close()


def test_pending_tells_what_receive_would_do(pair: Pair) -> None:
    channel, route = introduce(pair, Role.CLIENT)
    assert channel.pending() is False
    pair.exchange.send(route, b"x")
    assert channel.wait(PATIENCE_S) is True
    assert channel.pending() is True
    assert channel.receive() == (b"x", [])
    assert channel.pending() is False


def test_the_limit_is_above_a_frame() -> None:
    assert FRAME_LIMIT < MESSAGE_LIMIT
