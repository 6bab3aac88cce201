"""Ctrl-C comes at the end of a step, or where the thread sleeps."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from enginery.client.shield import Lowered, Shield


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """Whatever a test does, it leaves the handler that was there, and no step half done."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    left = signal.signal(signal.SIGINT, before)
    assert left is signal.default_int_handler


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_comes_when_the_step_is_complete() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), Shield():
        interrupt()
        steps.append("goes on")
    assert steps == ["goes on"]
    with Shield():
        pass  # and once only


def test_inner_steps_are_parts_of_the_outer_one() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), Shield():
        with Shield():
            interrupt()
        steps.append("goes on")
    assert steps == ["goes on"]


def test_a_sleep_is_interrupted_at_once() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), Shield(), Lowered():
        interrupt()
        steps.append("sleeps on")
    assert steps == []


def test_nobody_goes_to_sleep_after_an_interrupt() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), Shield():
        interrupt()
        steps.append("goes on")
        with Lowered():
            steps.append("sleeps")
    assert steps == ["goes on"]


def test_what_is_due_in_any_case_is_done_before_the_interrupt() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), Shield():
        interrupt()
        with Lowered(is_due=True):
            steps.append("called back")
        steps.append("goes on")
    assert steps == ["called back", "goes on"]


def test_steps_of_a_callback_are_steps_of_their_own() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), Shield(), Lowered():
        with Shield():
            interrupt()
            steps.append("inner")
        steps.append("callback goes on")
    assert steps == ["inner"]


def test_an_error_of_the_step_is_the_context_of_the_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, Shield():
        interrupt()
        raise ValueError("of the step")
    assert isinstance(caught.value.__context__, ValueError)


def test_the_users_own_handler_is_called_afterwards() -> None:
    came: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        came.append(signum)

    signal.signal(signal.SIGINT, note)
    with Shield():
        interrupt()
        assert came == []
    assert came == [signal.SIGINT]
    assert signal.signal(signal.SIGINT, signal.default_int_handler) is note


def test_who_ignores_interrupts_goes_on_to() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Shield():
        interrupt()
    assert signal.signal(signal.SIGINT, signal.default_int_handler) is signal.SIG_IGN


def test_a_handler_set_in_a_callback_stays() -> None:
    came: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        came.append(signum)

    with Shield():
        with Lowered():
            signal.signal(signal.SIGINT, note)
        interrupt()
    assert came == [signal.SIGINT]
    assert signal.signal(signal.SIGINT, signal.default_int_handler) is note


def test_other_threads_do_without() -> None:
    kept = []

    def step() -> None:
        with Shield(), Lowered():
            kept.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=step)
    thread.start()
    thread.join()
    assert kept == [signal.default_int_handler]


def test_a_child_that_was_forked_in_a_step_has_none_under_way() -> None:
    with Shield():
        child = os.fork()
        if not child:
            try:
                interrupt()  # raises at once
            except KeyboardInterrupt:
                os._exit(7)
            os._exit(1)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
