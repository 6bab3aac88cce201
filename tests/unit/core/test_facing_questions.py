"""What clients ask about tasks of anybody, and what they hear: over the whole hub and a history in memory."""

from __future__ import annotations

from typing import Any

import pytest

from enginery.controller.answering import PIECE_CHARACTERS
from enginery.controller.store.store import DISPLAYS_LIMIT_BYTES, TEXT_LIMIT_BYTES
from enginery.core import facing_questions, outbound
from enginery.core.inquiries import FindRecords, InquiryFailed
from enginery.core.late_texts import LATE_S
from enginery.core.orders import ANSWER_WAIT_S
from enginery.core.state import Identity
from enginery.ids import BlobId, EngineId, TaskId
from enginery.protocol import history as h
from enginery.protocol import messages as m
from enginery.protocol.link import Link
from tests.unit.core.builders import F, options, result, task_id
from tests.unit.core.hub_bench import VERSIONS, HubBench

R, X = BlobId(b"r" * 16), BlobId(b"x" * 16)
OPTIONS = options()
FAR = task_id(99)


class Site(HubBench):
    """A client that submits, one that asks, and an engine."""

    def __init__(self) -> None:
        super().__init__()
        self.owner, self.asker = self.client(1), self.client(2)
        self.worker, self.controls = self.engine(), self.control()
        self.put(self.owner)
        self.results = 0

    def submit(self, *numbers: int, engines: tuple[int, ...] = (), blobs: tuple[BlobId, ...] = ()) -> None:
        calls = [m.Call(number, b"p", blobs, tuple(map(EngineId, engines))) for number in numbers]
        self.say(self.owner, m.Submit(OPTIONS, calls))
        self.hub.settle(now=self.now)

    def end(self, number: int, *, blobs: tuple[BlobId, ...] = (), **fields: Any) -> None:
        answer = result(number)
        answer.payload, answer.blobs = b"value", blobs
        for name, value in fields.items():
            setattr(answer, name, value)
        self.say(self.worker, m.Results(self.results, [answer]))
        self.results += 1
        self.hub.settle(now=self.now)

    def ask(self, question: m.Record, peer: Identity | None = None) -> list[m.Record]:
        """Ask as the other client; what it hears when the history has been asked."""
        peer = peer or self.asker
        self.heard(peer)
        self.say(peer, question)
        before = self.heard(peer)
        self.commit()
        return before + self.heard(peer)


def results_of(records: list[m.Record]) -> list[m.TaskResult]:
    return [result for record in records if isinstance(record, m.ResultsAnswer) for result in record.results]


# ---------------------------------------------------------------- queues


def test_queues_count_direct_and_balanced_tasks_apart() -> None:
    site = Site()
    site.submit(1, 2, engines=(0,))
    site.submit(3, 4)
    (answer,) = site.ask(m.AskQueues(7, []))
    assert answer == m.QueuesAnswer(7, [m.EngineQueues(EngineId(0), queue=2, tasks=0, completed=0)], 2)
    (answer,) = site.ask(m.AskQueues(8, [EngineId(0)], verbose=True))
    assert isinstance(answer, m.QueuesAnswer)
    assert answer.engines[0].queue_ids == [task_id(1), task_id(2)]
    assert answer.unassigned_ids == [task_id(3), task_id(4)]
    site.end(1)
    site.end(2)
    (answer,) = site.ask(m.AskQueues(9, [], verbose=True))
    assert isinstance(answer, m.QueuesAnswer)
    (queues,) = answer.engines
    assert (queues.queue, queues.tasks, queues.task_ids) == (0, 1, [task_id(3)])
    assert (queues.completed, queues.completed_ids) == (2, [task_id(1), task_id(2)])
    assert (answer.unassigned, answer.unassigned_ids) == (1, [task_id(4)])


def test_queues_of_an_engine_that_is_not_there() -> None:
    site = Site()
    error = "there is no engine 5; the engines are: 0"
    assert site.ask(m.AskQueues(7, [EngineId(0), EngineId(5)])) == [m.QueuesAnswer(7, [], 0, error=error)]


