"""What engines say on their two connections, and what hosts say of engines."""

from __future__ import annotations

from enginery.core import taking_over
from enginery.core.facing_clients import answer_restarts
from enginery.core.facing_overview import answer_status
from enginery.core.liveness import GRACE_S
from enginery.core.state import LOST, ClusterState
from enginery.core.toward_clients import pass_on, tell_listeners
from enginery.core.voices import Place
from enginery.core.watching import Recorded
from enginery.ids import NO_ENGINE, EngineId, HostKey, engine_pool
from enginery.protocol.history import EngineJoined
from enginery.protocol.link import RECORD_BYTES, Link
from enginery.protocol.messages import (
    Answer,
    BlobDeclined,
    BlobsMissing,
    ClearNamespace,
    ControlHello,
    ControlWelcome,
    Data,
    Display,
    EngineData,
    EngineDisplay,
    EngineHello,
    EngineMemory,
    EngineOutput,
    EngineProgress,
    EngineResult,
    EnginesChanged,
    EnginesStarted,
    EngineWelcome,
    FreeSegments,
    Goodbye,
    Holds,
    HostHello,
    HostWelcome,
    LaunchEngines,
    Lends,
    Obeyed,
    Output,
    ProcessText,
    Progress,
    ReportMemory,
    ReportUse,
    Results,
    ShareBlob,
    Started,
    Status,
    StopEngine,
    StopProcesses,
    TakeBack,
    TakenBack,
)
from enginery.protocol.ranges import NumberSet

RESULT_BYTE_WINDOW = 128 << 20
"""Bytes of unconfirmed results that one engine may hold in its memory before it pauses."""
HOST_LEFT = "the host that was to start them has left"

# ---------------------------------------------------------------- task connection


def on_hello(state: ClusterState, hello: EngineHello, link: Link, *, now: float) -> tuple[EngineId, str]:
    """Bind an engine. Returns its id and why not, or nothing."""
    refusal = state.registry.refuse_engine(hello)
    if refusal:
        return hello.wanted, refusal
    record, is_new = state.registry.on_engine_hello(hello)
    state.healing.on_hello(hello.key)
    engine = record.engine
    identity = ("engine", engine)
    state.links[identity] = link
    state.liveness.on_connected(identity, now=now, grace_s=GRACE_S)
    state.blobs.on_engine_hello(engine)
    pool = hello.pool if hello.pool == engine_pool(hello.key) else ""
    state.on_sharing(identity, pool, hello.lent)
    state.relays.on_engine_hello(engine, hello.host_key, maps_host=hello.maps_host)
    if state.restoring.on_first_hello(engine) or is_new:
        state.results_seen[engine] = NumberSet(hello.first_result)
        state.stored[engine] = hello.first_result
    if is_new:
        state.scheduler.on_engine_joined(engine)
        state.scheduler.on_engine_disconnected(engine)  # as far as tasks are concerned, see `on_known`
        state.joining.add(engine)
        state.recording.on_joined(record.key)
    taking_over.on_held(state, hello.key, hello.held, now=now)
    strangers = state.scheduler.strangers(engine, hello.held)
    unwanted = [attempt for attempt in strangers if not taking_over.is_left_alone(state, attempt)]
    state.say(
        "engine",
        engine,
        EngineWelcome(state.controller, engine, state.stored[engine], RESULT_BYTE_WINDOW, unwanted),
        RECORD_BYTES + 12 * len(unwanted),
    )
    if is_new:
        state.remember(EngineJoined(record.info, now, record.secret, record.host_key))
        state.tell_all_clients(EnginesChanged([record.info], []))
        return engine, ""
    if engine in state.joining:
        return engine, ""
    for task in state.scheduler.on_engine_returned(engine, hello.held):
        state.run(engine, task, announce=True)
    return engine, ""


def on_share_blob(state: ClusterState, engine: EngineId, record: ShareBlob, *, now: float) -> None:
    identity = ("engine", engine)
    if state.custody.owns(identity, record.segment):
        record.keep = False  # only clients have things that others are given by name
        state.blobs.on_shared(record, identity)


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
        state.voices.on_result(engine, result.written)
        if not taken:
            taking_over.on_result(state, engine, number, result)
        state.blobs.drop_unheld(result.blobs)  # it was late, or its task is tried again
        if taken and state.scheduler.task(result.task) is not None:
            _pass_on_text(state, engine, result)
    state.recording.on_results_seen(engine, state.restoring.safe_below(engine, seen.low))


