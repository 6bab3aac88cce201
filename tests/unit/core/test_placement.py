"""Each scheme: what it looks at, and how tasks spread by it."""

from __future__ import annotations

import random
from collections import Counter
from typing import NamedTuple

import pytest

from enginery.core.placement import SCHEMES, Placement
from enginery.core.scheduler import FRUITLESS_RECALL_INTERVAL_S
from enginery.ids import EngineId, task_number
from tests.unit.core.builders import Bench, on


class Engine(NamedTuple):
    name: str
    task_count: int
    given_at: int


ENGINES = [Engine("new", 2, 0), Engine("full", 9, 3), Engine("idle", 0, 5), Engine("light", 1, 4)]


def counts(scheme: str, rounds: int = 20_000) -> Counter[str]:
    randomness = random.Random(7)
    choose = SCHEMES[scheme]
    return Counter(choose(ENGINES, randomness).name for _ in range(rounds))


@pytest.mark.parametrize(("scheme", "name"), [("leastload", "idle"), ("lru", "new"), ("pure", "new")])
def test_schemes_without_randomness(scheme: str, name: str) -> None:
    assert counts(scheme, 10) == {name: 10}


def test_among_equals_the_least_loaded_is_the_one_unused_for_longest() -> None:
    engines = [Engine("a", 1, 7), Engine("b", 1, 3), Engine("c", 2, 0)]
    assert SCHEMES["leastload"](engines, random.Random(0)).name == "b"


def test_plainrandom_gives_all_alike() -> None:
    found = counts("plainrandom")
    assert found.keys() == {"new", "full", "idle", "light"}
    assert all(abs(count / 20_000 - 1 / 4) < 0.02 for count in found.values())


def test_twobin_prefers_the_longer_unused() -> None:
    # Of two draws with replacement the k-th of n in order of use comes with (2(n - k) + 1) / n².
    found = counts("twobin")
    expected = {"new": 7 / 16, "full": 5 / 16, "light": 3 / 16, "idle": 1 / 16}
    assert all(abs(found[name] / 20_000 - share) < 0.02 for name, share in expected.items())


def test_weighted_prefers_the_less_loaded() -> None:
    # Draws come with 1 / (1 + tasks); an engine is chosen unless both draws are of engines with more tasks.
    weights = {"idle": 1.0, "light": 1 / 2, "new": 1 / 3, "full": 1 / 10}
    total = sum(weights.values())
    found = counts("weighted")
    behind = 1.0
    for name, weight in weights.items():
        share = behind**2 - (behind - weight / total) ** 2
        behind -= weight / total
        assert abs(found[name] / 20_000 - share) < 0.02, name


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_engine_is_always_chosen(scheme: str) -> None:
    assert SCHEMES[scheme](ENGINES[:1], random.Random(0)).name == "new"


def test_what_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no scheme 'best'; the schemes are: leastload, lru, "):
        Placement("best")
    with pytest.raises(ValueError, match="-1 is below it"):
        Placement("lru", -1)


def test_a_random_scheme_needs_randomness() -> None:
    with pytest.raises(TypeError, match="randomness"):
        Placement("plainrandom").choose(ENGINES, Placement("plainrandom").randomness)


def test_repr() -> None:
    assert repr(Placement("lru", 2)) == "<Placement lru, hwm=2>"
    assert repr(Placement("pure")) == "<Placement pure, hwm=0>"


# ---------------------------------------------------------------- in a scheduler


def spread(bench: Bench) -> Counter[int]:
    return Counter(int(line.split()[-1]) for line in bench.settle() if line.startswith("run"))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_task_runs_whatever_the_scheme(scheme: str) -> None:
    bench = Bench(engines=3, placement=Placement(scheme, 2, random.Random(1)))
    bench.submit(20)
    bench.submit(2, candidates=(EngineId(2),))
    while any(bench.scheduler):
        bench.settle()
        for engine in map(EngineId, range(3)):
            for task in list(bench.scheduler.load(engine).in_flight.values()):
                assert bench.finish(engine, task_number(task.task_id))
    assert len(bench.effects.ended) == 22
    assert [bench.effects.ended[number].engine for number in (21, 22)] == [2, 2]


@pytest.mark.parametrize("hwm", [1, 2, 5])
def test_hwm_bounds_the_tasks_of_each_engine(hwm: int) -> None:
    bench = Bench(engines=2, placement=Placement(hwm=hwm))
    bench.submit(20)
    assert spread(bench) == {0: hwm, 1: hwm}
    bench.finish(0, 1)
    assert spread(bench) == {0: 1}


def test_without_a_bound_everything_is_given_out_at_once() -> None:
    bench = Bench(engines=2, placement=Placement(hwm=0))
    bench.submit(3000)
    assert spread(bench) == {0: 1500, 1: 1500}


def test_lru_takes_engines_in_turn_as_they_have_room() -> None:
    bench = Bench(engines=3, placement=Placement("lru", 1))
    bench.submit(6)
    assert bench.settle() == ["run 1.1 on 0", "run 2.1 on 1", "run 3.1 on 2"]
    bench.finish(2, 3)
    bench.finish(1, 2)
    assert bench.settle()[2:] == ["run 4.1 on 1", "run 5.1 on 2"]


def test_plainrandom_spreads_over_all_with_room() -> None:
    bench = Bench(engines=4, placement=Placement("plainrandom", 0, random.Random(3)))
    bench.submit(2000)
    found = spread(bench)
    assert found.keys() == {0, 1, 2, 3}
    assert all(abs(count - 500) < 80 for count in found.values())


def test_pure_takes_all_in_turn_and_nothing_back() -> None:
    bench = Bench(engines=2, placement=Placement("pure"))
    bench.submit(6)
    assert bench.settle() == [f"run {number}.1 on {(number - 1) % 2}" for number in range(1, 7)]
    for number in (1, 3, 5):
        bench.finish(0, number)
    bench.settle()
    assert bench.tick(FRUITLESS_RECALL_INTERVAL_S) == []
    assert bench.scheduler.next_deadline() is None


def test_pure_honours_targets_and_dependencies() -> None:
    bench = Bench(engines=2, placement=Placement("pure"))
    bench.submit(candidates=(EngineId(1),))
    bench.submit(after=on(1))
    bench.submit(follow=on(1))
    assert bench.settle() == ["run 1.1 on 1"]
    bench.finish(1, 1)
    assert bench.settle() == ["end 1 OK", "run 3.1 on 1", "run 2.1 on 0"]