def test_long_queues_come_in_pages_and_their_ids_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facing_questions, "PAGE_BYTES", 300)
    monkeypatch.setattr(facing_questions, "QUEUE_IDS", 10)
    site = Site()
    site.engine("e1")
    site.submit(*range(1, 31), engines=(0,))
    site.submit(*range(31, 61), engines=(1,))
    pages = site.ask(m.AskQueues(7, [], verbose=True))
    assert [page.is_last for page in pages] == [False, True]  # type: ignore[attr-defined]
    found = [queues for page in pages for queues in page.engines]  # type: ignore[attr-defined]
    counted = [(queues.engine, queues.queue, len(queues.queue_ids)) for queues in found]
    assert counted == [(0, 30, 10), (1, 30, 10)]


# ---------------------------------------------------------------- results


def test_a_result_of_another_client_with_its_blobs_before_it() -> None:
    site = Site()
    site.submit(1)
    site.put(site.worker, R, b"array", keep=False)
    site.end(1, blobs=(R,), stdout="printed\n")
    answer = site.ask(m.AskResults(7, [task_id(1)]))
    assert [type(record) for record in answer] == [m.Output, m.PutBlob, m.ResultsAnswer]
    assert answer[0].text == "printed\n"  # type: ignore[attr-defined]
    (found,) = results_of(answer)
    assert (found.status, found.payload, found.blobs) == (m.Status.OK, b"value", (R,))
    assert (found.engine, found.started, found.completed) == (EngineId(0), 1.0, 1.1)


def test_results_are_found_when_their_client_has_left() -> None:
    site = Site()
    site.submit(1, 2)
    site.put(site.worker, R, b"array", keep=False)
    site.end(1, blobs=(R,))
    site.say(site.owner, m.Goodbye())
    site.end(2)
    found = results_of(site.ask(m.AskResults(7, [task_id(2), task_id(1), task_id(2)])))
    assert [(one.task, one.status) for one in found] == [(task_id(1), m.Status.OK), (task_id(2), m.Status.OK)]


def test_unknown_ids_are_said_to_be_unknown() -> None:
    site = Site()
    (found,) = results_of(site.ask(m.AskResults(7, [FAR])))
    assert (found.task, found.status, found.detail) == (
        FAR, m.Status.UNKNOWN, "nobody knows a task of this id",
    )  # fmt: skip


def test_asking_for_nothing_is_answered() -> None:
    assert Site().ask(m.AskResults(7, [])) == [m.ResultsAnswer(7, [])]


def test_a_result_without_its_blobs_is_dropped_but_its_times_are_known() -> None:
    site = Site()
    site.submit(1)
    site.put(site.worker, R, b"array", keep=False)
    site.end(1, blobs=(R,), stdout="printed\n")
    site.say(site.owner, m.Received(1))
    site.hub.state.ended_blobs.clear()
    text, answer = site.ask(m.AskResults(7, [task_id(1)]))
    (found,) = results_of([answer])
    assert (found.status, found.payload, found.blobs) == (m.Status.DROPPED, b"", ())
    assert found.detail == "it ended with OK; its large buffers are no longer kept"
    assert (found.engine, found.completed) == (EngineId(0), 1.1)
    assert text == m.Output(task_id(1), EngineId(0), "stdout", "printed\n", m.RECORDED, 1)


