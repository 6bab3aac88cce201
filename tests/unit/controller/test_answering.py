"""Rows of the store as pages of an answer."""

from __future__ import annotations

import pytest

from enginery.controller import answering
from enginery.controller.answering import answers
from enginery.controller.store.memory import MemoryStore
from enginery.core.inquiries import (
    Asker,
    CallsFound,
    End,
    EndsFound,
    FindCalls,
    FindEnds,
    FindRecords,
    FindResults,
    InquiryFailed,
    RecordsFound,
    ResultsFound,
)
from enginery.errors import HistoryError
from enginery.ids import ClientId, EngineId, EngineKey, TaskId, make_task_id
from enginery.protocol import codec
from enginery.protocol import history as h
from enginery.protocol.messages import (
    MESSAGE_LIMIT,
    CallsAnswer,
    HistoryAnswer,
    Kind,
    ResultsAnswer,
    Status,
    TaskOptions,
    TaskResult,
)

ASKER = Asker(ClientId(1), 7, 0)


def task(number: int) -> TaskId:
    return make_task_id(ClientId(1), number)


def store_with(*facts: h.HistoryFact, **limits: int) -> MemoryStore:
    store = MemoryStore(**limits)
    assert store.append(facts)
    return store


def accepted(number: int, payload: bytes = b"call", **fields: str) -> h.TaskAccepted:
    return h.TaskAccepted(task(number), 1.0 + number, TaskOptions(Kind.CALL, **fields), payload)  # type: ignore[arg-type]


def ended(number: int, status: Status = Status.OK, payload: bytes = b"value", **fields: str) -> h.TaskEnded:
    result = TaskResult(task(number), status, payload, engine=EngineId(3), completed=9.0, **fields)  # type: ignore[arg-type]
    result.engine_key = EngineKey("key")
    return h.TaskEnded(result)


@pytest.mark.parametrize("status", list(Status))
def test_only_what_had_a_payload_is_dropped_with_it(status: Status) -> None:
    store = store_with(accepted(1), ended(1, status), payload_limit_bytes=0)
    (found,) = answers(store, FindResults(ASKER, [task(1)]))
    assert isinstance(found, ResultsFound)
    ((result, _, _),) = found.ended
    if status in (Status.OK, Status.ERROR, Status.UNMET):
        assert result.status is Status.DROPPED
        assert result.detail == f"it ended with {status.name}; its result is no longer kept"
    else:
        assert result.status is status
    assert (result.engine, result.completed, result.payload) == (EngineId(3), 9.0, b"")


def test_a_task_that_no_life_of_the_controller_has_ended() -> None:
    (found,) = answers(store_with(accepted(1)), FindResults(ASKER, [task(1)]))
    assert isinstance(found, ResultsFound)
    result = found.ended[0].result
    assert result.status is Status.UNKNOWN
    assert result.detail.startswith("the controller that had accepted it has ended")


def test_every_page_is_fit_to_be_sent() -> None:
    large = 1 << 20
    facts: list[h.HistoryFact] = []
    for number in range(40):
        facts.append(accepted(number, b"c" * 60_000, name="n" * 50_000, label="l" * 50_000))
        facts.append(
            ended(number, payload=b"v" * 60_000, stdout="é" * large, stderr="x" * large, detail="d" * 50_000)
        )
    facts += accepted(40, b"c" * large), ended(40, payload=b"v" * large)
    store = store_with(*facts, payload_limit_bytes=1 << 30)
    asked = [task(number) for number in range(50)]
    tasks: dict[str, int] = {"results": 0, "calls": 0, "missing": 0, "records": 0}
    for inquiry in (FindResults(ASKER, asked), FindCalls(ASKER, asked), FindRecords(ASKER, [], True)):
        pages = list(answers(store, inquiry))
        assert [page.is_last for page in pages] == [False] * (len(pages) - 1) + [True]
        for page in pages:
            match page:
                case ResultsFound():
                    tasks["results"] += len(page.ended)
                    said = [saying for end in page.ended for saying in end.said]
                    records = [*said, ResultsAnswer(7, [end.result for end in page.ended])]
                case CallsFound():
                    tasks["calls"] += len(page.calls)
                    tasks["missing"] += len(page.missing)
                    records = [CallsAnswer(7, page.calls, page.missing)]
                case RecordsFound():
                    tasks["records"] += len(page.records)
                    records = [HistoryAnswer(7, page.records)]
            assert all(len(codec.encode(0, 0, 0, [record])) <= MESSAGE_LIMIT for record in records)
    assert tasks == {"results": 50, "calls": 40, "missing": 10, "records": 41}


def test_missing_calls_are_paged_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "PAGE_ITEMS", 10)
    pages = list(answers(MemoryStore(), FindCalls(ASKER, [task(number) for number in range(25)])))
    assert [len(page.missing) for page in pages if isinstance(page, CallsFound)] == [10, 10, 5]


def test_ends_of_tasks_that_others_depend_on() -> None:
    store = store_with(accepted(1), ended(1), accepted(2), ended(2, Status.ABORTED), accepted(3))
    inquiry = FindEnds([(task(8), (task(1), task(3))), (task(9), (task(2), task(4)))])
    ends = {
        task(1): End(True, EngineId(3), EngineKey("key")),
        task(2): End(False, EngineId(3), EngineKey("key")),
    }
    assert list(answers(store, inquiry)) == [EndsFound(inquiry, ends)]


def test_a_store_that_fails_is_an_answer() -> None:
    class BrokenStore(MemoryStore):
        def find(self, *arguments: object, **options: object):  # type: ignore[no-untyped-def]
            raise HistoryError("history.sqlite", "cannot be read (bad disk)", "check the disk")

    inquiry = FindResults(ASKER, [task(1)])
    assert list(answers(BrokenStore(), inquiry)) == [
        InquiryFailed(inquiry, "the history history.sqlite cannot be read (bad disk); check the disk")
    ]
