"""Finding clusters: those of this user on this machine, and the one that is meant by a name."""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import NamedTuple

from enginery.errors import ClusterNotFound, ConnectionFileError
from enginery.transport.addresses import (
    DEFAULT_NAME,
    ClusterDirectory,
    check_cluster_name,
    runtime_directory,
)
from enginery.transport.channel import Role
from enginery.transport.connection_file import ConnectionInfo, is_stale, load


class ClusterState(enum.Enum):
    RUNNING = "running"
    STALE = "stale"  # its controller ended without saying so
    STOPPED = "stopped"  # only history and logs are left
    UNREADABLE = "unreadable"


class FoundCluster(NamedTuple):
    name: str
    directory: ClusterDirectory
    state: ClusterState
    detail: str  # a verb phrase about the connection file, if something is wrong with it


def find_clusters() -> list[FoundCluster]:
    """All clusters of this user whose directories are on this machine, by name."""
    runtime = runtime_directory(create=False)
    try:
        names = sorted(entry.name for entry in os.scandir(runtime) if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        try:
            directory = ClusterDirectory(name, runtime=runtime)
        except ValueError:
            continue  # not made by us
        found.append(_inspect(directory))
    return found


def locate(name_or_path: str | os.PathLike[str] | None = None) -> Path:
    """The client's connection file of the cluster that is meant.

    None is ``default`` if that runs, else the only running cluster. A text with a path separator, or that
    ends in ``.json``, is a path; any other a name. Raises ClusterNotFound with the names that run or the
    command to type, ConnectionFileError for a path whose cluster has ended, ValueError for an impossible
    name.
    """
    if name_or_path is None:
        return _locate_any()
    text = os.fspath(name_or_path)
    if isinstance(name_or_path, os.PathLike) or is_path(text):
        path = Path(text).expanduser()
        info = load(path)
        if is_stale(info):
            raise ConnectionFileError(
                str(path), f"{_stale(info)}; start the cluster again with:  {_start_command(info.cluster)}"
            )
        return path
    check_cluster_name(text)
    clusters = find_clusters()
    for cluster in clusters:
        if cluster.name == text and cluster.state is ClusterState.RUNNING:
            return _client_file(cluster)
    raise _not_found(text, clusters)


def may_come_back(name_or_path: str | os.PathLike[str] | None) -> bool:
    """Whether the controller of what is meant has died, and is started again if its host is still there."""
    text = DEFAULT_NAME if name_or_path is None else os.fspath(name_or_path)
    try:
        if isinstance(name_or_path, os.PathLike) or is_path(text):
            path = Path(text).expanduser()
        else:
            path = ClusterDirectory(text).connection_file(Role.CLIENT.value)
        info = load(path)
    except (ClusterNotFound, ConnectionFileError, ValueError):
        return False
    return info.restarts and is_stale(info)


def is_path(text: str) -> bool:
    separators = (os.sep, os.altsep) if os.altsep else (os.sep,)
    return text.endswith(".json") or any(separator in text for separator in separators)


def _locate_any() -> Path:
    clusters = find_clusters()
    running = [cluster for cluster in clusters if cluster.state is ClusterState.RUNNING]
    for cluster in running:
        if cluster.name == DEFAULT_NAME or len(running) == 1:
            return _client_file(cluster)
    raise _not_found("", clusters)


def _not_found(name: str, clusters: list[FoundCluster]) -> ClusterNotFound:
    running = [cluster.name for cluster in clusters if cluster.state is ClusterState.RUNNING]
    error = ClusterNotFound(name, running=running)
    for cluster in clusters:
        if cluster.detail and name in ("", cluster.name):
            error.add_note(f"the connection file {_client_file(cluster)} {cluster.detail}")
    return error


def _inspect(directory: ClusterDirectory) -> FoundCluster:
    try:
        info = load(directory.connection_file(Role.CLIENT.value))
    except ClusterNotFound:
        return FoundCluster(directory.name, directory, ClusterState.STOPPED, "")
    except ConnectionFileError as error:
        return FoundCluster(directory.name, directory, ClusterState.UNREADABLE, error.reason)
    if is_stale(info):
        return FoundCluster(directory.name, directory, ClusterState.STALE, _stale(info))
    return FoundCluster(directory.name, directory, ClusterState.RUNNING, "")


def _client_file(cluster: FoundCluster) -> Path:
    return cluster.directory.connection_file(Role.CLIENT.value)


def _stale(info: ConnectionInfo) -> str:
    return f"is stale: its controller, process {info.controller_pid}, has ended"


def _start_command(cluster: str) -> str:
    name = "" if cluster == DEFAULT_NAME else f" --name {cluster}"
    return f"enginery start -n 4{name}"
