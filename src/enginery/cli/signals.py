"""Signals of a command that stays: those that end it, and those that it passes on to its engines."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable
from types import FrameType

import click

_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
_FORWARDED = ("SIGUSR1", "SIGUSR2", "SIGINFO")


class Ended(BaseException):
    """A signal that asks this process to end has come."""


class EndingSignals:
    """Within it the first signal that asks for an end raises `Ended`; later ones do not disturb that end.

    What was ignored before (``nohup``) stays ignored.
    """

    def __enter__(self) -> None:
        taken = [signum for signum in _present(_ENDING) if signal.getsignal(signum) is not signal.SIG_IGN]
        self._before = {signum: signal.signal(signum, self._on_signal) for signum in taken}

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        for known in self._before:
            signal.signal(known, signal.SIG_IGN)
        raise Ended

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)


class ForwardedSignals:
    """Within it the signals that mean something to engines are passed on to them.

    By a thread of its own: a handler may break into anything, a call to the cluster's controller too.
    """

    def __init__(self, forward: Callable[[int], None]) -> None:
        self._forward = forward
        self._came: queue.SimpleQueue[int] = queue.SimpleQueue()  # its `put` may be called in a handler

    def __enter__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="enginery signals")
        self._thread.start()
        self._before = {signum: signal.signal(signum, self._on_signal) for signum in _present(_FORWARDED)}

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self._came.put(signum)

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._came.put(0)
        self._thread.join()

    def _run(self) -> None:
        from enginery.errors import EngineryError

        while signum := self._came.get():
            try:
                self._forward(signum)
            except (EngineryError, ValueError) as error:
                name = signal.Signals(signum).name
                click.echo(f"enginery: {name} was not passed on to the engines: {error}", err=True)


def _present(names: tuple[str, ...]) -> list[int]:
    """Those that this system has."""
    return [getattr(signal, name) for name in names if hasattr(signal, name)]
