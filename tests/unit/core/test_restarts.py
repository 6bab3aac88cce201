"""Engines are stopped and started again under the same ids: the orders alone, and at the controller."""

from __future__ import annotations

import pytest

from enginery.core.restarts import Place, RestartOrder, Restarts
from enginery.core.state import Identity
from enginery.ids import NO_ENGINE, ClientId, EngineId, EngineKey, HostKey
from enginery.protocol import messages as m
from tests.unit.core.hub_bench import HubBench

H0, H1 = HostKey("h0"), HostKey("h1")
A, B = EngineKey("a"), EngineKey("b")


def summaries(orders: list[RestartOrder]) -> list[tuple[int, list[EngineId], str]]:
    return [(order.request, order.engines, order.error) for order in orders]


@pytest.fixture
def restarts() -> Restarts:
    """Client 1 has ordered, as his request 5, engine 0 on h0 and engine 1 on h1 to be restarted."""
    restarts = Restarts()
    restarts.on_ordered(ClientId(1), 5, {A: Place(H0, EngineId(0)), B: Place(H1, EngineId(1))})
    restarts.check()
    return restarts


def test_an_order_is_complete_when_each_engine_is_started_again(restarts: Restarts) -> None:
    assert A in restarts
    assert restarts.on_ended(A, H0, launch=1) == 0
    assert A not in restarts
    assert restarts.on_ended(B, H1, launch=2) == 1
    restarts.check()
    assert restarts.on_launched(1, "") == []
    restarts.check()
    assert summaries(restarts.on_launched(2, "no memory")) == [(5, [0, 1], "no memory")]
    restarts.check()
    assert restarts.statistics() == {"orders": 0, "ending": 0, "starting": 0}


def test_ends_and_launches_of_others_mean_nothing(restarts: Restarts) -> None:
    assert restarts.on_ended(EngineKey("c"), H0, launch=1) is None
    assert restarts.on_ended(A, H1, launch=1) is None  # a host speaks for its own engines only
    assert restarts.on_launched(1, "") == []
    restarts.check()
    assert restarts.statistics() == {"orders": 1, "ending": 2, "starting": 0}


def test_one_end_serves_two_orders(restarts: Restarts) -> None:
    restarts.on_ordered(ClientId(2), 9, {A: Place(H0, EngineId(0))})
    restarts.check()
    restarts.on_ended(A, H0, launch=1)
    assert summaries(restarts.on_launched(1, "")) == [(9, [0], "")]
    restarts.check()


def test_the_next_life_may_be_restarted_before_its_launch_is_answered(restarts: Restarts) -> None:
    restarts.on_ended(A, H0, launch=1)
    restarts.on_ordered(ClientId(2), 9, {EngineKey("a2"): Place(H0, EngineId(0))})
    assert restarts.on_launched(1, "") == []
    restarts.check()


def test_engines_that_are_stopped_for_good_are_decided(restarts: Restarts) -> None:
    assert restarts.on_stopped([A], "stopped") == []
    assert restarts.on_ended(A, H0, launch=1) is None
    assert summaries(restarts.on_stopped([A, B], "stopped")) == [(5, [0, 1], "stopped")]
    restarts.check()


def test_a_host_that_leaves_takes_its_part_along(restarts: Restarts) -> None:
    restarts.on_ended(A, H0, launch=1)
    assert restarts.on_host_gone(H0, "gone") == []
    assert summaries(restarts.on_host_gone(H1, "gone")) == [(5, [0, 1], "gone")]
    restarts.check()


# ---------------------------------------------------------------- at the controller


class Site(HubBench):
    """A client, a host, and two engines of that host."""

    def __init__(self) -> None:
        super().__init__()
        self.caller = self.client()
        self.supervisor = self.host("h0")
        self.engines = [self.engine(f"e{number}", host="h0") for number in range(2)]
        for peer in (self.caller, self.supervisor, *self.engines):
            self.heard(peer)

    def ended(self, key: str) -> list[m.LaunchEngines]:
        self.say(self.supervisor, m.EngineExited(EngineKey(key), 1, "exited with code 0", [], True, True))
        return [record for record in self.heard(self.supervisor) if isinstance(record, m.LaunchEngines)]

    def answers(self, peer: Identity | None = None) -> list[m.Answer]:
        return [record for record in self.heard(peer or self.caller) if isinstance(record, m.Answer)]


