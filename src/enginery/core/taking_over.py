"""How a controller takes over what another one has left: its peers, its tasks, its results.

The peers count as known and disconnected: they say hello as after any lost connection, under the identities
that they had. See `reclaiming` for why nothing runs twice, and `restoring` for what is waited for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from enginery.core import places
from enginery.core.asked_again import AskedAgain
from enginery.core.credit import Credit
from enginery.core.families import GENERATIONS
from enginery.core.left_over import FormerClient, FormerEngine, FormerTask, LeftOver
from enginery.core.liveness import CLIENT_GRACE_S
from enginery.core.liveness import GRACE_S as SILENCE_S
from enginery.core.outbound import Outbound
from enginery.core.restoring import GRACE_S, Orphan, blobs_of
from enginery.core.tasks import Task
from enginery.ids import NO_ENGINE, ClientId, EngineId, EngineKey, TaskId, task_client, task_number
from enginery.protocol.history import BlobDropped
from enginery.protocol.messages import EngineHello, EngineResult, Ranges, ShareBlob, Status, Versions
from enginery.protocol.ranges import NumberSet

if TYPE_CHECKING:
    from enginery.core.state import ClusterState, Identity

NO_VERSIONS = Versions("", (0, 0))
ENDED = "it ended when its cluster did, which was started again"
NOT_BACK = f"it has not come back within {GRACE_S:.0f} s after the controller had been restarted"
LOST_WITH_ANOTHER = (
    "it was on its way when the controller died, and may have run on an engine that is gone as well: nobody "
    "knows what that had begun"
)


def take_over(state: ClusterState, left: LeftOver, *, now: float) -> None:
    """Go on where another controller has ended."""
    for client in left.gone_clients:
        state.registry.on_client_hello(client, b"")
        state.registry.on_client_gone(client)
    for engine, cause in left.gone_engines:
        state.registry.on_given(engine)
        state.scheduler.on_former_engine(engine, cause)
    for kept in left.blobs:
        state.blobs.on_kept(kept.blob, kept.data)
    engines = dict(_restore_engine(state, engine, now) for engine in left.engines)
    _find_blobs(state, left)
    for former_client in left.clients:
        _restore_client(state, former_client, now)
    parents = {former.call.task: former.call.parent for former in left.tasks}
    tasks = [(former, _restore_task(state, former, _family(former, parents))) for former in left.tasks]
    placed = [former.call.task for former in left.tasks if former.attempt > 1 or former.engine_key]
    state.restoring.begin(engines, placed, now=now)
    state.scheduler.reclaiming.is_open = True
    state.scheduler.reclaiming.restore(tasks, engines, now)
    for key, begun in left.ended.items():
        _bury(state, key, begun, now)
    _close_if_over(state)


def _find_blobs(state: ClusterState, left: LeftOver) -> None:
    """Take back what is needed of the blobs, from where it is."""
    needed = {blob for former in left.tasks for blob in former.call.blobs}
    needed.update(former.call.options.function for former in left.tasks)
    needed.update(blob for client in left.clients for result in client.undelivered for blob in result.blobs)
    for place in left.places:
        blob, size_bytes, keep, segment = place.blob, place.size_bytes, place.keep, place.segment
        if blob not in needed:
            state.remember(BlobDropped(blob))
            continue
        if segment:
            pool = segment.partition("/")[0]
            state.custody.on_left_over(pool)
            state.blobs.on_shared(ShareBlob(blob, size_bytes, keep, segment), _owner(state, pool))
        elif (data := left.read_buffer(blob)) is not None:
            state.blobs.on_restored(blob, data)
        state.blobs.placed.add(blob)


def _owner(state: ClusterState, pool: str) -> Identity:
    """Whose pool this is; nobody's who is known, perhaps."""
    kind, _, name = pool.partition("-")
    if kind == "client":
        return "client", ClientId(int(name, 16))
    record = state.registry.engine_by_key(EngineKey(name))
    return "engine", NO_ENGINE if record is None else record.engine


