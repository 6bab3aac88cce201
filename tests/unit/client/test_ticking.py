"""Who is told that time passes, and when next."""

from __future__ import annotations

import gc
import logging
import math

import pytest

from enginery.client.ticking import TICK_S, Tickers


class Shown:
    def __init__(self, *, goes_on: bool = False) -> None:
        self.goes_on = goes_on
        self.told = 0

    def on_tick(self) -> bool:
        self.told += 1
        return self.goes_on


def test_what_moves_is_told_again_and_what_does_not_when_something_has_come() -> None:
    tickers, still, moving = Tickers(lambda: None), Shown(), Shown(goes_on=True)
    assert tickers.due == math.inf
    tickers.on_news()
    assert tickers.due == math.inf, "nobody wants to know"
    tickers.add(still)
    assert tickers.due == 0.0, "at once"
    tickers.run(10.0)
    assert (still.told, tickers.due) == (1, math.inf)
    tickers.on_news()
    assert tickers.due == 10.0 + TICK_S
    tickers.add(moving)
    tickers.run(11.0)
    assert (still.told, moving.told, tickers.due) == (2, 1, 11.0 + TICK_S)
    tickers.on_news()
    assert tickers.due == 11.0 + TICK_S, "often is not oftener"
    moving.goes_on = False
    tickers.run(12.0)
    assert tickers.due == math.inf
    assert repr(tickers) == "<Tickers: 2>"


def test_who_reads_is_woken_for_somebody_new() -> None:
    woken: list[float] = []
    tickers = Tickers(lambda: woken.append(tickers.due))
    tickers.add(shown := Shown())
    assert woken == [0.0]
    assert shown.told == 0


def test_who_is_added_twice_is_told_once_and_who_is_removed_no_more() -> None:
    tickers, shown = Tickers(lambda: None), Shown()
    tickers.add(shown)
    tickers.add(shown)
    tickers.run(1.0)
    assert shown.told == 1
    tickers.remove(shown)
    tickers.run(2.0)
    assert shown.told == 1


def test_nobody_is_kept_alive() -> None:
    tickers = Tickers(lambda: None)
    tickers.add(Shown(goes_on=True))
    gc.collect()
    tickers.run(1.0)
    assert tickers.due == math.inf


def test_one_that_fails_leaves_the_others_alone(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Shown):
        def on_tick(self) -> bool:
            super().on_tick()
            raise ValueError("no screen")

    tickers, failing, other = Tickers(lambda: None), Failing(), Shown(goes_on=True)
    tickers.add(failing)
    tickers.add(other)
    with caplog.at_level(logging.CRITICAL, "enginery.client"):
        tickers.run(1.0)
        tickers.run(2.0)
    assert (failing.told, other.told) == (1, 2)


def test_who_comes_while_others_are_told_is_told_soon() -> None:
    tickers, late = Tickers(lambda: None), Shown()

    class Adding(Shown):
        def on_tick(self) -> bool:
            tickers.add(late)
            return False

    adding = Adding()
    tickers.add(adding)
    tickers.run(1.0)
    assert tickers.due == 0.0
