"""What clients say, and what follows."""

from __future__ import annotations

from enginery.core.deliveries import Deliveries
from enginery.core.launches import LaunchOrder
from enginery.core.state import ClusterState
from enginery.ids import (
    NO_ENGINE,
    BlobId,
    ClientId,
    EngineId,
    EngineKey,
    HostKey,
    TaskId,
    make_task_id,
    task_client,
)
from enginery.protocol.history import ClientSeen, TaskAccepted, TaskDelivered
from enginery.protocol.link import Link
from enginery.protocol.messages import (
    Abort,
    Answer,
    AskStatus,
    ClientHello,
    ClientWelcome,
    EngineStatus,
    Goodbye,
    LaunchEngines,
    Ping,
    Received,
    Resend,
    ShutDown,
    SignalEngines,
    SignalProcesses,
    StartEngines,
    StatusAnswer,
    StopEngine,
    StopEngines,
    StopProcesses,
    Submit,
    TaskResult,
)
from enginery.protocol.ranges import NumberSet

TASK_WINDOW = 50_000
"""Tasks that the controller holds for one client; more wait in the client's ledger."""
BYTE_WINDOW = 512 << 20
NUMBER_LIMIT = 1 << 32
"""Larger task numbers would be another client's."""
CLIENT_GRACE_S = 600.0
"""How long a client that vanished may stay away before its results are in the store only."""


def on_hello(state: ClusterState, hello: ClientHello, link: Link, *, now: float) -> str:
    """Bind a client. Returns why not, or nothing."""
    refusal = state.registry.refuse_client(hello.client, hello.secret, hello.versions)
    if refusal:
        return refusal
    client = hello.client
    _, is_new = state.registry.on_client_hello(client, hello.secret)
    if is_new:
        state.deliveries[client] = Deliveries()
        state.accepted[client] = NumberSet(1)
        state.remember(ClientSeen(client, hello.secret, now))
    identity = ("client", client)
    state.links[identity] = link
    state.liveness.on_connected(identity, now=now, grace_s=CLIENT_GRACE_S)
    deliveries = state.deliveries[client]
    _forget_taken(state, client, deliveries.on_hello(hello.received))
    state.say(
        "client",
        client,
        ClientWelcome(
            state.controller,
            state.cluster,
            state.accepted[client].ranges(),
            [record.info for record in state.registry.engines.values()],
            deliveries.next_number,
            TASK_WINDOW,
            BYTE_WINDOW,
        ),
    )
    return ""


def on_submit(state: ClusterState, client: ClientId, record: Submit, *, now: float) -> None:
    options = record.options
    accepted = state.accepted[client]
    blobs = state.blobs
    function_missing = blobs.missing((options.function,)) if options.function else []
    resend: list[int] = []
    wanted: set[BlobId] = set()
    for call in record.calls:
        numbers = range(call.number, call.number + (len(call.engines) or 1))
        if numbers.stop > NUMBER_LIMIT or any(number in accepted for number in numbers):
            blobs.drop_unheld(call.blobs)
            continue  # said again after a hello
        missing = [*function_missing, *blobs.missing(call.blobs)] if call.blobs else function_missing
        if missing:
            resend.append(call.number)
            wanted.update(missing)
            continue
        for number in numbers:
            accepted.add(number)
        needed = (options.function, *call.blobs) if options.function else call.blobs
        for _ in numbers:  # each task lets go of them by itself
            blobs.hold(needed)
        for number, engine in zip(numbers, call.engines or (NO_ENGINE,), strict=True):
            task_id = make_task_id(client, number)
            state.remember(TaskAccepted(task_id, now, options, call.payload, call.blobs, engine))
        state.scheduler.on_submitted(client, options, call, blob_bytes=blobs.size_bytes(call.blobs), now=now)
        state.on_accepted(client, numbers)
    if resend:
        state.say("client", client, Resend(resend, sorted(wanted)))


def on_abort(state: ClusterState, client: ClientId, record: Abort, *, now: float) -> None:
    state.scheduler.on_aborted([task for task in record.tasks if task_client(task) == client], now=now)