def test_a_pending_task_is_delivered_to_who_watches_it_and_to_its_owner_once() -> None:
    site = Site()
    site.submit(1, 2)
    assert site.ask(m.AskResults(7, [task_id(1), FAR])) == [
        m.ResultsAnswer(7, [], [task_id(1)], is_last=False),
        m.ResultsAnswer(7, [m.TaskResult(FAR, m.Status.UNKNOWN, detail="nobody knows a task of this id")]),
    ]
    assert site.ask(m.AskResults(8, [task_id(1)]), site.owner) == [m.ResultsAnswer(8, [], [task_id(1)])]
    site.put(site.worker, R, b"array", keep=False)
    site.end(1, blobs=(R,))
    site.end(2)
    for peer, tasks in ((site.asker, [task_id(1)]), (site.owner, [task_id(1), task_id(2)])):
        heard = site.heard(peer)
        ended = [one.task for record in heard if isinstance(record, m.Finished) for one in record.results]
        assert ended == tasks
        assert isinstance(heard[0], m.PutBlob)
    assert not any(isinstance(fact, h.TaskDelivered) for fact in site.commit())
    site.say(site.asker, m.Received(1))
    assert site.commit() == [], "the task's own client has not got it"
    site.say(site.owner, m.Received(1))
    assert site.commit() == [h.TaskDelivered(task_id(1))]


def test_without_watching_a_pending_task_is_only_named() -> None:
    site = Site()
    site.submit(1)
    site.ask(m.AskResults(7, [task_id(1)], watch=False))
    site.end(1)
    assert site.heard(site.asker) == []


def test_a_watcher_hears_what_was_said_before_and_after() -> None:
    site = Site()
    site.submit(1)
    site.say(site.controls, m.EngineOutput(task_id(1), "stdout", "a"), m.EngineData(task_id(1), "x", b"1"))
    heard = site.ask(m.AskResults(7, [task_id(1)]))
    assert heard[1:] == [m.Output(task_id(1), EngineId(0), "stdout", "a"), m.Data(task_id(1), "x", b"1")]
    site.end(1)
    site.say(site.controls, m.EngineOutput(task_id(1), "stdout", "late"), m.EngineData(task_id(1), "x", b"2"))
    heard = site.heard(site.asker)
    assert [type(record) for record in heard] == [m.Finished, m.Output, m.Data]
    assert site.heard_names(site.owner).count("Output") == 2
    later = site.ask(m.AskResults(8, [task_id(1)]))
    assert later[0] == m.Data(task_id(1), "x", b"2")
    assert later[1] == m.Output(task_id(1), EngineId(0), "stdout", "alate", m.RECORDED, 1)
    assert (results_of(later)[0].attempt, results_of(later)[0].outputs) == (m.RECORDED, 1)


def test_a_watcher_hears_how_far_a_task_is_and_who_comes_later_what_it_has_reported() -> None:
    site = Site()
    site.submit(1)
    for done in (1, 2):
        site.say(site.controls, m.EngineProgress(task_id(1), 1, 10, done, 0, 0, m.Report(done / 10)))
    heard = site.ask(m.AskResults(7, [task_id(1)]))
    (how_far,) = [record for record in heard if isinstance(record, m.Progress)]
    assert how_far == m.Progress(task_id(1), EngineId(0), 1, 10, 2, 0, 0, m.Report(0.2))
    last = m.Report(1.0, "done")
    site.end(1, report=last)
    (delivered,) = [record for record in site.heard(site.asker) if isinstance(record, m.Finished)]
    assert delivered.results[0].report == last
    assert results_of(site.ask(m.AskResults(8, [task_id(1)])))[0].report == last


def test_the_last_text_is_recorded_behind_what_comes_late() -> None:
    site = Site()
    site.submit(1)
    site.end(1, outputs=2, stdout="c")
    site.heard(site.asker)
    site.say(site.asker, m.AskResults(7, [task_id(1)]))
    site.commit()
    assert site.heard(site.asker) == [], "what it would be told is not all there is"
    site.say(site.controls, m.EngineOutput(task_id(1), "stdout", "a", 1, 1))
    assert site.heard(site.asker) == []
    site.say(site.controls, m.EngineOutput(task_id(1), "stdout", "b", 1, 2))
    site.heard(site.asker)
    site.commit()
    text, answer = site.heard(site.asker)
    assert text == m.Output(task_id(1), EngineId(0), "stdout", "abc", m.RECORDED, 1)
    assert isinstance(answer, m.ResultsAnswer)
    assert (answer.request, answer.results[0].outputs) == (7, 1)
    owner = [record for record in site.heard(site.owner) if isinstance(record, m.Finished)]
    assert owner[0].results[0].stdout == "c", "who has the task is told at once"


