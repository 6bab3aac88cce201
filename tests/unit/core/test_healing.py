"""Engines that have died are started again under their ids: which ones, how often, and when nobody hears."""

from __future__ import annotations

import pytest

from enginery.core.healing import AGAIN, DEATHS_IN_A_ROW, GIVEN_UP, Healing
from enginery.core.restarts import Place
from enginery.ids import NO_ENGINE, EngineId, EngineKey, HostKey
from enginery.protocol import messages as m
from tests.unit.core.hub_bench import HubBench

KEYS = [EngineKey(name) for name in "abcd"]
PLACE = Place(HostKey("h0"), EngineId(3))


def test_what_has_served_is_started_again_each_time() -> None:
    healing = Healing(is_wanted=True)
    for key in KEYS:
        assert healing.on_died(key, PLACE, is_ready=True) == (PLACE, AGAIN)


def test_what_dies_before_it_is_ready_is_given_up() -> None:
    healing = Healing(is_wanted=True)
    assert healing.on_died(KEYS[0], PLACE, is_ready=True).place == PLACE
    for key in KEYS[1:DEATHS_IN_A_ROW]:
        healing.on_started(key, PLACE)
        assert healing.on_died(key, None, is_ready=False) == (PLACE, AGAIN)
    healing.on_started(KEYS[3], PLACE)
    assert healing.on_died(KEYS[3], None, is_ready=False) == (None, GIVEN_UP)
    assert repr(healing) == "<Healing, 0 to come>"


def test_the_count_begins_anew_with_one_that_serves() -> None:
    healing = Healing(is_wanted=True)
    for key in KEYS[: DEATHS_IN_A_ROW - 1]:
        assert healing.on_died(key, PLACE, is_ready=False).place == PLACE
    assert healing.on_died(KEYS[2], PLACE, is_ready=True).place == PLACE
    assert healing.on_died(KEYS[3], PLACE, is_ready=False).place == PLACE


def test_nothing_is_started_where_nobody_wants_it() -> None:
    assert Healing().on_died(KEYS[0], PLACE, is_ready=True) == (None, "")
    assert Healing(is_wanted=True).on_died(KEYS[0], None, is_ready=False) == (None, ""), "nobody's place"


# ---------------------------------------------------------------- at the controller


class Site(HubBench):
    """A client, a host, and an engine of that host; one that dies is to be started again."""

    def __init__(self) -> None:
        super().__init__()
        self.hub.state.healing = Healing(is_wanted=True)
        self.caller = self.client()
        self.supervisor = self.host("h0")
        self.engine("e0", host="h0")

    def dies(self, key: str, *, expected: bool = False) -> list[m.LaunchEngines]:
        end = m.EngineExited(EngineKey(key), 1, "killed by SIGKILL (signal 9)", [], True, expected)
        self.say(self.supervisor, end)
        return self.launches()

    def launches(self) -> list[m.LaunchEngines]:
        return [record for record in self.heard(self.supervisor) if isinstance(record, m.LaunchEngines)]

    def started(self, launch: m.LaunchEngines, key: str) -> None:
        process = m.ProcessInfo(EngineKey(key), 1, launch.wanted[0])
        self.say(self.supervisor, m.EnginesStarted(launch.request, [process]))


@pytest.fixture
def site() -> Site:
    return Site()


def test_another_one_takes_the_place_of_an_engine_that_has_died(site: Site) -> None:
    (launch,) = site.dies("e0")
    assert launch.wanted == [EngineId(0)]
    site.started(launch, "e1")
    site.engine("e1", wanted=0, host="h0")
    (note,) = site.hub.state.deaths
    assert (note.engine, note.cause) == (EngineId(0), f"killed by SIGKILL (signal 9); {AGAIN}")
    assert list(site.hub.state.registry.engines) == [EngineId(0)]


def test_one_that_was_told_to_stop_is_not_started_again(site: Site) -> None:
    site.say(site.caller, m.StopEngines(1, [EngineId(0)]))
    assert site.dies("e0") == [], "whether its host knows of it or not"
    assert not site.hub.state.deaths
    site.engine("e1", host="h0")
    assert site.dies("e1", expected=True) == []


def test_a_cluster_that_ends_starts_nothing(site: Site) -> None:
    site.say(site.caller, m.ShutDown(1))
    assert site.dies("e0") == []


def test_a_crash_loop_ends_with_a_sentence(site: Site) -> None:
    (launch,) = site.dies("e0")
    for key in ("a", "b"):
        site.started(launch, key)
        (launch,) = site.dies(key)
    site.started(launch, "c")
    assert site.dies("c") == []
    assert [note.engine for note in site.hub.state.deaths] == [EngineId(0)] * 3 + [NO_ENGINE]
    assert "3 in a row" in site.hub.state.deaths[-1].cause
    left = [
        record for record in site.heard(site.caller) if isinstance(record, m.EnginesChanged) and record.left
    ]
    assert len(left) == 4


def test_an_engine_that_dies_while_it_is_set_up_is_not_ready(site: Site) -> None:
    options = m.TaskOptions(m.Kind.EXECUTE, keep="deadly", keep_for_all=True)
    site.say(site.caller, m.Submit(options, [m.Call(1, b"", (), (0,))]))  # type: ignore[arg-type]
    (launch,) = site.dies("e0")
    for key in ("a", "b"):
        site.started(launch, key)
        site.engine(key, wanted=0, host="h0")
        (launch,) = site.dies(key)
    site.started(launch, "c")
    site.engine("c", wanted=0, host="h0")
    assert site.dies("c") == []


def test_what_a_host_may_not_have_heard_is_said_again(site: Site) -> None:
    (launch,) = site.dies("e0")
    site.say(site.caller, m.StartEngines(7, 2))
    (other,) = site.launches()
    site.lose(site.supervisor)
    site.supervisor = site.host("h0")
    assert site.launches() == [launch, other]
    site.started(launch, "e1")
    site.say(site.supervisor, m.EnginesStarted(other.request, []))
    site.lose(site.supervisor)
    site.supervisor = site.host("h0")
    assert site.launches() == []


def test_one_that_dies_while_its_host_is_away_is_started_when_it_is_back(site: Site) -> None:
    site.say(site.supervisor, m.EngineExited(EngineKey("e0"), 1, "killed", [], True, False))
    site.lose(site.supervisor)
    site.supervisor = site.host("h0")
    assert [launch.wanted for launch in site.launches()] == [[EngineId(0)]]


def test_nothing_is_kept_of_engines_that_have_ended(site: Site) -> None:
    (launch,) = site.dies("e0")
    site.engine("e1", wanted=0, host="h0")
    site.started(launch, "e1")  # its word comes after the engine's own
    site.say(site.caller, m.StopEngines(1, [EngineId(0)]))
    assert site.dies("e1") == []
    assert repr(site.hub.state.healing) == "<Healing, 0 to come>"