def _pass_on_text(state: ClusterState, engine: EngineId, result: EngineResult) -> None:
    """Nobody gets the result of a task that is tried again; what it has written is heard all the same."""
    for stream, text in (("stdout", result.stdout), ("stderr", result.stderr)):
        if text:
            pass_on(state, Output(result.task, engine, stream, text, result.attempt))


def on_started(state: ClusterState, engine: EngineId, record: Started, *, now: float) -> None:
    state.scheduler.on_started(engine, record.task, record.attempt, now=now)


def on_lends(state: ClusterState, engine: EngineId, record: Lends, *, now: float) -> None:
    state.scheduler.on_lends(engine, record.task, record.attempt, is_over=record.is_over, now=now)


def on_blobs_missing(state: ClusterState, engine: EngineId, record: BlobsMissing, *, now: float) -> None:
    state.blobs.on_forgotten(engine, record.blobs)
    task = state.scheduler.on_resend_wanted(engine, record.task, record.attempt)
    if task is None:
        return  # it has ended, and its segments may have been used again: nothing is wrong with them
    if record.unreadable:
        state.custody.on_unreadable(("engine", engine))
        state.relays.on_unreadable(engine)
    if state.blobs.missing(task.needed_blobs):
        lost = EngineResult(task.task_id, task.attempt, Status.REFUSED, b"", (), now, now, error=LOST)
        state.say("control", engine, TakeBack([(task.task_id, task.attempt)]))  # what came behind it waits
        state.scheduler.on_result(engine, lost, now=now)
    else:
        state.run(engine, task, announce=False)


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
    welcome = ControlWelcome(record.engine, state.scheduler.cancelling.grace_s, state.controller)
    state.say("control", record.engine, welcome)
    to_stop = state.is_shutting_down or hello.key in state.stopping
    if to_stop and ("host", record.host_key) not in state.links:
        state.say("control", record.engine, StopEngine())
    state.scheduler.cancelling.say_again(record.engine)  # the engine's claims stay the same
    for order in state.orders.of(record.engine):
        state.say("control", record.engine, ClearNamespace(order))  # the same; twice does no harm
    for number, free in state.memory_questions.of(record.engine):
        state.say("control", record.engine, ReportMemory(number, free))
    return record.engine, ""


def on_holds(state: ClusterState, engine: EngineId, record: Holds, *, now: float) -> None:
    """Its task connection cannot say hello: user code may run for hours."""
    if record.controller == state.controller:
        taking_over.on_held(state, state.registry.engines[engine].key, record.held, now=now)


def on_taken_back(state: ClusterState, engine: EngineId, record: TakenBack, *, now: float) -> None:
    state.scheduler.on_taken_back(engine, record.taken, record.kept, now=now)


def on_control_goodbye(state: ClusterState, engine: EngineId, goodbye: Goodbye, *, now: float) -> None:
    state.disconnect(("control", engine))
    state.liveness.on_left(("control", engine))


def on_output(state: ClusterState, engine: EngineId, record: EngineOutput, *, now: float) -> None:
    text = Output(record.task, engine, record.stream, record.text, record.attempt, record.number)
    mark = Place(record.stream, record.attempt, record.mark) if record.mark else None
    _hear(state, engine, text, mark=mark, written=record.written, now=now)


def on_data(state: ClusterState, engine: EngineId, record: EngineData, *, now: float) -> None:
    _hear(state, engine, Data(record.task, record.name, record.payload), now=now)


def on_display(state: ClusterState, engine: EngineId, record: EngineDisplay, *, now: float) -> None:
    piece = record.kind, record.content, record.offset, record.is_last
    _hear(state, engine, Display(record.task, engine, *piece, record.attempt, record.number), now=now)


def on_progress(state: ClusterState, engine: EngineId, record: EngineProgress, *, now: float) -> None:
    if state.scheduler.present(engine, record.task, record.attempt):
        how_far = record.items, record.done, record.failed, record.cancelled, record.report
        tell_listeners(state, Progress(record.task, engine, record.attempt, *how_far))


