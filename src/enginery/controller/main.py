"""A controller process, from its start record to its exit code."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
from pathlib import Path

import msgspec

from enginery.controller.former_life import read_left_over
from enginery.controller.service import Controller
from enginery.controller.store.buffers import BufferFiles
from enginery.controller.store.memory import MemoryStore
from enginery.controller.store.sqlite import SqliteStore
from enginery.controller.store.store import FILE_LIMITS, MEMORY_LIMITS, HistoryStore
from enginery.controller.store.written_behind import WrittenBehind
from enginery.core.left_over import LeftOver
from enginery.core.placement import Placement
from enginery.errors import LaunchError
from enginery.ids import EngineKey, TaskId
from enginery.protocol.specs import ControllerSpec, Ready
from enginery.transport import sharing
from enginery.transport.addresses import ClusterDirectory
from enginery.transport.binding import tcp_address
from enginery.transport.connection_file import Resumption, load_resumption, publish, save
from enginery.transport.exchange import open_exchange
from enginery.transport.keys import ClusterKeys
from enginery.transport.same_host import names_this_machine, process_start
from enginery.transport.status_page import read_status_page

log = logging.getLogger("enginery.controller")


def run_controller(spec: ControllerSpec, *, version: str, keys: ClusterKeys | None = None) -> int:
    """Serve until told to stop. Returns the exit code.

    The caller holds the lock of the cluster's directory, and its files are the caller's to remove.
    """
    path = Path(spec.directory)
    directory = ClusterDirectory(path.name, runtime=path.parent)
    keys = keys or ClusterKeys.generate()
    before = load_resumption(directory) if spec.restore else Resumption()
    if before.ipc:
        directory.use_ipc_path(before.ipc)
    # Peers of this machine know it by its proof; another kernel, or none, gets another one.
    host_proof = directory.write_proof(before.host_proof if names_this_machine(before.host_proof) else "")
    shared = None if spec.shared_memory_limit == 0 else sharing.begin(path, host_proof)
    shared_path = "" if shared is None else str(shared.path)
    with contextlib.ExitStack() as opened:
        if shared is not None:
            opened.callback(shared.close)
        exchange = open_exchange(
            keys,
            directory.ipc_path(),
            lane_path=directory.lane_path(),
            host=spec.host,
            port=spec.port or before.port,
        )
        opened.callback(exchange.close)
        store = _open_store(spec, directory)
        opened.callback(store.close)
        left_over = _left_over(store, directory) if spec.restore else None
        controller = Controller(
            cluster=spec.cluster,
            version=version,
            exchange=exchange,
            store=store,
            owner_pid=spec.owner_pid,
            placement=Placement(spec.scheme, spec.hwm, random.Random()),
            cancel_grace_s=spec.cancel_grace_s,
            shared=shared,
            left_over=left_over,
            heals=spec.restarts,
        )
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda *_: controller.stop())
        with contextlib.closing(controller):
            publish(
                directory,
                keys,
                tcp=_announced(spec.location, exchange.tcp_addresses),
                ipc=exchange.ipc_address,
                lane=exchange.lane_path,
                host_proof=host_proof,
                shared=shared_path,
                shared_limit_bytes=spec.shared_memory_limit,
                restarts=spec.restarts,
            )
            port = int(exchange.tcp_addresses[0].rpartition(":")[2])
            resumption = Resumption(port=port, ipc=str(directory.ipc_path()), host_proof=host_proof)
            save(resumption, directory.resume_file)
            say_ready(spec.ready_fd)
            controller.run()
    return 0


def _left_over(store: HistoryStore, directory: ClusterDirectory) -> LeftOver:
    """What is to be taken over, and which of its engines have ended meanwhile."""
    found = read_left_over(store)
    ended: dict[EngineKey, list[TaskId] | None] = {}
    for engine in found.engines:
        page = directory.status_page(engine.info.key)
        # Only those of this host have a page here, and only of those the number of a process says anything.
        if page.exists() and not process_start(engine.info.pid):
            content = read_status_page(page)
            ended[engine.info.key] = None if content is None else content.started
            page.unlink(missing_ok=True)
    return found._replace(ended=ended)


def say_ready(descriptor: int, error: str = "") -> None:
    """Write the line that whoever starts a cluster waits for."""
    if descriptor >= 0:
        os.write(descriptor, msgspec.json.encode(Ready(error=error)) + b"\n")
        os.close(descriptor)


def _announced(location: str, addresses: tuple[str, ...]) -> tuple[str, ...]:
    """The addresses for connection files: that of a location, if one is given, before those found."""
    if not location:
        return addresses
    return (tcp_address(location, addresses[0].rpartition(":")[2]), *addresses)


def _open_store(spec: ControllerSpec, directory: ClusterDirectory) -> HistoryStore:
    asked = spec.history_limits
    memory = spec.database == "memory"
    if memory and spec.restore:
        raise LaunchError("the controller", "its history was in memory only: there is nothing to go on with")
    limits = MEMORY_LIMITS if memory else FILE_LIMITS
    limits = limits._replace(
        records=limits.records if asked.records is None else asked.records,
        payload_bytes=limits.payload_bytes if asked.payload_bytes is None else asked.payload_bytes,
        payload_age_s=asked.payload_age_s,
        record_age_s=asked.record_age_s,
    )
    if memory:
        files = BufferFiles(directory.path / "results")
        files.remove_all()  # those of a controller that was killed
        return MemoryStore(
            files=WrittenBehind(files),
            record_limit=limits.records,
            payload_limit_bytes=limits.payload_bytes,
            payload_age_s=limits.payload_age_s,
            record_age_s=limits.record_age_s,
        )
    return SqliteStore.open(
        directory.history_file,
        durability="strict" if spec.durability == "strict" else "fast",
        resumes=spec.restore,
        record_limit=limits.records,
        payload_limit_bytes=limits.payload_bytes,
        payload_age_s=limits.payload_age_s,
        record_age_s=limits.record_age_s,
        on_failure=lambda error: log.error("%s", error),
    )