def test_an_engine_comes_back_under_its_id() -> None:
    site = Site()
    site.say(site.caller, m.RestartEngines(5, [EngineId(1)]))
    assert site.heard(site.supervisor) == [m.StopProcesses([EngineKey("e1")])]
    site.say(site.engines[1], m.Goodbye())
    (left,) = site.heard(site.caller)
    assert left == m.EnginesChanged(
        [], [m.EngineLeft(EngineId(1), EngineKey("e1"), "it was restarted", True)]
    )
    (launch,) = site.ended("e1")
    assert launch.wanted == [1]
    assert site.answers() == []
    site.engine("e1-again", host="h0", wanted=1)
    (joined,) = site.heard(site.caller)
    assert isinstance(joined, m.EnginesChanged)
    assert [(info.engine, info.key) for info in joined.joined] == [(1, "e1-again")]
    process = m.ProcessInfo(EngineKey("e1-again"), 7, EngineId(1))
    site.say(site.supervisor, m.EnginesStarted(launch.request, [process]))
    assert site.answers() == [m.Answer(5, "", [EngineId(1)])]


def test_none_named_means_all_and_they_are_started_one_by_one() -> None:
    site = Site()
    site.say(site.caller, m.RestartEngines(5, []))
    assert site.heard(site.supervisor) == [m.StopProcesses([EngineKey("e0"), EngineKey("e1")])]
    launches = [*site.ended("e1"), *site.ended("e0")]
    assert [launch.wanted for launch in launches] == [[1], [0]]
    assert len({launch.request for launch in launches}) == 2
    for launch in launches:
        assert site.answers() == []
        site.say(site.supervisor, m.EnginesStarted(launch.request, [], "no more processes"))
    assert site.answers() == [m.Answer(5, "no more processes", [EngineId(0), EngineId(1)])]


def test_none_at_all_is_answered() -> None:
    bench = HubBench()
    client = bench.client()
    bench.heard(client)
    bench.say(client, m.RestartEngines(5, []))
    assert bench.heard(client) == [m.Answer(5)]


def test_unknown_engines_and_those_without_a_host_are_refused() -> None:
    site = Site()
    site.engine("alone")
    site.heard(site.caller)
    site.say(site.caller, m.RestartEngines(5, [EngineId(0), EngineId(9)]))
    site.say(site.caller, m.RestartEngines(6, [EngineId(0), EngineId(2)]))
    assert [(answer.request, answer.error) for answer in site.answers()] == [
        (5, "there is no engine 9; the engines are: 0, 1, 2"),
        (
            6,
            "engine 2 cannot be restarted: no host of this cluster has started it and could start it again",
        ),
    ]
    assert site.heard(site.supervisor) == []


def test_stopped_for_good_meanwhile() -> None:
    site = Site()
    site.say(site.caller, m.RestartEngines(5, [EngineId(0)]))
    site.say(site.caller, m.StopEngines(6, [EngineId(0)]))
    assert site.answers() == [
        m.Answer(5, "it was told to stop for good meanwhile", [EngineId(0)]),
        m.Answer(6),
    ]
    assert site.ended("e0") == []


def test_the_host_leaves_meanwhile() -> None:
    site = Site()
    site.say(site.caller, m.RestartEngines(5, [EngineId(0)]))
    site.heard(site.caller)
    site.say(site.supervisor, m.Goodbye())
    assert site.answers() == [m.Answer(5, "the host that was to start them has left", [EngineId(0)])]


def test_one_that_dies_before_it_joins_is_told_to_all() -> None:
    site = Site()
    site.say(site.caller, m.RestartEngines(5, [EngineId(0)]))
    site.ended("e0")
    site.heard(site.caller)
    site.say(site.supervisor, m.EngineExited(EngineKey("new"), 2, "exited with code 1", [], True, False))
    (changed,) = site.heard(site.caller)
    assert changed == m.EnginesChanged([], [m.EngineLeft(NO_ENGINE, EngineKey("new"), "exited with code 1")])
