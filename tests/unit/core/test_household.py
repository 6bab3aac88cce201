"""Households: whatever happens first, everybody ends, in order where there is time for it."""

from __future__ import annotations

import pytest

from enginery.core.household import COMEBACKS, CONTROLLER_GRACE_S, MARGIN_S, PAUSE_S, Household
from enginery.core.supervision import KILL_INTERVAL_S, STOP_GRACE_S
from enginery.ids import EngineKey

A = EngineKey("a" * 16)


class Effects:
    """An outbox that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def end_supervisor(self, reason: str) -> None:
        self.said.append("end supervisor")

    def terminate_engines(self) -> None:
        self.said.append("terminate engines")

    def terminate_controller(self) -> None:
        self.said.append("terminate controller")

    def restart_controller(self, cause: str) -> None:
        self.said.append(f"restart controller: {cause}")

    def replace_supervisor(self) -> None:
        self.said.append("replace supervisor")

    def kill_all(self) -> None:
        self.said.append("kill all")

    def take(self) -> list[str]:
        said, self.said = self.said, []
        return said


@pytest.fixture
def effects() -> Effects:
    return Effects()


def household(effects: Effects, *, controller: bool = True) -> Household:
    household = Household()
    if controller:
        household.on_controller_started()
    household.on_supervisor_started()
    household.on_engine_started(A)
    household.check()
    return household


def test_an_end_that_is_asked_for(effects: Effects) -> None:
    home = household(effects)
    home.on_end_asked("the owner has gone", now=1.0, outbox=effects)
    assert effects.take() == ["end supervisor", "terminate controller"]
    home.on_end_asked("again", now=2.0, outbox=effects)
    assert effects.take() == []
    home.on_engine_exited(A)
    home.on_supervisor_left(orderly=True, now=2.0, outbox=effects)
    assert not home.is_over
    home.on_controller_exited("exited with code 0", clean=True, now=2.0, outbox=effects)
    assert home.is_over
    assert (home.reason, home.has_failed) == ("the owner has gone", False)
    assert effects.take() == []
    home.check()


def test_what_does_not_end_is_killed(effects: Effects) -> None:
    home = household(effects)
    home.on_end_asked("SIGTERM", now=0.0, outbox=effects)
    effects.take()
    assert home.next_deadline() == STOP_GRACE_S + MARGIN_S
    home.on_tick(now=STOP_GRACE_S + MARGIN_S, outbox=effects)
    home.on_tick(now=STOP_GRACE_S + MARGIN_S + KILL_INTERVAL_S / 2, outbox=effects)
    assert effects.take() == ["kill all"]
    home.on_tick(now=STOP_GRACE_S + MARGIN_S + KILL_INTERVAL_S, outbox=effects)
    assert effects.take() == ["kill all"]


def test_a_host_that_was_told_to_stop_leaves_its_controller_time(effects: Effects) -> None:
    home = household(effects)
    home.on_engine_exited(A)
    home.on_supervisor_left(orderly=True, now=1.0, outbox=effects)
    assert effects.take() == []
    assert home.is_ending
    assert home.next_deadline() == 1.0 + CONTROLLER_GRACE_S
    home.on_tick(now=1.0 + CONTROLLER_GRACE_S, outbox=effects)
    assert effects.take() == ["terminate controller"]
    assert home.next_deadline() == 1.0 + CONTROLLER_GRACE_S + STOP_GRACE_S
    home.check()


def test_the_death_of_the_controller_ends_everything(effects: Effects) -> None:
    home = household(effects)
    home.on_controller_exited("killed by SIGKILL (signal 9)", clean=False, now=1.0, outbox=effects)
    assert effects.take() == ["end supervisor"]
    assert home.has_failed
    assert home.reason == "the controller has ended: killed by SIGKILL (signal 9)"


@pytest.mark.parametrize("has_said_why", [True, False])
def test_the_end_of_a_supervisor_that_is_not_replaced_ends_everything(
    effects: Effects, has_said_why: bool
) -> None:
    home = household(effects)
    if has_said_why:
        home.on_supervisor_left(orderly=False, now=1.0, outbox=effects)
    else:
        home.on_supervisor_died(now=1.0, outbox=effects)
    assert effects.take() == ["terminate engines", "terminate controller"]
    assert (home.reason, home.has_failed) == ("the supervisor has died", True)


def test_a_supervisor_that_dies_during_the_end(effects: Effects) -> None:
    home = Household(replaces_supervisor=True)
    home.on_supervisor_started()
    home.on_engine_started(A)
    home.on_end_asked("SIGTERM", now=1.0, outbox=effects)
    home.on_supervisor_died(now=1.5, outbox=effects)
    assert effects.take() == ["end supervisor", "terminate engines"]
    assert home.next_deadline() == 1.0 + STOP_GRACE_S + MARGIN_S
    home.on_engine_exited(A)
    assert home.is_over
    assert home.statistics() == {"controllers": 0, "supervisors": 0, "engines": 0}


def test_repr(effects: Effects) -> None:
    assert repr(Household()) == "<Household running, 0 controllers, 0 supervisors, 0 engines>"
    home = household(effects)
    home.on_end_asked("SIGTERM", now=0.0, outbox=effects)
    assert repr(home) == "<Household ending because SIGTERM, 1 controllers, 1 supervisors, 1 engines>"


# ---------------------------------------------------------------- a controller that comes back


def restarting(effects: Effects) -> Household:
    home = Household(restarts_controller=True)
    home.on_controller_started()
    home.on_supervisor_started()
    home.on_engine_started(A)
    return home


def test_a_controller_that_was_killed_comes_back_at_once(effects: Effects) -> None:
    home = restarting(effects)
    home.on_controller_exited("killed", clean=False, now=1.0, outbox=effects)
    assert effects.take() == ["restart controller: killed"]
    home.on_controller_started()
    home.check()
    assert not home.is_ending
    home.on_controller_exited("killed again", clean=False, now=2.0, outbox=effects)
    assert effects.take() == []
    assert not home.is_over
    assert home.next_deadline() == 2.0 + PAUSE_S
    home.on_tick(now=2.0 + PAUSE_S, outbox=effects)
    assert effects.take() == ["restart controller: killed again"]


def test_one_that_ends_by_itself_does_not(effects: Effects) -> None:
    home = restarting(effects)
    home.on_controller_exited("exited with code 0", clean=True, now=1.0, outbox=effects)
    assert effects.take() == ["end supervisor"]
    assert home.is_ending


def test_one_that_is_killed_again_and_again_does_not(effects: Effects) -> None:
    home = restarting(effects)
    for count in range(COMEBACKS):
        home.on_controller_exited("killed", clean=False, now=float(count), outbox=effects)
        home.on_tick(now=count + PAUSE_S, outbox=effects)
        home.on_controller_started()
    assert effects.take() == ["restart controller: killed"] * COMEBACKS
    home.on_controller_exited("killed", clean=False, now=10.0, outbox=effects)
    assert effects.take() == ["end supervisor"]
    assert home.has_failed


def test_an_end_that_is_asked_for_meanwhile_counts(effects: Effects) -> None:
    home = restarting(effects)
    for now in (1.0, 2.0):
        home.on_controller_exited("killed", clean=False, now=now, outbox=effects)
        if now == 1.0:
            home.on_controller_started()
    home.on_end_asked("the owner has gone", now=2.1, outbox=effects)
    home.on_tick(now=2.0 + PAUSE_S, outbox=effects)
    assert effects.take() == ["restart controller: killed", "end supervisor"]


# ---------------------------------------------------------------- a supervisor that is replaced


def replacing(*, controller: bool = True) -> Household:
    home = Household(replaces_supervisor=True)
    if controller:
        home.on_controller_started()
    home.on_supervisor_started()
    return home


def test_a_supervisor_that_was_killed_is_replaced_at_once_and_then_after_a_pause(effects: Effects) -> None:
    home = replacing()
    home.on_supervisor_died(now=1.0, outbox=effects)
    assert effects.take() == ["replace supervisor"]
    home.on_supervisor_started()
    home.on_supervisor_died(now=2.0, outbox=effects)
    assert (effects.take(), home.next_deadline()) == ([], 2.0 + PAUSE_S)
    home.on_tick(now=2.0 + PAUSE_S, outbox=effects)
    assert effects.take() == ["replace supervisor"]
    assert not home.is_ending
    home.check()


def test_a_host_without_engines_waits_for_its_next_supervisor(effects: Effects) -> None:
    home = replacing(controller=False)
    home.on_supervisor_died(now=1.0, outbox=effects)
    home.on_supervisor_started()
    home.on_supervisor_died(now=1.1, outbox=effects)
    assert not home.is_over
    home.on_end_asked("SIGTERM", now=1.2, outbox=effects)
    assert home.is_over
    home.check()


def test_a_supervisor_that_dies_too_often_ends_everything(effects: Effects) -> None:
    home = replacing()
    for second in range(COMEBACKS):
        home.on_supervisor_died(now=float(second), outbox=effects)
        home.on_tick(now=second + PAUSE_S, outbox=effects)
        assert effects.take() == ["replace supervisor"]
        home.on_supervisor_started()
    home.on_supervisor_died(now=float(COMEBACKS), outbox=effects)
    assert effects.take() == ["terminate controller"]
    assert (home.reason, home.has_failed) == ("the supervisor has died", True)


def test_one_that_says_why_it_leaves_is_not_replaced(effects: Effects) -> None:
    home = replacing()
    home.on_supervisor_left(orderly=False, now=1.0, outbox=effects)
    assert effects.take() == ["terminate controller"]
    assert home.is_ending
