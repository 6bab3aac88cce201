"""How long a client that closes waits for what it has submitted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from enginery.client import leaving
from enginery.client.leaving import STALL_S, Progress, linger


class Site:
    """Moves as it is told to, in virtual time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *steps: tuple[float, Progress]) -> None:
        self.now = 0.0
        self.steps = list(steps)  # after how long, what is left
        self.left = Progress(3, 0, False)
        monkeypatch.setattr(leaving.clock, "now", lambda: self.now)

    def wait_until(self, predicate: Callable[[], bool], timeout_s: float) -> bool:
        end = self.now + timeout_s
        while not predicate() and self.steps and self.now + self.steps[0][0] <= end:
            pause_s, self.left = self.steps.pop(0)
            self.now += pause_s
        if not predicate():
            self.now = end
        return predicate()

    def linger(self, linger_s: float) -> int:
        return linger(self.wait_until, lambda: self.left, linger_s)


def test_nothing_is_waited_for_when_all_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(monkeypatch)
    site.left = Progress(0, 5, False)
    assert (site.linger(30.0), site.now) == (0, 0.0)


def test_it_waits_as_long_as_something_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    moving = [(0.9, Progress(3, pieces, False)) for pieces in range(9, 0, -1)]
    site = Site(monkeypatch, *moving, (0.9, Progress(0, 0, False)))
    assert site.linger(30.0) == 0
    assert site.now == pytest.approx(9.0)


def test_what_stands_still_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(monkeypatch, (0.5, Progress(2, 0, False)), (5.0, Progress(0, 0, False)))
    assert site.linger(30.0) == 2
    assert site.now == pytest.approx(0.5 + STALL_S)


def test_a_copy_moves_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(monkeypatch, (0.1, Progress(3, 0, True)), (0.9, Progress(3, 0, True)))
    assert site.linger(10.0) == 3
    assert site.now == pytest.approx(10.0)


def test_nothing_is_waited_for_without_time(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(monkeypatch)
    assert (site.linger(0.0), site.now) == (3, 0.0)
