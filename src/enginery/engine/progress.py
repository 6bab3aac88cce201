"""How far the running task is: the items of a map by looking at them, and what a task reports of itself.

The fast way through a map's rows must not pay for being watched, so nobody counts: the list of values grows,
and the control thread looks at its length now and then. It is woken once, looks again as long as there may be
something to see, and sleeps when nothing runs: of a thousand short tasks a second nothing is said.

The task's thread only sets attributes, each before it looks whether the control thread is awake
(`_is_awake`). The control thread marks itself asleep before it looks at those attributes, so one of the two
always notices.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import NamedTuple, Protocol

from enginery.engine.threads import TaskThreads
from enginery.ids import TaskId
from enginery.protocol.messages import REPORT_TEXT_LIMIT, EngineProgress, Report, clean_text
from enginery.transport import clock

INTERVAL_S = 0.25
"""Between two words on how far a task is."""
FIRST_S = 0.5
"""How long a map runs before something is said of its items."""


class Failures(Protocol):
    """Counts the items of a map that have ended without a value."""

    @property
    def failed(self) -> int: ...

    @property
    def cancelled(self) -> int: ...


class Last(NamedTuple):
    """The last word on a task."""

    report: Report | None = None
    items: int = 0
    failed: int = 0
    cancelled: int = 0


_NOTHING = Last()


class _Run:
    """One attempt at one task."""

    __slots__ = ("attempt", "failures", "items", "report", "said", "started", "task", "values")

    def __init__(self, task: TaskId, attempt: int) -> None:
        self.task = task
        self.attempt = attempt
        self.started = 0.0
        self.items = 0  # of a map
        self.values: Sized = ()  # grow with the items
        self.failures: Failures = _NOTHING
        self.report: tuple[float | None, str] | None = None
        self.said: tuple[object, ...] | None = None  # what was said last

    def state(self) -> tuple[object, ...]:
        return len(self.values), self.failures.failed, self.failures.cancelled, self.report


class ProgressMeter:
    """Knows how far the running task is. `wake` makes the control thread ask `due_at`."""

    def __init__(self, wake: Callable[[], None], threads: TaskThreads) -> None:
        self._wake = wake
        self._threads = threads
        self._run: _Run | None = None
        self._is_awake = False
        self._said_at = 0.0

    def __repr__(self) -> str:
        return f"<ProgressMeter of task {None if self._run is None else self._run.task}>"

    # ------------------------------------------------------------ the thread that runs tasks

    def begin(self, task: TaskId, attempt: int) -> None:
        self._run = _Run(task, attempt)

    def watch_rows(self, items: int, values: Sized, failures: Failures) -> None:
        """The running task is a map; these grow with the items that have ended, and have failed."""
        run = self._run
        if run is not None:
            run.values, run.failures, run.started = values, failures, clock.now()
            run.items = items  # the last: who sees it sees the others
            self._be_awake()

    def end(self) -> Last:
        """The running task is over."""
        run, self._run = self._run, None
        if run is None or (not run.items and run.report is None):
            return _NOTHING
        return Last(_as_record(run.report), run.items, run.failures.failed, run.failures.cancelled)

    def suspend(self) -> _Run | None:
        """The running task waits, and another one is about to begin inside it."""
        return self._run

    def resume(self, suspended: _Run | None) -> None:
        """That one has ended."""
        self._run = suspended
        if suspended is not None and (suspended.items or suspended.report is not None):
            self._be_awake()

    def report(self, fraction: float | None, text: str) -> bool:
        """Take the word of the running task; False if the calling thread works for none."""
        run = self._run
        if run is None or self._threads.here() != (run.task, run.attempt):
            return False
        run.report = fraction, text[:REPORT_TEXT_LIMIT]
        self._be_awake()
        return True

    def _be_awake(self) -> None:
        if not self._is_awake:
            self._is_awake = True
            self._wake()

    # ------------------------------------------------------------ the control thread

    def due_at(self) -> float | None:
        """When to ask `take` next; None = when woken."""
        if not self._is_awake:
            return None
        self._is_awake = False  # before looking, see above
        run = self._run
        if run is None:
            return None
        due = self._said_at + INTERVAL_S
        if run.report is None or (run.said is not None and run.said[-1] is run.report):
            if not run.items:
                return None
            due = max(due, run.started + FIRST_S)
        self._is_awake = True
        return due

    def take(self, *, now: float) -> EngineProgress | None:
        """How far the running task is, if it is time to say so and there is news."""
        due, run = self.due_at(), self._run
        if due is None or now < due or run is None:
            return None
        self._said_at = now
        state = run.state()
        if state == run.said:
            return None
        run.said = state
        report = _as_record(run.report)
        failures = run.failures
        return EngineProgress(
            run.task, run.attempt, run.items, len(run.values), failures.failed, failures.cancelled, report
        )

    def postpone(self, *, now: float) -> None:
        """There is nobody to say it to."""
        self._said_at = now


def _as_record(report: tuple[float | None, str] | None) -> Report | None:
    if report is None:
        return None
    fraction, text = report
    return Report(fraction, _one_line(text))


def _one_line(text: str) -> str:
    """A text that moves no cursor and begins no line, whatever shows it."""
    printable = "".join(letter if letter.isprintable() else " " for letter in clean_text(text))
    return printable[:REPORT_TEXT_LIMIT].strip()
