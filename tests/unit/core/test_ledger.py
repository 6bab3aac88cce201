"""What a client has asked for, what was accepted, what has come back."""

from __future__ import annotations

import pytest

from enginery.core import ledger as module
from enginery.core.ledger import Blob, Ledger
from enginery.ids import BlobId, EngineId, task_number
from enginery.protocol import messages as m
from enginery.protocol.link import Link
from tests.unit.core.builders import CLIENT, SOURCE, F, options, task_id

FUNCTION = Blob(F, SOURCE, keep=True)
OPTIONS = options()


def welcome(
    accepted: m.Ranges | None = None, *, first: int = 0, tasks: int = 1000, size: int = 1 << 20
) -> m.ClientWelcome:
    return m.ClientWelcome("key", "name", accepted or [(0, 0)], [], first, tasks, size)


class Desk:
    """A ledger and its link. Promises are the letters a, b, c, … in the order of submission."""

    def __init__(self, *, tasks: int = 1000, size: int = 1 << 20) -> None:
        self.ledger: Ledger[str] = Ledger(CLIENT)
        self.link = Link()
        self.letters = iter("abcdefghijklmnopqrstuvwxyz")
        self.ledger.on_welcome(welcome(tasks=tasks, size=size), self.link)

    def submit(self, *, engines: int = 0, payload: bytes = b"p", blobs: tuple[Blob, ...] = ()) -> int:
        promises = [next(self.letters) for _ in range(engines or 1)]
        targets = tuple(map(EngineId, range(engines)))
        task = self.ledger.on_submitted(OPTIONS, payload, (FUNCTION, *blobs), promises, targets)
        self.ledger.check()
        return task_number(task)

    def said(self) -> list[str]:
        """Pump, and what went onto the link, as short words."""
        self.ledger.pump(self.link)
        self.ledger.check()
        words = []
        while not self.link.is_drained:
            for entry in [*self.link._small, *self.link._bulk]:
                words.append(describe(entry[0]))
            self.link.restart(0)
        return words

    def finish(
        self, first: int, *numbers: int, status: m.Status = m.Status.OK, blob: bool = False
    ) -> list[str]:
        blobs = (BlobId(b"r" * 16),) if blob else ()
        results = [m.TaskResult(task_id(number), status, blobs=blobs) for number in numbers]
        ended = self.ledger.on_finished(first, results)
        self.ledger.on_taken(first, results)
        self.ledger.check()
        return [promise for promise, _ in ended]


def describe(record: m.Record) -> str:
    match record:
        case m.Submit(_, calls):
            return "submit " + " ".join(str(call.number) for call in calls)
        case m.Abort(tasks):
            return "abort " + " ".join(str(task_number(task)) for task in tasks)
        case m.PutBlob(blob):
            return "put f" if blob == F else f"put {chr(blob[0])}"
        case m.Received(below):
            return f"received {below}"
    return type(record).__name__


def buffer(letter: str = "x", size: int = 100) -> Blob:
    return Blob(BlobId(letter.encode() * 16), bytes(size), keep=False)


def test_nothing_is_sent_before_the_welcome() -> None:
    ledger: Ledger[str] = Ledger(CLIENT)
    link = Link()
    ledger.on_submitted(OPTIONS, b"", (FUNCTION,), ["a"])
    ledger.pump(link)
    assert link.is_drained
    assert ledger.statistics() == (1, 0, 0)


def test_calls_travel_together_behind_their_function_which_is_sent_once() -> None:
    desk = Desk()
    assert [desk.submit(), desk.submit(engines=3), desk.submit()] == [1, 2, 5]
    assert desk.said() == ["put f", "submit 1 2 5"]
    desk.submit()
    assert desk.said() == ["submit 6"]
    assert desk.ledger.outstanding() == {task_id(number) for number in range(1, 7)}


def test_a_result_finds_its_promise() -> None:
    desk = Desk()
    desk.submit()
    desk.submit(engines=2)
    desk.said()
    assert desk.finish(0, 3, 1) == ["c", "a"]
    assert desk.ledger.statistics() == (0, 1, 2)
    assert desk.ledger.promise(task_id(2)) == "b"
    assert desk.ledger.promise(task_id(3)) is None