def _bury(state: ClusterState, key: EngineKey, begun: list[TaskId] | None, now: float) -> None:
    """An engine has ended while there was no controller."""
    record = state.registry.engine_by_key(key)
    load = None if record is None else state.scheduler.load(record.engine)
    if record is None or load is None:
        return
    on_exited(state, key, begun or (), now=now)
    note = places.heal(state, key, record.host_key, ENDED, now=now)
    state.registry.on_engine_ended(key)
    started = None if begun is None else load.may_have_begun(begun)
    cause = places.join_sentences(ENDED, note)
    state.forget_engine(key, cause=cause, status=Status.ENGINE_DIED, started=started, now=now)
    places.start_again(state, key, record.host_key)


def _restore_engine(state: ClusterState, former: FormerEngine, now: float) -> tuple[EngineKey, EngineId]:
    info = former.info
    hello = EngineHello(
        info.key, former.secret, NO_VERSIONS, info.host, former.host_key, info.pid, info.engine, [], 0
    )
    record, _ = state.registry.on_engine_hello(hello)
    engine = record.engine
    state.results_seen[engine] = NumberSet()
    state.blobs.on_engine_hello(engine)
    state.scheduler.on_engine_joined(engine)
    state.scheduler.on_engine_disconnected(engine)
    _is_away(state, ("engine", engine), SILENCE_S, now)
    return record.key, engine


def _restore_client(state: ClusterState, former: FormerClient, now: float) -> None:
    client = former.client
    state.registry.on_client_hello(client, former.secret)
    state.outbound[client] = Outbound(state.held)
    state.accepted[client] = NumberSet.from_ranges([(0, 0), *former.accepted])
    state.credits[client] = Credit()
    state.asked_again[client] = AskedAgain()
    _is_away(state, ("client", client), CLIENT_GRACE_S, now)
    for task, size_bytes, blobs in former.undelivered:
        state.recording.owe(task)
        state.outbound[client].deliveries.park(task, size_bytes)
        if blobs:
            state.blobs.hold_lost(blobs)
            state.restoring.results[task] = blobs


def _is_away(state: ClusterState, identity: Identity, grace_s: float, now: float) -> None:
    state.liveness.on_connected(identity, now=now, grace_s=grace_s)
    state.liveness.on_disconnected(identity, now=now)


def _family(former: FormerTask, parents: Mapping[TaskId, TaskId]) -> tuple[TaskId, ...]:
    """Its ancestors that have not ended, the nearest first."""
    family: list[TaskId] = []
    parent = former.call.parent
    while parent in parents and len(family) < GENERATIONS:
        family.append(parent)
        parent = parents[parent]
    return tuple(family)


def _restore_task(state: ClusterState, former: FormerTask, family: tuple[TaskId, ...]) -> Task:
    call = former.call
    task = Task(
        call.task,
        call.options,
        call.payload,
        call.blobs,
        direct=call.engine,
        size_bytes=len(call.payload),
        submitted_at=call.submitted,
        family=family,
    )
    state.blobs.hold_lost(task.needed_blobs)
    credit = state.credits.get(task_client(call.task))
    if credit is not None:
        number = task_number(call.task)
        credit.on_accepted(range(number, number + 1), task.size_bytes)
    return task


# ---------------------------------------------------------------- what engines say


def on_held(state: ClusterState, key: EngineKey, held: Iterable[tuple[TaskId, int]], *, now: float) -> None:
    """An engine says which tasks it has."""
    record = state.registry.engine_by_key(key)
    if record is None or not state.scheduler.reclaiming.is_open:
        return
    engine = record.engine
    is_asked = ("control", engine) not in state.links
    held = list(held)
    state.scheduler.reclaiming.on_held(engine, held, is_asked=is_asked, now=now)
    for task, attempt in held:
        if is_orphan(state, task):
            state.restoring.on_found(task, engine, attempt)
    state.restoring.on_accounted(key)
    _close_if_over(state)


def is_orphan(state: ClusterState, task: TaskId) -> bool:
    """Whether this task was never heard of here, and may yet be."""
    accepted = state.accepted.get(task_client(task))
    if accepted is not None and task_number(task) in accepted:
        return False
    return not state.registry.has_client_left(task_client(task)) and state.restoring.may_come_again(task)


