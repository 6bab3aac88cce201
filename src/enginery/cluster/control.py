"""Speaking to a cluster that runs, each time over a short session: status, more or fewer engines, the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator

from enginery import registry
from enginery.client.cluster_status import ClusterStatus
from enginery.client.contract import AnyAnswer
from enginery.client.session import Session
from enginery.cluster.local_host import END_GRACE_S, KILL_GRACE_S
from enginery.cluster.names import is_given
from enginery.cluster.processes import kill_families, parent_that_is, wait_for_end
from enginery.cluster.upkeep import sweep
from enginery.errors import (
    ClientClosed,
    ClusterNotFound,
    ClusterNotResponding,
    ConnectionFileError,
    LaunchError,
)
from enginery.ids import NO_ENGINE, EngineId, EngineKey
from enginery.protocol import messages as m
from enginery.transport.addresses import ClusterDirectory
from enginery.transport.connection_file import ConnectionInfo, is_stale, load

ANSWER_TIMEOUT_S = 2.0
"""For what a controller answers from what it knows."""
WHOLE_TIMEOUT_S = 5.0
"""Longer than the controller waits for its hosts' word."""
LAUNCH_TIMEOUT_S = 30.0
LEAVE_TIMEOUT_S = 10.0
"""For engines that were told to end; those that do not are killed after half of it."""


@contextlib.contextmanager
def speaking(info: ConnectionInfo, *, timeout_s: float = ANSWER_TIMEOUT_S) -> Iterator[Session]:
    """A session for a few questions. Raises ClusterNotResponding after `timeout_s`."""
    session = Session.open(info, version=registry.find("__version__"), timeout_s=timeout_s)
    try:
        yield session
    finally:
        session.close(0.0)


