"""Scripted peers in a whole world: what their one-line builders promise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from enginery.ids import BlobId, EngineId
from enginery.protocol import messages as m
from enginery.testing import Deed
from tests.world import World


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def test_one_call(world: World) -> None:
    world.engine()
    (outcome,) = world.client().call("f", duration_s=0.5)
    assert repr(outcome) == "<Outcome of task 1: open>"
    world.run()
    outcome.check()
    assert repr(outcome) == "<Outcome of task 1: ok>"
    assert outcome.result is not None
    assert outcome.result.completed - outcome.result.started == pytest.approx(0.5)


def test_a_wrong_value_is_noticed(world: World) -> None:
    world.engine()
    (outcome,) = world.client().call("f")
    world.run()
    assert outcome.result is not None
    outcome.result.payload = b"wrong"
    with pytest.raises(AssertionError):
        outcome.check()


def test_arguments_and_results_of_any_size(world: World) -> None:
    world.engine()
    client = world.client()
    for size in (100, 100_000, 5_000_000):
        client.call("f", argument_bytes=size, result_bytes=size)
    world.run()
    for outcome in client.outcomes.values():
        assert outcome.status is m.Status.OK
        outcome.check()
    assert [len(outcome.blob) for outcome in client.outcomes.values()] == [100, 100_000, 5_000_000]
    world.settle()
    world.check_nothing_left()


def test_a_window_full_of_large_results_does_not_stop(world: World) -> None:
    world.engine()
    client = world.client()
    for _ in range(90):
        client.call("f", duration_s=0.001, result_bytes=1 << 20)
    world.run(limit_s=5.0)
    assert {outcome.status for outcome in client.outcomes.values()} == {m.Status.OK}


def test_a_faster_engine_needs_less_time(world: World) -> None:
    world.engine(speed=4.0)
    (outcome,) = world.client().call("f", duration_s=1.0)
    world.run()
    assert outcome.result is not None
    assert outcome.result.completed - outcome.result.started == pytest.approx(0.25)


def test_a_host_starts_and_stops_engines(world: World) -> None:
    world.host()
    client = world.client()
    world.run_for(0.1)
    client.say(m.StartEngines(1, 2))
    world.run_for(0.1)
    client.say(m.StopEngines(2, [EngineId(0)]))
    world.run_for(0.1)
    assert client.answers == [m.Answer(1, "", [EngineId(0), EngineId(1)]), m.Answer(2)]
    assert list(client.engines) == [1]
    world.settle()
    world.check_nothing_left()


def test_the_cluster_shuts_down(world: World) -> None:
    host = world.host()
    world.engine(host=host)
    world.engine()
    client = world.client()
    world.run_for(0.1)
    client.say(m.ShutDown(1))
    world.run_for(0.1)
    assert client.answers == [m.Answer(1)]
    assert not world.engines[0].is_alive


def test_a_world_in_which_nothing_can_happen_says_so(world: World) -> None:
    world.client().call("f")
    with pytest.raises(AssertionError, match="nothing more happens within 20 s"):
        world.run(limit_s=20.0)


def test_a_deed_says_what_comes_of_it() -> None:
    deed = Deed("v", raises=1, result_bytes=3)
    assert Deed.decode(deed.encode()) == deed
    assert deed.blob() == b"vvv"
    assert deed.answer([b"a"]) != deed.answer([b"b"])
    assert BlobId(b"") == b""
