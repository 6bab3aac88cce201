"""The controller's loop on a network without sockets: strangers, routes, acknowledgements, the store."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from enginery.ids import ClientId, EngineKey
from enginery.protocol import codec
from enginery.protocol import messages as m
from enginery.testing.engines import VERSIONS
from enginery.testing.network import VirtualChannel
from enginery.transport.channel import Role
from tests.world import World

log = "enginery.controller"
HELLO = m.ClientHello(ClientId(9), b"s", VERSIONS, 1)
DECODE = codec.to_client().decode


class Wire:
    """A client's connection by hand."""

    def __init__(self, world: World, role: Role = Role.CLIENT) -> None:
        self.world = world
        self.channel: VirtualChannel = world.network.dial(role, "client9")

    def send(
        self, *records: m.Record, epoch: int = 1, number: int = 0, frames: tuple[bytes, ...] = ()
    ) -> list[m.Record]:
        """Send a message; returns what has come back within a moment."""
        return self.send_bytes(codec.encode(epoch, number, 0, records), frames)

    def send_bytes(self, header: bytes, frames: tuple[bytes, ...] = ()) -> list[m.Record]:
        self.channel.send(header, frames)
        self.world.run_for(0.01)
        return [
            record
            for header, frames in iter(self.channel.receive, None)  # type: ignore[misc]
            for record in DECODE(header, frames).records
        ]


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def test_a_stranger_is_asked_for_a_hello(world: World) -> None:
    wire = Wire(world)
    assert wire.send(m.Ping()) == [m.HelloFirst("this connection is not known")]
    assert [type(record) for record in wire.send(HELLO)] == [m.ClientWelcome]


def test_so_is_one_that_sends_a_blob(world: World) -> None:
    piece = m.PutBlob(b"b" * 16, 4, 0, False)  # type: ignore[arg-type]
    for role in Role:
        answer = Wire(world, role).send(piece, frames=(b"data",))
        if role is not Role.HOST:  # for hosts such a record does not exist
            assert answer == [m.HelloFirst("this connection is not known")]


def test_random_bytes_are_one_line_in_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, log):
        assert Wire(world).send_bytes(b"GET / HTTP/1.0") == []
    assert len(caplog.records) == 1
    assert "a malformed message of an unknown client" in caplog.text


def test_a_role_may_not_say_what_another_says(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, log):
        assert Wire(world, Role.ENGINE).send(HELLO) == []
    assert "a malformed message of an unknown engine" in caplog.text
    assert len(world.controller._routes) == 0


def test_a_malformed_message_of_a_peer_asks_for_a_hello(world: World) -> None:
    wire = Wire(world)
    wire.send(HELLO)
    assert wire.send_bytes(b"\xc1") == [m.HelloFirst("a message was malformed")]
    assert [type(record) for record in wire.send(HELLO, epoch=2)] == [m.ClientWelcome]


def test_a_gap_asks_for_a_hello(world: World) -> None:
    wire = Wire(world)
    wire.send(HELLO)
    assert wire.send(m.Ping(), number=2) == [m.HelloFirst("messages were lost")]


def test_what_comes_twice_is_dropped(world: World) -> None:
    wire = Wire(world)
    wire.send(HELLO)
    assert wire.send(m.Ping(), number=1) == [m.Ping()]
    assert wire.send(m.Ping(), number=1) == []
    assert wire.send(HELLO) == []


def test_a_newer_hello_takes_over(world: World) -> None:
    first, second = Wire(world), Wire(world)
    first.send(HELLO)
    assert [type(record) for record in second.send(HELLO, epoch=2)] == [m.ClientWelcome]
    assert len(world.controller._routes) == 1
    assert first.send(m.Ping(), number=1) == [m.HelloFirst("this connection is not known")]
    assert second.send(m.Ping(), epoch=2, number=1) == [m.Ping()]


def test_another_secret_is_refused(world: World) -> None:
    Wire(world).send(HELLO)
    thief = m.ClientHello(ClientId(9), b"x", VERSIONS, 1)
    assert Wire(world).send(thief) == [m.Refused("another client has registered under this id")]


def test_a_control_connection_that_comes_too_early_is_not_answered(world: World) -> None:
    wire = Wire(world, Role.ENGINE)
    assert wire.send(m.ControlHello(EngineKey("e"), b"s")) == []
    assert len(world.controller._routes) == 0


def test_the_connections_of_who_leaves_are_let_go(world: World) -> None:
    for _ in range(5):
        world.engine(host=world.host())
        world.client()
    world.run_for(0.1)
    assert len(world.controller._routes) == 20
    for peer in (*world.clients, *world.engines):
        peer.leave()
    for host in world.hosts:
        host.say_goodbye()
    world.run_for(0.1)
    assert len(world.controller._routes) == 0
    assert world.state.links == {}
    world.run_for(100.0)
    assert world.hub.next_deadline() is None


def test_a_connection_that_is_gone_is_found_by_a_probe(world: World) -> None:
    client = world.client()
    world.run_for(0.1)
    client.kill()
    world.run_for(3.0)
    assert not world.hub.knows(("client", client.client))
    assert client.client in world.state.registry.clients
    assert len(world.controller._routes) == 0


def test_nothing_is_acknowledged_before_it_is_stored(world: World) -> None:
    world.engine()
    client = world.client()
    world.run_for(0.1)
    world.store.is_full = True
    client.call("f")
    world.run_for(1.0)
    (submission,) = dict.fromkeys(client.ledger._tasks.values()) or [None]
    assert submission is None, "the result comes whether it is stored or not"
    assert world.engines[0].workload.statistics().unstored == 1
    world.store.is_full = False
    world.run_for(1.0)
    assert world.engines[0].workload.statistics().unstored == 0
    assert world.store.count() == 1


def test_facts_are_stored_in_batches(world: World) -> None:
    world.engine()
    client = world.client()
    for _ in range(300):
        client.call("f", duration_s=0.0001)
    world.run()
    world.settle()
    assert world.store.count() == 300
    assert world.store.statistics().commits < 15


def test_repr(world: World) -> None:
    assert repr(world.controller).endswith("<Routes of 0 connections>>")