def ask(
    info: ConnectionInfo, make: Callable[[int], m.Record], *, timeout_s: float = ANSWER_TIMEOUT_S
) -> AnyAnswer:
    """Ask the controller one thing. Raises ClusterNotResponding after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    with speaking(info, timeout_s=timeout_s) as session:
        return _answer(session, info, make, timeout_s=timeout_s, deadline=deadline)


def status(info: ConnectionInfo, *, timeout_s: float = ANSWER_TIMEOUT_S) -> m.StatusAnswer:
    """Ask what the cluster is doing."""
    answer = ask(info, m.AskStatus, timeout_s=timeout_s)
    assert isinstance(answer, m.StatusAnswer)
    return answer


def whole_status(info: ConnectionInfo) -> ClusterStatus:
    """Ask what the cluster is doing, engine by engine; this short session is not among the clients."""
    answer = ask(info, lambda request: m.AskStatus(request, whole=True), timeout_s=WHOLE_TIMEOUT_S)
    assert isinstance(answer, m.StatusAnswer)
    answer.clients -= 1
    return ClusterStatus(answer)


def start_engines(info: ConnectionInfo, count: int) -> tuple[EngineId, ...]:
    """Have `count` more engines started on the cluster's own host; return their ids.

    Raises LaunchError, ValueError for a count that cannot be ordered.
    """
    if not 1 <= count <= m.START_LIMIT:
        raise ValueError(f"1 to {m.START_LIMIT:,} engines can be started at a time, and not {count:,}")
    with speaking(info) as session:
        answer = _order(session, info, lambda request: m.StartEngines(request, count), LAUNCH_TIMEOUT_S)
    if answer.error:
        raise LaunchError(f"{count} engines of the cluster {info.cluster!r}", answer.error)
    return tuple(answer.engines)


def await_engines(info: ConnectionInfo, engines: Iterable[EngineId], *, timeout_s: float) -> None:
    """Wait until these engines have answered, or until that time is over."""
    wanted = set(engines)
    with speaking(info) as session:
        session.wait_until(lambda: wanted <= session.engines().keys(), timeout_s)


def stop_engines(info: ConnectionInfo, engines: Iterable[EngineId] | None = None) -> list[EngineId]:
    """End these engines, or (None) all, and wait until they have left; returns those that were there.

    Raises TimeoutError if one does not leave.
    """
    with speaking(info) as session:
        wanted = present(session, engines)
        if wanted:
            _check(_order(session, info, lambda request: m.StopEngines(request, wanted)))
            if not session.wait_until(lambda: session.engines().keys().isdisjoint(wanted), LEAVE_TIMEOUT_S):
                raise TimeoutError(
                    f"engines {', '.join(map(str, wanted))} of the cluster {info.cluster!r} have been told "
                    f"to end and are still there after {LEAVE_TIMEOUT_S:g} s; look with:  "
                    f"enginery status {info.cluster}"
                )
    return wanted


def restart_engines(
    info: ConnectionInfo, engines: Iterable[EngineId] | None = None
) -> dict[EngineId, EngineKey]:
    """Put new processes in the places of these engines, or (None) of all; return them when they are there.

    Raises LaunchError if one cannot be restarted or dies at its start, ValueError for one that is not there.
    """
    died: list[str] = []
    with speaking(info) as session:
        before = {engine: known.key for engine, known in session.engines().items()}
        wanted = list(before) if engines is None else list(engines)
        if not wanted:
            return {}
        session.add_engine_listener(
            lambda _, left: died.extend(one.cause for one in left if one.engine == NO_ENGINE)
        )
        answer = _order(session, info, lambda n: m.RestartEngines(n, wanted), LAUNCH_TIMEOUT_S)
        unknown = set(wanted) - before.keys()
        if unknown:
            _check(answer)
        what = f"engines {', '.join(map(str, wanted))} of the cluster {info.cluster!r}"
        if answer.error:
            raise LaunchError(what, answer.error)

        def are_back() -> bool:
            now = session.engines()
            return all(engine in now and now[engine].key != before[engine] for engine in wanted)

        if not session.wait_until(lambda: bool(died) or are_back(), LAUNCH_TIMEOUT_S):
            raise LaunchError(what, f"they have not come back within {LAUNCH_TIMEOUT_S:g} s")
    if died:
        raise LaunchError(what, f"one has died while it was starting: {died[0]}")
    return {engine: known.key for engine, known in session.engines().items() if engine in wanted}


def signal_engines(info: ConnectionInfo, signum: int, engines: Iterable[EngineId] | None = None) -> None:
    """Have a signal sent to these engines, or (None) to all that there are.

    Raises ValueError if one is not there or has nobody who could send it.
    """
    with speaking(info) as session:
        wanted = list(session.engines()) if engines is None else list(engines)
        if wanted:
            _check(_order(session, info, lambda request: m.SignalEngines(request, wanted, signum)))


def present(session: Session, engines: Iterable[EngineId] | None) -> list[EngineId]:
    """Those of these engines, or (None) of all, that are there."""
    there = session.engines()
    return sorted(there) if engines is None else [engine for engine in engines if engine in there]


def _order(
    session: Session,
    info: ConnectionInfo,
    make: Callable[[int], m.Record],
    timeout_s: float = ANSWER_TIMEOUT_S,
) -> m.Answer:
    answer = _answer(session, info, make, timeout_s=timeout_s, deadline=time.monotonic() + timeout_s)
    assert isinstance(answer, m.Answer)
    return answer


def _answer(
    session: Session,
    info: ConnectionInfo,
    make: Callable[[int], m.Record],
    *,
    timeout_s: float,
    deadline: float,
) -> AnyAnswer:
    answer = session.ask(make)
    try:
        if not session.wait_until(answer.done, max(0.0, deadline - time.monotonic())):
            raise ClusterNotResponding(info.cluster, timeout_s=timeout_s, address=info.ipc or info.tcp[0])
    finally:
        answer.cancel()  # if it has no answer: an order is not given again when nobody waits for it
    return answer.result()


def _check(answer: m.Answer) -> None:
    if answer.error:
        raise ValueError(answer.error)


def shut_down(info: ConnectionInfo, *, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
    """Ask the controller to end the cluster; it does so after this has returned."""
    # It may say goodbye before its answer has been read.
    with contextlib.suppress(ClientClosed):
        ask(info, m.ShutDown, timeout_s=timeout_s)


def end_cluster(directory: ClusterDirectory, *, grace_s: float = END_GRACE_S) -> bool:
    """End a cluster of this machine that anybody of this user started, by force if it does not listen.

    Returns when its processes are gone and its directory is tidy; False if there was nothing to end.
    """
    try:
        info = load(directory.connection_file("client"))
    except (ClusterNotFound, ConnectionFileError):
        return False
    keep_directory = is_given(directory.name)
    if is_stale(info):
        sweep(directory, keep_directory=keep_directory)
        return False
    deadline = time.monotonic() + grace_s
    pids = [info.controller_pid]
    if host := parent_that_is("host", directory.name, info.controller_pid):
        pids.append(host)
    with contextlib.suppress(ClusterNotResponding):
        shut_down(info)
    if not all(wait_for_end(pid, deadline - time.monotonic()) for pid in pids):
        kill_families(pids, KILL_GRACE_S)
    sweep(directory, keep_directory=keep_directory)
    return True
