"""A whole cluster under random faults: every task ends once at its client, rightly, and nothing is left.

Real controller, ledger, workload, links and dialers; lost, doubled, late, reordered and torn messages, cut
connections, deaths with and without proof, aborts, clients and engines that come and go, a full store.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginery.core.deliveries import HeldLimits
from enginery.core.liveness import GRACE_S
from enginery.protocol.messages import Status
from enginery.testing import Fate, Outcome
from tests.world import World

KILLED = (Status.ENGINE_DIED, Status.ENGINE_LOST)
BOUND_S = 150.0
"""Virtual time for everything to end once the faults have ended: two graces for lost engines, and some."""
FAULTY = [fate for fate in Fate if fate is not Fate.PASS]

SLOWEST = 0.5
"""Speed of an engine."""
durations = st.sampled_from([0.0, 0.001, 0.01, 0.2, 3.0])
sizes = st.sampled_from([0, 0, 0, 400, 100_000, 1_500_000])
engine_ids = st.integers(0, 3)
picks = st.integers(0, 5)


@dataclass
class Account:
    """What was done to the cluster, to judge what came of it."""

    aborted: set[int] = field(default_factory=set)
    cancelled: set[int] = field(default_factory=set)
    killed: bool = False
    lost: bool = False
    restarted: bool = False
    retries: dict[int, int] = field(default_factory=dict)


calls = st.fixed_dictionaries(
    {},
    optional={
        "function": st.sampled_from(["f", "g"]),
        "engines": st.lists(engine_ids, min_size=1, max_size=3, unique=True).map(tuple),
        "retries": st.integers(1, 2),
        "raises": st.integers(1, 3),
        "duration_s": durations,
        "argument_bytes": sizes,
        "result_bytes": sizes,
        "priority": st.integers(-1, 1),
        "cleanup_s": st.sampled_from([0.0, 0.2]),
        "time_limit_s": st.sampled_from([0.05, 1.0]),
    },
)
unruly = st.fixed_dictionaries(
    {
        "manner": st.sampled_from(["deaf", "stubborn"]),
        "duration_s": st.sampled_from([0.2, 3.0, 20.0]),
    },
    optional={"retries": st.just(1), "time_limit_s": st.just(0.5)},
)
restricted = st.fixed_dictionaries(
    {"candidates": st.lists(engine_ids, min_size=1, max_size=2, unique=True).map(tuple)},
    optional={"duration_s": durations},
)
submissions = st.tuples(st.just("call"), calls | restricted | unruly, st.integers(1, 12))
steps = st.one_of(
    submissions,
    submissions,
    st.tuples(st.just("wait"), st.sampled_from([0.0005, 0.003, 0.02])),
    st.tuples(st.just("wait"), st.sampled_from([0.0005, 0.003, 0.02, 0.3, 5.0])),
    st.tuples(st.just("abort"), st.lists(st.integers(1, 30), min_size=1, max_size=5)),
    st.tuples(
        st.just("cancel"),
        st.lists(st.integers(1, 30), min_size=1, max_size=5),
        st.sampled_from([None, None, 0.0, 0.5]),
    ),
    st.tuples(st.just("kill"), picks, st.booleans(), st.sampled_from([0.0, 0.0, 0.5, None])),
    st.tuples(st.just("leave"), picks),
    st.tuples(st.just("cut"), picks, st.sampled_from([0.0, 0.0, 1.0, 30.0, 90.0])),
    st.tuples(st.just("join"), st.sampled_from([SLOWEST, 1.0])),
    st.tuples(st.just("client")),
    st.tuples(st.just("depart"), picks),
    st.tuples(st.just("forget"), picks),
    st.tuples(st.just("full"), st.sampled_from([0.1, 5.0])),
    st.tuples(st.just("tight"), st.sampled_from([0, 1000, 200_000, 1 << 30])),
)


def take(world: World, account: Account, step: tuple) -> None:  # type: ignore[type-arg]
    """Do one step of a plan."""
    living = [engine for engine in world.engines if engine.is_alive]
    match step:
        case ("call", options, count):
            client = next(client for client in world.clients if client.is_alive)
            account.killed |= "manner" in options  # or may be
            for _ in range(count if "manner" not in options else min(count, 2)):
                client.call(**options)
        case ("wait", seconds):
            world.run_for(seconds)
        case ("abort", numbers):
            client = world.clients[0]
            if client.is_alive:
                account.aborted.update(numbers)
                client.abort(numbers)
        case ("cancel", numbers, grace_s):
            client = world.clients[0]
            if client.is_alive:
                account.cancelled.update(numbers)
                account.killed |= grace_s == 0.0
                client.cancel(numbers, grace_s=grace_s)
        case ("kill", pick, proof, report_s) if living:
            account.killed = True
            account.lost |= report_s is None
            world.kill(living[pick % len(living)], proof=proof, report_s=report_s)
        case ("leave", pick) if living:
            account.killed = True
            engine = living[pick % len(living)]
            engine.leave()
            host = world.host_of(engine)
            if host is not None:
                host.report_exit(engine.key, "exited with code 0", list(engine.started), expected=True)
        case ("cut", pick, away_s):
            account.lost |= away_s > GRACE_S
            peers = [peer for peer in world.peers if peer.is_alive]
            world.cut(peers[pick % len(peers)], away_s=away_s)
        case ("join", speed):
            world.engine(host=world.hosts[0], speed=speed)
        case ("client",):
            world.client()
        case ("depart", pick):
            client = world.clients[pick % len(world.clients)]
            if client.is_alive and sum(other.is_alive for other in world.clients) > 1:
                client.leave()
        case ("forget", pick) if living:
            living[pick % len(living)].forget_blobs()
        case ("tight", limit):  # results that are not taken are parked in the history
            world.state.held.limits = HeldLimits(of_one=limit, least=limit, shared=limit)
        case ("full", seconds):
            world.store.is_full = True
            world.clock.call_at(world.clock.now() + seconds, lambda: setattr(world.store, "is_full", False))


def judge(world: World, account: Account) -> None:
    """Assert what is promised of every task of the clients that are still there."""
    for client in world.clients:
        if client.is_alive:
            for number, outcome in client.outcomes.items():
                assert outcome.endings == 1, outcome
                outcome.check()
                judge_verdict(world, account, outcome, number if client is world.clients[0] else 0)


def judge_verdict(world: World, account: Account, outcome: Outcome, number: int) -> None:
    runs = world.runs.runs[outcome.task]
    status = outcome.status
    assert len(runs) <= 1 + outcome.retries, (outcome, runs)
    assert status is not Status.REFUSED, outcome.result
    if status is Status.OK:
        assert len(runs) > outcome.deed.raises
    elif status is Status.ERROR:
        assert outcome.deed.raises > 0
    elif status is Status.ABORTED:
        assert number in account.aborted
        assert len(runs) <= outcome.retries
    elif status is Status.CANCELLED:
        assert number in account.cancelled
    elif status is Status.OVER_LIMIT:
        assert 0 <= outcome.limit_s < outcome.deed.duration_s / SLOWEST
    elif status is Status.NO_ENGINE:
        assert outcome.target is not None or outcome.candidates
        # A call that comes again to an engine that has died meanwhile may have run there.
        assert len(runs) <= outcome.retries or (account.restarted and account.killed)
    else:
        assert status in KILLED
        assert account.killed or account.lost
        assert status is Status.ENGINE_DIED or account.lost, outcome


def play(fates: dict[int, Fate], plan: list[tuple]) -> None:  # type: ignore[type-arg]
    world = World(fates=fates)
    account = Account()
    try:
        host = world.host()
        for _ in range(2):
            world.engine(host=host)
        world.client()
        world.run_for(0.01)
        for step in plan:
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


fate_plans = st.dictionaries(st.integers(0, 200), st.sampled_from(FAULTY), min_size=1, max_size=12)
plans = st.lists(steps, min_size=6, max_size=24)


@pytest.mark.timeout(400)  # a failure is made small before it is shown
@settings(max_examples=80)
@given(fate_plans, plans)
def test_every_task_ends_once_and_nothing_is_left(fates: dict[int, Fate], plan: list[tuple]) -> None:  # type: ignore[type-arg]
    play(fates, plan)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=2_000)
@given(fate_plans, st.lists(steps, min_size=1, max_size=40))
def test_the_same_for_longer(fates: dict[int, Fate], plan: list[tuple]) -> None:  # type: ignore[type-arg]
    play(fates, plan)
