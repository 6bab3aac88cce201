"""Commands that stay until they are told to end: start, controller, engine."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

import click

from enginery import registry
from enginery.cli.output import count as counted

_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
LOOK_S = 1.0


class Ended(BaseException):
    """A signal that asks this process to end has come."""


class EndingSignals:
    """Within it the first signal that asks for an end raises `Ended`; later ones do not disturb that end.

    What was ignored before (``nohup``) stays ignored.
    """

    def __enter__(self) -> None:
        known = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
        taken = [signum for signum in known if signal.getsignal(signum) is not signal.SIG_IGN]
        self._before = {signum: signal.signal(signum, self._on_signal) for signum in taken}

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        for known in self._before:
            signal.signal(known, signal.SIG_IGN)
        raise Ended

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)


def start_cluster(count: int | None, name: str, *, daemonize: bool, **controller: Any) -> int:
    """Start a cluster, say how to reach it, and stay until a signal or its own end; return the exit code."""
    from enginery.cluster.cluster import Cluster

    # A command has no script; engines find modules where it was typed.
    path = os.pathsep.join(filter(None, (os.getcwd(), os.environ.get("PYTHONPATH"))))
    cluster = Cluster(count, name=name, detached=daemonize, env={"PYTHONPATH": path}, **controller)
    with EndingSignals():
        try:
            with cluster.start_and_connect_sync() as client:
                engines = len(client)
            _say_how_to_connect(name, engines, daemonize)
            if daemonize:
                return 0
            # The time-out is for a signal that comes just before the waiting begins.
            while not cluster.wait_sync(LOOK_S):
                pass
        except Ended:
            cluster.stop_cluster_sync()
            return 0
    click.echo(f"the cluster {name!r} has ended")
    return 0


def _say_how_to_connect(name: str, engines: int, daemonize: bool) -> None:
    stop = f"enginery stop {name}" if daemonize else "Ctrl-C"
    call = "Client()" if name == "default" else f"Client({name!r})"
    click.echo(
        f"the cluster {name!r} runs with {counted(engines, 'engine')}; use it with:  enginery.{call}   "
        f"stop it with:  {stop}"
    )
    sys.stdout.flush()


def run_controller_alone(name: str, *, host: str, port: int, db: str, durability: str) -> int:
    """Be the controller of a cluster until a signal or `enginery stop` comes; return the exit code."""
    from enginery.cluster.names import is_given
    from enginery.cluster.upkeep import prepare, sweep
    from enginery.controller.main import run_controller
    from enginery.observe.logs import set_up_logging
    from enginery.protocol.specs import ControllerSpec
    from enginery.transport.addresses import ClusterDirectory

    directory = ClusterDirectory(name).create()
    lock = directory.lock()
    spec = ControllerSpec(
        cluster=name,
        directory=str(directory.path),
        host=host,
        port=port,
        database=db,
        durability=durability,
    )
    set_up_logging()
    try:
        prepare(directory)
        return run_controller(spec, version=registry.find("__version__"))
    finally:
        lock.release()
        sweep(directory, keep_directory=is_given(name))


def run_engines(name_or_path: str | None, count: int | None) -> int:
    """Be a host of engines that join a running cluster, until a signal or the cluster's end."""
    import shutil

    from enginery.cli.processes import entries
    from enginery.cluster.cluster import available_cores
    from enginery.cluster.environment import choose_start_method
    from enginery.host.main import run_host
    from enginery.ids import new_key
    from enginery.observe.logs import set_up_logging
    from enginery.protocol.specs import HostSpec
    from enginery.transport.addresses import runtime_directory
    from enginery.transport.connection_file import load
    from enginery.transport.discovery import locate

    path = locate(name_or_path).with_name("host.json")
    info = load(path)
    # The leading dot keeps it out of the list of clusters.
    directory = runtime_directory() / f".host-{new_key()}"
    spec = HostSpec(
        cluster=info.cluster,
        directory=str(directory),
        engines=available_cores() if count is None else count,
        connection_file=str(path),
        start_method=choose_start_method(None),
    )
    set_up_logging()
    try:
        return run_host(spec, entries())
    finally:
        shutil.rmtree(directory, ignore_errors=True)
