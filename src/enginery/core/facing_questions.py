"""What clients ask about tasks, whoever has submitted them, and what they are told.

Queues are answered at once. All else may need the history: the door states an inquiry, and an `on_…_found`
below answers when the history has. Blobs are not in the history but in the controller's memory for a while
(`EndedBlobs`); they go on the link before the record that names them, as with deliveries.

Questions to the history are answered one by one for each client, page by page, as it takes them (`Outbound`).
A client asks again after each hello. What was asked before it is not answered any more: pages of two answers
to one question would mix. Orders, to forget tasks among them, are carried out once, see `given_orders`.
"""

from __future__ import annotations

from collections.abc import Iterable

from enginery.core.deliveries import result_size
from enginery.core.engines import EngineLoad
from enginery.core.facing_clients import unknown_engines
from enginery.core.inquiries import (
    Asker,
    CallsFound,
    DeliveriesFound,
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
    InquiryFailed,
    PagedInquiry,
    RecordsFound,
    ResultsFound,
    call_size,
    list_tasks,
    record_size,
)
from enginery.core.memory import Question
from enginery.core.orders import ANSWER_WAIT_S
from enginery.core.scheduler import Scheduler
from enginery.core.state import ClusterState
from enginery.core.toward_clients import as_far_as_kept, on_deliveries_found
from enginery.core.watching import saying_size
from enginery.ids import NO_ENGINE, BlobId, ClientId, EngineId, TaskId
from enginery.protocol.history import TasksPurged
from enginery.protocol.link import RECORD_BYTES, Link
from enginery.protocol.messages import (
    Answer,
    AskCalls,
    AskHistory,
    AskMemory,
    AskQueues,
    AskResults,
    CallsAnswer,
    ClearEngines,
    ClearNamespace,
    EngineQueues,
    HistoryAnswer,
    Interrupt,
    InterruptEngines,
    MemoryAnswer,
    PurgeHistory,
    QueuesAnswer,
    Record,
    ReportMemory,
    ResultsAnswer,
    Status,
    StoredCall,
    TaskResult,
)

OPEN_INQUIRIES = 1000
"""Orders of all clients that may wait for the history."""
QUEUE_IDS = 40_000
"""Ids that are given of one queue: two such queues are fit for one record."""
TASKS_PER_RECORD = 10_000
PAGE_BYTES = 1 << 18

TOO_MANY = "the controller has too many questions to answer already; ask again in a moment"


# ---------------------------------------------------------------- queues


def on_ask_queues(state: ClusterState, client: ClientId, record: AskQueues, *, now: float) -> None:
    """No engine named = all of them."""
    error = unknown_engines(state, record.engines)
    if error:
        state.say("client", client, QueuesAnswer(record.request, [], 0, error=error))
        return
    scheduler = state.scheduler
    unassigned = scheduler.unassigned[:QUEUE_IDS] if record.verbose else []
    page = QueuesAnswer(record.request, [], scheduler.ready_count, unassigned, is_last=False)
    weight = RECORD_BYTES + 9 * len(unassigned)
    for engine in sorted(set(record.engines) or state.registry.engines):
        load = scheduler.load(engine)
        if load is None:
            continue
        queues = queues_of(scheduler, load, verbose=record.verbose)
        size = 32 + 9 * (len(queues.queue_ids) + len(queues.task_ids) + len(queues.completed_ids))
        if weight > RECORD_BYTES and weight + size > PAGE_BYTES:
            state.say("client", client, page, weight)
            page = QueuesAnswer(record.request, [], scheduler.ready_count, is_last=False)
            weight = RECORD_BYTES
        page.engines.append(queues)
        weight += size
    page.is_last = True
    state.say("client", client, page, weight)


