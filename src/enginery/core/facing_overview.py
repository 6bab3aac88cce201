"""What the controller says of itself: the cluster at a glance, and why tasks are where they are."""

from __future__ import annotations

from collections.abc import Iterator

from enginery.core.explain import busy_with, engine_state, explain
from enginery.core.polls import Poll
from enginery.core.state import ClusterState
from enginery.ids import ClientId, EngineKey, HostKey
from enginery.protocol.link import RECORD_BYTES
from enginery.protocol.messages import (
    AskReasons,
    AskStatus,
    EngineStatus,
    HostStatus,
    HostUse,
    ProcessUse,
    Reason,
    ReasonsAnswer,
    ReportUse,
    StatusAnswer,
    TaskCounts,
    text_size,
)

PAGE_ENGINES = 500
REASONS_SAID = 200
"""Different reasons that one answer names."""

HostPoll = Poll[HostKey, HostUse]


def on_ask_status(state: ClusterState, client: ClientId, record: AskStatus, *, now: float) -> None:
    """Answered at once; as a whole, when each host that is asked has said what its engines use."""
    if not record.whole:
        _say_status(state, client, record.request, now=now)
        return
    hosts = [key for key in state.registry.hosts if ("host", key) in state.links]
    if not hosts or not record.ask_hosts:
        answer_status(state, HostPoll(client, record.request, False, {}, set(), now), now=now)
        return
    number = state.host_polls.on_asked(client, record.request, hosts, now=now)
    for host in hosts:
        state.say("host", host, ReportUse(number))


def on_host_use(state: ClusterState, key: HostKey, record: HostUse, *, now: float) -> None:
    poll = state.host_polls.on_answered(record.order, key, record)
    if poll is not None:
        answer_status(state, poll, now=now)


def answer_status(state: ClusterState, poll: HostPoll, *, now: float) -> None:
    """All hosts have spoken, or have left, or are not waited for any longer."""
    engines = list(_engines(state, poll, now))
    while len(engines) > PAGE_ENGINES:
        page, engines = engines[:PAGE_ENGINES], engines[PAGE_ENGINES:]
        _say_status(state, poll.client, poll.request, page, is_last=False, now=now)
    _say_status(state, poll.client, poll.request, engines, list(_hosts(state, poll)), now=now)


def _say_status(
    state: ClusterState,
    client: ClientId,
    request: int,
    engines: list[EngineStatus] | None = None,
    hosts: list[HostStatus] | None = None,
    *,
    is_last: bool = True,
    now: float,
) -> None:
    failures = [] if hosts is None else list(state.failures)
    answer = StatusAnswer(
        request,
        state.cluster,
        now - state.started_at,
        len(state.registry.clients),
        len(state.registry.engines),
        TaskCounts(*state.scheduler.statistics()),
        engines or [],
        hosts or [],
        failures,
        [] if hosts is None else list(state.deaths),
        is_last,
    )
    names = sum(text_size(engine.name) + text_size(engine.host) for engine in answer.engines)
    causes = sum(text_size(note.host) + text_size(note.cause) + 9 * len(note.tasks) for note in answer.deaths)
    errors = sum(text_size(note.error) + text_size(note.name) + text_size(note.label) for note in failures)
    fixed = 160 * (1 + len(answer.engines) + len(answer.hosts) + len(failures) + len(answer.deaths))
    state.say("client", client, answer, RECORD_BYTES + fixed + names + errors + causes)


def on_ask_reasons(state: ClusterState, client: ClientId, record: AskReasons, *, now: float) -> None:
    reasons = explain(state.scheduler, record.tasks, now=now)
    if len(reasons) > REASONS_SAID:
        others = reasons[REASONS_SAID:]
        count = sum(reason.tasks for reason in others)
        reasons[REASONS_SAID:] = [Reason(count, others[0].first, "unfinished", "various other reasons")]
    size_bytes = RECORD_BYTES + sum(64 + text_size(reason.why) for reason in reasons)
    state.say("client", client, ReasonsAnswer(record.request, reasons), size_bytes)


def _engines(state: ClusterState, poll: HostPoll, now: float) -> Iterator[EngineStatus]:
    uses: dict[EngineKey, ProcessUse] = {
        process.key: process for said in poll.words.values() for process in said.processes
    }
    for engine, registered in sorted(state.registry.engines.items()):
        load = state.scheduler.load(engine)
        if load is None:
            continue
        is_stopping = registered.key in state.stopping
        status = EngineStatus(
            engine,
            registered.key,
            registered.info.host,
            registered.info.pid,
            "stopping" if is_stopping else engine_state(load),
            queue=len(load.direct),
            in_flight=len(load.in_flight),
            completed=load.completed,
        )
        task, status.running_s = busy_with(load, now=now)
        if task is not None:
            status.task, status.name = task.task_id, task.options.name
        use = uses.get(registered.key)
        if use is not None:
            status.resident, status.cpu_s = use.resident, use.cpu_s
        yield status


def _hosts(state: ClusterState, poll: HostPoll) -> Iterator[HostStatus]:
    for key, host in state.registry.hosts.items():
        engines = sum(record.host_key == key for record in state.registry.engines.values())
        status = HostStatus(key, host.name, host.pid, engines)
        said = poll.words.get(key)
        if said is not None:
            status.cores, status.load, status.available = said.cores, said.load, said.available
        yield status
