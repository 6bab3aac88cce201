"""What the history says to an inquiry, page by page: rows of the store as records of the protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

from enginery.controller.store.conditions import MalformedTerm, parse_terms
from enginery.controller.store.rows import TaskRow
from enginery.controller.store.store import DISPLAYS_LIMIT_BYTES, TEXT_LIMIT_BYTES, HistoryStore
from enginery.core.deliveries import result_size, said_size
from enginery.core.inquiries import (
    CallsFound,
    DeliveriesFound,
    End,
    Ended,
    EndedFound,
    EndsFound,
    FindCalls,
    FindDeliveries,
    FindEnded,
    FindEnds,
    FindRecords,
    FindResults,
    Found,
    Inquiry,
    InquiryFailed,
    RecordsFound,
    ResultsFound,
    call_size,
    list_tasks,
    record_size,
)
from enginery.errors import HistoryError
from enginery.ids import EngineKey, TaskId
from enginery.protocol.messages import (
    RECORDED,
    Data,
    Display,
    HistoryRecord,
    Output,
    Status,
    StoredCall,
    TaskResult,
    text_size,
)

Item = TypeVar("Item")

PAGE_BYTES = 1 << 18
PAGE_ITEMS = 1000
ITEM_BYTES = 900 << 10
"""A record with one such item is still fit to be sent."""
PIECE_CHARACTERS = 100_000
RECORD_TEXT_CHARACTERS = 50_000
"""What a record of the history shows of each text, the last of it; all of it comes with the result."""
RECORD_PAYLOAD_BYTES = 1 << 17
"""Larger ones a record leaves out; with what makes them they are never sent inside one."""

_WITH_PAYLOAD = (Status.OK, Status.ERROR, Status.UNMET)


def answers(store: HistoryStore, inquiry: Inquiry) -> Iterator[Found]:
    """All pages of an answer, one at least; the last one says so."""
    try:
        match inquiry:
            case FindResults():
                yield from _results(store, inquiry)
            case FindDeliveries():
                yield from _deliveries(store, inquiry)
            case FindCalls():
                yield from _calls(store, inquiry)
            case FindRecords():
                yield from _records(store, inquiry)
            case FindEnded():
                yield _ended(store, inquiry)
            case FindEnds():
                yield _ends(store, inquiry)
    except (HistoryError, MalformedTerm) as error:
        yield InquiryFailed(inquiry, str(error))


def _pages(items: Iterable[Item], size_of: Callable[[Item], int]) -> Iterator[tuple[list[Item], bool]]:
    """Groups that are fit for one record, and whether each is the last. The last may be empty."""
    page: list[Item] = []
    weight = 0
    for item in items:
        size = size_of(item)
        if page and (weight + size > PAGE_BYTES or len(page) >= PAGE_ITEMS):
            yield page, False
            page, weight = [], 0
        page.append(item)
        weight += size
    yield page, True


# ---------------------------------------------------------------- results


def _results(store: HistoryStore, inquiry: FindResults) -> Iterator[Found]:
    for page, is_last in _pages(_ends_of(store, inquiry.tasks), _end_size):
        yield ResultsFound(inquiry.asker, page, is_last)


def _deliveries(store: HistoryStore, inquiry: FindDeliveries) -> Iterator[Found]:
    for page, is_last in _pages(_ends_of(store, inquiry.tasks), _end_size):
        yield DeliveriesFound(inquiry.client, page, is_last)


def _ends_of(store: HistoryStore, tasks: Iterable[TaskId]) -> Iterator[Ended]:
    unknown = dict.fromkeys(tasks)
    for row in store.find(list(unknown)):
        del unknown[row.task]
        yield _end_of(store, row)
    for task in unknown:
        yield Ended(TaskResult(task, Status.UNKNOWN, detail="nobody knows a task of this id"), [], {})


def _end_size(end: Ended) -> int:
    return result_size(end.result) + 17 * len(end.result.blobs) + said_size(end.said)


def _end_of(store: HistoryStore, row: TaskRow) -> Ended:
    """A task's end, and all that it has said.

    Text is never inside the result: who has heard it before can tell that this is the same once more.
    """
    if row.status is None:
        detail = "the controller that had accepted it has ended, and this one does not know of it"
        return Ended(TaskResult(row.task, Status.UNKNOWN, submitted=row.submitted, detail=detail), [], {})
    said = [*_texts(row), *_displays(row)]
    for number, saying in enumerate(said, 1):
        saying.attempt, saying.number = RECORDED, number
    result = TaskResult(
        row.task,
        row.status,
        row.payload or b"",
        row.blobs,
        row.engine,
        row.submitted,
        row.started,
        row.completed,
        outputs=len(said),
        detail=row.detail,
        attempt=RECORDED,
        engine_key=EngineKey(row.engine_key),
        report=row.published.report,
    )
    is_dropped = row.payload is None and row.status in _WITH_PAYLOAD
    if is_dropped or result_size(result) > ITEM_BYTES:
        result.status, result.payload, result.blobs = Status.DROPPED, b"", ()
        result.detail = f"it ended with {row.status.name}; its result is no longer kept"
    buffers = {}
    if row.buffer_bytes:
        found = ((blob, store.buffer(blob)) for blob in result.blobs)
        buffers = {blob: buffer for blob, buffer in found if buffer is not None}
    values = [Data(row.task, name, payload) for name, payload in row.published.values.items()]
    return Ended(result, [*values, *said], buffers)


def _texts(row: TaskRow) -> Iterator[Output]:
    for stream, text in (("stdout", row.stdout), ("stderr", row.stderr)):
        if text_size(text) >= TEXT_LIMIT_BYTES:
            cut = f"[of this text only the last {TEXT_LIMIT_BYTES >> 20} MiB are kept]\n"
            yield Output(row.task, row.engine, stream, cut)
        for start in range(0, len(text), PIECE_CHARACTERS):
            yield Output(row.task, row.engine, stream, text[start : start + PIECE_CHARACTERS])


def _displays(row: TaskRow) -> Iterator[Output | Display]:
    if row.published.dropped:
        cut = f"[of what was displayed only the last {DISPLAYS_LIMIT_BYTES >> 20} MiB are kept]\n"
        yield Output(row.task, row.engine, "stderr", cut)
    for kept in row.published.displays:
        yield Display(row.task, row.engine, kept.kind, kept.content, kept.offset, kept.is_last)


# ---------------------------------------------------------------- calls and records


def _calls(store: HistoryStore, inquiry: FindCalls) -> Iterator[Found]:
    def calls() -> Iterator[StoredCall | TaskId]:
        unknown = dict.fromkeys(inquiry.tasks)
        for row in store.find(inquiry.tasks):
            call = _call_of(row)
            if call is not None and call_size(call) <= ITEM_BYTES:
                del unknown[row.task]
                yield call
        yield from unknown

    for page, is_last in _pages(calls(), lambda call: call_size(call) if isinstance(call, StoredCall) else 9):
        found = [call for call in page if isinstance(call, StoredCall)]
        missing = [task for task in page if not isinstance(task, StoredCall)]
        yield CallsFound(inquiry.asker, found, missing, is_last)


def _call_of(row: TaskRow) -> StoredCall | None:
    call = row.call
    if call is None:
        return None
    options = msgspec.structs.replace(call.options, after=None, follow=None)
    return StoredCall(row.task, options, call.payload, call.blobs, call.engine)


def _records(store: HistoryStore, inquiry: FindRecords) -> Iterator[Found]:
    conditions = parse_terms(inquiry.terms)
    rows = store.search(conditions, with_payloads=inquiry.with_payloads)
    for page, is_last in _pages(map(_record_of, rows), record_size):
        yield RecordsFound(inquiry.asker, page, is_last)


def _record_of(row: TaskRow) -> HistoryRecord:
    call = b"" if row.call is None else row.call.payload
    result = row.payload or b""
    return HistoryRecord(
        row.task,
        row.kind,
        row.name[:RECORD_TEXT_CHARACTERS],
        row.label[:RECORD_TEXT_CHARACTERS],
        row.status,
        row.direct,
        row.engine,
        row.engine_key,
        row.submitted,
        row.started,
        row.completed,
        row.delivered,
        row.detail[:RECORD_TEXT_CHARACTERS],
        row.stdout[-RECORD_TEXT_CHARACTERS:],
        row.stderr[-RECORD_TEXT_CHARACTERS:],
        call if len(call) <= RECORD_PAYLOAD_BYTES else b"",
        result if len(result) <= RECORD_PAYLOAD_BYTES else b"",
        row.first,
    )


# ---------------------------------------------------------------- ends


def _ended(store: HistoryStore, inquiry: FindEnded) -> EndedFound:
    error = ""
    if inquiry.tasks:
        rows = store.find(inquiry.tasks, with_payloads=False)
        known = {row.task for row in rows if row.status is not None}
        if unknown := [task for task in inquiry.tasks if task not in known]:
            error = f"nobody knows {list_tasks(unknown)}: never submitted, or forgotten already"
    if inquiry.engines and not error:
        lives = {row.engine for row in store.engines()}
        if strangers := [str(engine) for engine in inquiry.engines if engine not in lives]:
            error = f"no engine {', '.join(strangers)} has ever been registered"
    if error:
        return EndedFound(inquiry.asker, [], error)
    if inquiry.everything:
        return EndedFound(inquiry.asker, store.ended_tasks(), "")
    there = store.ended_tasks(inquiry.engines) if inquiry.engines else []
    return EndedFound(inquiry.asker, sorted({*inquiry.tasks, *there}), "")


def _ends(store: HistoryStore, inquiry: FindEnds) -> EndsFound:
    asked = {task for _, tasks in inquiry.asked for task in tasks}
    return EndsFound(
        inquiry,
        {
            row.task: End(row.status is Status.OK, row.engine, EngineKey(row.engine_key))
            for row in store.find(asked, with_payloads=False)
            if row.status is not None
        },
    )
