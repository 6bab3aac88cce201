"""A ledger against a controller that forgets, refuses and loses: every call ends once, within its credit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from enginery.core.ledger import Ledger
from enginery.core.submissions import Blob
from enginery.core.wishes import ABORT
from enginery.ids import EngineId, task_number
from enginery.protocol.link import Link
from enginery.protocol.messages import (
    Abort,
    Call,
    ClientWelcome,
    PutBlob,
    Status,
    Submit,
    TaskResult,
)
from enginery.protocol.ranges import NumberSet
from tests.unit.core.builders import CLIENT, F, options, task_id

TASKS = 4
OPTIONS = [options(), options(priority=1)]
steps = st.one_of(
    st.tuples(st.just("submit"), st.integers(0, 2), st.integers(0, 1)),
    st.tuples(st.just("submit"), st.integers(0, 2), st.integers(0, 1)),
    st.tuples(st.just("abort"), st.lists(st.integers(1, 15), max_size=3)),
    st.tuples(st.just("deliver"), st.integers(0, 9)),
    st.tuples(st.just("accept")),
    st.tuples(st.just("finish"), st.integers(0, 9)),
    st.tuples(st.just("finish"), st.integers(0, 9)),
    st.tuples(st.just("reconnect")),
    st.tuples(st.just("forget function")),
)


class Controller:
    """The obvious one: takes what comes over the link, once, if it has the function."""

    def __init__(self) -> None:
        self.link = Link()
        self.taken: dict[int, Call] = {}
        self.open: list[int] = []
        self.numbers = NumberSet(1)
        self.has_function = False
        self.aborted: set[int] = set()
        self.deliveries: list[TaskResult] = []

    def read(self, ledger: Ledger[int]) -> None:
        """Take everything that is on the link, in the order in which it would come."""
        entries = [*self.link._small, *self.link._bulk]
        self.link._small.clear()
        self.link._bulk.clear()
        for record, *_ in entries:
            if isinstance(record, PutBlob):
                self.has_function = True
            elif isinstance(record, Abort):
                self.aborted.update(task_number(task) for task in record.tasks)
            elif isinstance(record, Submit):
                if not self.has_function:
                    ledger.on_resend([call.number for call in record.calls], [F])
                    continue
                for call in record.calls:
                    if call.number not in self.taken:
                        self.taken[call.number] = call
                        for number in range(call.number, call.number + (len(call.engines) or 1)):
                            assert self.numbers.add(number)
                            self.open.append(number)

    def welcome(self) -> ClientWelcome:
        return ClientWelcome("key", "name", self.numbers.ranges(), [], 0, TASKS, 1 << 20)


@given(st.lists(steps, max_size=60))
def test_every_call_ends_once(plan: list[tuple]) -> None:  # type: ignore[type-arg]
    ledger: Ledger[int] = Ledger(CLIENT)
    controller = Controller()
    ledger.on_welcome(controller.welcome(), controller.link)
    ended: dict[int, Status] = {}
    submitted: list[int] = []

    def take(pairs: list[tuple[int, TaskResult]]) -> None:
        for promise, result in pairs:
            assert promise == task_number(result.task)
            assert promise not in ended, f"task {promise} ends twice"
            ended[promise] = result.status

    def finish(pick: int) -> None:
        if controller.open:
            number = controller.open.pop(pick % len(controller.open))
            results = [TaskResult(task_id(number), Status.OK)]
            first = len(controller.deliveries)
            controller.deliveries += results
            take(ledger.on_finished(first, results))
            ledger.on_taken(first, results)

    for step in plan:
        match step:
            case ("submit", targets, kind):
                first = len(submitted) + 1
                promises = list(range(first, first + max(targets, 1)))
                task = ledger.on_submitted(
                    OPTIONS[kind], b"", [Blob(F, b"f", True)], promises, tuple(map(EngineId, range(targets)))
                )
                assert task_number(task) == first
                submitted += promises
            case ("abort", numbers):
                take(ledger.on_wish(map(task_id, numbers), ABORT, controller.link))
            case ("deliver", _):
                ledger.pump(controller.link)
                controller.read(ledger)
            case ("accept",):
                ledger.on_accepted(controller.numbers.ranges())
            case ("finish", pick):
                finish(pick)
            case ("reconnect",):
                controller.link.restart(0)
                take(ledger.on_welcome(controller.welcome(), controller.link))
                controller.deliveries.clear()
            case ("forget function",):
                controller.has_function = False
        ledger.check()
        assert len(controller.open) < TASKS + 2, "more is under way than the credit allows"
    for _ in range(4 * len(submitted) + 4):
        ledger.pump(controller.link)
        controller.read(ledger)
        finish(0)
        ledger.check()
    assert ended.keys() == set(submitted)
    assert ledger.statistics() == (0, 0, len(submitted))
    never_sent = {number for number, status in ended.items() if status is Status.ABORTED}
    assert never_sent.isdisjoint(controller.taken)