def _hear(
    state: ClusterState,
    engine: EngineId,
    saying: Recorded,
    *,
    mark: Place | None = None,
    written: int = 0,
    now: float,
) -> None:
    if state.scheduler.has_had(engine, saying.task):  # nobody may write into another's task
        state.voices.on_said(engine, saying, mark=mark, written=written, now=now, outbox=state)


def on_obeyed(state: ClusterState, engine: EngineId, record: Obeyed, *, now: float) -> None:
    order = state.orders.on_answered(record.order, engine)
    if order is not None:
        state.answer_order(order)


def on_memory(state: ClusterState, engine: EngineId, record: EngineMemory, *, now: float) -> None:
    if record.freed:
        state.blobs.on_engine_freed(engine)
    question = state.memory_questions.on_answered(record.order, engine, record.use)
    if question is not None:
        state.answer_memory(question)


# ---------------------------------------------------------------- hosts


def on_host_hello(state: ClusterState, hello: HostHello, link: Link, *, now: float) -> str:
    if not state.registry.on_host_hello(hello):
        return "another host has registered under this key"
    identity = ("host", hello.key)
    state.links[identity] = link
    state.liveness.on_connected(identity, now=now)
    state.relays.on_host_hello(hello.key, hello.pool)
    state.say("host", hello.key, HostWelcome(state.cluster))
    state.free_unneeded("host", hello.key, hello.lent, state.blobs.copies_at(identity))
    if state.is_shutting_down:
        state.say("host", hello.key, StopProcesses([]))
    own = [
        record.key
        for record in state.registry.engines.values()
        if record.host_key == hello.key and record.key in state.stopping
    ]
    if own:
        state.say("host", hello.key, StopProcesses(own))
    for signals in state.signals.pop(hello.key, ()):
        state.say("host", hello.key, signals)
    for launch, engine in state.restarts.starting_at(
        hello.key
    ):  # it may not have heard; it minds the numbers
        state.say("host", hello.key, LaunchEngines(launch, [engine]))
    for launch, engines in state.launches.under_way_at(hello.key):
        state.say("host", hello.key, LaunchEngines(launch, engines))
    for number, _ in state.host_polls.of(hello.key):
        state.say("host", hello.key, ReportUse(number))
    return ""


def on_process_text(state: ClusterState, key: HostKey, record: ProcessText, *, now: float) -> None:
    registered = state.registry.engine_by_key(record.key)
    if registered is None:
        state.voices.on_late_text(key, record, outbox=state)
    elif registered.host_key == key and state.scheduler.has_had(registered.engine, record.task):
        state.voices.on_text(registered.engine, record, now=now, outbox=state)


def on_engines_started(state: ClusterState, key: HostKey, record: EnginesStarted, *, now: float) -> None:
    place = state.restarts.place_of(record.request)
    if place is not None:
        for process in record.processes:
            state.healing.on_started(process.key, place)
    answer_restarts(state, state.restarts.on_launched(record.request, record.error))
    order = state.launches.on_answered(record.request)
    if order is not None:
        started = [process.wanted for process in record.processes]
        state.say("client", order.client, Answer(order.request, record.error, started))


def on_host_share_blob(state: ClusterState, key: HostKey, record: ShareBlob, *, now: float) -> None:
    """It has copied a blob that it was sent, for its engines."""
    if not state.relays.on_placed(key, record.blob, record.segment):
        state.say("host", key, FreeSegments([record.segment]))


def on_blob_declined(state: ClusterState, key: HostKey, record: BlobDeclined, *, now: float) -> None:
    state.relays.on_declined(key, record.blob)
    state.stop_relaying(key, record.blob)


def on_host_goodbye(state: ClusterState, key: HostKey, goodbye: Goodbye, *, now: float) -> None:
    lose_host(state, key, now=now)


def lose_host(state: ClusterState, key: HostKey, *, now: float) -> None:
    """It has left, or has not been heard of for longer than its grace."""
    state.registry.on_host_gone(key)
    state.signals.pop(key, None)
    state.blobs.on_host_gone(("host", key))
    for order in state.launches.on_host_gone(key):
        state.say("client", order.client, Answer(order.request, HOST_LEFT))
    answer_restarts(state, state.restarts.on_host_gone(key, HOST_LEFT))
    for poll in state.host_polls.on_gone(key):
        answer_status(state, poll, now=now)
    state.disconnect(("host", key))
    state.liveness.on_left(("host", key))
