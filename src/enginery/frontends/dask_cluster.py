"""A dask cluster on the engines of ours: a worker in each engine, the scheduler in the client's process.

The scheduler listens on the loopback interface unless an engine is on another machine. Workers run in threads
of their engines, beside what is sent to these, and end when their scheduler does: what the client's process
leaves behind, however it ends, is engines without workers.

Source: ipyparallel's `Client.become_dask`, which has its scheduler in the Hub.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from distributed import Client as DaskClient
from distributed import LocalCluster

from enginery.client.client import Client
from enginery.ids import EngineId

START_S = 60.0
"""How long workers may take to start: each imports dask."""

_running: WeakKeyDictionary[Client, Running] = WeakKeyDictionary()


class Running:
    """The scheduler of one client, and the engines that have workers of it."""

    def __init__(self, cluster: LocalCluster, dask: DaskClient) -> None:
        self.cluster = cluster
        self.dask = dask
        self.engines: set[EngineId] = set()

    def close(self) -> None:
        self.dask.close()
        self.cluster.close()


def become_dask(
    client: Client,
    engines: Sequence[EngineId],
    *,
    port: int,
    nanny: bool,
    scheduler_args: Mapping[str, Any] | None,
    worker_args: Mapping[str, Any],
) -> DaskClient:
    """Start workers on these engines, and the scheduler if there is none yet; return dask's client."""
    running = _running.get(client)
    if running is None:
        running = _running[client] = _start(client, port, dict(scheduler_args or {}))
    fresh = [engine for engine in engines if engine not in running.engines]
    if fresh:
        options = {"nthreads": 1, "dashboard": False, **worker_args}
        address = running.cluster.scheduler_address
        started = client[fresh].apply_async(start_worker, address, nanny, options, name=client.name)
        try:
            started.get(START_S)
        except BaseException:
            if not running.engines:
                stop_dask(client, fresh)
            raise
        running.engines.update(fresh)
    return running.dask


def stop_dask(client: Client, engines: Sequence[EngineId]) -> None:
    """End the workers of these engines, and with the last ones the scheduler and dask's client."""
    running = _running.get(client)
    if running is None:
        return
    try:
        present = [engine for engine in engines if engine in client.ids]
        if present:
            client[present].apply_async(stop_worker).get(START_S)
    finally:
        running.engines.difference_update(engines)
        if not running.engines:
            del _running[client]
            running.close()


def _start(client: Client, port: int, options: dict[str, Any]) -> Running:
    own = platform.node()
    is_here = all(engine.host == own for engine in client.session.engines().values())
    options.setdefault("host", "127.0.0.1" if is_here else "0.0.0.0")
    options.setdefault("dashboard_address", f"{options['host']}:0")
    cluster = LocalCluster(n_workers=0, processes=False, protocol="tcp", scheduler_port=port, **options)
    try:
        return Running(cluster, DaskClient(cluster))
    except BaseException:
        cluster.close()
        raise


# ---------------------------------------------------------------- on the engines


def start_worker(address: str, nanny: bool, options: dict[str, Any], name: str) -> str:
    """Have a worker run in a thread of this engine; returns its address."""
    import os
    import sys

    from distributed import Nanny, Worker
    from distributed.utils import LoopRunner

    stop_worker()
    options.setdefault("name", f"{name}-{os.environ['ENGINERY_ENGINE_ID']}")
    runner = LoopRunner(loop=None, asynchronous=False)
    runner.start()

    async def begin() -> Any:
        return await (Nanny if nanny else Worker)(address, **options)

    try:
        worker = runner.run_sync(begin)
    except BaseException:
        runner.stop()
        raise
    worker._enginery_runner = runner
    namespace = sys.modules["__main__"].__dict__
    namespace["dask_worker"] = namespace["distributed_worker"] = worker
    started: str = worker.address
    return started


def stop_worker() -> None:
    """End the worker of this engine, if it has one."""
    import sys

    namespace = sys.modules["__main__"].__dict__
    worker = namespace.pop("dask_worker", None)
    namespace.pop("distributed_worker", None)
    runner = getattr(worker, "_enginery_runner", None)
    if runner is not None:
        runner.run_sync(worker.close)
        runner.stop()
