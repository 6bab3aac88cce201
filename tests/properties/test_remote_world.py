"""A whole cluster with its engines on another host, under random faults: right answers, and nothing is left.

Beside the faults of `test_shared_world`, the other host's shared memory has no room at times, and its engines
lose the ability to map it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginery.core import relays
from enginery.testing import Fate
from tests.properties.test_shared_world import shared_steps, take_shared
from tests.properties.test_world import BOUND_S, Account, calls, fate_plans, judge, picks
from tests.remote_world import RemoteWorld

broadcasts = st.tuples(
    st.just("call"),
    calls.map(lambda options: {**options, "engines": (0, 1, 2), "argument_bytes": 1_500_000}),
    st.integers(1, 3),
)
remote_steps = st.one_of(
    broadcasts,
    shared_steps,
    shared_steps,
    shared_steps,
    st.tuples(st.just("blind there"), picks),
    st.tuples(st.just("room there"), st.booleans()),
    st.tuples(st.just("cut host"), st.sampled_from([0.0, 0.0, 1.0, 30.0])),
)


@pytest.fixture(scope="module", autouse=True)
def small_blobs_too() -> Iterator[None]:
    before, relays.LEAST_BYTES = relays.LEAST_BYTES, 1000
    yield
    relays.LEAST_BYTES = before


def take_remote(world: RemoteWorld, account: Account, step: tuple) -> None:  # type: ignore[type-arg]
    """Do one step of a plan."""
    living = [engine for engine in world.readers if engine.is_alive]
    match step:
        case ("blind there", pick) if living:
            living[pick % len(living)].sharing.is_blind = True
        case ("room there", has_room):
            world.there.has_room = has_room
        case ("cut host", away_s):
            world.cut(world.hosts[0], away_s=away_s)
        case _:
            take_shared(world, account, step)


def play(fates: dict[int, Fate], plan: list[tuple]) -> None:  # type: ignore[type-arg]
    world = RemoteWorld(fates=fates)
    account = Account()
    try:
        host = world.host()
        for _ in range(4):
            world.engine(host=host)
        world.client()
        world.run_for(0.01)
        for step in plan:
            take_remote(world, account, step)
        world.network.fates.clear()
        for _ in range(2):
            world.engine(host=host)
        world.run_until(lambda: world.is_connected)
        world.run_for(1.0)
        world.run(limit_s=BOUND_S)
        world.run_until(lambda: not any(world.state.scheduler), limit_s=BOUND_S)
        world.settle()
        judge(world, account)
        world.check_nothing_left()
    finally:
        world.close()


def carried_to(world: RemoteWorld, name: str) -> list[int]:
    """The bytes of frames that the controller sends to a peer from now on, in a list that grows."""
    carried: list[int] = []
    world.network.observers.append(
        lambda passing: (
            None
            if passing.upwards or passing.channel.name != name
            else carried.extend(map(len, passing.frames))
        )
    )
    return carried


def test_a_broadcast_crosses_the_network_once() -> None:
    world = RemoteWorld()
    host = world.host()
    engines = [world.engine(host=host) for _ in range(2)]
    client = world.client()
    world.run_for(0.1)
    to_host, to_engines = carried_to(world, "host0"), [carried_to(world, engine.name) for engine in engines]
    size = 5_000_000
    outcomes = client.call("f", engines=(0, 1), argument_bytes=size)
    world.run()
    for outcome in outcomes:
        outcome.check()
    assert sum(to_host) == size
    assert max(map(sum, to_engines)) < 1000
    world.settle()
    world.check_nothing_left()
    world.close()


@pytest.mark.timeout(400)  # a failure is made small before it is shown
@settings(max_examples=20)
@given(fate_plans, st.lists(remote_steps, min_size=6, max_size=24))
def test_every_task_ends_once_and_nothing_is_left_on_the_host(
    fates: dict[int, Fate],
    plan: list[tuple],  # type: ignore[type-arg]
) -> None:
    play(fates, plan)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=1_500)
@given(fate_plans, st.lists(remote_steps, min_size=1, max_size=40))
def test_the_same_for_longer(fates: dict[int, Fate], plan: list[tuple]) -> None:  # type: ignore[type-arg]
    play(fates, plan)