def queues_of(scheduler: Scheduler, load: EngineLoad, *, verbose: bool = False) -> EngineQueues:
    """What an engine has to do: each unfinished task is at one engine, or among those that none has."""
    direct = [task for task, there in load.in_flight.items() if there.direct != NO_ENGINE]
    resting = scheduler.resting_at(load.engine)
    queues = EngineQueues(
        load.engine,
        queue=len(direct) + len(load.direct) + len(resting),
        tasks=len(load.in_flight) - len(direct),
        completed=load.completed,
    )
    if verbose:
        balanced = [task for task, there in load.in_flight.items() if there.direct == NO_ENGINE]
        queues.queue_ids = [*direct, *(task.task_id for task in load.direct), *resting][:QUEUE_IDS]
        queues.task_ids = balanced[:QUEUE_IDS]
        queues.completed_ids = list(dict.fromkeys(load.recent))  # a retried one may have ended twice there
    return queues


# ---------------------------------------------------------------- results


def on_ask_results(state: ClusterState, client: ClientId, record: AskResults, *, now: float) -> None:
    tasks = list(dict.fromkeys(record.tasks))
    pending = [task for task in tasks if state.scheduler.task(task) is not None]
    ended = [task for task in tasks if state.scheduler.task(task) is None]
    if ended or not pending:
        asker = _asker(state, client, record.request)
        if not _ask(state, client, FindResults(asker, ended), Answer(record.request, TOO_MANY)):
            return
    if record.watch:
        for task in pending:
            if state.watching.on_watched(client, task):
                state.outbound[client].miss(task, 0)
        state.touch(("client", client))
    for start in range(0, len(pending), TASKS_PER_RECORD):
        page = pending[start : start + TASKS_PER_RECORD]
        is_last = not ended and start + TASKS_PER_RECORD >= len(pending)
        answer = ResultsAnswer(record.request, [], page, is_last)
        state.say("client", client, answer, RECORD_BYTES + 9 * len(page))


def on_results_found(state: ClusterState, found: ResultsFound, *, now: float) -> None:
    link = _link_of(state, found)
    if link is None:
        return
    restored = [blob for ended in found.ended for blob in state.restore_blobs(ended.buffers)]
    state.blobs.hold(restored)
    for ended in found.ended:
        for saying in ended.said:
            link.put_after_bulk(saying, saying_size(saying))
    results = [as_far_as_kept(state, ended.result) for ended in found.ended]
    if _put_blobs(state, found.asker.client, link, (blob for result in results for blob in result.blobs)):
        results = [as_far_as_kept(state, result) for result in results]
    state.blobs.release(restored)
    weight = RECORD_BYTES + sum(map(result_size, results))
    link.put_after_bulk(ResultsAnswer(found.asker.request, results, [], found.is_last), weight)


# ---------------------------------------------------------------- calls and records


def on_ask_calls(state: ClusterState, client: ClientId, record: AskCalls, *, now: float) -> None:
    inquiry = FindCalls(_asker(state, client, record.request), list(dict.fromkeys(record.tasks)))
    _ask(state, client, inquiry, Answer(record.request, TOO_MANY))


def on_calls_found(state: ClusterState, found: CallsFound, *, now: float) -> None:
    link = _link_of(state, found)
    if link is None:
        return
    calls = [call for call in found.calls if not state.blobs.missing(_needed(call))]
    if _put_blobs(state, found.asker.client, link, (blob for call in calls for blob in _needed(call))):
        calls = [call for call in calls if not state.blobs.missing(_needed(call))]
    here = {call.task for call in calls}
    missing = [*found.missing, *(call.task for call in found.calls if call.task not in here)]
    weight = RECORD_BYTES + sum(call_size(call) for call in calls) + 9 * len(missing)
    link.put_after_bulk(CallsAnswer(found.asker.request, calls, missing, found.is_last), weight)


def _needed(call: StoredCall) -> tuple[BlobId, ...]:
    return (call.options.function, *call.blobs) if call.options.function else call.blobs


