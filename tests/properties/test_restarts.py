"""A controller that is killed at any moment and started again: no task is lost, none runs twice.

The plans and the oracle of `test_world`, with restarts at any point between, before and after the faults.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginery.testing import Fate
from tests.properties.test_world import (
    Account,
    calls,
    fate_plans,
    judge,
    picks,
    restricted,
    take,
)
from tests.world import World

BOUND_S = 400.0
"""Virtual time for everything to end: as `test_world` has it, a grace, and many calls to one slow engine."""
SETTLED_S = 40.0
"""After the death of an engine and before the next restart. What an engine has begun that dies while a
controller takes over, of calls that nobody has heard of, is not known to a third one."""

submissions = st.tuples(st.just("call"), calls | restricted, st.integers(1, 12))
steps = st.one_of(
    submissions,
    submissions,
    st.tuples(st.just("restart")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("wait"), st.sampled_from([0.0005, 0.003, 0.02])),
    st.tuples(st.just("wait"), st.sampled_from([0.0005, 0.003, 0.02, 0.3, 5.0])),
    st.tuples(st.just("abort"), st.lists(st.integers(1, 30), min_size=1, max_size=5)),
    st.tuples(st.just("kill"), picks, st.booleans(), st.sampled_from([0.0, 0.0, 0.5, None])),
    st.tuples(st.just("leave"), picks),
    st.tuples(st.just("cut"), picks, st.sampled_from([0.0, 1.0])),
    st.tuples(st.just("join"), st.sampled_from([0.5, 1.0])),
    st.tuples(st.just("client")),
    st.tuples(st.just("depart"), picks),
    st.tuples(st.just("full"), st.sampled_from([0.1, 5.0])),
)
plans = st.lists(steps, min_size=4, max_size=20)


def play(fates: dict[int, Fate], plan: list[tuple]) -> None:  # type: ignore[type-arg]
    world = World(fates=fates)
    account = Account()
    try:
        host = world.host()
        for _ in range(2):
            world.engine(host=host)
        world.client()
        world.run_for(0.1)
        has_died = False
        for step in plan:
            if step == ("restart",):
                if has_died:
                    world.run_for(SETTLED_S)
                has_died = False
                account.restarted = True
                world.restart_controller()
            else:
                has_died |= step[0] in ("kill", "leave")
                take(world, account, step)
        world.network.fates.clear()
        world.engine(host=host)
        world.run_until(lambda: world.is_connected)
        world.run_for(1.0)
        world.run(limit_s=BOUND_S)
        world.run_until(lambda: not any(world.state.scheduler), limit_s=BOUND_S)
        world.settle()
        judge(world, account)
        world.check_history(restarted=account.restarted)
        world.check_nothing_left()
    finally:
        world.close()


@pytest.mark.timeout(400)  # a failure is made small before it is shown
@settings(max_examples=60)
@given(st.just({}) | fate_plans, plans)
def test_every_task_ends_once_and_none_runs_twice(fates: dict[int, Fate], plan: list[tuple]) -> None:  # type: ignore[type-arg]
    play(fates, plan)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=2_000)
@given(st.just({}) | fate_plans, st.lists(steps, min_size=1, max_size=30))
def test_the_same_for_longer(fates: dict[int, Fate], plan: list[tuple]) -> None:  # type: ignore[type-arg]
    play(fates, plan)