def on_received(state: ClusterState, client: ClientId, record: Received) -> None:
    _forget_taken(state, client, state.deliveries[client].on_received(record.below))
    state.touch(("client", client))  # there may be room for more


def _forget_taken(state: ClusterState, client: ClientId, taken: list[TaskResult]) -> None:
    for result in taken:
        if result.blobs:
            state.blobs.release(result.blobs)
        state.remember(TaskDelivered(result.task))


def on_goodbye(state: ClusterState, client: ClientId) -> None:
    state.forget_client(client)


def on_ping(state: ClusterState, client: ClientId) -> None:
    state.say("client", client, Ping())


# ---------------------------------------------------------------- questions and orders


def on_ask_status(state: ClusterState, client: ClientId, record: AskStatus, *, now: float) -> None:
    scheduler = state.scheduler
    counts = scheduler.statistics()
    engines = []
    for engine, registered in sorted(state.registry.engines.items()):
        load = scheduler.load(engine)
        if load is None:
            continue
        first = next(iter(load.in_flight.values()), None)
        engines.append(
            EngineStatus(
                engine=engine,
                key=registered.key,
                host=registered.info.host,
                pid=registered.info.pid,
                state="ready" if load.connected else "disconnected",
                direct_queue=len(load.direct),
                in_flight=len(load.in_flight),
                running=first.task_id if first is not None else TaskId(0),
                completed=load.completed,
            )
        )
    state.say(
        "client",
        client,
        StatusAnswer(
            record.request,
            state.cluster,
            now - state.started_at,
            engines,
            len(state.registry.clients),
            scheduler.ready_count,
            counts.sent,
            counts.running,
            counts.done,
            counts.failed,
            counts.cancelled,
        ),
        256 + 96 * len(engines),
    )


def on_start_engines(state: ClusterState, client: ClientId, record: StartEngines, *, now: float) -> None:
    state.launches.on_ordered(LaunchOrder(client, record.request, record.count), now=now)
    pass_on_launches(state)


def pass_on_launches(state: ClusterState) -> None:
    """Give waiting orders to a host, if there is one."""
    host = next((key for key in state.registry.hosts if ("host", key) in state.links), None)
    if host is None:
        return
    for launch, order in state.launches.take_waiting(host):
        state.say("host", host, LaunchEngines(launch, state.registry.reserve_engines(order.engines)))


def refuse_launches(state: ClusterState, *, now: float) -> None:
    """Answer the orders that no host has come for."""
    for order in state.launches.take_overdue(now=now):
        answer = Answer(
            order.request,
            "no host of this cluster can start engines; "
            "start some with `enginery engine` where they should run",
        )
        state.say("client", order.client, answer)


def on_stop_engines(state: ClusterState, client: ClientId, record: StopEngines) -> None:
    """No engine named = all of them."""
    wanted = record.engines or list(state.registry.engines)
    error = _unknown_engines(state, wanted)
    if not error:
        for host, keys in _by_host(state, wanted).items():
            state.stopping.update(keys)  # who says hello later, or again, hears of it then
            if host and state.say("host", host, StopProcesses(keys)):
                continue
            for key in keys:
                registered = state.registry.engine_by_key(key)
                if registered is not None:
                    state.say("control", registered.engine, StopEngine())
    state.say("client", client, Answer(record.request, error))


def on_signal_engines(state: ClusterState, client: ClientId, record: SignalEngines) -> None:
    """No engine named = all of them."""
    wanted = record.engines or list(state.registry.engines)
    error = _unknown_engines(state, wanted)
    if not error:
        for host, keys in _by_host(state, wanted).items():
            if not host or not state.say("host", host, SignalProcesses(keys, record.signum)):
                error = "some engines have no supervisor that could send them a signal"
    state.say("client", client, Answer(record.request, error))


def _unknown_engines(state: ClusterState, engines: list[EngineId]) -> str:
    unknown = sorted(set(engines) - state.registry.engines.keys())
    if not unknown:
        return ""
    present = ", ".join(map(str, sorted(state.registry.engines))) or "none"
    return f"there is no engine {', '.join(map(str, unknown))}; the engines are: {present}"


def on_shut_down(state: ClusterState, client: ClientId, record: ShutDown) -> None:
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