@pytest.mark.parametrize("how", ["time", "engine"])
def test_nobody_waits_for_ever_for_what_was_lost(how: str) -> None:
    site = Site()
    site.submit(1, 2)
    site.end(1, outputs=2, stdout="b")
    site.say(site.controls, m.EngineOutput(task_id(1), "stdout", "a", 1, 1))
    site.heard(site.asker)
    site.say(site.asker, m.AskResults(7, [task_id(1)]))
    site.commit()
    if how == "time":
        site.wait(LATE_S)
    else:
        site.say(site.worker, m.Goodbye())
    site.heard(site.asker)
    site.commit()
    text, _ = site.heard(site.asker)
    assert text == m.Output(task_id(1), EngineId(0), "stdout", "ab", m.RECORDED, 1)


def test_who_has_left_meanwhile_is_not_answered() -> None:
    site = Site()
    site.submit(1)
    site.end(1, outputs=1)
    site.say(site.asker, m.AskResults(7, [task_id(1)]))
    site.say(site.asker, m.Goodbye())
    site.say(site.controls, m.EngineOutput(task_id(1), "stdout", "a", 1, 1))
    site.hub.settle(now=site.now)
    assert not site.hub.has_inquiries


def test_an_engine_publishes_for_its_own_tasks_only() -> None:
    site = Site()
    site.submit(1)
    site.heard(site.owner)
    site.say(site.controls, m.EngineData(FAR, "x", b"1"), m.EngineOutput(FAR, "stdout", "a"))
    assert site.heard(site.owner) == []
    assert not any(isinstance(fact, (h.TaskData, h.TaskText)) for fact in site.commit())


def test_displays_come_before_the_result_of_whoever_asks_later() -> None:
    site = Site()
    site.submit(1)
    site.say(
        site.controls,
        m.EngineDisplay(task_id(1), "display_data", b"ab", 0, False, 1, 1),
        m.EngineDisplay(task_id(1), "display_data", b"c", 2, True, 1, 2),
    )
    site.end(1, stdout="text")
    site.heard(site.owner)
    heard = site.ask(m.AskResults(7, [task_id(1)]))
    assert heard[:-1] == [
        m.Output(task_id(1), EngineId(0), "stdout", "text", m.RECORDED, 1),
        m.Display(task_id(1), EngineId(0), "display_data", b"ab", 0, False, m.RECORDED, 2),
        m.Display(task_id(1), EngineId(0), "display_data", b"c", 2, True, m.RECORDED, 3),
    ]
    assert results_of(heard)[0].outputs == 3


