"""One controller's decisions behind one door: doors, deadlines, the end."""

from __future__ import annotations

import typing

import pytest

from enginery.core.hub import DOORS, SHUTDOWN_GRACE_S
from enginery.protocol import messages as m
from tests.unit.core.hub_bench import HubBench

UNIONS = {"client": m.FromClient, "engine": m.FromEngine, "control": m.FromControl, "host": m.FromHost}
ELSEWHERE = {m.PutBlob, m.ClientHello, m.EngineHello, m.ControlHello, m.HostHello}


@pytest.mark.parametrize("kind", UNIONS)
def test_every_record_that_a_peer_may_send_has_a_door(kind: str) -> None:
    assert set(DOORS[kind]) == set(typing.get_args(UNIONS[kind])) - ELSEWHERE


@pytest.mark.parametrize("kind", UNIONS)
def test_a_ping_is_answered(kind: str) -> None:
    bench = HubBench()
    bench.engine()
    peer = getattr(bench, kind)()
    bench.heard(peer)
    bench.say(peer, m.Ping())
    assert bench.heard(peer) == [m.Ping()]


def test_no_record_is_a_hello() -> None:
    bench = HubBench()
    with pytest.raises(TypeError, match="Ping is no hello"):
        bench.hub.on_hello(m.Ping(), bench.hub.state.links.get(("client", 1)), now=0.0)  # type: ignore[arg-type]


def test_a_peer_that_leaves_is_touched_so_that_its_connection_can_be_let_go() -> None:
    bench = HubBench()
    client = bench.client()
    bench.hub.settle(now=bench.now)
    bench.say(client, m.Goodbye())
    assert client in bench.hub.settle(now=bench.now)
    assert not bench.hub.knows(client)
    assert bench.hub.settle(now=bench.now) == []


def test_a_hub_that_shuts_down_waits_for_engines_and_hosts_but_not_for_ever() -> None:
    bench = HubBench()
    client, host = bench.client(), bench.host()
    bench.engine(host="h0")
    bench.say(client, m.ShutDown(1))
    bench.hub.settle(now=bench.now)
    assert not bench.hub.is_finished(now=bench.now)
    assert bench.hub.is_finished(now=bench.now + SHUTDOWN_GRACE_S)
    exited = m.EngineExited("e0", 1, "exited with code 0", [], True, True)  # type: ignore[arg-type]
    bench.say(host, exited, m.Goodbye())
    assert bench.hub.is_finished(now=bench.now)


def test_nothing_to_remember_is_no_batch() -> None:
    bench = HubBench()
    assert bench.hub.take_facts() is None
    bench.client()
    assert bench.hub.state.recording.is_waiting
    assert [type(fact).__name__ for fact in bench.commit()] == ["ClientSeen"]
    assert not bench.hub.state.recording.is_waiting


def test_repr() -> None:
    assert repr(HubBench().hub).startswith("<Hub of <ClusterState test: <Registry of 0 engines")
