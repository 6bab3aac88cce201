"""What a client has asked for, what was accepted, what has come back."""

from __future__ import annotations

import pytest

from enginery.core import ledger as module
from enginery.core.ledger import Ledger
from enginery.core.submissions import Blob, Copies
from enginery.core.wishes import ABORT
from enginery.errors import TooLarge
from enginery.ids import BlobId, ClientId, EngineId, TaskId, make_task_id, task_number
from enginery.protocol import messages as m
from enginery.protocol.link import Link
from tests.unit.core.builders import CLIENT, SOURCE, F, on, options, task_id

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
        case m.ShareBlob(blob, segment=segment):
            return f"share {chr(blob[0])} in {segment}"
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


def test_a_call_that_depends_on_others_does_not_overtake_them() -> None:
    desk = Desk(size=8 << 20)
    desk.submit(blobs=(buffer(size=2 << 20),))
    desk.submit()
    dependent = options(after=on(1))
    desk.ledger.on_submitted(dependent, b"p", (FUNCTION,), ["z"])
    assert desk.said() == ["put f", "put x", "put x", "submit 1 2", "submit 3"]


# ---------------------------------------------------------------- aborts


def test_a_call_that_never_left_ends_here() -> None:
    desk = Desk(tasks=1)
    desk.submit()
    desk.said()
    desk.submit()
    ended = desk.ledger.on_wish([task_id(2)], ABORT, desk.link)
    desk.ledger.check()
    assert [(promise, result.status) for promise, result in ended] == [("b", m.Status.ABORTED)]
    assert desk.said() == []


def test_a_call_that_the_controller_has_asked_for_again_comes_even_to_be_aborted() -> None:
    desk = Desk()
    desk.submit(blobs=(buffer(),))
    desk.said()
    desk.ledger.on_resend([1], [])
    assert desk.ledger.on_wish([task_id(1)], ABORT, desk.link) == []
    desk.ledger.check()
    assert desk.said() == ["put x", "submit 1", "abort 1"]


def test_calls_that_are_asked_for_one_by_one_keep_their_order() -> None:
    desk = Desk()
    for _ in range(3):
        desk.submit(engines=1)
    desk.said()
    desk.submit(engines=1)
    desk.ledger.on_resend([1], [])
    desk.ledger.on_resend([2], [])
    desk.ledger.on_resend([3], [])
    assert desk.said() == ["submit 1 2 3 4"]


def test_for_a_call_that_has_left_the_controller_is_asked() -> None:
    desk = Desk()
    desk.submit()
    desk.said()
    assert desk.ledger.on_wish([task_id(1), task_id(9)], ABORT, desk.link) == []
    assert desk.said() == ["abort 1"]
    assert desk.finish(0, 1, status=m.Status.ABORTED) == ["a"]


def test_an_abort_does_not_overtake_its_call() -> None:
    desk = Desk()
    desk.submit(blobs=(buffer(size=1 << 20),))
    desk.ledger.pump(desk.link)
    desk.ledger.on_wish([task_id(1)], ABORT, desk.link)
    assert [describe(entry[0]) for entry in desk.link._small] == ["put f"]
    assert [describe(entry[0]) for entry in desk.link._bulk] == ["put x", "submit 1", "abort 1"]
    desk.ledger.on_accepted([(1, 1)])
    desk.ledger.on_wish([task_id(1)], ABORT, desk.link)
    assert describe(desk.link._small[-1][0]) == "abort 1"


def test_of_a_call_to_several_engines_only_what_was_meant_is_aborted() -> None:
    desk = Desk()
    desk.submit(engines=2)
    assert desk.ledger.on_wish([task_id(1), task_id(1)], ABORT, desk.link) == []
    assert desk.said() == ["put f", "submit 1", "abort 1"]


def test_an_abort_is_asked_for_again_after_a_hello() -> None:
    desk = Desk()
    desk.submit()
    desk.submit()
    desk.said()
    desk.ledger.on_wish([task_id(1), task_id(2)], ABORT, desk.link)
    desk.said()
    desk.ledger.on_welcome(welcome([(0, 1)]), desk.link)
    assert desk.said() == ["abort 1", "put f", "submit 2", "abort 2"]