def test_what_is_not_kept_is_said() -> None:
    site = Site()
    site.submit(1)
    for letter in (b"a", b"b"):
        half = letter * (DISPLAYS_LIMIT_BYTES // 2 + 1)
        site.say(site.controls, m.EngineDisplay(task_id(1), "display_data", half))
    site.say(site.controls, m.EngineOutput(task_id(1), "stdout", "x" * TEXT_LIMIT_BYTES))
    site.end(1, stdout="y")
    heard = site.ask(m.AskResults(7, [task_id(1)]))
    texts = [record for record in heard if isinstance(record, m.Output)]
    assert "".join(text.text for text in texts if text.stream == "stdout") == (
        "[of this text only the last 1 MiB are kept]\n" + "x" * (TEXT_LIMIT_BYTES - 1) + "y"
    )
    assert [text.text for text in texts if text.stream == "stderr"] == [
        "[of what was displayed only the last 8 MiB are kept]\n"
    ]
    (display,) = [record for record in heard if isinstance(record, m.Display)]
    assert display.content[:1] == b"b"


def test_text_comes_in_pieces_before_the_result() -> None:
    site = Site()
    site.submit(1)
    written = "x" * PIECE_CHARACTERS + "y"
    site.end(1, stdout=written, stderr="z")
    heard = site.ask(m.AskResults(7, [task_id(1)]))
    texts = [record for record in heard if isinstance(record, m.Output)]
    (found,) = results_of(heard)
    assert (found.stdout, found.stderr, found.outputs) == ("", "", len(texts))
    assert "".join(text.text for text in texts if text.stream == "stdout") == written
    assert "".join(text.text for text in texts if text.stream == "stderr") == "z"


def test_many_results_come_in_pages_fit_to_be_sent() -> None:
    site = Site()
    numbers = range(1, 41)
    for number in numbers:
        site.submit(number)
        site.end(number, payload=b"x" * 60_000)
    pages = site.ask(m.AskResults(7, [task_id(number) for number in numbers]))
    assert [page.is_last for page in pages] == [False] * (len(pages) - 1) + [True]  # type: ignore[attr-defined]
    assert len(pages) == 10
    assert [one.task for one in results_of(pages)] == [task_id(number) for number in numbers]


def test_what_was_asked_before_a_hello_is_not_answered_after_it() -> None:
    site = Site()
    site.say(site.asker, m.AskResults(7, [FAR]))
    link = Link(2)
    site.hub.on_hello(m.ClientHello(site.asker[1], b"s", VERSIONS, 1), link, now=site.now)  # type: ignore[arg-type]
    site.links[site.asker] = link
    site.commit()
    assert site.heard_names(site.asker) == ["ClientWelcome"]
    assert site.hub.state.open_inquiries == 0


def test_too_many_questions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "QUESTIONS_WAITING", 2)
    monkeypatch.setattr(facing_questions, "OPEN_INQUIRIES", 1)
    site = Site()
    site.heard(site.asker)
    site.say(site.asker, *(m.AskResults(number, [FAR]) for number in (1, 2, 3)), m.AskHistory(4, []))
    site.say(site.owner, *(m.PurgeHistory(number, [FAR], []) for number in (1, 2)))
    too_many = facing_questions.TOO_MANY
    assert site.heard(site.asker) == [m.Answer(3, too_many), m.HistoryAnswer(4, [], error=too_many)]
    assert site.heard(site.owner)[-1] == m.Answer(2, too_many)
    site.commit()
    assert [record.request for record in site.heard(site.asker)] == [1, 2]  # type: ignore[attr-defined]
    site.say(site.asker, m.AskResults(5, [FAR]))
    site.commit()
    assert [record.request for record in site.heard(site.asker)] == [5]  # type: ignore[attr-defined]


# ---------------------------------------------------------------- calls and records


def test_a_call_comes_with_its_function_and_blobs() -> None:
    site = Site()
    site.put(site.owner, X, b"array", keep=False)
    depends = options(after=m.Dependency((task_id(1),)), label="night", retries=2)
    site.submit(1)
    site.say(site.owner, m.Submit(depends, [m.Call(2, b"p", (X,))]))
    site.end(1)
    site.end(2)
    heard = site.ask(m.AskCalls(7, [task_id(2), FAR]))
    assert [record.blob for record in heard if isinstance(record, m.PutBlob)] == [F, X]
    assert heard[-1] == m.CallsAnswer(
        7, [m.StoredCall(task_id(2), options(label="night", retries=2), b"p", (X,))], [FAR]
    )


def test_a_call_whose_blobs_are_gone_is_missing() -> None:
    site = Site()
    site.put(site.owner, X, b"array", keep=False)
    site.submit(1, blobs=(X,), engines=(0,))
    site.end(1)
    site.hub.state.ended_blobs.clear()
    assert site.ask(m.AskCalls(7, [task_id(1)])) == [m.CallsAnswer(7, [], [task_id(1)])]


