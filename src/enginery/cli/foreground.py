"""Commands that stay until they are told to end: start, controller, engine."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enginery import registry
from enginery.cli.signals import Ended, EndingSignals, ForwardedSignals
from enginery.client.cluster_status import count as counted
from enginery.cluster.upkeep import last_lines
from enginery.errors import ClientClosed, ClusterNotFound, ConnectionFileError, EngineError

if TYPE_CHECKING:
    from enginery.client.client import Client
    from enginery.cluster.cluster import Cluster

LOOK_S = 1.0
_FILE_LOOK_S = 0.1
EARLY_S = 30.0
"""If all engines die within this time of the start, by themselves, the start has failed."""


def start_cluster(count: int | None, name: str, *, daemonize: bool, **keywords: Any) -> int:
    """Start a cluster, say how to reach it, and stay until a signal or its own end; return the exit code."""
    from enginery.cluster.cluster import Cluster

    # A command has no script; engines find modules where it was typed.
    path = os.pathsep.join(filter(None, (os.getcwd(), os.environ.get("PYTHONPATH"))))
    cluster = Cluster(count, name=name, detached=daemonize, env={"PYTHONPATH": path}, **keywords)
    with EndingSignals(), ForwardedSignals(cluster.signal_engines_sync):
        try:
            with cluster.start_and_connect_sync() as client:
                _say_how_to_connect(name, len(client), daemonize)
                if daemonize:
                    return 0
                _watch_early_ends(cluster, client)
            # The time-out is for a signal that comes just before the waiting begins.
            while not cluster.wait_sync(LOOK_S):
                pass
        except Ended:
            cluster.stop_cluster_sync()
            return 0
        except EngineError:
            cluster.stop_cluster_sync()
            raise
    click.echo(f"the cluster {name!r} has ended")
    return 0


def _watch_early_ends(cluster: Cluster, client: Client) -> None:
    """Return after `EARLY_S`, or when the cluster has ended.

    Raises EngineError if all engines have died meanwhile.
    """
    started = len(client)
    causes: list[str] = []
    session = client.session
    session.add_engine_listener(
        lambda _, left: causes.extend(engine.cause for engine in left if not engine.expected)
    )
    deadline = time.monotonic() + EARLY_S
    with contextlib.suppress(ClientClosed):  # the cluster says goodbye when it ends
        while not session.closed and (left_s := deadline - time.monotonic()) > 0:
            if session.wait_until(lambda: bool(causes) and not session.engines(), min(left_s, LOOK_S)):
                error = EngineError(
                    f"all {counted(started, 'engine')} died within {EARLY_S:.0f} s of the start: {causes[0]}"
                )
                error.add_note(f"The last lines of the cluster's logs:\n{last_lines(cluster.directory.logs)}")
                raise error


def _say_how_to_connect(name: str, engines: int, daemonize: bool) -> None:
    stop = f"enginery stop {name}" if daemonize else "Ctrl-C"
    call = "Client()" if name == "default" else f"Client({name!r})"
    click.echo(
        f"the cluster {name!r} runs with {counted(engines, 'engine')}; use it with:  enginery.{call}   "
        f"stop it with:  {stop}"
    )
    sys.stdout.flush()


def run_controller_alone(name: str, **keywords: Any) -> int:
    """Be the controller of a cluster until a signal or `enginery stop` comes; return the exit code."""
    from enginery.cluster.cluster import Cluster
    from enginery.cluster.names import is_given
    from enginery.cluster.upkeep import prepare, sweep
    from enginery.controller.main import run_controller
    from enginery.observe.logs import set_up_logging

    cluster = Cluster(name=name, **keywords)
    directory = cluster.directory.create()
    lock = directory.lock()
    spec = cluster.controller_spec(directory)
    set_up_logging()
    try:
        prepare(directory, restore=cluster.restore)
        return run_controller(spec, version=registry.find("__version__"))
    finally:
        lock.release()
        sweep(directory, keep_directory=is_given(name))


def run_engines(
    name_or_path: str | None,
    count: int | None,
    *,
    timeout_s: float = 0.0,
    code: str | None = None,
    script: str | None = None,
) -> int:
    """Be a host of engines that join a running cluster, until a signal or the cluster's end.

    Waits up to `timeout_s` for the cluster to be there. Each engine runs `code`, then the file `script`,
    before its first task.
    """
    import shutil

    from enginery.cli.processes import entries
    from enginery.cluster.environment import choose_start_method
    from enginery.host.main import run_host
    from enginery.host.processes import available_cores
    from enginery.ids import new_key
    from enginery.observe.logs import set_up_logging
    from enginery.protocol.specs import HostSpec
    from enginery.transport.addresses import runtime_directory
    from enginery.transport.connection_file import load

    path = _wait_for_cluster(name_or_path, timeout_s).with_name("host.json")
    info = load(path)
    # The leading dot keeps it out of the list of clusters.
    directory = runtime_directory() / f".host-{new_key()}"
    spec = HostSpec(
        cluster=info.cluster,
        directory=str(directory),
        engines=available_cores() if count is None else count,
        connection_file=str(path),
        start_method=choose_start_method(None),
        startup_code=code or "",
        startup_script=os.path.abspath(script) if script else "",
    )
    set_up_logging()
    try:
        return run_host(spec, entries())
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _wait_for_cluster(name_or_path: str | None, timeout_s: float) -> Path:
    """Find the client's connection file, as soon as it is there; raises as `locate` does after that time."""
    from enginery.transport.discovery import locate

    deadline = time.monotonic() + timeout_s
    never = threading.Event()
    while True:
        try:
            return locate(name_or_path)
        except (ClusterNotFound, ConnectionFileError):
            # Nobody tells that a file appears in a directory that may not be there either.
            if time.monotonic() >= deadline:
                raise
            never.wait(_FILE_LOOK_S)
