"""What goes out to clients: results, and what their tasks say, as far as they take it.

What a client does not take is not kept in memory beyond the bounds of `deliveries` and of its link: results
are parked in the history, and so is what their tasks have said; it comes from there when there is room again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from enginery.core import taking_over
from enginery.core.deliveries import Delivery, Parked, said_size
from enginery.core.inquiries import DeliveriesFound, Ended, FindDeliveries, NextPage
from enginery.core.watching import Recorded, Saying, fact_of, saying_size
from enginery.ids import BlobId, ClientId, TaskId, format_task_id, task_client
from enginery.protocol.history import TaskDelivered, TaskEnded
from enginery.protocol.link import RECORD_BYTES, Link
from enginery.protocol.messages import RECORDED, Data, Finished, Output, Progress, Status, TaskResult

if TYPE_CHECKING:
    from enginery.core.state import ClusterState


# ---------------------------------------------------------------- what tasks say


def pass_on(state: ClusterState, saying: Recorded) -> None:
    """A task has said something: the history remembers it, and whoever listens is told."""
    state.recording.add_saying(fact_of(saying), saying_size(saying))
    tell_listeners(state, saying)  # behind it: it may be what others have waited for


def tell_listeners(state: ClusterState, saying: Saying) -> None:
    """Pass on what a task has said, and keep it for those who watch it later."""
    task = saying.task
    has_ended = state.scheduler.task(task) is None
    count = None if has_ended else state.watching.on_said(saying)
    owner = task_client(task)
    _tell(state, owner, saying, count)
    for client in state.watching.watchers(task):
        if client != owner:
            _tell(state, client, saying, count)
    if not isinstance(saying, (Data, Progress)) and saying.number:
        place = saying.attempt, saying.number
        if state.late_texts.on_said(task, place, has_ended=has_ended):
            on_complete(state, task)


def on_complete(state: ClusterState, task: TaskId) -> None:
    """All that an ended task has said has come, or is waited for no longer."""
    for text in state.late_texts.take_last(task):
        state.recording.add_saying(text, RECORD_BYTES + len(text.text))
    for client, outbound in state.outbound.items():
        outbound.deliveries.on_complete(task)
        state.touch(("client", client))


def _tell(state: ClusterState, client: ClientId, saying: Saying, count: int | None) -> None:
    """Say it now, or note that it is to be said; `count` is its number among what an unfinished task says."""
    outbound = state.outbound.get(client)
    if outbound is None:
        return  # it has left
    link = state.links.get(("client", client))
    has_room = link is not None and link.has_room
    if count is not None and (not has_room or outbound.has_missed(saying.task)):
        outbound.miss(saying.task, count)
    elif count is None and outbound.deliveries.is_parked(saying.task):
        pass  # it comes with its result, from the history
    elif has_room:
        state.say("client", client, saying, saying_size(saying))
    elif link is not None and not isinstance(saying, (Data, Progress)):
        # Its result is on its way already, and says how much belongs to it.
        # Once in words; the further pieces, which it waits for, are empty.
        where = f"rc.get_result({format_task_id(saying.task)!r})"
        note = f"[this client did not take the last of this task's output; {where} has all of it]\n"
        note = note if outbound.cut(saying.task) else ""
        short = Output(saying.task, saying.engine, "stderr", note, saying.attempt, saying.number)
        state.say("client", client, short, saying_size(short))


def _say_unheard(state: ClusterState, client: ClientId, link: Link) -> None:
    outbound = state.outbound[client]
    while link.has_room and (unheard := outbound.next_unheard()) is not None:
        for saying in state.watching.said(*unheard):
            link.put(saying, saying_size(saying))


# ---------------------------------------------------------------- results


def on_ended(state: ClusterState, task: TaskId, result: TaskResult) -> None:
    """A task has ended. Whoever is to have the result gets it, from here or from the history."""
    if result.report is None and (known := state.watching.progress(task)) is not None:
        result.report = known.report  # the last word of a task whose engine has died
    owner = task_client(task)
    watchers = [client for client in state.watching.on_ended(task) if client != owner]
    receivers = [client for client in (owner, *watchers) if client in state.outbound]
    full = [client for client in receivers if state.outbound[client].deliveries.is_full]
    state.late_texts.on_ended(task, (result.attempt, result.outputs), result.engine)
    is_late = task in state.late_texts
    recorded = state.late_texts.hold_last(result) if is_late else result
    state.remember(TaskEnded(recorded, is_owed=bool(full)), len(result.payload) + RECORD_BYTES)
    if result.blobs and (full or not receivers):
        state.keep_buffers(task, result.blobs)
    for client in receivers:
        outbound = state.outbound[client]
        is_unheard = outbound.on_ended(task)
        if client in full:
            state.recording.owe(task)
            outbound.deliveries.park(task, sum(_sizes(state, result)), is_incomplete=is_late)
        elif is_unheard:
            delivery = _held(state, result)
            outbound.deliveries.park(task, delivery.memory_bytes, delivery, is_incomplete=is_late)
        else:
            outbound.deliveries.add(_held(state, result))
        state.touch(("client", client))


def _held(state: ClusterState, result: TaskResult, said: list[Saying] | None = None) -> Delivery:
    state.blobs.hold(result.blobs)
    memory_bytes, shared_bytes = _sizes(state, result)
    return Delivery(result, said or [], memory_bytes + said_size(said or []), shared_bytes)


def _sizes(state: ClusterState, result: TaskResult) -> tuple[int, int]:
    """Bytes of a result in memory, and in shared memory."""
    shared = [blob for blob in result.blobs if state.blobs.shared(blob) is not None]
    in_memory = [blob for blob in result.blobs if blob not in shared]
    texts = RECORD_BYTES + len(result.payload) + len(result.stdout) + len(result.stderr)
    return texts + state.blobs.size_bytes(in_memory), state.blobs.size_bytes(shared)


def on_taken(state: ClusterState, client: ClientId, taken: list[Delivery]) -> None:
    """These have arrived at the client."""
    deliveries = state.outbound[client].deliveries
    for delivery in taken:
        result = delivery.result
        if result.blobs:
            state.blobs.release(result.blobs)
        if task_client(result.task) == client:
            state.remember(TaskDelivered(result.task))
        if deliveries.settle(result.task):
            state.recording.release([result.task])


def forget_client(state: ClusterState, client: ClientId) -> None:
    """It has left: what it has not taken is in the history only, as long as the bounds of that allow."""
    outbound = state.outbound.pop(client, None)
    if outbound is None:
        return
    state.stop_answer(outbound.forget_questions())
    everything = outbound.deliveries.everything()
    owed = set(outbound.deliveries.clear())
    for delivery in everything:
        result = delivery.result
        if result.blobs and result.task not in owed and task_client(result.task) == client:
            state.keep_buffers(result.task, result.blobs)
        state.blobs.release(result.blobs)
    state.recording.release(owed)


def on_deliveries_found(state: ClusterState, found: DeliveriesFound, *, now: float) -> None:
    """Results that were parked."""
    outbound = state.outbound.get(found.client)
    if outbound is None:
        return  # it has left meanwhile
    for ended in found.ended:
        parked = outbound.deliveries.fetched(ended.result.task)
        if parked is not None:
            outbound.deliveries.add(_completed(state, parked, ended))
            taking_over.on_fetched(state, ended.result.task)
    state.touch(("client", found.client))


def _completed(state: ClusterState, parked: Parked, ended: Ended) -> Delivery:
    result, said = ended.result, ended.said
    if parked.delivery is not None:
        known = parked.delivery.result
        if result.attempt != RECORDED:
            return parked.delivery  # the history does not have it (any more): without its text then
        completed = msgspec.structs.replace(
            known, stdout="", stderr="", outputs=result.outputs, attempt=result.attempt
        )
        memory_bytes = parked.delivery.memory_bytes + said_size(said)
        return parked.delivery._replace(result=completed, said=said, memory_bytes=memory_bytes)
    if result.status is Status.UNKNOWN:
        detail = "it has ended, and was purged before its client took its result"
        return Delivery(TaskResult(parked.task, Status.DROPPED, detail=detail), [], RECORD_BYTES)
    state.restore_blobs(ended.buffers)
    return _held(state, as_far_as_kept(state, result), said)


def as_far_as_kept(state: ClusterState, result: TaskResult) -> TaskResult:
    """A result as it can be given to a client: without a value if its large buffers are gone."""
    if not state.blobs.missing(result.blobs):
        return result
    detail = f"it ended with {result.status.name}; its large buffers are no longer kept"
    return msgspec.structs.replace(result, status=Status.DROPPED, payload=b"", blobs=(), detail=detail)


# ---------------------------------------------------------------- out


def serve(state: ClusterState, client: ClientId) -> None:
    """Put on a client's link what waits for it, as far as it takes it."""
    link = state.links.get(("client", client))
    outbound = state.outbound.get(client)
    if link is None or outbound is None or not outbound.is_waiting:
        return
    _say_unheard(state, client, link)
    if not state.recording.is_behind:  # else its next calls are not yet to come
        _put_deliveries(state, client, link)
        if link.has_room and (tasks := outbound.deliveries.next_to_fetch()):
            state.inquire(FindDeliveries(client, tasks))
    if link.has_room and link.has_bulk_room:
        if (asker := outbound.next_page()) is not None:
            state.ask_page(NextPage(asker))
        elif (inquiry := outbound.next_question(state.late_texts)) is not None:
            state.ask_page(inquiry)


def _put_deliveries(state: ClusterState, client: ClientId, link: Link) -> None:
    if not link.has_room:
        return
    for first, deliveries, weight in state.outbound[client].deliveries.take():
        results = [delivery.result for delivery in deliveries]
        for delivery in deliveries:
            for saying in delivery.said:
                link.put(saying, saying_size(saying))
        blobs: list[BlobId] = [blob for result in results for blob in result.blobs]
        if blobs:
            for blob in blobs:
                state.put_blob(("client", client), link, blob)
            results = [as_far_as_kept(state, result) for result in results]
            link.put_after_bulk(Finished(first, results), weight)
        else:
            link.put(Finished(first, results), weight)
        if not link.has_room:
            return
