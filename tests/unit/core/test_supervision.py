"""Engine processes: the table, the graces, and random facts in any order."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from enginery.core.supervision import (
    KILL_INTERVAL_S,
    STOP_GRACE_S,
    TRANSITIONS,
    EngineEnd,
    EngineProcess,
    Fact,
    ProcessState,
    Supervision,
    explain_exit,
)
from enginery.ids import EngineId, EngineKey
from enginery.protocol.messages import ProcessInfo
from enginery.protocol.specs import CONTROL_FAILED, STARTUP_FAILED

NAMES = {6: "SIGABRT", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}
A, B = EngineKey("a" * 16), EngineKey("b" * 16)


class Effects:
    """An outbox that remembers."""

    def __init__(self) -> None:
        self.said: list[object] = []

    def terminate(self, key: EngineKey) -> None:
        self.said.append(("terminate", key))

    def kill(self, key: EngineKey) -> None:
        self.said.append(("kill", key))

    def report_end(self, end: EngineEnd) -> None:
        self.said.append(end)

    def report_launch(self, request: int, processes: list[ProcessInfo], error: str) -> None:
        self.said.append((request, processes, error))

    def take(self) -> list[object]:
        said, self.said = self.said, []
        return said


@pytest.fixture
def effects() -> Effects:
    return Effects()


def running(effects: Effects, *keys: EngineKey) -> Supervision:
    supervision = Supervision()
    supervision.on_launch([(key, EngineId(n)) for n, key in enumerate(keys)], request=None, outbox=effects)
    for pid, key in enumerate(keys, 10):
        supervision.on_started(key, pid, now=0.0, outbox=effects)
    supervision.check()
    return supervision


# ---------------------------------------------------------------- what an end means


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (STARTUP_FAILED, "its startup code failed (exit code 78)"),
        (CONTROL_FAILED, "its control thread failed, its log says why (exit code 79)"),
        (-9, "killed by SIGKILL (signal 9)"),
        (-15, "killed by SIGTERM (signal 15)"),
        (-11, "segmentation fault (SIGSEGV)"),
        (-6, "aborted (SIGABRT)"),
        (-40, "killed by signal 40"),
    ],
)
def test_explanations(status: int, text: str) -> None:
    assert explain_exit(status, NAMES) == text


# ---------------------------------------------------------------- engines


@pytest.mark.parametrize(("state", "fact"), list(itertools.product(ProcessState, Fact)))
def test_every_pair_is_in_the_table_or_refused(state: ProcessState, fact: Fact) -> None:
    process = EngineProcess(A, EngineId(0), None)
    process.state = state
    if (state, fact) in TRANSITIONS:
        assert process.apply(fact) is TRANSITIONS[state, fact]
    else:
        with pytest.raises(KeyError):
            process.apply(fact)
        assert process.state is state


def test_a_request_is_answered_when_all_are_decided(effects: Effects) -> None:
    supervision = Supervision()
    assert supervision.on_launch([(A, EngineId(4)), (B, EngineId(5))], request=7, outbox=effects)
    assert supervision.is_launching
    supervision.on_started(A, 11, now=0.0, outbox=effects)
    assert effects.take() == []
    supervision.on_not_started(B, "no memory", outbox=effects)
    assert effects.take() == [(7, [ProcessInfo(A, 11, EngineId(4))], "no memory")]
    assert supervision.processes() == [ProcessInfo(A, 11, EngineId(4))]
    assert not supervision.is_launching


def test_an_engine_that_dies_before_its_request_is_decided(effects: Effects) -> None:
    supervision = Supervision()
    supervision.on_launch([(A, EngineId(4)), (B, EngineId(5))], request=7, outbox=effects)
    supervision.on_started(A, 11, now=0.0, outbox=effects)
    supervision.on_exited(A, -9, outbox=effects)
    supervision.on_started(B, 12, now=0.0, outbox=effects)
    infos = [ProcessInfo(A, 11, EngineId(4)), ProcessInfo(B, 12, EngineId(5))]
    assert effects.take() == [EngineEnd(A, 11, -9, expected=False), (7, infos, "")]


def test_an_empty_request_is_answered(effects: Effects) -> None:
    assert not Supervision().on_launch([], request=1, outbox=effects)
    assert effects.take() == [(1, [], "")]


def test_a_stop_escalates(effects: Effects) -> None:
    supervision = running(effects, A, B)
    assert supervision.next_deadline() is None
    supervision.on_stop_asked([A, EngineKey("gone")], now=1.0, outbox=effects)
    assert effects.take() == [("terminate", A)]
    supervision.on_stop_asked([A], now=3.0, outbox=effects)  # the grace is not made longer by asking again
    assert effects.take() == []
    assert supervision.next_deadline() == 1.0 + STOP_GRACE_S
    supervision.on_tick(now=1.0 + STOP_GRACE_S - 0.1, outbox=effects)
    assert effects.take() == []
    supervision.on_tick(now=1.0 + STOP_GRACE_S, outbox=effects)
    assert effects.take() == [("kill", A)]
    assert supervision.next_deadline() == 1.0 + STOP_GRACE_S + KILL_INTERVAL_S
    supervision.on_exited(A, -9, outbox=effects)
    assert effects.take() == [EngineEnd(A, 10, -9, expected=True)]
    assert supervision.statistics() == {"running": 1, "ended expected": 1}
    assert not supervision.is_closing


def test_one_that_has_not_started_is_stopped_as_soon_as_it_has(effects: Effects) -> None:
    supervision = Supervision()
    supervision.on_launch([(A, EngineId(0))], request=3, outbox=effects)
    supervision.on_stop_asked([A], now=0.0, outbox=effects)
    assert effects.take() == []
    supervision.on_started(A, 10, now=2.0, outbox=effects)
    assert effects.take() == [("terminate", A), (3, [ProcessInfo(A, 10, EngineId(0))], "")]
    assert supervision.next_deadline() == 2.0 + STOP_GRACE_S


def test_after_the_end_nothing_begins(effects: Effects) -> None:
    supervision = running(effects, A)
    supervision.on_stop_asked(None, now=0.0, outbox=effects)
    assert supervision.is_closing
    assert not supervision.is_empty
    assert not supervision.on_launch([(B, EngineId(1))], request=9, outbox=effects)
    assert effects.take() == [("terminate", A), (9, [], "this host is about to end and starts no engines")]
    supervision.on_exited(A, 0, outbox=effects)
    assert supervision.is_empty


def test_repr(effects: Effects) -> None:
    supervision = running(effects, A)
    assert repr(supervision) == "<Supervision of 1 engine processes>"


class RandomSupervision(RuleBasedStateMachine):
    """Facts in any order that the parent's promises allow: started or not once, exited once after started."""

    def __init__(self) -> None:
        super().__init__()
        self.supervision = Supervision()
        self.effects = Effects()
        self.now = 0.0
        self.made = 0
        self.launching: list[EngineKey] = []
        self.alive: list[EngineKey] = []
        self.stopped: set[EngineKey] = set()
        self.open_requests: set[int] = set()

    @rule(count=st.integers(0, 3))
    def launch(self, count: int) -> None:
        keys = [EngineKey(f"{self.made + n:016x}") for n in range(count)]
        self.made += count + 1
        request = self.made
        if self.supervision.on_launch(
            [(key, EngineId(1)) for key in keys], request=request, outbox=self.effects
        ):
            self.launching += keys
            self.open_requests.add(request)

    @rule(data=st.data(), starts=st.booleans())
    def decide(self, data: st.DataObject, starts: bool) -> None:
        if self.launching:
            key = self.launching.pop(data.draw(st.integers(0, len(self.launching) - 1)))
            if starts:
                self.alive.append(key)
                self.supervision.on_started(key, 1 + self.made, now=self.now, outbox=self.effects)
            else:
                self.supervision.on_not_started(key, "no", outbox=self.effects)

    @rule(data=st.data(), status=st.sampled_from([0, 1, -9, -15]))
    def exit(self, data: st.DataObject, status: int) -> None:
        if self.alive:
            key = self.alive.pop(data.draw(st.integers(0, len(self.alive) - 1)))
            self.effects.take()
            self.supervision.on_exited(key, status, outbox=self.effects)
            (end,) = self.effects.take()
            assert isinstance(end, EngineEnd)
            assert (end.key, end.status, end.expected) == (key, status, key in self.stopped)

    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        known = self.launching + self.alive
        keys = data.draw(st.lists(st.sampled_from(known), unique=True)) if known else [A]
        self.stopped |= set(keys)
        self.supervision.on_stop_asked(keys, now=self.now, outbox=self.effects)

    @rule()
    def stop_all(self) -> None:
        self.stopped |= {*self.launching, *self.alive}
        self.supervision.on_stop_asked(None, now=self.now, outbox=self.effects)

    @rule(seconds=st.floats(0.0, 10.0))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.supervision.on_tick(now=self.now, outbox=self.effects)

    @invariant()
    def holds(self) -> None:
        self.supervision.check()
        assert self.supervision.is_empty == (not self.launching and not self.alive)
        assert self.supervision.is_launching == bool(self.launching)
        deadline = self.supervision.next_deadline()
        assert (deadline is None) == self.stopped.isdisjoint(self.alive)
        answered = [said[0] for said in self.effects.said if isinstance(said, tuple) and len(said) == 3]
        self.open_requests.difference_update(answered)
        if not self.launching:
            assert not self.open_requests


TestRandomSupervision = RandomSupervision.TestCase
