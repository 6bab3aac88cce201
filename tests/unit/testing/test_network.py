"""The virtual network keeps the contract of a channel, and its faults do what they say."""

from __future__ import annotations

import pytest

from enginery.testing import Fate, VirtualClock, VirtualNetwork
from enginery.testing.network import DELAY_S, LATE_S
from enginery.transport.channel import Channel, Delivery, Exchange, Role


class Wire:
    """One connection, and what has arrived at either end."""

    def __init__(self, **fates: Fate) -> None:
        self.clock = VirtualClock()
        self.network = VirtualNetwork(
            self.clock, fates={int(number[1:]): fate for number, fate in fates.items()}
        )
        self.channel = self.network.dial(Role.CLIENT, "c")

    def send(self, *headers: bytes) -> None:
        for header in headers:
            assert self.channel.send(header)

    def arrived(self, after_s: float = 10.0) -> list[bytes]:
        self.clock.jump_to(self.clock.now() + after_s)
        self.clock.run_due()
        return [bytes(message.header) for message in iter(self.network.exchange.receive, None)]


def test_the_contract_is_kept() -> None:
    wire = Wire()
    channel: Channel = wire.channel
    exchange: Exchange = wire.network.exchange
    wire.send(b"up")
    wire.clock.jump_to(wire.clock.now() + DELAY_S)
    assert wire.clock.run_due()
    incoming = exchange.receive()
    assert incoming is not None
    assert (incoming.header, incoming.role) == (b"up", Role.CLIENT)
    assert exchange.send(incoming.route, b"down", [b"frame"]) is Delivery.SENT
    wire.clock.jump_to(wire.clock.now() + DELAY_S)
    wire.clock.run_due()
    assert channel.pending()
    assert channel.wait(0.0)
    message = channel.receive()
    assert message is not None
    assert (message[0], [bytes(frame) for frame in message[1]]) == (b"down", [b"frame"])
    assert channel.receive() is None
    assert (channel.address, channel.fileno(), channel.broken) == ("virtual", -1, False)
    assert exchange.rejections() == []
    assert (exchange.tcp_addresses, exchange.ipc_address, exchange.statistics()) == ((), "", {})


def test_messages_are_copied_when_they_are_sent() -> None:
    wire = Wire()
    header = bytearray(b"before")
    wire.channel.send(header)
    header[:] = b"after!"
    assert wire.arrived() == [b"before"]


@pytest.mark.parametrize(
    ("fate", "expected"),
    [
        (Fate.PASS, [b"000", b"1111", b"222"]),
        (Fate.DROP, [b"000", b"222"]),
        (Fate.DUPLICATE, [b"000", b"1111", b"1111", b"222"]),
        (Fate.REORDER, [b"000", b"222", b"1111"]),
        (Fate.TEAR, [b"000", b"11", b"222"]),
        (Fate.LATE, [b"000", b"1111", b"222"]),
        (Fate.CUT, [b"222"]),
    ],
)
def test_fates(fate: Fate, expected: list[bytes]) -> None:
    wire = Wire(_1=fate)
    wire.send(b"000", b"1111", b"222")
    assert wire.arrived() == expected


def test_late_delays_what_comes_behind_it() -> None:
    wire = Wire(_0=Fate.LATE)
    wire.send(b"0", b"1")
    assert wire.arrived(LATE_S) == []
    assert wire.arrived(DELAY_S) == [b"0", b"1"]


def test_a_torn_message_loses_its_last_frame() -> None:
    wire = Wire(_0=Fate.TEAR)
    wire.channel.send(b"header", [b"one", b"two"])
    wire.clock.jump_to(wire.clock.now() + 1.0)
    wire.clock.run_due()
    message = wire.network.exchange.receive()
    assert message is not None
    assert (message.header, [bytes(frame) for frame in message.frames]) == (b"header", [b"one"])


def test_after_a_cut_the_old_route_is_gone_and_the_new_one_goes_on() -> None:
    wire = Wire()
    old = wire.channel.route
    assert old is not None
    wire.send(b"lost")
    wire.network.connect(wire.channel)
    wire.send(b"new")
    assert wire.network.exchange.send(old, b"x") is Delivery.GONE
    assert wire.arrived() == [b"new"]
    assert wire.channel.route != old


def test_what_is_sent_during_an_outage_goes_out_after_it() -> None:
    wire = Wire()
    wire.network.unplug(wire.channel)
    wire.send(b"0", b"1")
    wire.network.connect(wire.channel)
    assert wire.arrived() == []
    wire.network.plug(wire.channel)
    assert wire.arrived() == [b"0", b"1"]


def test_redialling_forgets_what_was_queued() -> None:
    wire = Wire()
    wire.network.unplug(wire.channel)
    wire.send(b"0")
    wire.channel.redial()
    wire.network.plug(wire.channel)
    assert wire.arrived() == []


def test_what_was_sent_before_the_end_arrives_within_the_linger() -> None:
    for linger_s, expected in ((0.0, []), (1.0, [b"last"])):
        wire = Wire()
        wire.send(b"last")
        wire.channel.close(linger_s)
        assert not wire.channel.send(b"more")
        assert wire.arrived() == expected


def test_observers_see_everything() -> None:
    wire = Wire(_1=Fate.DROP)
    seen = []
    wire.network.observers.append(
        lambda passing: seen.append((passing.header, passing.upwards, passing.fate))
    )
    wire.send(b"0", b"1")
    assert seen == [(b"0", True, Fate.PASS), (b"1", True, Fate.DROP)]


def test_reprs() -> None:
    wire = Wire()
    assert repr(wire.clock) == "<VirtualClock at 1000, 0 timers>"
    assert repr(wire.network) == "<VirtualNetwork with 1 connections, 0 messages>"
    assert repr(wire.channel) == "<VirtualChannel c>"
    assert repr(wire.network.exchange) == "<VirtualExchange, 0 messages wait>"


def test_time_does_not_go_back() -> None:
    clock = VirtualClock(5.0)
    with pytest.raises(ValueError, match="it is 5 already, 4 is over"):
        clock.jump_to(4.0)


def test_timers_of_one_moment_keep_their_order() -> None:
    clock = VirtualClock(0.0)
    called: list[str] = []
    for name in ("b", "a"):
        clock.call_at(1.0, lambda name=name: called.append(name))  # type: ignore[misc]
    assert clock.next_deadline() == 1.0
    assert not clock.run_due()
    clock.jump_to(1.0)
    assert clock.run_due()
    assert called == ["b", "a"]
