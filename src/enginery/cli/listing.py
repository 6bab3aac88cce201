"""Looking at clusters from outside, by their directories: what there is, and what it has logged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from enginery.errors import ClusterNotFound, ClusterNotResponding, ConnectionFileError
from enginery.transport.discovery import ClusterState, FoundCluster, find_clusters

ANSWER_TIMEOUT_S = 1.0


def find_named(name: str) -> FoundCluster:
    """The cluster of this name, running or not; raises ClusterNotFound if there is no trace of one."""
    clusters = find_clusters()
    for cluster in clusters:
        if cluster.name == name:
            return cluster
    raise ClusterNotFound(name, running=_running(clusters))


def find_any() -> FoundCluster:
    """``default``, or the only cluster; running ones first. Raises ClusterNotFound."""
    clusters = find_clusters()
    running = [cluster for cluster in clusters if cluster.state is ClusterState.RUNNING]
    for candidates in (running, clusters):
        for cluster in candidates:
            if cluster.name == "default" or len(candidates) == 1:
                return cluster
    raise ClusterNotFound(running=_running(clusters))


def describe_all() -> list[dict[str, Any]]:
    """One row a cluster; `engines` is None where nobody answers."""
    return [_describe(cluster) for cluster in find_clusters()]


def read_logs(name: str | None, lines: int | None) -> Iterator[tuple[str, str]]:
    """(name, text) of each log of a cluster that says anything; only the last `lines` if given."""
    cluster = find_any() if name is None else find_named(name)
    for path in sorted(cluster.directory.logs.glob("*.log")):
        text = path.read_text(encoding="utf-8", errors="replace").rstrip("\n")
        if text:
            yield path.stem, text if lines is None else "\n".join(text.splitlines()[-lines:])


def describe_configuration() -> dict[str, Any]:
    """What is in force here, and the environment variables that have a say in it."""
    from enginery import registry
    from enginery.cluster.environment import choose_start_method
    from enginery.host.processes import available_cores
    from enginery.transport.addresses import runtime_directory

    return {
        "version": registry.find("__version__"),
        "runtime_directory": str(runtime_directory(create=False)),
        "start_method": choose_start_method(None),
        "cores": available_cores(),
        "variables": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith("ENGINERY_")
        },
    }


def _describe(cluster: FoundCluster) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": cluster.name,
        "state": cluster.state.value,
        "engines": None,
        "pid": None,
        "connection_file": str(cluster.directory.connection_file("client")),
    }
    if cluster.state is ClusterState.RUNNING:
        row.update(_ask(cluster))
    return row


def _ask(cluster: FoundCluster) -> dict[str, Any]:
    from enginery.cluster import control
    from enginery.transport.connection_file import load

    try:
        info = load(cluster.directory.connection_file("client"))
        answer = control.status(info, timeout_s=ANSWER_TIMEOUT_S)
    except (ClusterNotFound, ConnectionFileError):
        return {"state": ClusterState.STOPPED.value}  # it has ended since the listing
    except ClusterNotResponding:
        return {"state": "not responding"}
    return {"engines": answer.engine_count, "pid": info.controller_pid}


def _running(clusters: list[FoundCluster]) -> list[str]:
    return [cluster.name for cluster in clusters if cluster.state is ClusterState.RUNNING]