def test_records_of_the_history() -> None:
    site = Site()
    site.submit(1, engines=(0,))
    site.submit(2)
    site.end(1, stdout="printed\n")
    plain = m.HistoryRecord(
        task_id(1),
        m.Kind.CALL,
        "f",
        "",
        m.Status.OK,
        True,
        EngineId(0),
        "e0",
        10.0,
        1.0,
        1.1,
        False,
        first=task_id(1),
    )
    terms = [m.Term("status", "eq", 0)]
    assert site.ask(m.AskHistory(7, terms)) == [m.HistoryAnswer(7, [plain])]
    (answer,) = site.ask(m.AskHistory(8, terms, with_payloads=True))
    assert isinstance(answer, m.HistoryAnswer)
    (record,) = answer.records
    assert (record.stdout, record.call, record.result) == ("printed\n", b"p", b"value")
    (answer,) = site.ask(m.AskHistory(9, []))
    assert isinstance(answer, m.HistoryAnswer)
    assert [(one.task, one.status) for one in answer.records] == [
        (task_id(1), m.Status.OK),
        (task_id(2), None),
    ]


def test_a_malformed_term_is_answered_with_a_sentence() -> None:
    (answer,) = Site().ask(m.AskHistory(7, [m.Term("status", "le", 1)]))
    assert isinstance(answer, m.HistoryAnswer)
    assert answer.error.startswith("there is no operator 'le'; the operators are: eq ne lt")


def test_a_history_that_cannot_be_read_is_an_answer_too() -> None:
    site = Site()
    for question in (
        m.AskResults(1, [FAR]),
        m.AskCalls(2, [FAR]),
        m.PurgeHistory(3, [], [], everything=True),
    ):
        site.say(site.asker, question)
    site.say(site.asker, m.AskHistory(4, []))
    heard = site.heard(site.asker)
    while site.hub.has_inquiries:
        for inquiry in site.hub.take_inquiries():
            site.hub.on_found(InquiryFailed(inquiry, "the disk is gone"), now=site.now)  # type: ignore[arg-type]
        heard += site.heard(site.asker)
    assert heard[-4:] == [
        *(m.Answer(request, "the disk is gone") for request in (3, 1, 2)),
        m.HistoryAnswer(4, [], error="the disk is gone"),
    ]
    assert site.hub.state.open_inquiries == 0


def test_an_inquiry_carries_the_question() -> None:
    site = Site()
    site.say(site.asker, m.AskHistory(4, [m.Term("name", "eq", "f")], with_payloads=True))
    site.heard(site.asker)
    (inquiry,) = site.hub.take_inquiries()
    assert isinstance(inquiry, FindRecords)
    assert (inquiry.terms, inquiry.with_payloads) == ([m.Term("name", "eq", "f")], True)
    assert site.hub.take_inquiries() == []


# ---------------------------------------------------------------- forgetting


def known(site: Site) -> list[TaskId]:
    return [row.task for row in site.store.search([], with_payloads=False)]


def test_named_tasks_are_purged_with_their_blobs() -> None:
    site = Site()
    site.put(site.owner, X, b"array", keep=False)
    site.submit(1, blobs=(X,))
    site.submit(2)
    site.end(1)
    site.end(2)
    assert site.ask(m.PurgeHistory(7, [task_id(1)], [])) == [m.Answer(7)]
    site.commit()
    assert known(site) == [task_id(2)]
    assert site.hub.state.blobs.missing([X]) == [X]
    (found,) = results_of(site.ask(m.AskResults(8, [task_id(1)])))
    assert found.status is m.Status.UNKNOWN


def test_pending_and_unknown_tasks_are_not_purged() -> None:
    site = Site()
    site.submit(1, 2)
    site.end(1)
    error = "task 00000001-2 cannot be purged before the end: wait for it, or abort what has not started"
    assert site.ask(m.PurgeHistory(7, [task_id(1), task_id(2)], [])) == [m.Answer(7, error)]
    error = "nobody knows task 00000001-99: never submitted, or forgotten already"
    assert site.ask(m.PurgeHistory(8, [task_id(1), FAR], [])) == [m.Answer(8, error)]
    error = "no engine 5 has ever been registered"
    assert site.ask(m.PurgeHistory(9, [], [EngineId(5)])) == [m.Answer(9, error)]
    site.commit()
    assert known(site) == [task_id(1), task_id(2)]