def on_ask_history(state: ClusterState, client: ClientId, record: AskHistory, *, now: float) -> None:
    inquiry = FindRecords(_asker(state, client, record.request), record.terms, record.with_payloads)
    _ask(state, client, inquiry, HistoryAnswer(record.request, [], error=TOO_MANY))


def on_records_found(state: ClusterState, found: RecordsFound, *, now: float) -> None:
    link = _link_of(state, found)
    if link is not None:
        weight = RECORD_BYTES + sum(map(record_size, found.records))
        link.put_after_bulk(HistoryAnswer(found.asker.request, found.records, found.is_last), weight)


# ---------------------------------------------------------------- forgetting


def on_purge_history(state: ClusterState, client: ClientId, record: PurgeHistory, *, now: float) -> None:
    if state.open_inquiries >= OPEN_INQUIRIES:
        state.say("client", client, Answer(record.request, TOO_MANY))
        return
    tasks = list(dict.fromkeys(record.tasks))
    pending = [task for task in tasks if state.scheduler.task(task) is not None]
    if pending:
        what = f"{list_tasks(pending)} cannot be purged before the end"
        error = f"{what}: wait for it, or abort what has not started"
        state.say("client", client, Answer(record.request, error))
        return
    asker = _asker(state, client, record.request)
    state.inquire(FindEnded(asker, tasks, sorted(set(record.engines)), record.everything))


def on_ended_found(state: ClusterState, found: EndedFound, *, now: float) -> None:
    if found.asker.client not in state.registry.clients:
        return  # it has left
    for start in range(0, len(found.tasks), TASKS_PER_RECORD):
        state.remember(TasksPurged(found.tasks[start : start + TASKS_PER_RECORD]))
    state.ended_blobs.forget(found.tasks)
    state.say("client", found.asker.client, Answer(found.asker.request, found.error))


# ---------------------------------------------------------------- the scheduler's own questions


def on_ends_found(state: ClusterState, found: EndsFound, *, now: float) -> None:
    """Tasks that others depend on, found in the history. Only the present life of an engine counts."""
    for _, ids in found.inquiry.asked:
        ends: dict[TaskId, tuple[bool, EngineId] | None] = dict.fromkeys(ids)
        for asked in ids:
            end = found.ends.get(asked)
            if end is not None:
                registered = state.registry.engine_by_key(end.engine_key)
                ends[asked] = end.ok, NO_ENGINE if registered is None else registered.engine
        state.scheduler.on_looked_up(ends, now=now)


def on_inquiry_failed(state: ClusterState, failed: InquiryFailed, *, now: float) -> None:
    inquiry = failed.inquiry
    if isinstance(inquiry, FindEnds):
        on_ends_found(state, EndsFound(inquiry, {}), now=now)
        return
    if isinstance(inquiry, FindDeliveries):
        lost = [TaskResult(task, Status.DROPPED, detail=failed.error) for task in inquiry.tasks]
        ended = [Ended(result, [], {}) for result in lost]
        on_deliveries_found(state, DeliveriesFound(inquiry.client, ended, is_last=True), now=now)
        return
    if isinstance(inquiry, FindEnded):  # an order, whose answer counts whenever it comes
        state.say("client", inquiry.asker.client, Answer(inquiry.asker.request, failed.error))
        return
    link = _link_of(state, failed)
    if link is None:
        return
    request = inquiry.asker.request
    answer: Record = Answer(request, failed.error)
    if isinstance(inquiry, FindRecords):
        answer = HistoryAnswer(request, [], error=failed.error)
    link.put_after_bulk(answer, RECORD_BYTES + len(failed.error))


def is_paged(found: Found) -> bool:
    """Whether it is a page of an answer to a client's question, see `Outbound`."""
    return _paged_asker(found) is not None


def _paged_asker(found: Found) -> Asker | None:
    if isinstance(found, (ResultsFound, CallsFound, RecordsFound)):
        return found.asker
    if isinstance(found, InquiryFailed) and isinstance(found.inquiry, PagedInquiry):
        return found.inquiry.asker
    return None


