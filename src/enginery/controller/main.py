"""A controller process, from its start record to its exit code."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from pathlib import Path

import msgspec

from enginery.controller.service import Controller
from enginery.controller.store.memory import MemoryStore
from enginery.controller.store.sqlite import SqliteStore
from enginery.controller.store.store import HistoryStore
from enginery.protocol.specs import ControllerSpec, Ready
from enginery.transport.addresses import ClusterDirectory
from enginery.transport.connection_file import publish
from enginery.transport.exchange import open_exchange
from enginery.transport.keys import ClusterKeys

log = logging.getLogger("enginery.controller")


def run_controller(spec: ControllerSpec, *, version: str, keys: ClusterKeys | None = None) -> int:
    """Serve until told to stop. Returns the exit code.

    The caller holds the lock of the cluster's directory, and its files are the caller's to remove.
    """
    path = Path(spec.directory)
    directory = ClusterDirectory(path.name, runtime=path.parent)
    keys = keys or ClusterKeys.generate()
    exchange = open_exchange(
        keys, directory.ipc_path(), lane_path=directory.lane_path(), host=spec.host, port=spec.port
    )
    with contextlib.closing(exchange), contextlib.closing(_open_store(spec, directory)) as store:
        controller = Controller(
            cluster=spec.cluster, version=version, exchange=exchange, store=store, owner_pid=spec.owner_pid
        )
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda *_: controller.stop())
        with contextlib.closing(controller):
            publish(
                directory,
                keys,
                tcp=exchange.tcp_addresses,
                ipc=exchange.ipc_address,
                lane=exchange.lane_path,
            )
            say_ready(spec.ready_fd)
            controller.run()
    return 0


def say_ready(descriptor: int, error: str = "") -> None:
    """Write the line that whoever starts a cluster waits for."""
    if descriptor >= 0:
        os.write(descriptor, msgspec.json.encode(Ready(error=error)) + b"\n")
        os.close(descriptor)


def _open_store(spec: ControllerSpec, directory: ClusterDirectory) -> HistoryStore:
    if spec.database == "memory":
        return MemoryStore()
    return SqliteStore.open(
        directory.history_file,
        durability="strict" if spec.durability == "strict" else "fast",
        on_failure=lambda error: log.error("%s", error),
    )