def test_tasks_of_an_engine_that_has_left_are_purged() -> None:
    site = Site()
    other = site.engine("e1")
    site.submit(1, engines=(0,))
    site.submit(2, engines=(1,))
    site.submit(3, engines=(1,))
    site.say(other, m.Results(0, [result(2)]))
    site.say(other, m.Goodbye())
    site.submit(4, engines=(0,))
    site.end(1)
    assert site.ask(m.PurgeHistory(7, [], [EngineId(1)])) == [m.Answer(7)]
    site.commit()
    assert known(site) == [task_id(1), task_id(4)]


def test_everything_is_what_has_ended() -> None:
    site = Site()
    site.submit(1, 2, 3)
    site.end(1)
    site.end(2)
    assert site.ask(m.PurgeHistory(7, [], [], everything=True)) == [m.Answer(7)]
    site.commit()
    assert known(site) == [task_id(3)]


# ---------------------------------------------------------------- dependencies on what the memory has lost


def test_the_scheduler_is_told_of_tasks_in_the_history() -> None:
    site = Site()
    site.submit(1)
    site.end(1)
    site.commit()
    site.hub.state.scheduler._dependencies._ended.__init__(0)  # type: ignore[misc]
    depends = m.Submit(options(after=m.Dependency((task_id(1),))), [m.Call(2, b"p")])
    stranger = m.Submit(options(after=m.Dependency((TaskId(9 << 32 | 1),))), [m.Call(3, b"p")])
    site.say(site.owner, depends, stranger)
    site.hub.settle(now=site.now)
    assert site.hub.state.scheduler.statistics().waiting == 2
    site.heard(site.worker)
    site.commit()
    assert [call.task for record in site.heard(site.worker) for call in record.calls] == [task_id(2)]  # type: ignore[attr-defined]
    assert site.hub.state.scheduler.task(task_id(3)) is None
    assert site.hub.state.open_inquiries == 0


# ---------------------------------------------------------------- orders to engines


def test_namespaces_are_cleared_on_all_engines_before_the_answer() -> None:
    site = Site()
    site.engine("e1")
    other = site.control("e1")
    site.heard(other)
    assert site.ask(m.ClearEngines(7, [])) == []
    (order,) = [record for record in site.heard(site.controls) if isinstance(record, m.ClearNamespace)]
    assert site.heard(other) == [order]
    site.say(site.controls, m.Obeyed(order.order), m.Obeyed(order.order), m.Obeyed(99))
    assert site.heard(site.asker) == []
    site.say(other, m.Obeyed(order.order))
    assert site.heard(site.asker) == [m.Answer(7, engines=[EngineId(0), EngineId(1)])]


def test_an_engine_that_is_away_is_told_at_its_hello() -> None:
    site = Site()
    site.lose(site.controls)
    site.say(site.asker, m.ClearEngines(7, [EngineId(0)]))
    again = site.control()
    assert [record for record in site.heard(again) if isinstance(record, m.ClearNamespace)] == [
        m.ClearNamespace(1)
    ]


def test_an_engine_that_leaves_is_not_waited_for() -> None:
    site = Site()
    site.heard(site.asker)
    site.say(site.asker, m.ClearEngines(7, []))
    site.say(site.worker, m.Goodbye())
    assert m.Answer(7, engines=[EngineId(0)]) in site.heard(site.asker)


def test_an_order_that_is_not_carried_out_in_time_is_answered() -> None:
    site = Site()
    site.heard(site.asker)
    site.say(site.asker, m.ClearEngines(7, []))
    site.wait(ANSWER_WAIT_S)
    error = (
        "not heard within 10 s that the namespace was cleared from engine 0; "
        "it may be in the middle of a call that does not let go"
    )
    assert [record for record in site.heard(site.asker) if isinstance(record, m.Answer)] == [
        m.Answer(7, error)
    ]


def test_clearing_nothing_and_strangers() -> None:
    site = Site()
    error = "there is no engine 5; the engines are: 0"
    assert site.ask(m.ClearEngines(7, [EngineId(5)])) == [m.Answer(7, error)]
    site.say(site.worker, m.Goodbye())
    assert site.ask(m.ClearEngines(8, [])) == [m.Answer(8)]