def test_calls_to_engines_do_not_overtake_each_other() -> None:
    desk = Desk(size=1 << 22)
    desk.submit(engines=1, blobs=(buffer(size=1 << 20),))
    desk.ledger.pump(desk.link)
    desk.submit(engines=1)
    desk.ledger.pump(desk.link)
    desk.submit()
    desk.ledger.pump(desk.link)
    assert [describe(entry[0]) for entry in desk.link._small] == ["put f", "submit 3"]
    assert [describe(entry[0]) for entry in desk.link._bulk] == ["put x", "submit 1", "submit 2"]


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


# ---------------------------------------------------------------- tasks of others, and what is safe


def of_another(number: int) -> TaskId:
    return make_task_id(ClientId(CLIENT + 1), number)


def test_a_task_of_another_client_is_not_taken_for_an_own_one_of_its_number() -> None:
    desk = Desk()
    desk.submit()
    desk.said()
    results = [m.TaskResult(of_another(1), m.Status.OK)]
    assert desk.ledger.on_finished(0, results) == []
    desk.ledger.on_taken(0, results)
    assert desk.ledger.received == 1, "it is a delivery all the same"
    assert desk.ledger.promise(of_another(1)) is None
    assert desk.ledger.promise(task_id(1)) == "a"
    assert desk.finish(1, 1) == ["a"]


def test_for_a_task_of_another_client_the_controller_is_asked_also_after_a_hello() -> None:
    desk = Desk()
    desk.submit()
    desk.said()
    assert desk.ledger.on_wish([of_another(1), task_id(7)], ABORT, desk.link) == []
    assert desk.said() == ["abort 1"]
    desk.ledger.on_welcome(welcome([(0, 1)]), desk.link)
    assert desk.said() == ["abort 1"]
    assert desk.ledger.outstanding() == {task_id(1)}


def test_what_is_safe_is_accepted_or_has_ended() -> None:
    desk = Desk()
    for _ in range(2):
        desk.submit()
    assert not desk.ledger.is_accepted(task_id(1))
    desk.said()
    assert not desk.ledger.is_accepted(task_id(1))
    desk.ledger.on_accepted([(1, 1)])
    assert desk.ledger.is_accepted(task_id(1))
    assert not desk.ledger.is_accepted(task_id(2))
    desk.finish(0, 2)
    assert desk.ledger.is_accepted(task_id(2))
    assert desk.ledger.is_accepted(of_another(1))


def test_options_of_unfinished_tasks_are_known() -> None:
    desk = Desk()
    desk.submit(engines=2)
    assert desk.ledger.options(task_id(2)) is OPTIONS
    assert desk.ledger.options(task_id(3)) is None
    assert desk.ledger.options(of_another(1)) is None


# ---------------------------------------------------------------- shared memory


class SharingDesk(Desk):
    """Buffers of 1000 bytes and more are copied when the test says so; `lent` are segments of this client."""

    def __init__(self) -> None:
        super().__init__()
        self.lent: set[str] = set()
        self.ledger = Ledger(CLIENT, is_lent=self.lent.__contains__)
        self.ledger.shared_from_bytes = 1000
        self.ledger.on_welcome(welcome(), self.link)

    def big(self, letter: str, *, engines: int = 0, keep: bool = False) -> int:
        blob = Blob(BlobId(letter.encode() * 16), bytes(1000), keep)
        return self.submit(engines=engines, blobs=(blob,))

    def begun(self) -> list[Copies]:
        """The copies that are to be made now."""
        self.ledger.pump(self.link)
        return self.ledger.take_copies()

    def end(self, copies: Copies, *, room: bool = True) -> list[str]:
        """A copy is there: in segments that have the names of the blobs."""
        segments = {blob.blob_id: f"s{chr(blob.blob_id[0])}" for blob in copies.blobs} if room else {}
        while taken := self.lent.intersection(segments.values()):
            segments = {blob: name + "'" if name in taken else name for blob, name in segments.items()}
        self.lent.update(segments.values())
        self.ledger.on_copied(copies, segments)
        return self.said()

    def free(self, *names: str) -> None:
        """The controller has said so."""
        self.ledger.on_freed(names)
        self.lent.difference_update(names)
        self.ledger.check()

    def hello(self, *accepted: tuple[int, int]) -> None:
        self.ledger.on_welcome(welcome([(0, 0), *accepted]), self.link)
        self.ledger.check()


