"""dask.distributed: keys in the workers' memory."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from benchmarks.calls import MEASURES as CALL_MEASURES
from benchmarks.calls import Calls, Function, layered, register_calls
from benchmarks.catalogue import ENGINES
from benchmarks.harness import System
from benchmarks.transfers import MIB, Array, Moves, register_moves
from benchmarks.workloads.bodies import held, no_op

peer = System("dask.distributed", package="distributed", peer=True)
SYSTEMS = [peer]


@contextmanager
def session() -> Iterator[Any]:
    import distributed

    with (
        distributed.LocalCluster(
            n_workers=ENGINES,
            threads_per_worker=1,
            processes=True,
            memory_limit=None,  # or it would spill to disk what is moved here
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.wait_for_workers(ENGINES)
        client.run(no_op)
        yield client


peer.session = session


class KeyMoves(Moves):
    """Straight between client and workers (`direct`), without hashing the content for a key."""

    notes: ClassVar = {
        "push": "`scatter(broadcast=True)`: to one worker, from there to the other",
        "pull": "`Future.result` of a task that has run",
        "call": "from 16 MiB on scattered first",
    }

    def __init__(self, client: Any) -> None:
        self.client = client
        self.workers = list(client.scheduler_info()["workers"])

    def push(self, array: Array) -> None:
        self.pushed = self.client.scatter(array, broadcast=True, hash=False, direct=True)

    def hold(self, size_bytes: int) -> None:
        import distributed

        self.own = self.submit(held, size_bytes)
        distributed.wait(self.own)

    def pull(self) -> Array:
        return self.own.result()

    def call(self, array: Array) -> None:
        if array.nbytes >= 16 * MIB:  # below, the detour costs it more than it saves
            array = self.client.scatter(array, workers=self.workers[:1], hash=False, direct=True)
        self.submit(no_op, array).result()

    def fetch(self, size_bytes: int) -> Array:
        return self.submit(held, size_bytes).result()

    def scatter_gather(self, array: Array) -> Array:
        import numpy

        parts = numpy.array_split(array, ENGINES)
        futures = self.client.scatter(parts, workers=self.workers, hash=False, direct=True)
        return numpy.concatenate(self.client.gather(futures, direct=True))

    def submit(self, function: Any, *arguments: Any) -> Any:
        """A task on the first worker; `pure=False`, or a call like one before would only be looked up."""
        return self.client.submit(function, *arguments, workers=self.workers[:1], pure=False)


register_moves(peer, KeyMoves)


class KeyCalls(Calls):
    """Futures as arguments are what calls depend on."""

    items = 2_000
    tasks = 1_000
    notes: ClassVar = {
        "map_default": f"{items:,} items",
        "map_short": f"{items:,} items",
        "single_tasks": f"{tasks:,} tasks",
    }

    def __init__(self, client: Any) -> None:
        self.client = client
        self.workers = list(client.scheduler_info()["workers"])

    def one(self, function: Function, *args: Any) -> Any:
        return self.client.submit(function, *args, workers=self.workers[:1], pure=False).result()

    def any(self, function: Function, *args: Any) -> Any:
        return self.submit(function, *args).result()

    def everywhere(self, function: Function) -> Sequence[Any]:
        return list(self.client.run(function).values())

    def submit(self, function: Function, *args: Any) -> Any:
        return self.client.submit(function, *args, pure=False)

    def values(self, submitted: Sequence[Any]) -> Sequence[Any]:
        found: Sequence[Any] = self.client.gather(list(submitted))
        return found

    def map(self, function: Function, items: Iterable[Any]) -> Sequence[Any]:
        return self.values(self.client.map(function, items, pure=False))

    def graph(self, layers: int, width: int) -> int:
        last, count = layered(lambda before, _: self.submit(no_op, before), layers, width, last=[])
        self.values(last)
        return count


register_calls(
    peer, KeyCalls, only=[name for name in CALL_MEASURES if name != "output"]
)  # what its workers print stays with them
