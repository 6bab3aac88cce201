"""While a task waits for tasks of its own, its engine runs those, and nothing else.

The wait is the client's, deep in the stack of the task's code. It comes here by way of `nesting`: the main
thread talks with the controller as between two tasks, and what is to run then runs on top of what waits. When
the wait is over it returns, as soon as what runs on top of it has ended.

Everything that an engine has one of while a task runs (the task whose output it is, its progress, its limit
and what is to interrupt it) is put aside for the one that runs inside, and put back afterwards.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from enginery.core.workload import Attempt, Claim
from enginery.engine.interrupts import Interrupts
from enginery.engine.output import OutputCollector
from enginery.engine.progress import ProgressMeter
from enginery.engine.threads import TaskThreads
from enginery.engine.user_code import uninterrupted
from enginery.errors import NestedTooDeep
from enginery.ids import NO_TASK, TaskId
from enginery.nesting import Listen
from enginery.transport import clock

if TYPE_CHECKING:
    from enginery.engine.service import Engine

MOST_WAITING = 20
"""Tasks that wait in one engine, each inside the one before: the stack of an interpreter is not endless."""


class Lending:
    """An engine, as a task in it that waits sees it: implements `nesting.Stage`."""

    def __init__(
        self,
        engine: Engine,
        threads: TaskThreads,
        output: OutputCollector,
        progress: ProgressMeter,
        interrupts: Interrupts,
    ) -> None:
        self._engine = engine
        self._threads = threads
        self._output = output
        self._progress = progress
        self._interrupts = interrupts
        self.waiting: list[Attempt] = []
        """Tasks that wait now, outermost first. To be said again after each hello."""

    def __repr__(self) -> str:
        return f"<Lending to {len(self.waiting)} tasks>"

    # ------------------------------------------------------------ nesting.Stage

    def current(self) -> TaskId:
        run = self._threads.here()
        return run.task if run is not None and self._engine.runs((run.task, run.attempt)) else NO_TASK

    def may_lend(self) -> bool:
        return self._threads.is_running_here() and not _is_in_event_loop()

    def lend(self, predicate: Callable[[], bool], deadline: float | None, listen: Listen) -> None:
        run = self._threads.running
        assert run is not None, "a task runs here"
        if len(self.waiting) >= MOST_WAITING:
            raise NestedTooDeep(MOST_WAITING)
        with listen(predicate, self._engine.waker.wake):
            self._serve((run.task, run.attempt), predicate, deadline)

    # ------------------------------------------------------------ inside

    @uninterrupted
    def _serve(self, attempt: Attempt, predicate: Callable[[], bool], deadline: float | None) -> None:
        engine = self._engine
        self.waiting.append(attempt)
        engine.say_lends(attempt, is_over=False)
        try:
            while True:
                self._interrupts.raise_due()  # first: what it waits for may have ended by the same wish
                if predicate() or (deadline is not None and clock.now() >= deadline):
                    return
                engine.hear()
                claim = engine.claim_inside(self._may_begin)
                if claim is not None:
                    self._run(claim, attempt[0])
                elif not predicate():
                    engine.sleep(deadline)
        finally:
            self.waiting.remove(attempt)
            engine.say_lends(attempt, is_over=True)

    def _may_begin(self, inside: TaskId) -> bool:
        """Whether a task may run on top of the one that waits last, and is not for another that waits."""
        return inside != NO_TASK and all(task != inside for task, _ in self.waiting[:-1])

    def _run(self, claim: Claim, waiting: TaskId) -> None:
        """Run a task on top of the one that waits, and put everything back as it was."""
        streams = sys.stdin, sys.stdout, sys.stderr
        suspended = self._interrupts.suspend()
        progress, output = self._progress.suspend(), self._output.suspend()
        try:
            self._engine.run_inside(claim, waiting)
        finally:
            self._output.resume(output)
            self._progress.resume(progress)
            self._interrupts.resume(suspended)
            sys.stdin, sys.stdout, sys.stderr = streams


def _is_in_event_loop() -> bool:
    """Whether the caller is a coroutine, or a callback: what else its loop runs cannot wait."""
    events = sys.modules.get("asyncio.events")
    return events is not None and events._get_running_loop() is not None