def test_a_delivery_that_comes_again_is_no_news() -> None:
    desk = Desk()
    for _ in range(2):
        desk.submit()
    desk.said()
    assert desk.finish(0, 1) == ["a"]
    assert desk.finish(0, 1) == []
    assert desk.finish(5, 1) == []
    assert desk.ledger.received == 1


def test_a_result_is_news_until_its_promise_has_it() -> None:
    desk = Desk()
    desk.submit()
    desk.said()
    results = [m.TaskResult(task_id(1), m.Status.OK)]
    for _ in range(2):
        assert [promise for promise, _ in desk.ledger.on_finished(0, results)] == ["a"]
    desk.ledger.on_taken(0, results)
    assert desk.ledger.on_finished(0, results) == []


# ---------------------------------------------------------------- hellos


def test_after_a_hello_what_is_not_accepted_is_sent_again_in_order() -> None:
    desk = Desk()
    for _ in range(4):
        desk.submit()
    desk.said()
    desk.ledger.on_accepted([(2, 2)])
    desk.ledger.on_welcome(welcome([(0, 0), (2, 3)]), desk.link)
    desk.submit()
    assert desk.said() == ["put f", "submit 1 4 5"]


def test_what_was_accepted_by_a_controller_that_is_no_more_is_lost() -> None:
    desk = Desk()
    desk.submit()
    desk.submit(engines=2)
    desk.said()
    desk.ledger.on_accepted([(1, 3)])
    desk.finish(0, 2)
    lost = desk.ledger.on_welcome(welcome(), desk.link)
    assert [(promise, result.status) for promise, result in lost] == [
        ("a", m.Status.REFUSED),
        ("c", m.Status.REFUSED),
    ]
    assert "does not know of it" in lost[0][1].detail
    assert desk.ledger.statistics() == (0, 0, 3)
    desk.ledger.check()


def test_deliveries_are_counted_as_the_welcome_says() -> None:
    desk = Desk()
    desk.submit()
    desk.submit()
    desk.said()
    desk.finish(0, 1)
    assert desk.ledger.received == 1
    desk.ledger.on_welcome(welcome([(0, 2)], first=1), desk.link)
    assert desk.finish(1, 2) == ["b"]
    assert desk.ledger.received == 2


def test_accepted_buffers_are_let_go() -> None:
    desk = Desk()
    desk.submit(blobs=(buffer(),))
    desk.said()
    submission = desk.ledger._tasks[1]
    assert len(submission.blobs) == 2
    desk.ledger.on_accepted([(1, 1)])
    assert submission.blobs == ()


def test_a_refused_call_is_sent_again_with_its_blobs() -> None:
    desk = Desk()
    desk.submit(blobs=(buffer(),))
    desk.submit()
    assert desk.said() == ["put f", "put x", "submit 1 2"]
    desk.ledger.on_resend([1, 2, 77], [F])
    assert desk.said() == ["put f", "put x", "submit 1 2"]
    desk.ledger.on_accepted([(1, 2)])
    desk.ledger.on_resend([1], [F])
    assert desk.said() == []


# ---------------------------------------------------------------- aborts


def test_a_call_that_never_left_ends_here() -> None:
    desk = Desk(tasks=1)
    desk.submit()
    desk.said()
    desk.submit()
    ended = desk.ledger.on_abort([task_id(2)], desk.link)
    desk.ledger.check()
    assert [(promise, result.status) for promise, result in ended] == [("b", m.Status.ABORTED)]
    assert desk.said() == []


def test_for_a_call_that_has_left_the_controller_is_asked() -> None:
    desk = Desk()
    desk.submit()
    desk.said()
    assert desk.ledger.on_abort([task_id(1), task_id(9)], desk.link) == []
    assert desk.said() == ["abort 1"]
    assert desk.finish(0, 1, status=m.Status.ABORTED) == ["a"]


def test_an_abort_does_not_overtake_its_call() -> None:
    desk = Desk()
    desk.submit(blobs=(buffer(size=1 << 20),))
    desk.ledger.pump(desk.link)
    desk.ledger.on_abort([task_id(1)], desk.link)
    assert [describe(entry[0]) for entry in desk.link._small] == ["put f"]
    assert [describe(entry[0]) for entry in desk.link._bulk] == ["put x", "submit 1", "abort 1"]
    desk.ledger.on_accepted([(1, 1)])
    desk.ledger.on_abort([task_id(1)], desk.link)
    assert describe(desk.link._small[-1][0]) == "abort 1"


