"""Waiting for a cell on engines: its output as it comes, a bar if it takes long, Ctrl-C for the engines."""

from __future__ import annotations

import math
import signal
import sys
import time
from contextlib import nullcontext
from typing import Any, Protocol

from enginery.client.results.async_result import AsyncResult
from enginery.client.results.bars import ProgressBar
from enginery.client.results.display import OutputStream
from enginery.client.results.folding import engine_list
from enginery.client.snapshots import Standing
from enginery.errors import CompositeError, RemoteError
from enginery.frontends.options import Settings

TICK_S = 0.2
"""How long output is held, so that what several engines print at about the same time can be folded."""
TAKE_BACK_S = 0.2
"""How long what has not started may take to say so, before the rest is taken for running."""


class Engines(Protocol):
    """What a client can do about engines."""

    def interrupt(self, targets: Any, block: bool) -> object:
        """Raise KeyboardInterrupt in what some of them run."""

    def send_signal(self, sig: int, targets: Any, block: bool) -> object:
        """Send a signal to some of them."""


class BlockingWait:
    """One cell that is waited for."""

    def __init__(self, result: AsyncResult, settings: Settings, engines: Engines, *, stream: bool) -> None:
        self._result = result
        self._settings = settings
        self._engines = engines
        self._stream = stream
        self._bar: ProgressBar | None = None
        self._failed: set[AsyncResult] = set()  # parts whose errors have been shown

    def run(self) -> None:
        """Return when all of it has ended.

        Ctrl-C interrupts the engines, or sends them the signal that is set instead, and goes on waiting for
        what they make of it; a second one, or the first if nothing is to be sent, raises KeyboardInterrupt
        and leaves the engines alone.
        """
        try:
            with self._output() as output:
                try:
                    self._wait(output)
                except KeyboardInterrupt:
                    if not self._settings.signal_on_interrupt:
                        raise
                    self._interrupt()
                    self._wait(output)
            if output is not None:
                self._show_failures()
        except KeyboardInterrupt:
            raise KeyboardInterrupt("no longer waiting; what runs on the engines goes on") from None
        finally:
            if self._bar is not None:
                self._bar.close()

    def _output(self) -> Any:
        return self._result.stream_output(fold=self._settings.fold) if self._stream else nullcontext()

    def _wait(self, output: OutputStream | None) -> None:
        result, after = self._result, self._settings.progress_after_s
        bar_at = time.monotonic() + after if after >= 0 else math.inf
        while not result.done():
            left = bar_at - time.monotonic()
            if left <= 0 and self._bar is None:
                self._bar = ProgressBar(self._standing)
            result.wait(TICK_S if self._bar is not None else min(TICK_S, left))
            if output is not None and not result.done():  # else more is on its way, to be folded with this
                self._show(output)
            if self._bar is not None:
                self._bar.move()

    def _standing(self) -> Standing:
        return self._result.standing()._replace(name="%px", unit="engines")

    def _show(self, output: OutputStream) -> None:
        if not output.is_holding and not self._new_failures():
            return
        with self._bar.hidden() if self._bar is not None else nullcontext():
            output.flush()
            self._show_failures()

    def _new_failures(self) -> list[AsyncResult]:
        return [
            part
            for part in self._result.split()
            if part not in self._failed and part.done() and not part.successful()
        ]

    def _show_failures(self) -> None:
        parts = self._new_failures()
        self._failed.update(parts)
        errors = [error for part in parts if (error := failure_of(part)) is not None]
        if errors:
            sys.stderr.write("\n".join(CompositeError("", errors).render_traceback()[2:]) + "\n")
            sys.stderr.flush()

    def _interrupt(self) -> None:
        result, number = self._result, self._settings.signal_on_interrupt
        # What waits in a queue must neither start later, nor have what runs in its place interrupted.
        try:
            result.abort()
        except RuntimeError:
            return  # all of it has ended
        result.wait(TAKE_BACK_S)
        running = [part.engine_id for part in result.split() if not part.done()]
        if not running:
            return
        where = f"{'engine' if len(running) == 1 else 'engines'} {engine_list(running)}"
        if number == signal.SIGINT:
            sys.stderr.write(f"Interrupted: interrupting {where}\n")
            self._engines.interrupt(targets=running, block=True)
        else:
            sys.stderr.write(f"Interrupted: sending {signal.Signals(number).name} to {where}\n")
            self._engines.send_signal(number, targets=running, block=True)


def failure_of(result: AsyncResult) -> RemoteError | None:
    """What went wrong on the engines; None if nothing did."""
    try:
        result.get()
    except RemoteError as error:
        return error
    return None
