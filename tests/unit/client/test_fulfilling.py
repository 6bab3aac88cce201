"""Callbacks: each is called, whatever becomes of the others."""

from __future__ import annotations

import logging

import pytest

from enginery.client.fulfilling import call_back, guard


def interrupt() -> None:
    raise KeyboardInterrupt


def fail() -> None:
    raise ValueError("mine")


def test_errors_are_logged_and_interrupts_raised_in_the_end(caplog: pytest.LogCaptureFixture) -> None:
    called: list[int] = []
    with caplog.at_level(logging.ERROR, "enginery.client"):
        call_back([fail, lambda: called.append(1)])
        with pytest.raises(KeyboardInterrupt):
            call_back([interrupt, lambda: called.append(2), interrupt, lambda: called.append(3)])
    assert called == [1, 2, 3]
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]


def test_a_guarded_call_gets_its_arguments() -> None:
    called: list[tuple[int, int]] = []
    guard(lambda first, second: called.append((first, second)), 1, 2)
    assert called == [(1, 2)]
