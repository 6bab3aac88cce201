"""Speaking to a cluster that runs, each time over a short session: status, more or fewer engines, the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable

from enginery import registry
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
from enginery.ids import EngineId
from enginery.protocol import messages as m
from enginery.transport.addresses import ClusterDirectory
from enginery.transport.connection_file import ConnectionInfo, is_stale, load

ANSWER_TIMEOUT_S = 2.0
"""For what a controller answers from what it knows."""
LAUNCH_TIMEOUT_S = 30.0


def ask(
    info: ConnectionInfo, make: Callable[[int], m.Record], *, timeout_s: float = ANSWER_TIMEOUT_S
) -> m.Answer | m.StatusAnswer:
    """Ask the controller one thing. Raises ClusterNotResponding after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    session = Session.open(info, version=registry.find("__version__"), timeout_s=timeout_s)
    try:
        answer = session.ask(make)
        if not session.wait_until(answer.done, max(0.0, deadline - time.monotonic())):
            raise ClusterNotResponding(info.cluster, timeout_s=timeout_s, address=info.ipc or info.tcp[0])
        return answer.result()
    finally:
        session.close(0.0)


def status(info: ConnectionInfo, *, timeout_s: float = ANSWER_TIMEOUT_S) -> m.StatusAnswer:
    """Ask what the cluster is doing."""
    answer = ask(info, m.AskStatus, timeout_s=timeout_s)
    assert isinstance(answer, m.StatusAnswer)
    return answer


def start_engines(info: ConnectionInfo, count: int) -> tuple[EngineId, ...]:
    """Have `count` more engines started on the cluster's own host; return their ids. Raises LaunchError."""
    answer = ask(info, lambda request: m.StartEngines(request, count), timeout_s=LAUNCH_TIMEOUT_S)
    assert isinstance(answer, m.Answer)
    if answer.error:
        raise LaunchError(f"{count} engines of the cluster {info.cluster!r}", answer.error)
    return tuple(answer.engines)


def stop_engines(info: ConnectionInfo, engines: Iterable[EngineId]) -> None:
    """End these engines, none named = all. Raises ValueError for engines that are not there."""
    wanted = list(engines)
    answer = ask(info, lambda request: m.StopEngines(request, wanted))
    assert isinstance(answer, m.Answer)
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