# ---------------------------------------------------------------- orders to engines


def on_clear_engines(state: ClusterState, client: ClientId, record: ClearEngines, *, now: float) -> None:
    """No engine named = all of them. Answered when each has said that it is done."""
    wanted = record.engines or list(state.registry.engines)
    error = unknown_engines(state, wanted)
    if error or not wanted:
        state.say("client", client, Answer(record.request, error))
        return
    deed = "the namespace was cleared"
    order = state.orders.on_ordered(client, record.request, wanted, deed=deed, now=now)
    for engine in state.orders.engines(order):
        state.say("control", engine, ClearNamespace(order))  # one that is away hears of it in its next hello


def on_interrupt_engines(
    state: ClusterState, client: ClientId, record: InterruptEngines, *, now: float
) -> None:
    """No engine named = all of them. Said once: what runs after the next hello is not what was meant."""
    wanted = record.engines or list(state.registry.engines)
    error = unknown_engines(state, wanted)
    if error or not wanted:
        state.say("client", client, Answer(record.request, error))
        return
    deed = "what it runs was interrupted"
    order = state.orders.on_ordered(client, record.request, wanted, deed=deed, is_repeated=False, now=now)
    for engine in state.orders.engines(order):
        state.say("control", engine, Interrupt(order))


def on_ask_memory(state: ClusterState, client: ClientId, record: AskMemory, *, now: float) -> None:
    """No engine named = all of them. Answered when each has answered."""
    wanted = set(record.engines or state.registry.engines)
    error = unknown_engines(state, list(wanted))
    if error:
        state.say("client", client, MemoryAnswer(record.request, [], error=error))
        return
    if record.free:
        state.ended_blobs.clear()
        state.blobs.free()
    if not wanted:
        state.answer_memory(Question(client, record.request, record.free, {}, set(), now))
        return
    number = state.memory_questions.on_asked(client, record.request, wanted, free=record.free, now=now)
    for engine in wanted:
        state.say("control", engine, ReportMemory(number, record.free))


def give_up_orders(state: ClusterState, *, now: float) -> None:
    """Answer the orders that some engine has not carried out in time."""
    for order in state.orders.take_overdue(now=now):
        silent = ", ".join(map(str, sorted(order.open)))
        error = (
            f"not heard within {ANSWER_WAIT_S:.0f} s that {order.deed} from engine {silent}; "
            "it may be in the middle of a call that does not let go"
        )
        done = [engine for engine in order.engines if engine not in order.open]
        state.say("client", order.client, Answer(order.request, error, done))


# ---------------------------------------------------------------- inside


def _asker(state: ClusterState, client: ClientId, request: int) -> Asker:
    return Asker(client, request, state.links["client", client].epoch)


def _ask(state: ClusterState, client: ClientId, inquiry: PagedInquiry, refusal: Record) -> bool:
    """Have the history asked when it is this question's turn; says so if the client has asked too much."""
    if not state.outbound[client].on_asked(inquiry):
        state.say("client", client, refusal)
        return False
    state.touch(("client", client))
    return True


def _link_of(state: ClusterState, found: Found) -> Link | None:
    """The link to the client that waits for this page, if one does; it will have output."""
    asker = _paged_asker(found)
    assert asker is not None
    outbound = state.outbound.get(asker.client)
    if outbound is None or not outbound.on_page(asker, is_last=found.is_last):
        return None
    state.touch(("client", asker.client))
    return state.links.get(("client", asker.client))


def _put_blobs(state: ClusterState, client: ClientId, link: Link, blobs: Iterable[BlobId]) -> bool:
    """Returns whether some turned out to be lost."""
    wanted = list(dict.fromkeys(blobs))
    for blob in wanted:
        state.put_blob(("client", client), link, blob)
    return bool(state.blobs.missing(wanted))
