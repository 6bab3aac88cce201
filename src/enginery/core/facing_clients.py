"""What clients say, and what follows."""

from __future__ import annotations

from enginery.core import facing_set_up, taking_over, toward_clients
from enginery.core.asked_again import AskedAgain
from enginery.core.credit import BYTE_WINDOW, TASK_WINDOW, Credit
from enginery.core.launches import LaunchOrder
from enginery.core.liveness import CLIENT_GRACE_S
from enginery.core.outbound import Outbound
from enginery.core.restarts import Place, RestartOrder
from enginery.core.state import ClusterState
from enginery.ids import (
    NO_ENGINE,
    BlobId,
    ClientId,
    EngineId,
    EngineKey,
    HostKey,
    client_pool,
    content_id,
    make_task_id,
    task_client,
    task_number,
)
from enginery.protocol.history import BlobKept, ClientSeen, TaskAccepted
from enginery.protocol.link import RECORD_BYTES, Link
from enginery.protocol.messages import (
    Abort,
    Answer,
    Call,
    Cancel,
    CancelItems,
    ClientHello,
    ClientWelcome,
    Goodbye,
    LaunchEngines,
    Received,
    Resend,
    RestartEngines,
    SetPriority,
    ShareBlob,
    ShutDown,
    SignalEngines,
    SignalProcesses,
    StartEngines,
    StopEngine,
    StopEngines,
    StopProcesses,
    Submit,
    TaskOptions,
)
from enginery.protocol.ranges import NumberSet, collect_ranges, without

NUMBER_LIMIT = 1 << 32
"""Larger task numbers would be another client's."""
KEPT_IN_STORE_BYTES = 16 << 20
"""Larger functions and constants are not remembered beyond the controller's life."""


def on_hello(state: ClusterState, hello: ClientHello, link: Link, *, now: float) -> str:
    """Bind a client. Returns why not, or nothing."""
    refusal = state.registry.refuse_client(hello.client, hello.secret, hello.versions)
    if refusal:
        return refusal
    client = hello.client
    _, is_new = state.registry.on_client_hello(client, hello.secret)
    if is_new:
        state.outbound[client] = Outbound(state.held)
        state.accepted[client] = NumberSet(1)
        state.credits[client] = Credit()
        state.asked_again[client] = AskedAgain()
        state.remember(ClientSeen(client, hello.secret, now))
    identity = ("client", client)
    state.links[identity] = link
    state.liveness.on_connected(identity, now=now, grace_s=CLIENT_GRACE_S)
    pool = hello.pool if hello.pool == client_pool(client) else ""
    state.on_sharing(identity, pool, hello.lent)
    deliveries = state.outbound[client].deliveries
    toward_clients.on_taken(state, client, deliveries.on_hello(hello.received, state.late_texts))
    if not is_new:
        _say_again(state, client)
    taking_over.on_client_hello(state, client, hello.again)
    uncommitted = state.recording.uncommitted(client)
    state.say(
        "client",
        client,
        ClientWelcome(
            state.controller,
            state.cluster,
            without(state.accepted[client].ranges(), uncommitted),
            [record.info for record in state.registry.engines.values()],
            deliveries.next_number,
            TASK_WINDOW,
            BYTE_WINDOW,
            collect_ranges(uncommitted),
        ),
    )
    return ""


def _say_again(state: ClusterState, client: ClientId) -> None:
    """What its tasks have said may be lost with its last connection, and its questions it asks again."""
    outbound = state.outbound[client]
    state.stop_answer(outbound.forget_questions())
    watched = state.watching.watched(client)
    for task in state.watching.speakers():
        if task_client(task) == client or task in watched:
            outbound.miss(task, 0)


def on_share_blob(state: ClusterState, client: ClientId, record: ShareBlob, *, now: float) -> None:
    identity = ("client", client)
    if not state.custody.owns(identity, record.segment):
        return  # nobody lends what is not his
    if not record.keep:
        state.blobs.on_shared(record, identity)
        return
    if state.blobs.missing((record.blob,)):
        data = state.read_segment(record)
        if data is None or content_id([data]) != record.blob:
            state.blobs.on_declined(record, identity)  # others would be given it under that id
            return
        if record.size_bytes <= KEPT_IN_STORE_BYTES:
            state.remember(BlobKept(record.blob, bytes(data)), record.size_bytes)
    state.blobs.on_shared(record, identity)