def is_left_alone(state: ClusterState, attempt: tuple[TaskId, int]) -> bool:
    """Whether an engine is to go on with something that is not among its tasks: its call is to come."""
    orphan = state.restoring.find(attempt[0])
    return orphan is not None and orphan.attempt == attempt[1]


def on_exited(state: ClusterState, key: EngineKey, begun: Iterable[TaskId], *, now: float) -> None:
    """An engine is dead, says its host, and has begun these at some time."""
    record = state.registry.engine_by_key(key)
    if record is None or not state.restoring.expects(key):
        return
    begun = list(begun)
    state.scheduler.reclaiming.on_begun(record.engine, begun, state.restoring.placed, now=now)
    for task in begun:
        if is_orphan(state, task):
            state.restoring.on_found(task, record.engine, 1)


def on_engine_gone(
    state: ClusterState,
    key: EngineKey,
    engine: EngineId,
    *,
    status: Status,
    cause: str,
    started: frozenset[TaskId] | None,
) -> None:
    """It is dead or given up."""
    restoring = state.restoring
    if restoring.has_orphans:
        restoring.on_engine_gone(engine, status=status, cause=cause, started=started)
    if restoring.expects(key):
        restoring.on_accounted(key)
        if started is None:
            restoring.on_unproven(status)
        _close_if_over(state)
    restoring.on_first_hello(engine)


def on_result(state: ClusterState, engine: EngineId, number: int, result: EngineResult) -> None:
    """An engine has ended something that is not among its tasks."""
    if state.restoring.has_orphans and state.restoring.on_result(engine, number, result):
        state.blobs.hold(result.blobs)


def _close_if_over(state: ClusterState) -> None:
    if state.restoring.is_over and state.scheduler.reclaiming.is_open:
        state.restoring.close()
        state.scheduler.reclaiming.close()


# ---------------------------------------------------------------- what clients say


def on_client_hello(state: ClusterState, client: ClientId, again: Ranges) -> None:
    """It will send these calls again."""
    _forget(state, state.restoring.on_client_hello(client, again))


def on_submitted(state: ClusterState, tasks: Iterable[Task], *, now: float) -> None:
    """Calls have come: some of them may be with an engine since the life before."""
    restoring, reclaiming = state.restoring, state.scheduler.reclaiming
    for task in tasks:
        if task.state.is_terminal:
            continue
        orphan = restoring.take(task.task_id)
        if orphan is None and reclaiming.is_open:
            reclaiming.on_suspected(task)  # its engine may not have said so yet
        elif orphan is None:
            is_balanced = task.direct == NO_ENGINE  # else that very engine has said that it does not have it
            if restoring.lost is not None and is_balanced and restoring.comes_again(task.task_id):
                reclaiming.on_lost(task, restoring.lost, LOST_WITH_ANOTHER, now=now)
        elif orphan.status is not None:
            reclaiming.on_lost(task, orphan.status, orphan.cause, engine=orphan.engine, now=now)
        else:
            reclaiming.on_found(task, orphan.engine, orphan.attempt, now=now)
            if orphan.result is not None:
                state.scheduler.on_result(orphan.engine, orphan.result, now=now)
                _forget(state, [orphan])


def on_fetched(state: ClusterState, task: TaskId) -> None:
    """The history has said again what came of this task."""
    state.blobs.release(state.restoring.results.pop(task, ()))


def on_client_gone(state: ClusterState, client: ClientId) -> None:
    for task in [task for task in state.restoring.results if task_client(task) == client]:
        on_fetched(state, task)
    _forget(state, state.restoring.on_client_gone(client))


def _forget(state: ClusterState, orphans: Iterable[Orphan]) -> None:
    for orphan in orphans:
        state.blobs.release(blobs_of(orphan))
        if orphan.result is not None and orphan.engine in state.results_seen:
            below = state.results_seen[orphan.engine].low
            state.recording.on_results_seen(orphan.engine, state.restoring.safe_below(orphan.engine, below))


# ---------------------------------------------------------------- time


def on_tick(state: ClusterState, *, now: float) -> None:
    for key in state.restoring.take_overdue(now=now):
        state.forget_engine(key, cause=NOT_BACK, status=Status.ENGINE_LOST, started=None, now=now)
    _forget(state, state.restoring.take_old_orphans(now=now))
