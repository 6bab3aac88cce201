"""What engines say on their two connections, and what hosts say of engines."""

from __future__ import annotations

from enginery.core.liveness import GRACE_S
from enginery.core.state import ClusterState
from enginery.ids import NO_ENGINE, EngineId, HostKey, task_client
from enginery.protocol.history import EngineJoined, TaskText
from enginery.protocol.link import RECORD_BYTES, Link
from enginery.protocol.messages import (
    Answer,
    BlobsMissing,
    ControlHello,
    ControlWelcome,
    EngineExited,
    EngineHello,
    EngineLeft,
    EngineOutput,
    EnginesChanged,
    EnginesStarted,
    EngineWelcome,
    Goodbye,
    HostHello,
    HostWelcome,
    Output,
    Ping,
    Results,
    Started,
    Status,
    StopEngine,
    StopProcesses,
    TakenBack,
    text_size,
)
from enginery.protocol.ranges import NumberSet

RESULT_BYTE_WINDOW = 256 << 20
"""Bytes of unconfirmed results that one engine may hold before it pauses."""

# ---------------------------------------------------------------- task connection


def on_hello(state: ClusterState, hello: EngineHello, link: Link, *, now: float) -> tuple[EngineId, str]:
    """Bind an engine. Returns its id and why not, or nothing."""
    refusal = state.registry.refuse_engine(hello)
    if refusal:
        return hello.wanted, refusal
    record, is_new = state.registry.on_engine_hello(hello)
    engine = record.engine
    identity = ("engine", engine)
    state.links[identity] = link
    state.liveness.on_connected(identity, now=now, grace_s=GRACE_S)
    state.blobs.on_engine_hello(engine)
    if is_new:
        state.results_seen[engine] = NumberSet(hello.first_result)
    state.say(
        "engine",
        engine,
        EngineWelcome(state.controller, engine, state.results_seen[engine].low, RESULT_BYTE_WINDOW),
    )
    if is_new:
        state.scheduler.on_engine_joined(engine)
        state.remember(EngineJoined(record.info, now))
        state.tell_all_clients(EnginesChanged([record.info], []))
        return engine, ""
    for task in state.scheduler.on_engine_returned(engine, hello.held):
        state.run(engine, task, announce=True)
    return engine, ""


def on_results(state: ClusterState, engine: EngineId, record: Results, *, now: float) -> None:
    seen = state.results_seen[engine]
    for number, result in enumerate(record.results, record.first):
        if not seen.add(number):
            state.blobs.drop_unheld(result.blobs)
            continue  # said again after a hello
        if state.blobs.missing(result.blobs):
            # The link delivers blobs before what names them; an engine that breaks this has a defect.
            result.status, result.blobs = Status.REFUSED, ()
        taken = state.scheduler.on_result(engine, result, now=now)
        if not taken:
            state.blobs.drop_unheld(result.blobs)  # nobody will ever ask for them
    state.on_results_seen(engine)


def on_started(state: ClusterState, engine: EngineId, record: Started) -> None:
    state.scheduler.on_started(engine, record.task, record.attempt)


def on_blobs_missing(state: ClusterState, engine: EngineId, record: BlobsMissing) -> None:
    state.blobs.on_forgotten(engine, record.blobs)
    task = state.scheduler.on_resend_wanted(engine, record.task, record.attempt)
    if task is not None:
        state.run(engine, task, announce=False)


def on_goodbye(state: ClusterState, engine: EngineId, goodbye: Goodbye, *, now: float) -> None:
    """It leaves on purpose, and says itself what it has begun and not reported."""
    record = state.registry.engines[engine]
    state.registry.on_engine_ended(record.key)
    started = frozenset({goodbye.running} if goodbye.running else ())
    state.forget_engine(
        record.key, cause="it was stopped", status=Status.ENGINE_DIED, started=started, now=now
    )


def on_ping(state: ClusterState, engine: EngineId) -> None:
    state.say("engine", engine, Ping())


# ---------------------------------------------------------------- control connection