def on_submit(state: ClusterState, client: ClientId, record: Submit, *, now: float) -> None:
    options = record.options
    accepted = state.accepted[client]
    asked_again = state.asked_again[client]
    awaited = asked_again.numbers
    named = _own_numbers_named(client, options)
    blobs = state.blobs
    credit = state.credits[client]
    function_missing = blobs.missing((options.function,)) if options.function else []
    resend: list[int] = []
    wanted: set[BlobId] = set()
    for call in record.calls:
        numbers = range(call.number, call.number + (len(call.engines) or 1))
        if numbers.stop > NUMBER_LIMIT or any(number in accepted for number in numbers):
            blobs.drop_unheld(call.blobs)
            continue  # said again after a hello
        missing = [*function_missing, *blobs.missing(call.blobs)] if call.blobs else function_missing
        size_bytes = len(call.payload) + (0 if missing else blobs.unkept_bytes(call.blobs))
        if not credit.has_room(len(numbers), awaited=len(awaited), size_bytes=size_bytes):
            state.refuse(("client", client), credit.refusal())
            return
        if missing or (awaited and _comes_behind(call, named, asked_again)):
            resend.append(call.number)
            asked_again.add(numbers)
            wanted.update(missing)
            continue
        for number in numbers:
            accepted.add(number)
        credit.on_accepted(numbers, size_bytes)
        if awaited:
            asked_again.discard(numbers)
        needed = (options.function, *call.blobs) if options.function else call.blobs
        for _ in numbers:  # each task lets go of them by itself
            blobs.hold(needed)
        first = make_task_id(client, call.first or call.number)
        for number, engine in zip(numbers, call.engines or (NO_ENGINE,), strict=True):
            task_id = make_task_id(client, number)
            accepted_task = TaskAccepted(
                task_id, now, options, call.payload, call.blobs, engine, first, call.parent
            )
            state.remember(accepted_task, RECORD_BYTES + len(call.payload))
        blob_bytes = blobs.size_bytes(call.blobs)
        family = state.scheduler.families.of_child(call.parent)
        tasks = state.scheduler.on_submitted(
            client, options, call, family=family, blob_bytes=blob_bytes, now=now
        )
        state.recording.on_accepted(client, numbers)
        if options.keep and call.engines:
            facing_set_up.keep(state, options, call, tasks, now=now)
        if state.restoring.is_watchful or state.scheduler.reclaiming.is_open:
            taking_over.on_submitted(state, tasks, now=now)
    if resend:
        state.say("client", client, Resend(resend, sorted(wanted)))


def _comes_behind(call: Call, named: set[int], asked_again: AskedAgain) -> bool:
    """Whether a call has to follow one that comes again: it depends on it, or one engine runs both."""
    if not named.isdisjoint(asked_again.numbers):
        return True
    return bool(call.engines) and asked_again.has_below(call.number)


def _own_numbers_named(client: ClientId, options: TaskOptions) -> set[int]:
    """The client's own tasks that tasks of these options depend on."""
    return {
        task_number(task)
        for dependency in (options.after, options.follow)
        if dependency is not None
        for task in dependency.tasks
        if task_client(task) == client
    }


def on_abort(state: ClusterState, client: ClientId, record: Abort, *, now: float) -> None:
    """Anybody may abort any task, and so with cancels and priorities."""
    state.scheduler.cancelling.on_aborted(record.tasks, now=now)


def on_cancel(state: ClusterState, client: ClientId, record: Cancel, *, now: float) -> None:
    """What a task has made and not waited for is cancelled with it."""
    scheduler = state.scheduler
    tasks = list(dict.fromkeys([*record.tasks, *scheduler.families.descendants(record.tasks)]))
    scheduler.cancelling.on_cancelled(tasks, grace_s=record.grace_s, now=now)


def on_cancel_items(state: ClusterState, client: ClientId, record: CancelItems, *, now: float) -> None:
    state.scheduler.cancelling.on_items_cancelled(record.task, record.items)


def on_set_priority(state: ClusterState, client: ClientId, record: SetPriority, *, now: float) -> None:
    state.scheduler.urgency.on_priority_set(record.tasks, record.priority, now=now)
    state.say("client", client, Answer(record.request))


def on_received(state: ClusterState, client: ClientId, record: Received, *, now: float) -> None:
    toward_clients.on_taken(state, client, state.outbound[client].deliveries.on_received(record.below))
    state.touch(("client", client))  # there may be room for more


def on_goodbye(state: ClusterState, client: ClientId, record: Goodbye, *, now: float) -> None:
    state.forget_client(client)


# ---------------------------------------------------------------- questions and orders


def on_start_engines(state: ClusterState, client: ClientId, record: StartEngines, *, now: float) -> None:
    state.launches.on_ordered(LaunchOrder(client, record.request, record.count), now=now)
    pass_on_launches(state)