def test_a_call_goes_when_its_buffer_has_been_copied() -> None:
    desk = SharingDesk()
    desk.big("x")
    (copies,) = desk.begun()
    assert [blob.blob_id for blob in copies.blobs] == [BlobId(b"x" * 16)]
    assert copies.size_bytes == 1000
    assert desk.said() == []
    assert not desk.ledger.has_output, "nobody has to look before it is copied"
    assert desk.end(copies) == ["put f", "share x in sx", "submit 1"]


def test_what_finds_no_room_travels_as_frames() -> None:
    desk = SharingDesk()
    desk.big("x")
    (copies,) = desk.begun()
    assert desk.end(copies, room=False) == ["put f", "put x", "submit 1"]
    desk.hello()
    assert desk.said() == ["put f", "put x", "submit 1"], "nobody tries again"


def test_balanced_calls_overtake_and_calls_to_engines_do_not() -> None:
    desk = SharingDesk()
    desk.big("x", engines=1)
    (copies,) = desk.begun()
    desk.submit(engines=1)
    desk.submit()
    assert desk.said() == ["put f", "submit 3"]
    assert not desk.ledger.has_output
    assert desk.end(copies) == ["share x in sx", "submit 1 2"]


def test_an_abort_comes_behind_a_call_that_is_being_copied() -> None:
    desk = SharingDesk()
    desk.big("x")
    (copies,) = desk.begun()
    assert desk.ledger.on_wish([task_id(1)], ABORT, desk.link) == []
    assert desk.said() == []
    assert desk.end(copies) == ["put f", "share x in sx", "submit 1", "abort 1"]


def test_after_a_hello_a_call_that_was_said_is_said_again_with_its_segment() -> None:
    desk = SharingDesk()
    desk.big("x")
    (copies,) = desk.begun()
    desk.end(copies)
    assert desk.ledger.unaccepted_segments() == {"sx"}
    desk.hello()
    assert desk.said() == ["put f", "share x in sx", "submit 1"]
    desk.ledger.on_accepted([(1, 1)])
    assert desk.ledger.unaccepted_segments() == set(), "the controller decides about it"


def test_a_hello_while_a_buffer_is_being_copied() -> None:
    desk = SharingDesk()
    desk.big("x", engines=1)
    desk.submit(engines=1)
    (first,) = desk.begun()
    desk.hello()
    (second,) = desk.begun()
    assert desk.end(first) == ["put f", "share x in sx", "submit 1 2"]
    assert desk.end(second) == []
    assert desk.ledger.take_unused_segments() == ["sx'"], "it was copied twice"


def test_a_hello_takes_back_what_was_not_begun() -> None:
    """An interrupt has come between a decision to copy and the copy."""
    desk = SharingDesk()
    desk.big("x")
    desk.ledger.pump(desk.link)
    desk.hello()
    assert desk.ledger.take_copies() == []
    assert len(desk.begun()) == 1


def test_a_segment_that_was_freed_is_never_named_again() -> None:
    """A hello has said that it is lent, before anybody knew for what; it may hold other bytes by now."""
    desk = SharingDesk()
    desk.big("x")
    (copies,) = desk.begun()
    desk.lent.add("sx")
    desk.free("sx")
    desk.ledger.on_copied(copies, {BlobId(b"x" * 16): "sx"})
    assert desk.said() == ["put f", "put x", "submit 1"]


def test_a_call_that_has_been_heard_and_ended_before_it_was_accepted() -> None:
    desk = SharingDesk()
    desk.big("x")
    (copies,) = desk.begun()
    desk.end(copies)
    desk.free("sx")
    assert desk.finish(0, 1) == ["a"]
    assert desk.ledger.take_unused_segments() == []
    assert desk.ledger.unaccepted_segments() == set()


def test_what_the_controller_could_not_use_travels_as_frames() -> None:
    desk = SharingDesk()
    desk.big("x")
    (copies,) = desk.begun()
    desk.end(copies)
    desk.ledger.on_resend([1], [BlobId(b"x" * 16)])
    assert desk.ledger.take_unused_segments() == ["sx"]
    assert desk.said() == ["put x", "submit 1"]


