"""How far the running task is: what is said of it and when, and that short tasks cost nothing."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from enginery.engine import progress
from enginery.engine.progress import FIRST_S, INTERVAL_S, Last, ProgressMeter
from enginery.engine.threads import TaskThreads
from enginery.ids import TaskId
from enginery.protocol.messages import EngineProgress, Report

TASK, NEXT = TaskId(1), TaskId(2)


@dataclass
class Failures:
    failed: int = 0
    cancelled: int = 0


class Site:
    def __init__(self) -> None:
        self.wakes = 0
        self.now = 1000.0
        self.threads = TaskThreads()
        self.meter = ProgressMeter(self._wake, self.threads)
        self.values: list[int] = []
        self.failures = Failures()

    def _wake(self) -> None:
        self.wakes += 1

    def begin(self, task: TaskId = TASK, attempt: int = 1, *, items: int = 0) -> None:
        self.threads.begin(task)
        self.meter.begin(task, attempt)
        if items:
            self.values, self.failures = [], Failures()
            self.meter.watch_rows(items, self.values, self.failures)

    def end(self) -> Last:
        self.threads.end()
        return self.meter.end()

    def look(self, after_s: float = 0.0) -> EngineProgress | None:
        self.now += after_s
        return self.meter.take(now=self.now)

    @property
    def due_in_s(self) -> float | None:
        due = self.meter.due_at()
        return None if due is None else due - self.now


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    site = Site()
    monkeypatch.setattr(progress.clock, "now", lambda: site.now)
    return site


def test_items_of_a_map_are_looked_at_while_it_runs(site: Site) -> None:
    site.begin(items=10)
    assert (site.wakes, site.due_in_s, site.look()) == (1, FIRST_S, None)
    site.values += [1, 2, 3]
    site.failures.failed, site.failures.cancelled = 1, 2
    assert site.look(FIRST_S) == EngineProgress(TASK, 1, 10, 3, 1, 2)
    assert site.due_in_s == INTERVAL_S
    assert site.look(INTERVAL_S) is None, "nothing has moved"
    site.values.append(4)
    assert site.look() is None, "not yet"
    assert site.look(INTERVAL_S) == EngineProgress(TASK, 1, 10, 4, 1, 2)
    assert site.end() == Last(None, 10, 1, 2)
    assert (site.due_in_s, site.wakes) == (None, 1)


def test_of_a_slow_map_it_is_said_how_many_items_it_has(site: Site) -> None:
    site.begin(items=10, attempt=3)
    assert site.look(FIRST_S) == EngineProgress(TASK, 3, 10)


def test_short_tasks_wake_nobody_but_once(site: Site) -> None:
    for number in range(1, 100):
        site.begin(TaskId(number), items=10)
        site.now += 0.001
        assert site.meter.due_at() is not None
        site.end()
    assert (site.wakes, site.due_in_s) == (1, None)
    site.begin(NEXT)
    assert (site.wakes, site.due_in_s) == (1, None), "a call that says nothing of itself"
    site.begin(NEXT, items=10)
    assert site.wakes == 2


def test_a_report_is_said_at_once_and_then_now_and_then(site: Site) -> None:
    site.begin()
    assert site.meter.report(0.1, "a")
    assert site.wakes == 1
    assert site.look() == EngineProgress(TASK, 1, report=Report(0.1, "a"))
    assert site.due_in_s is None
    for step in range(1000):
        site.meter.report(step / 1000, "b")
    assert (site.wakes, site.due_in_s, site.look()) == (2, INTERVAL_S, None)
    assert site.look(INTERVAL_S) == EngineProgress(TASK, 1, report=Report(0.999, "b"))
    site.meter.report(1.0, "c")
    assert site.end() == Last(Report(1.0, "c")), "it goes with the result"
    assert site.look(INTERVAL_S) is None


def test_reports_of_a_map_come_with_its_items(site: Site) -> None:
    site.begin(items=2)
    site.meter.report(0.5, "first")
    assert site.look() == EngineProgress(TASK, 1, 2, report=Report(0.5, "first"))
    site.values.append(1)
    assert site.look(INTERVAL_S) is None, "items alone can wait"
    assert site.look(INTERVAL_S) == EngineProgress(TASK, 1, 2, 1, report=Report(0.5, "first"))


def test_what_comes_while_the_control_thread_goes_to_sleep_is_noticed(site: Site) -> None:
    """It is asleep before it looks: whoever sets something after its look wakes it."""

    class Noticing(ProgressMeter):
        @property
        def _run(self) -> progress._Run | None:  # type: ignore[override]
            found = self.present
            if self.at_look is not None:
                at_look, self.at_look = self.at_look, None
                at_look()
            return found

        @_run.setter
        def _run(self, run: progress._Run | None) -> None:
            self.present = run

        present: progress._Run | None = None
        at_look = None

    site.meter = meter = Noticing(site._wake, site.threads)
    site.begin(items=10)
    site.end()
    meter.at_look = lambda: site.begin(NEXT, items=5)  # type: ignore[assignment]
    assert meter.due_at() is None
    assert site.wakes == 2
    assert site.due_in_s == FIRST_S


def test_where_nobody_listens_it_is_not_asked_in_vain(site: Site) -> None:
    site.begin()
    site.meter.report(0.1, "a")
    site.meter.postpone(now=site.now)
    assert site.due_in_s == INTERVAL_S
    assert site.look(INTERVAL_S) is not None
    assert repr(site.meter) == "<ProgressMeter of task 1>"