def pass_on_launches(state: ClusterState) -> None:
    """Give waiting orders to a host, if there is one."""
    host = next((key for key in state.registry.hosts if ("host", key) in state.links), None)
    if host is None:
        return
    for launch, order in state.launches.take_waiting(host):
        engines = state.registry.reserve_engines(order.engines)
        state.launches.on_told(launch, engines)
        state.say("host", host, LaunchEngines(launch, engines))


def refuse_launches(state: ClusterState, *, now: float) -> None:
    """Answer the orders that no host has come for."""
    for order in state.launches.take_overdue(now=now):
        answer = Answer(
            order.request,
            "no host of this cluster can start engines; "
            "start some with `enginery engine` where they should run",
        )
        state.say("client", order.client, answer)


def on_stop_engines(state: ClusterState, client: ClientId, record: StopEngines, *, now: float) -> None:
    """No engine named = all of them."""
    wanted = record.engines or list(state.registry.engines)
    error = unknown_engines(state, wanted)
    if not error:
        for host, keys in _by_host(state, wanted).items():
            answer_restarts(state, state.restarts.on_stopped(keys, "it was told to stop for good meanwhile"))
            _stop(state, host, keys)
    state.say("client", client, Answer(record.request, error))


def on_restart_engines(state: ClusterState, client: ClientId, record: RestartEngines, *, now: float) -> None:
    """No engine named = all of them. Answered when others have been started in their places."""
    wanted = sorted(set(record.engines or state.registry.engines))
    error = unknown_engines(state, wanted) or _refuse_restart(state, wanted)
    if error or not wanted:
        state.say("client", client, Answer(record.request, error))
        return
    found = [state.registry.engines[engine] for engine in wanted]
    processes = {process.key: Place(process.host_key, process.engine) for process in found}
    state.restarts.on_ordered(client, record.request, processes)
    for host, keys in _by_host(state, wanted).items():
        _stop(state, host, keys)


def answer_restarts(state: ClusterState, orders: list[RestartOrder]) -> None:
    """These are complete."""
    for order in orders:
        if order.client is not None:
            state.say("client", order.client, Answer(order.request, order.error, order.engines))


def _refuse_restart(state: ClusterState, engines: list[EngineId]) -> str:
    alone = [
        engine for engine in engines if state.registry.engines[engine].host_key not in state.registry.hosts
    ]
    if alone:
        return (
            f"engine {', '.join(map(str, alone))} cannot be restarted: "
            "no host of this cluster has started it and could start it again"
        )
    return ""


def _stop(state: ClusterState, host: HostKey, keys: list[EngineKey]) -> None:
    state.stopping.update(keys)  # who says hello later, or again, hears of it then
    if host and state.say("host", host, StopProcesses(keys)):
        return
    for key in keys:
        registered = state.registry.engine_by_key(key)
        if registered is not None:
            state.say("control", registered.engine, StopEngine())


def on_signal_engines(state: ClusterState, client: ClientId, record: SignalEngines, *, now: float) -> None:
    """No engine named = all of them."""
    wanted = record.engines or list(state.registry.engines)
    error = unknown_engines(state, wanted)
    if not error:
        for host, keys in _by_host(state, wanted).items():
            signals = SignalProcesses(keys, record.signum)
            if not host:
                error = "some engines have no supervisor that could send them a signal"
            elif not state.say("host", host, signals):
                state.signals[host].append(signals)  # engines can be there before their host
    state.say("client", client, Answer(record.request, error))


def unknown_engines(state: ClusterState, engines: list[EngineId]) -> str:
    """Which of these there are not, as a sentence; empty if all are there."""
    unknown = sorted(set(engines) - state.registry.engines.keys())
    if not unknown:
        return ""
    present = ", ".join(map(str, sorted(state.registry.engines))) or "none"
    return f"there is no engine {', '.join(map(str, unknown))}; the engines are: {present}"


def on_shut_down(state: ClusterState, client: ClientId, record: ShutDown, *, now: float) -> None:
    state.is_shutting_down = True
    state.say("client", client, Answer(record.request))
    for engine, registered in sorted(state.registry.engines.items()):
        if not registered.host_key or ("host", registered.host_key) not in state.links:
            state.say("control", engine, StopEngine())
    for host in state.registry.hosts:
        state.say("host", host, StopProcesses([]))
    state.tell_all_clients(Goodbye())


def _by_host(state: ClusterState, engines: list[EngineId]) -> dict[HostKey, list[EngineKey]]:
    by_host: dict[HostKey, list[EngineKey]] = {}
    for engine in engines:
        registered = state.registry.engines.get(engine)
        if registered is not None:
            by_host.setdefault(registered.host_key, []).append(registered.key)
    return by_host
