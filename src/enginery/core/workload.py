"""The engine's side: what it was given, what it has claimed, and results nobody has confirmed yet.

Each (task, attempt) is held from its arrival until its result is known to be stored. *Starting* it and
*giving it back* are the two claims, and whichever comes first is final; the main thread starts, the control
thread gives back, and the service's lock makes each claim atomic. What was given back is remembered: the task
may come after it (two connections share no order), or come again after a hello, while the answer is still on
its way.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from enginery.ids import TaskId
from enginery.protocol.messages import EngineResult, text_size

CLAIMS_KEPT = 10_000
RESULTS_PER_RECORD = 1000
BYTES_PER_RECORD = 1 << 18
BEGUN_LIMIT = 10_000

Attempt = tuple[TaskId, int]
Work = TypeVar("Work")


def result_size(result: EngineResult) -> int:
    """What a result weighs in a header."""
    size = 96 + len(result.payload) + text_size(result.stdout) + text_size(result.stderr)
    if result.error_types:
        size += text_size(result.error) + sum(map(text_size, result.error_types))
    if result.report is not None:
        size += text_size(result.report.text)
    return size


Claim = tuple[Attempt, Any]
"""An attempt that has been claimed, and the work for it."""


class WorkloadStatistics(NamedTuple):
    waiting: int
    unstored: int
    finished: int


class Workload(Generic[Work]):
    """The tasks of one engine. `Work` is whatever the runner needs to run a task."""

    def __init__(self) -> None:
        self._queue: OrderedDict[Attempt, Work] = OrderedDict()
        self._started: set[Attempt] = set()  # running, or finished and not stored
        self.running: Attempt | None = None  # from its claim to its result
        self._outer: list[Attempt] = []  # those that wait while this one runs
        self._given_back: OrderedDict[Attempt, None] = OrderedDict()
        self._controller = ""  # whose tasks these are
        self._is_fenced = False
        self._first_result = 0  # number of the oldest unstored result
        self._unstored: deque[EngineResult] = deque()
        self._sent = 0  # of the unstored ones, in this epoch
        self._finished = 0

    def __len__(self) -> int:
        """Tasks that wait."""
        return len(self._queue)

    def __repr__(self) -> str:
        return f"<Workload {self.statistics()}>"

    def statistics(self) -> WorkloadStatistics:
        return WorkloadStatistics(len(self._queue), len(self._unstored), self._finished)

    # ------------------------------------------------------------ tasks

    def on_task(self, attempt: Attempt, work: Work) -> bool:
        """A task has arrived. False if it is not wanted."""
        if not self.wants(attempt):
            return False
        self._queue[attempt] = work
        return True

    def wants(self, attempt: Attempt) -> bool:
        """Whether a task is to be run here: not if it was given back, or is here already."""
        return not self._is_fenced and not (
            attempt in self._given_back or attempt in self._queue or attempt in self._started
        )

    def start_next(self) -> tuple[Attempt, Work] | None:
        """Claim the oldest waiting task."""
        if not self._queue:
            return None
        attempt, work = self._queue.popitem(last=False)
        self._started.add(attempt)
        self.running = attempt
        return attempt, work

    def start_inside(self, may_begin: Callable[[Work], object]) -> tuple[Attempt, Work] | None:
        """Claim the oldest one that may begin while the running task waits."""
        for attempt, work in self._queue.items():
            if may_begin(work):
                del self._queue[attempt]
                self._started.add(attempt)
                if self.running is not None:
                    self._outer.append(self.running)
                self.running = attempt
                return attempt, work
        return None

    def runs(self, attempt: Attempt) -> bool:
        """Whether it has begun and not ended, be it that it waits for another one."""
        return attempt == self.running or attempt in self._outer

    def on_take_back(self, calls: Iterable[Attempt]) -> tuple[list[Attempt], list[Attempt]]:
        """Give back what has not started: (taken, kept)."""
        taken: list[Attempt] = []
        kept: list[Attempt] = []
        for attempt in calls:
            attempt = (attempt[0], attempt[1])
            if attempt in self._started:
                kept.append(attempt)
                continue
            self._queue.pop(attempt, None)
            self._given_back[attempt] = None
            if len(self._given_back) > CLAIMS_KEPT:
                self._given_back.popitem(last=False)
            taken.append(attempt)
        return taken, kept

    def held(self) -> list[Attempt]:
        """For the hello: everything that need not be sent again."""
        return [*self._started, *self._queue]

    def begun(self) -> list[Attempt] | None:
        """For the goodbye: what must not run elsewhere unasked; None if it is too much to say."""
        return list(self._started) if len(self._started) <= BEGUN_LIMIT else None

    # ------------------------------------------------------------ results

    @property
    def first_result(self) -> int:
        return self._first_result

    def on_finished(self, result: EngineResult) -> None:
        self._finished += 1
        self._unstored.append(result)
        self.running = self._outer.pop() if self._outer else None

    def on_welcome(self, stored: int, controller: str = "") -> None:
        """A hello was answered: everything from this number on is sent again.

        Another controller than before knows nothing of what this has given back, and may send it again.
        """
        self.on_stored(stored)
        self._sent = 0
        if controller != self._controller:
            self._controller = controller
            self._given_back.clear()
        self._is_fenced = False

    def on_controller(self, controller: str) -> list[Attempt] | None:
        """This controller is there. If it is another one: what `held` says, and nothing that the one before
        has sent is taken in any more, until a hello is answered."""
        if controller in ("", self._controller):
            return None
        self._is_fenced = True
        return self.held()

    def on_stored(self, below: int) -> list[EngineResult]:
        """Results below this number are safe; returns those that were still kept."""
        safe: list[EngineResult] = []
        while self._first_result < below and self._unstored:
            result = self._unstored.popleft()
            self._started.discard((result.task, result.attempt))
            self._first_result += 1
            self._sent = max(self._sent - 1, 0)
            safe.append(result)
        return safe

    def take_results(self) -> Iterator[tuple[int, list[EngineResult], int]]:
        """What is to be sent: (first number, results, bytes in the header), in groups fit for one record.

        The results of a group all have blobs, or none has: those that have follow them in the bulk lane.
        """
        while self._sent < len(self._unstored):
            first = self._first_result + self._sent
            group: list[EngineResult] = []
            weight = 0
            while (
                self._sent < len(self._unstored)
                and len(group) < RESULTS_PER_RECORD
                and weight < BYTES_PER_RECORD
            ):
                result = self._unstored[self._sent]
                if group and bool(result.blobs) != bool(group[0].blobs):
                    break
                self._sent += 1
                group.append(result)
                weight += result_size(result)
            yield first, group, weight

    def check(self) -> None:
        """Assert every invariant."""
        assert self._queue.keys().isdisjoint(self._started)
        assert set(self._outer) <= self._started
        assert self.running is not None or not self._outer
        assert 0 <= self._sent <= len(self._unstored)
        for result in self._unstored:
            assert (result.task, result.attempt) in self._started
        assert self._given_back.keys().isdisjoint(self._queue)
        assert self._given_back.keys().isdisjoint(self._started)
        assert len(self._given_back) <= CLAIMS_KEPT
