"""What the controller says, sorted by whom it concerns; no connection, no thread."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from enginery.client import writing
from enginery.client.contract import FetchedCalls
from enginery.client.news import News
from enginery.client.questions import Questions
from enginery.client.state import ClientState
from enginery.core.submissions import Blob
from enginery.core.watching import Saying
from enginery.ids import BlobId, ClientId, EngineId, EngineKey, TaskId, make_task_id
from enginery.protocol import messages as m
from enginery.protocol.codec import Buffer
from enginery.protocol.link import Link
from enginery.transport import sharing
from enginery.transport.sharing import Sharing

CLIENT, OTHER = ClientId(1), ClientId(2)
OPTIONS = m.TaskOptions(m.Kind.CALL, BlobId(b"f" * 16), "f")
LARGE = BlobId(b"l" * 16)


class Told:
    """A promise that notes what it hears."""

    def __init__(self) -> None:
        self.results: list[tuple[m.Status, list[bytes]]] = []
        self.texts: list[str] = []
        self.data: dict[str, bytes] = {}
        self.times_heard = 0

    def on_result(self, result: m.TaskResult, buffers: Sequence[Buffer], /) -> None:
        self.results.append((result.status, [bytes(buffer) for buffer in buffers]))

    def on_said(self, saying: Saying, /) -> None:
        if isinstance(saying, m.Data):
            self.data[saying.name] = saying.payload
        else:
            self.texts.append(saying.text if isinstance(saying, m.Output) else saying.kind)

    def on_heard(self) -> None:
        self.times_heard += 1


def text(task: TaskId, words: str, number: int, *, attempt: int = 1) -> m.Output:
    return m.Output(task, EngineId(0), "stdout", words, attempt, number)


def shown(task: TaskId, number: int) -> m.Display:
    return m.Display(task, EngineId(0), "display_data", b"x", number=number)


class Desk:
    def __init__(self) -> None:
        self.state = ClientState(CLIENT, Sharing(None, "client-1", limit_bytes=0))
        self.link = Link()
        self.said: list[m.Record] = []
        self.hear(m.ClientWelcome("key", "name", [], [], 0, 100, 1 << 20))

    def submit(self, promise: Told) -> TaskId:
        task = self.state.ledger.on_submitted(OPTIONS, b"", [Blob(OPTIONS.function, b"f", True)], [promise])
        self.state.ledger.pump(self.link)
        self.link.restart(0)
        return task

    def hear(self, *records: m.ToClient, frames: Sequence[bytes | None] = ()) -> News:
        """These records come, and what they bring is acted on as the session does it."""
        news = News()
        for number, record in enumerate(records):
            frame = frames[number] if number < len(frames) else None
            self.state.on_record(record, frame, self.link, news)
        self.act_on(news)
        self.said = [entry[0] for entry in self.link._small]
        self.link.restart(0)
        return news

    def act_on(self, news: News) -> None:
        for listener in news.listeners:
            listener.on_heard()
        for promise, result in news.results:
            promise.on_result(result, news.buffers.get(result.task, ()))
        told = self.state.on_fulfilled(news)
        for promise, result in told:
            promise.on_result(result, news.buffers.get(result.task, ()))
        self.state.on_told(told)

    def follow(self, promise: Told, *tasks: TaskId) -> list[m.Record]:
        self.state.on_followed(dict.fromkeys(tasks, promise), self.link)
        asked = [entry[0] for entry in self.link._small]
        self.link.restart(0)
        return asked


def ok(task: TaskId, *, blobs: tuple[BlobId, ...] = ()) -> m.TaskResult:
    return m.TaskResult(task, m.Status.OK, b"", blobs)


def of_another(number: int = 1) -> TaskId:
    return make_task_id(OTHER, number)


# ---------------------------------------------------------------- following


def test_the_end_of_an_own_task_is_told_to_its_call_and_to_whoever_follows() -> None:
    desk, own, follower = Desk(), Told(), Told()
    task = desk.submit(own)
    assert desk.follow(follower, task) == [], "its end comes by itself"
    desk.hear(m.Finished(0, [ok(task)]))
    assert own.results == follower.results == [(m.Status.OK, [])]


def test_ended_tasks_of_others_come_with_the_answer_and_pending_ones_as_deliveries() -> None:
    desk, ended, pending = Desk(), Told(), Told()
    (asked,) = desk.follow(ended, of_another(1))
    assert asked == m.AskResults(1, [of_another(1)], True)
    assert desk.follow(pending, of_another(2)) == [m.AskResults(2, [of_another(2)], True)]
    piece = m.PutBlob(LARGE, 5, 0, False)
    answer = m.ResultsAnswer(1, [ok(of_another(1), blobs=(LARGE,))])
    desk.hear(piece, answer, m.ResultsAnswer(2, [], [of_another(2)]), frames=[b"bytes"])
    assert ended.results == [(m.Status.OK, [b"bytes"])]
    assert pending.results == []
    desk.hear(m.Finished(0, [ok(of_another(2))]))
    assert pending.results == [(m.Status.OK, [])]
    assert desk.state.ledger.received == 1


def test_one_result_asked_for_twice_comes_twice() -> None:
    desk, first, second = Desk(), Told(), Told()
    desk.follow(first, of_another())
    desk.follow(second, of_another())
    desk.hear(m.ResultsAnswer(1, [ok(of_another())]))
    assert (len(first.results), len(second.results)) == (1, 1)
    desk.hear(m.ResultsAnswer(2, [ok(of_another())]))
    assert (len(first.results), len(second.results)) == (1, 1), "nobody is told twice"


def test_who_follows_between_a_delivery_and_its_promise_is_told() -> None:
    desk, own, follower = Desk(), Told(), Told()
    task, news = desk.submit(own), News()
    desk.state.on_record(m.Finished(0, [ok(task)]), None, desk.link, news)
    assert desk.follow(follower, task) == []
    desk.act_on(news)
    assert follower.results == own.results == [(m.Status.OK, [])]
    late = Told()
    assert desk.follow(late, task) == [m.AskResults(1, [task], True)], "now only the controller knows"


def test_pages_of_results_are_told_as_they_come() -> None:
    desk, follower = Desk(), Told()
    desk.follow(follower, of_another(1), of_another(2))
    desk.hear(m.ResultsAnswer(1, [ok(of_another(1))], is_last=False))
    assert len(follower.results) == 1
    desk.hear(m.ResultsAnswer(1, [m.TaskResult(of_another(2), m.Status.UNKNOWN)]))
    assert [status for status, _ in follower.results] == [m.Status.OK, m.Status.UNKNOWN]


def test_a_refusal_ends_what_was_asked_about() -> None:
    desk, follower = Desk(), Told()
    desk.follow(follower, of_another())
    desk.hear(m.Answer(1, "the history cannot be read"))
    assert follower.results == [(m.Status.REFUSED, [])]


def test_after_a_hello_everything_open_is_asked_again() -> None:
    desk, follower = Desk(), Told()
    desk.follow(follower, of_another())
    question = desk.state.on_asked(m.AskStatus, None)
    desk.hear(m.ClientWelcome("key", "name", [], [], 0, 100, 1 << 20))
    assert desk.said == [m.AskStatus(2), m.AskResults(3, [of_another()], True)]
    assert not question.done()
    desk.hear(m.ResultsAnswer(1, [ok(of_another())]))
    assert follower.results == [], "an answer of before the hello names no question"


def test_the_end_of_the_session_ends_calls_and_followed_tasks() -> None:
    desk, own, follower = Desk(), Told(), Told()
    task = desk.submit(own)
    desk.follow(follower, task, of_another())
    endings = desk.state.on_closed("closed")
    assert [(promise, result.task) for promise, result in endings.calls] == [(own, task)]
    assert {result.task for result in endings.followed} == {task, of_another()}
    assert {result.detail for result in endings.followed} == {"closed"}


# ---------------------------------------------------------------- text and published values


def test_text_and_values_reach_the_call_and_its_followers() -> None:
    desk, own, follower = Desk(), Told(), Told()
    task = desk.submit(own)
    desk.follow(follower, task)
    desk.hear(text(task, "one", 1), m.Data(task, "loss", b"0.5"), shown(task, 2))
    assert own.texts == follower.texts == ["one", "display_data"]
    assert own.data == follower.data == {"loss": b"0.5"}
    assert own.times_heard == follower.times_heard == 1, "once for all that came together"


def test_text_and_values_may_come_after_the_result() -> None:
    """Nobody but the session holds the promise then, until the last piece is there."""
    desk, own = Desk(), Told()
    task = desk.submit(own)
    alive = weakref.ref(own)
    desk.hear(text(task, "one", 1))
    desk.hear(m.Finished(0, [m.TaskResult(task, m.Status.OK, outputs=3)]))
    texts, data = own.texts, own.data
    del own
    desk.hear(shown(task, 2), m.Data(task, "loss", b"0.5"))
    assert alive() is not None
    desk.hear(text(task, "three", 3))
    assert texts == ["one", "display_data", "three"]
    assert data == {"loss": b"0.5"}
    assert alive() is None
    assert desk.state._writing._late == {}


def test_the_count_is_that_of_the_last_attempt() -> None:
    desk, own = Desk(), Told()
    task = desk.submit(own)
    for number in (1, 2, 3):
        desk.hear(text(task, "failed", number))
    desk.hear(m.Finished(0, [m.TaskResult(task, m.Status.OK, outputs=2, attempt=2)]))
    assert task in desk.state._writing._late
    desk.hear(
        text(task, "first", 1, attempt=2), text(task, "late words", 4), text(task, "second", 2, attempt=2)
    )
    assert own.texts == ["failed"] * 3 + ["first", "late words", "second"]
    assert desk.state._writing._late == {}
    desk.hear(text(task, "lost and found", 5))
    assert own.texts[-1] == "lost and found", "as long as somebody holds the promise"


def test_what_comes_before_the_result_is_not_waited_for_again() -> None:
    desk, own = Desk(), Told()
    task = desk.submit(own)
    desk.hear(text(task, "one", 1), text(task, "two", 2, attempt=2))
    desk.hear(m.Finished(0, [m.TaskResult(task, m.Status.OK, outputs=2, attempt=2)]))
    assert (desk.state._writing._late, desk.state._writing._heard) == ({}, {})


def test_promises_that_wait_for_ever_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "LATE_KEPT", 3)
    desk = Desk()
    tasks = [desk.submit(Told()) for _ in range(5)]
    desk.hear(m.Finished(0, [m.TaskResult(task, m.Status.OK, outputs=1) for task in tasks]))
    assert list(desk.state._writing._late) == tasks[2:]


def test_followers_hear_what_comes_late_too() -> None:
    desk, follower = Desk(), Told()
    desk.follow(follower, of_another())
    desk.hear(m.ResultsAnswer(1, [], [of_another()]), text(of_another(), "one", 1))
    desk.hear(m.Finished(0, [m.TaskResult(of_another(), m.Status.OK, outputs=2)]))
    desk.hear(m.Data(of_another(), "loss", b"0.5"), text(of_another(), "two", 2))
    assert follower.texts == ["one", "two"]
    assert follower.data == {"loss": b"0.5"}
    assert desk.state._writing._late == {}


def test_the_promise_of_a_task_is_found_until_nobody_holds_it() -> None:
    desk, own, follower = Desk(), Told(), Told()
    task = desk.submit(own)
    desk.follow(follower, of_another())
    assert desk.state.promise(task) is own
    assert desk.state.promise(of_another()) is follower
    desk.hear(m.Finished(0, [ok(task)]))
    assert desk.state.promise(task) is own
    del own
    assert desk.state.promise(task) is None
    assert desk.state.promise(of_another(2)) is None


def test_a_value_for_nobody_is_dropped() -> None:
    desk = Desk()
    task = desk.submit(Told())
    news = desk.hear(m.Finished(0, [ok(task)]))
    del news
    assert not desk.hear(m.Data(task, "loss", b"0.5"), m.Data(of_another(), "loss", b"1"))


def test_a_task_whose_engine_died_leaves_no_count_of_its_text() -> None:
    desk, own = Desk(), Told()
    task = desk.submit(own)
    desk.hear(text(task, "one", 1))
    desk.hear(m.Finished(0, [m.TaskResult(task, m.Status.ENGINE_DIED)]))
    assert (desk.state._writing._heard, desk.state._writing._late) == ({}, {})


# ---------------------------------------------------------------- questions


def record(number: int) -> m.HistoryRecord:
    return m.HistoryRecord(
        of_another(number), m.Kind.CALL, "f", "", None, False, EngineId(0), "", 1.0, 0.0, 0.0, False
    )


def test_pages_of_an_answer_come_as_one() -> None:
    desk = Desk()
    desk.state.on_asked(lambda number: m.AskHistory(number, []), desk.link)
    assert not desk.hear(m.HistoryAnswer(1, [record(1)], is_last=False)).answers
    ((question, answer),) = desk.hear(m.HistoryAnswer(1, [record(2)])).answers
    assert isinstance(answer, m.HistoryAnswer)
    assert [one.task for one in answer.records] == [of_another(1), of_another(2)]
    desk.state.questions.on_told(question)
    assert not desk.hear(m.HistoryAnswer(1, [record(3)])).answers


def test_an_answer_that_was_begun_before_a_hello_begins_anew() -> None:
    desk = Desk()
    desk.state.on_asked(lambda number: m.AskResults(number, [of_another()], False), desk.link)
    desk.hear(m.ResultsAnswer(1, [], [of_another(1)], is_last=False))
    desk.hear(m.ClientWelcome("key", "name", [], [], 0, 100, 1 << 20))
    desk.hear(m.ResultsAnswer(1, [], [of_another(1)], is_last=False))
    ((_, answer),) = desk.hear(m.ResultsAnswer(1, [ok(of_another(2))])).answers
    assert isinstance(answer, m.ResultsAnswer)
    assert answer.pending == [of_another(1)]
    assert answer.results == [ok(of_another(2))]


def test_calls_come_with_their_blobs() -> None:
    desk = Desk()
    desk.state.on_asked(lambda number: m.AskCalls(number, [of_another()]), desk.link)
    stored = m.StoredCall(of_another(), OPTIONS, b"payload", (LARGE,))
    pieces = [m.PutBlob(OPTIONS.function, 1, 0, True), m.PutBlob(LARGE, 2, 0, False)]
    ((_, answer),) = desk.hear(*pieces, m.CallsAnswer(1, [stored]), frames=[b"f", b"xy"]).answers
    assert isinstance(answer, FetchedCalls)
    assert {blob: bytes(data) for blob, data in answer.blobs.items()} == {
        OPTIONS.function: b"f",
        LARGE: b"xy",
    }


def test_engines_that_came_and_went_meanwhile_are_told() -> None:
    desk = Desk()
    info = m.EngineInfo(EngineId(0), EngineKey("k0"), "host", 1)
    desk.hear(m.EnginesChanged([info], []))
    assert desk.state.engines.in_order() == {0: info}
    other = m.EngineInfo(EngineId(0), EngineKey("k1"), "host", 2)
    (change,) = desk.hear(m.ClientWelcome("key", "name", [], [other], 0, 100, 1 << 20)).changes
    assert change.joined == [other]
    assert [left.key for left in change.left] == ["k0"]


# ---------------------------------------------------------------- shared memory

BIG = bytes(range(256)) * 2048
HIDDEN = BlobId(b"h" * 16)


class SharingDesk(Desk):
    """A client and an engine of one host."""

    def __init__(self, shared: Path) -> None:
        super().__init__()
        self.own = Sharing.join(str(shared), "a proof", "client-1", limit_bytes=64 << 20)
        self.engine = Sharing.join(str(shared), "a proof", "engine-1", limit_bytes=64 << 20)
        self.state = ClientState(CLIENT, self.own)

    def hello(self) -> m.ClientHello:
        return self.state.hello(b"s", m.Versions("1", (3, 11)), 1)

    def shared(self, blob: BlobId = LARGE) -> m.ShareBlob:
        segment = self.engine.write(memoryview(BIG))
        assert segment is not None
        return m.ShareBlob(blob, segment.size_bytes, False, segment.name)


@pytest.fixture
def sharing_desk(tmp_path: Path) -> Iterator[SharingDesk]:
    directory = sharing.begin(Path("/somewhere"), "a proof", root=tmp_path)
    assert directory is not None
    desk = SharingDesk(directory.path)
    yield desk
    desk.own.close()
    desk.engine.close()
    directory.close()


def test_a_result_is_read_where_it_lies(sharing_desk: SharingDesk) -> None:
    desk, own = sharing_desk, Told()
    assert (desk.hello().pool, desk.state.ledger.shared_from_bytes) == ("client-1", sharing.LEAST_BYTES)
    desk.hear(m.ClientWelcome("key", "name", [], [], 0, 100, 1 << 20))
    task = desk.submit(own)
    record = desk.shared()
    news = desk.hear(record, m.Finished(0, [ok(task, blobs=(LARGE,))]))
    assert own.results == [(m.Status.OK, [BIG])]
    assert isinstance(news.buffers[task][0], memoryview)
    desk.engine.release([record.segment])
    desk.engine.write(memoryview(bytes(len(BIG))))
    assert bytes(news.buffers[task][0]) == BIG, "it is held as long as somebody has it"


def test_what_cannot_be_mapped_comes_again_as_frames(sharing_desk: SharingDesk) -> None:
    desk, own, other = sharing_desk, Told(), Told()
    desk.hello()
    desk.hear(m.ClientWelcome("key", "name", [], [], 0, 100, 1 << 20))
    first, second = desk.submit(own), desk.submit(other)
    question = desk.state.on_asked(lambda number: m.AskResults(number, [of_another()], False), None)
    desk.engine.release([(record := desk.shared()).segment])
    desk.engine.trim()
    desk.hear(
        record,
        m.Finished(0, [ok(first, blobs=(LARGE,))]),
        m.ResultsAnswer(1, [ok(of_another(), blobs=(HIDDEN,))]),
        text(second, "not lost", 1),
        m.Accepted([(1, 2)]),
    )
    assert desk.state.has_missed
    assert (own.results, other.texts, question.done()) == ([], ["not lost"], False)
    hello = desk.hello()
    assert (hello.pool, hello.received) == ("", 0)
    assert not desk.state.has_missed
    assert desk.state.ledger.shared_from_bytes == 0, "nor does it share what it sends"
    desk.hear(
        m.ClientWelcome("key", "name", [(1, 2)], [], 0, 100, 1 << 20),
        m.PutBlob(LARGE, 3, 0, False),
        m.Finished(0, [ok(first, blobs=(LARGE,))]),
        frames=[None, b"all"],
    )
    assert own.results == [(m.Status.OK, [b"all"])]


def test_a_hello_names_what_the_controller_may_have_freed(sharing_desk: SharingDesk) -> None:
    desk = sharing_desk
    desk.hello()
    desk.hear(m.ClientWelcome("key", "name", [], [], 0, 100, 1 << 30))
    for letter in (b"x", b"y"):
        desk.state.ledger.on_submitted(OPTIONS, b"", [Blob(BlobId(letter * 16), BIG, False)], [Told()])
    desk.state.ledger.pump(desk.link)
    copied = [
        (copies, {blob.blob_id: segment.name})
        for copies in desk.state.ledger.take_copies()
        for blob in copies.blobs
        if (segment := desk.own.write(memoryview(blob.data))) is not None
    ]
    for copies, segments in copied:
        desk.state.ledger.on_copied(copies, segments)
    desk.state.ledger.pump(desk.link)
    assert desk.hello().lent == []
    desk.hear(m.Accepted([(2, 2)]))
    ((_, first), (_, second)) = copied
    assert desk.hello().lent == [*second.values()]
    desk.hear(m.FreeSegments([*first.values(), *second.values()]))
    assert desk.own.lent() == []
    desk.hear(m.ClientWelcome("key", "name", [(2, 2)], [], 0, 100, 1 << 30))
    desk.state.ledger.pump(desk.link)
    assert m.ShareBlob not in {type(entry[0]) for entry in desk.link._small}, "it may hold other bytes by now"


def test_copies_for_nobody_are_given_back(sharing_desk: SharingDesk) -> None:
    desk = sharing_desk
    desk.hello()
    desk.hear(m.ClientWelcome("key", "name", [], [], 0, 100, 1 << 30))
    desk.state.ledger.on_submitted(OPTIONS, b"", [Blob(LARGE, BIG, False)], [Told()])
    desk.state.ledger.pump(desk.link)
    (copies,) = desk.state.ledger.take_copies()
    segment = desk.own.write(memoryview(BIG))
    assert segment is not None
    desk.state.on_closed("closed")
    desk.state.ledger.on_copied(copies, {LARGE: segment.name})
    assert desk.own.lent() == [segment.name]
    desk.state.release_unused()
    assert desk.own.lent() == []


def test_a_question_that_cannot_be_sent_is_refused_before_it_is_queued() -> None:
    questions = Questions()
    for value, reason in (
        ([2**70], "can't serialize ints"),
        (list(range(2**40, 2**40 + 120_000)), "has 1.0 MiB"),
    ):
        term = m.Term("label", "in", value)
        with pytest.raises(ValueError, match=f"^the question to the controller .*{reason}"):
            questions.on_asked(lambda number, term=term: m.AskHistory(number, [term]))  # type: ignore[misc]
    with pytest.raises(
        ValueError, match="the question to the controller cannot be sent: Expected `int` <= 10000"
    ):
        questions.on_asked(lambda number: m.StartEngines(number, 20_000))
    assert len(questions) == 0


def test_a_question_that_nobody_waits_for_is_not_repeated() -> None:
    questions = Questions()
    first, second = (questions.on_asked(lambda number: m.StopEngines(number, [])) for _ in range(2))
    first.future.cancel()
    assert questions.on_welcome() == [second.record]
    assert len(questions) == 1
