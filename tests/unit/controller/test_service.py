"""The controller's loop on a network without sockets: strangers, routes, acknowledgements, the store."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from enginery.controller.service import SUSPECT_S
from enginery.core import credit, facing_clients, recording
from enginery.ids import ClientId, EngineKey, make_task_id
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


def test_a_header_nested_without_end_is_malformed_too(world: World, caplog: pytest.LogCaptureFixture) -> None:
    header = codec.encode(1, 0, 0, [m.Ping()])
    deep = b"\x96" + header[1:] + b"\x91" * 20_000 + b"\xc0"
    with caplog.at_level(logging.WARNING, log):
        assert Wire(world).send_bytes(deep) == []
    assert "a malformed message of an unknown client" in caplog.text
    assert [type(record) for record in Wire(world).send(HELLO)] == [m.ClientWelcome], "it lives"


def test_a_message_that_brings_a_defect_to_light_ends_nobody_elses_session(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, log):
        patch.setattr(world.controller.hub, "on_hello", fail)
        assert Wire(world).send(HELLO) == []
    assert "a message of an unknown client could not be handled" in caplog.text
    assert [type(record) for record in Wire(world).send(HELLO)] == [m.ClientWelcome]


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


def test_who_sends_again_what_cannot_be_taken_is_refused(world: World) -> None:
    wire = Wire(world)
    for epoch in (1, 2):
        assert [type(record) for record in wire.send(HELLO, epoch=epoch)] == [m.ClientWelcome]
        (answer,) = wire.send(m.StartEngines(1, 20_000), epoch=epoch, number=1)
        assert isinstance(answer, m.HelloFirst if epoch == 1 else m.Refused)
    assert answer.reason.startswith("a message was malformed, and again after a new hello: not a header")
    world.run_for(SUSPECT_S)
    wire.send(HELLO, epoch=3)
    assert wire.send(m.StartEngines(1, 20_000), epoch=3, number=1) == [
        m.HelloFirst("a message was malformed")
    ]
    wire.send(HELLO, epoch=4)
    world.run_for(SUSPECT_S)
    assert wire.send(m.StartEngines(1, 20_000), epoch=4, number=1)[-1] == m.HelloFirst(
        "a message was malformed"
    )


def test_torn_messages_are_not_held_against_a_peer(world: World) -> None:
    wire = Wire(world)
    for epoch in (1, 2, 3):
        wire.send(HELLO, epoch=epoch)
        torn = codec.encode(epoch, 1, 0, [m.StopEngines(1, [])])[:-2]
        assert wire.send_bytes(torn) == [m.HelloFirst("a message was malformed")]


def test_a_record_that_cannot_be_sent_costs_no_connection(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    wire = Wire(world)
    wire.send(HELLO)
    world.state.say("client", ClientId(9), m.Answer(3, "x" * 2_000_000))
    world.state.say("client", ClientId(9), m.Answer(4))
    first, second, pong = sorted(wire.send(m.Ping(), number=1), key=lambda record: type(record).__name__)
    assert pong == m.Ping()
    assert {first.request, second.request} == {3, 4}  # type: ignore[attr-defined]
    assert "client 9 has to do without: a record of type Answer cannot be sent" in caplog.text
    assert len(world.controller._routes) == 1


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


def test_a_store_that_takes_nothing_bounds_what_waits_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Results stay here, so the client's window fills, and no further calls come in."""
    monkeypatch.setattr(recording, "FACT_BYTES", 20_000)
    monkeypatch.setattr(facing_clients, "TASK_WINDOW", 30)
    world.engine()
    client = world.client()
    world.run_for(0.1)
    world.store.is_full = True
    outcomes = [client.call("f", duration_s=0.0001)[0] for _ in range(1000)]
    with caplog.at_level(logging.WARNING, logger=log):
        world.run_for(12.0)
    ended = sum(outcome.endings for outcome in outcomes)
    assert 30 < ended < 200
    assert len(world.state.recording) < 300
    assert [record.getMessage() for record in caplog.records if "has taken nothing" in record.msg] == [
        f"{world.store!r} has taken nothing for {seconds} s: results wait for it, and calls for them"
        for seconds in (5, 10)
    ]
    world.store.is_full = False
    world.run()
    assert [outcome.endings for outcome in outcomes] == [1] * 1000
    world.settle()
    assert world.store.count() == 1000


def test_a_client_that_goes_beyond_its_window_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(credit, "TASK_WINDOW", 2)
    wire = Wire(world)
    wire.send(HELLO)
    options = m.TaskOptions(m.Kind.PULL)
    calls = [m.Call(number, b"") for number in range(1, 6)]
    (refused,) = wire.send(m.Submit(options, calls), number=1)
    assert isinstance(refused, m.Refused)
    assert refused.reason.startswith("it has 4 unfinished tasks")
    assert len(world.controller._routes) == 0
    assert wire.send(m.Ping(), number=2) == [m.HelloFirst("this connection is not known")]
    (again,) = wire.send(HELLO, epoch=2)
    assert isinstance(again, m.Refused)
    assert "refused client 9: it has 4 unfinished tasks" in caplog.text


def test_facts_are_stored_in_batches(world: World) -> None:
    world.engine()
    client = world.client()
    for _ in range(300):
        client.call("f", duration_s=0.0001)
    world.run()
    world.settle()
    assert world.store.count() == 300
    assert world.store.statistics().commits < 15


def test_an_answer_from_the_history_sees_all_that_came_before(world: World) -> None:
    world.engine()
    client = world.client()
    world.run_for(0.1)
    call = client.call("f")
    world.run_until(lambda: call[0].endings > 0)
    task = make_task_id(client.client, 1)
    wire = Wire(world)
    wire.send(HELLO)
    (answer,) = wire.send(m.AskResults(7, [task]), number=1)
    assert isinstance(answer, m.ResultsAnswer)
    assert [(result.task, result.status) for result in answer.results] == [(task, m.Status.OK)]


def test_nothing_is_asked_while_the_store_takes_no_facts(world: World) -> None:
    world.engine()
    client = world.client()
    world.run_for(0.1)
    world.store.is_full = True
    client.call("f")
    world.run()
    wire = Wire(world)
    wire.send(HELLO)
    question = m.AskHistory(7, [m.Term("status", "eq", 0)])
    assert wire.send(question, number=1) == []
    world.store.is_full = False
    (answer,) = wire.send(number=2)
    assert isinstance(answer, m.HistoryAnswer)
    assert [record.task for record in answer.records] == [make_task_id(client.client, 1)]


def test_dependencies_are_looked_up_in_the_history(world: World) -> None:
    wire = Wire(world)
    wire.send(HELLO)
    stranger = m.Dependency((make_task_id(ClientId(77), 1),))
    options = m.TaskOptions(m.Kind.PULL, after=stranger)
    (finished,) = wire.send(m.Submit(options, [m.Call(1, b"")]), number=1)
    assert isinstance(finished, m.Finished)
    assert [result.status for result in finished.results] == [m.Status.INVALID]


def test_repr(world: World) -> None:
    assert repr(world.controller).endswith("<Routes of 0 connections>>")
