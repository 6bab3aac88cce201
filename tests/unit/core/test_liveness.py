"""Silence, probes and graces, in virtual time."""

from __future__ import annotations

from enginery.core.liveness import GRACE_S, PROBE_INTERVAL_S, Liveness


class Effects:
    def __init__(self, liveness: Liveness[str]) -> None:
        self.said: list[str] = []
        self.gone: set[str] = set()
        self._liveness = liveness
        self.now = 0.0

    def probe(self, peer: str) -> None:
        self.said.append(f"probe {peer}")
        if peer in self.gone:
            self._liveness.on_disconnected(peer, now=self.now)

    def give_up(self, peer: str) -> None:
        self.said.append(f"give up {peer}")


def run(liveness: Liveness[str], effects: Effects, until: float) -> list[tuple[float, str]]:
    """Tick at each deadline; returns what was said when."""
    history = []
    while (deadline := liveness.next_deadline()) is not None and deadline <= until:
        effects.now = deadline
        liveness.on_tick(now=deadline, outbox=effects)
        liveness.check()
        history += [(deadline, said) for said in effects.said]
        effects.said.clear()
    return history


def test_a_silent_peer_is_probed_for_ever_and_never_given_up() -> None:
    liveness: Liveness[str] = Liveness()
    liveness.on_connected("a", now=0.0)
    assert run(liveness, Effects(liveness), 7.0) == [(2.0, "probe a"), (4.0, "probe a"), (6.0, "probe a")]


def test_who_speaks_is_not_probed() -> None:
    liveness: Liveness[str] = Liveness()
    effects = Effects(liveness)
    liveness.on_connected("a", now=0.0)
    for tenth in range(50):
        liveness.on_heard("a", now=tenth / 10)
        assert run(liveness, effects, tenth / 10) == []
    assert run(liveness, effects, 8.0) == [(4.9 + PROBE_INTERVAL_S, "probe a")]


def test_a_peer_without_a_route_has_its_grace() -> None:
    liveness: Liveness[str] = Liveness()
    effects = Effects(liveness)
    liveness.on_connected("a", now=0.0)
    liveness.on_connected("b", now=0.0, grace_s=5.0)
    effects.gone = {"a", "b"}
    assert run(liveness, effects, 1000.0) == [
        (2.0, "probe a"),
        (2.0, "probe b"),
        (7.0, "give up b"),
        (2.0 + GRACE_S, "give up a"),
    ]
    assert liveness.next_deadline() is None


def test_a_hello_within_the_grace_counts() -> None:
    liveness: Liveness[str] = Liveness()
    effects = Effects(liveness)
    liveness.on_connected("a", now=0.0)
    assert liveness.on_disconnected("a", now=1.0)
    assert not liveness.on_disconnected("a", now=1.5)
    liveness.on_connected("a", now=30.0)
    assert run(liveness, effects, 33.0) == [(32.0, "probe a")]


def test_nothing_is_expected_of_who_has_left() -> None:
    liveness: Liveness[str] = Liveness()
    liveness.on_connected("a", now=0.0)
    liveness.on_disconnected("a", now=0.0)
    liveness.on_left("a")
    liveness.on_heard("a", now=1.0)
    assert run(liveness, Effects(liveness), 1000.0) == []
    assert repr(liveness) == "<Liveness of 0 connected and 0 disconnected peers>"


def test_deadlines_do_not_pile_up() -> None:
    liveness: Liveness[str] = Liveness()
    effects = Effects(liveness)
    for hello in range(100):
        liveness.on_connected("a", now=hello / 100)
    assert len(run(liveness, effects, 101.0)) == 50
    assert len(liveness._deadlines) == 1
