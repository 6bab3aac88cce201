"""Signals that are passed on: by another thread, in their order, and only as long as the block lasts."""

import os
import queue
import signal

import pytest

from enginery.cli.signals import Ended, EndingSignals, ForwardedSignals
from enginery.errors import ClusterNotFound


def test_they_are_passed_on_in_order() -> None:
    seen: queue.SimpleQueue[int] = queue.SimpleQueue()
    before = signal.getsignal(signal.SIGUSR1)
    with ForwardedSignals(seen.put):
        os.kill(os.getpid(), signal.SIGUSR1)
        assert seen.get(timeout=10) == signal.SIGUSR1
        os.kill(os.getpid(), signal.SIGUSR2)
        assert seen.get(timeout=10) == signal.SIGUSR2
    assert signal.getsignal(signal.SIGUSR1) is before


def test_what_cannot_be_passed_on_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(signum: int) -> None:
        raise ClusterNotFound("night")

    with ForwardedSignals(refuse):
        os.kill(os.getpid(), signal.SIGUSR1)
    text = capsys.readouterr().err
    assert text.startswith("enginery: SIGUSR1 was not passed on to the engines: no cluster named 'night'")


def test_the_first_that_asks_for_an_end_raises() -> None:
    with pytest.raises(Ended), EndingSignals():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