def on_control_hello(
    state: ClusterState, hello: ControlHello, link: Link, *, now: float
) -> tuple[EngineId, str]:
    """Bind an engine's control connection. NO_ENGINE and no refusal: not now, it will say hello again."""
    record = state.registry.engine_by_key(hello.key)
    if record is None:
        return NO_ENGINE, ""  # its task connection has not said hello (again): user code may run for hours
    if not state.registry.owns_engine(hello.key, hello.secret):
        return record.engine, "another process has registered under this engine's key"
    identity = ("control", record.engine)
    state.links[identity] = link
    state.liveness.on_connected(identity, now=now)
    state.say("control", record.engine, ControlWelcome(record.engine))
    to_stop = state.is_shutting_down or hello.key in state.stopping
    if to_stop and ("host", record.host_key) not in state.links:
        state.say("control", record.engine, StopEngine())
    recalled = state.scheduler.recalled_of(record.engine)
    if recalled:
        state.take_back(record.engine, recalled)  # question or answer may be lost; its claims stay the same
    return record.engine, ""


def on_taken_back(state: ClusterState, engine: EngineId, record: TakenBack, *, now: float) -> None:
    state.scheduler.on_taken_back(engine, record.taken, record.kept, now=now)


def on_control_goodbye(state: ClusterState, engine: EngineId) -> None:
    state.disconnect(("control", engine))
    state.liveness.on_left(("control", engine))


def on_output(state: ClusterState, engine: EngineId, record: EngineOutput) -> None:
    if not state.scheduler.has_had(engine, record.task):
        return  # nobody may write into another's task
    size = RECORD_BYTES + text_size(record.text)
    state.say(
        "client", task_client(record.task), Output(record.task, engine, record.stream, record.text), size
    )
    state.remember(TaskText(record.task, engine, record.stream, record.text))


# ---------------------------------------------------------------- hosts


def on_host_hello(state: ClusterState, hello: HostHello, link: Link, *, now: float) -> str:
    if not state.registry.on_host_hello(hello.key, hello.secret):
        return "another host has registered under this key"
    identity = ("host", hello.key)
    state.links[identity] = link
    state.liveness.on_connected(identity, now=now)
    state.say("host", hello.key, HostWelcome(state.cluster))
    if state.is_shutting_down:
        state.say("host", hello.key, StopProcesses([]))
    own = [
        record.key
        for record in state.registry.engines.values()
        if record.host_key == hello.key and record.key in state.stopping
    ]
    if own:
        state.say("host", hello.key, StopProcesses(own))
    return ""


def on_engine_exited(state: ClusterState, key: HostKey, record: EngineExited, *, now: float) -> None:
    registered = state.registry.engine_by_key(record.key)
    if registered is None and not record.expected and not state.registry.has_ended(record.key):
        # Who waits for it to join has to know.
        state.tell_all_clients(EnginesChanged([], [EngineLeft(NO_ENGINE, record.key, record.cause)]))
    elif registered is not None and registered.host_key != key:
        return  # a host speaks for its own engines only
    state.registry.on_engine_ended(record.key)
    started = frozenset(record.started) if record.proof else None
    state.forget_engine(record.key, cause=record.cause, status=Status.ENGINE_DIED, started=started, now=now)


def on_engines_started(state: ClusterState, record: EnginesStarted) -> None:
    order = state.launches.on_answered(record.request)
    if order is not None:
        started = [process.wanted for process in record.processes]
        state.say("client", order.client, Answer(order.request, record.error, started))


def on_host_goodbye(state: ClusterState, key: HostKey) -> None:
    state.registry.on_host_gone(key)
    for order in state.launches.on_host_gone(key):
        state.say("client", order.client, Answer(order.request, "the host that was to start them has left"))
    state.disconnect(("host", key))
    state.liveness.on_left(("host", key))


def lose_engine(state: ClusterState, engine: EngineId, *, now: float) -> None:
    """Its route has been gone for longer than its grace, and nobody has proof of its death."""
    record = state.registry.engines.get(engine)
    if record is not None:
        state.forget_engine(
            record.key,
            cause=f"it has not been heard of for {GRACE_S:.0f} s",
            status=Status.ENGINE_LOST,
            started=None,
            now=now,
        )