def test_what_is_asked_for_again_for_another_reason_stays_where_it_is() -> None:
    desk = SharingDesk()
    desk.big("x")
    (copies,) = desk.begun()
    desk.end(copies)
    desk.ledger.on_resend([1], [F])
    assert desk.ledger.take_unused_segments() == []
    assert desk.said() == ["put f", "share x in sx", "submit 1"]


def test_the_copy_for_a_call_that_has_ended_meanwhile_is_not_used() -> None:
    desk = SharingDesk()
    desk.big("x")
    (copies,) = desk.begun()
    desk.ledger.on_closed("closed")
    assert desk.end(copies) == []
    assert desk.ledger.take_unused_segments() == ["sx"]


def test_the_copy_for_a_call_that_was_accepted_meanwhile_is_not_used() -> None:
    """It was under way twice, after a hello; the controller has the first."""
    desk = SharingDesk()
    desk.big("x")
    (first,) = desk.begun()
    desk.hello()
    (second,) = desk.begun()
    desk.end(first)
    desk.ledger.on_accepted([(1, 1)])
    desk.end(second)
    assert desk.ledger.take_unused_segments() == ["sx'"]


def test_a_call_that_never_left_takes_its_copy_along() -> None:
    desk = SharingDesk()
    desk.big("x")
    (copies,) = desk.begun()
    desk.lent.add("sx")
    desk.ledger.on_copied(copies, {copies.blobs[0].blob_id: "sx"})
    desk.ledger.on_welcome(welcome(tasks=0), desk.link)
    assert desk.said() == []
    desk.ledger.on_wish([task_id(1)], ABORT, desk.link)
    assert desk.ledger.take_unused_segments() == ["sx"]


def test_a_call_that_has_left_once_is_not_taken_back_here() -> None:
    desk = SharingDesk()
    desk.big("x")
    (copies,) = desk.begun()
    desk.end(copies)
    desk.ledger.on_welcome(welcome(tasks=0), desk.link)
    assert desk.ledger.sent_again() == [(1, 1)]
    assert desk.ledger.on_wish([task_id(1)], ABORT, desk.link) == []
    desk.ledger.on_welcome(welcome(), desk.link)
    assert desk.said()[-2:] == ["submit 1", "abort 1"]


def test_without_a_pool_everything_is_frames() -> None:
    desk = SharingDesk()
    desk.ledger.shared_from_bytes = 0
    desk.big("x")
    assert desk.begun() == []
    desk.link.restart(0)
    desk.hello()
    assert desk.said() == ["put f", "put x", "submit 1"]


def test_the_parts_of_one_call_name_its_first_task() -> None:
    desk = Desk()
    first = desk.ledger.on_submitted(OPTIONS, b"p", (FUNCTION,), ["a"])
    desk.ledger.on_submitted(OPTIONS, b"p", (FUNCTION,), ["b"], (), first)
    desk.ledger.pump(desk.link)
    (record,) = [entry[0] for entry in desk.link._small if isinstance(entry[0], m.Submit)]
    assert [(call.number, call.first) for call in record.calls] == [(1, 0), (2, 1)]


# ---------------------------------------------------------------- what cannot be sent at all


def test_a_call_that_is_too_large_is_refused_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALL_LIMIT_BYTES", 5000)
    site = Desk()
    blobs = tuple(Blob(BlobId(bytes([n]) * 16), bytes(2000), keep=n == 1) for n in (1, 2))
    assert site.submit(blobs=blobs, payload=bytes(900)) == 1
    with pytest.raises(TooLarge, match=r"what this call sends has .*; the limit is 5000 bytes") as caught:
        site.submit(blobs=blobs, payload=bytes(1200))
    assert (caught.value.size_bytes, caught.value.limit_bytes) == (4000 + 1200 + len(FUNCTION.data), 5000)
    assert site.ledger.outstanding_count == 1
    assert site.submit() == 2


def test_a_call_to_more_engines_than_can_be_is_refused() -> None:
    site = Desk()
    engines = tuple(map(EngineId, range(m.ENGINES_PER_CALL + 1)))
    with pytest.raises(ValueError, match="one call goes to 10,000 engines at most, not to 10,001"):
        site.ledger.on_submitted(OPTIONS, b"", (), ["a"] * len(engines), engines)
    assert site.ledger.outstanding_count == 0