def test_of_a_call_to_several_engines_only_what_was_meant_is_aborted() -> None:
    desk = Desk()
    desk.submit(engines=2)
    assert desk.ledger.on_abort([task_id(1), task_id(1)], desk.link) == []
    assert desk.said() == ["put f", "submit 1", "abort 1"]


def test_an_abort_is_asked_for_again_after_a_hello() -> None:
    desk = Desk()
    desk.submit()
    desk.submit()
    desk.said()
    desk.ledger.on_abort([task_id(1), task_id(2)], desk.link)
    desk.said()
    desk.ledger.on_welcome(welcome([(0, 1)]), desk.link)
    assert desk.said() == ["abort 1", "put f", "submit 2", "abort 2"]


# ---------------------------------------------------------------- credit


def test_over_the_credit_calls_wait_here() -> None:
    desk = Desk(tasks=2)
    for _ in range(4):
        desk.submit()
    assert desk.said() == ["put f", "submit 1 2"]
    desk.finish(0, 1)
    assert desk.said() == ["submit 3"]


def test_credit_is_in_bytes_too_but_one_call_always_goes() -> None:
    desk = Desk(size=1000)
    desk.submit(blobs=(buffer("x", 5000),))
    desk.submit()
    assert desk.said() == ["put f", "put x", "submit 1"]
    desk.finish(0, 1)
    assert desk.said() == ["submit 2"]


def test_a_kept_function_costs_no_credit() -> None:
    desk = Desk(size=len(FUNCTION.data))
    desk.submit()
    desk.submit()
    assert desk.said() == ["put f", "submit 1 2"]


def test_records_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALLS_PER_RECORD", 2)
    desk = Desk()
    for _ in range(5):
        desk.submit()
    assert desk.said() == ["put f", "submit 1 2", "submit 3 4", "submit 5"]


def test_over_the_backlog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKLOG_CALLS", 2)
    desk = Desk(tasks=1)
    desk.submit()
    desk.said()
    for _ in range(2):
        desk.submit()
        assert not desk.ledger.is_over_backlog
    desk.submit()
    assert desk.ledger.is_over_backlog


# ---------------------------------------------------------------- what has arrived


def test_the_controller_is_told_after_many_results() -> None:
    desk = Desk()
    many = module.TAKEN_PER_REPORT
    for number in range(1, many + 1):
        desk.ledger.on_submitted(OPTIONS, b"", (FUNCTION,), [str(number)])
    desk.said()
    for number in range(1, many):
        desk.finish(number - 1, number)
        assert not desk.ledger.has_output
    desk.finish(many - 1, many)
    assert desk.ledger.has_output
    assert desk.said() == [f"received {many}"]


def test_the_controller_is_told_at_once_of_results_with_blobs() -> None:
    # 64 MiB of them fill its window, long before there are many.
    desk = Desk()
    for _ in range(3):
        desk.submit()
    desk.said()
    desk.finish(1, 2, blob=True)
    assert desk.said() == []
    desk.finish(0, 1)
    assert desk.said() == ["received 2"]
    desk.finish(2, 3)
    assert desk.said() == []


def test_told_on_request_and_once() -> None:
    desk = Desk()
    desk.submit()
    desk.said()
    desk.finish(0, 1)
    for expected in (["received 1"], []):
        desk.ledger.report(desk.link)
        assert desk.said() == expected


def test_at_the_end_everything_ends() -> None:
    desk = Desk(tasks=2)
    for _ in range(2):
        desk.submit(engines=2)
    desk.said()
    desk.finish(0, 1)
    ended = desk.ledger.on_closed("the client was closed")
    assert [promise for promise, _ in ended] == ["b", "c", "d"]
    assert {result.detail for _, result in ended} == {"the client was closed"}
    assert desk.ledger.outstanding_count == 0
    desk.ledger.check()
    assert repr(desk.ledger) == ("<Ledger of 00000001: LedgerStatistics(queued=0, under_way=0, finished=4)>")
