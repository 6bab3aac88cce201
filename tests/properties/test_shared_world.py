"""A whole cluster that shares memory, under random faults: right answers, and no segment is left.

Beside the faults of `test_world`, peers lose the ability to map, and the shared memory has no room at times.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginery.testing import Fate
from tests.properties.test_world import BOUND_S, Account, fate_plans, judge, picks, steps, take
from tests.shared_world import SHARED_FROM_BYTES, SharedWorld, SharingClient

shared_steps = st.one_of(
    steps,
    steps,
    steps,
    st.tuples(st.just("blind"), picks),
    st.tuples(st.just("room"), st.booleans()),
    st.tuples(st.just("hello"), picks),
    st.tuples(st.just("look"), st.just(0)),
)


def take_shared(world: SharedWorld, account: Account, step: tuple) -> None:  # type: ignore[type-arg]
    """Do one step of a plan."""
    living = [peer for peer in world.sharers if peer.is_alive]
    match step:
        case ("blind", pick) if living:
            living[pick % len(living)].sharing.is_blind = True
        case ("room", has_room):
            world.memory.has_room = has_room
        case ("hello", pick):
            clients = [peer for peer in living if isinstance(peer, SharingClient)]
            if clients:
                clients[pick % len(clients)].has_missed = True  # as an interrupt does
        case ("look", _):
            world.state.ended_blobs.clear()  # newer ones have taken their places
        case _:
            take(world, account, step)


def play(fates: dict[int, Fate], plan: list[tuple]) -> None:  # type: ignore[type-arg]
    world = SharedWorld(fates=fates)
    account = Account()
    try:
        host = world.host()
        for _ in range(2):
            world.engine(host=host)
        world.client()
        world.run_for(0.01)
        for step in plan:
            take_shared(world, account, step)
        world.network.fates.clear()
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


def test_big_buffers_are_named_and_not_sent() -> None:
    """Both ways, on one host: what travels is small."""
    world = SharedWorld()
    engine, client = world.engine(), world.client()
    carried: list[int] = []
    world.network.observers.append(lambda passing: carried.append(sum(map(len, passing.frames))))
    (outcome,) = client.call("f", argument_bytes=50 * SHARED_FROM_BYTES, result_bytes=70 * SHARED_FROM_BYTES)
    world.run()
    outcome.check()
    assert sum(carried) < SHARED_FROM_BYTES
    assert len(engine.sharing.segments) == 1  # type: ignore[attr-defined]
    world.settle()
    world.check_nothing_left()
    world.close()


@pytest.mark.timeout(400)  # a failure is made small before it is shown
@settings(max_examples=40)
@given(fate_plans, st.lists(shared_steps, min_size=6, max_size=24))
def test_every_task_ends_once_and_no_segment_is_left(fates: dict[int, Fate], plan: list[tuple]) -> None:  # type: ignore[type-arg]
    play(fates, plan)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=1_500)
@given(fate_plans, st.lists(shared_steps, min_size=1, max_size=40))
def test_the_same_for_longer(fates: dict[int, Fate], plan: list[tuple]) -> None:  # type: ignore[type-arg]
    play(fates, plan)
