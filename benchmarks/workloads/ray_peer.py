"""Ray: actors, and an object store in shared memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any, ClassVar

from benchmarks.calls import MEASURES as CALL_MEASURES
from benchmarks.calls import Calls, Function, layered, register_calls
from benchmarks.catalogue import ENGINES, RAY
from benchmarks.harness import ROOT, System
from benchmarks.transfers import Array, Moves, register_moves
from benchmarks.workloads.bodies import held, no_op

peer = System(RAY, package="ray", peer=True)
SYSTEMS = [peer]


class Engine:
    """What stays in each actor."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}

    def put(self, name: str, array: Array) -> None:
        self.names[name] = array

    def get(self, name: str) -> Array:
        return self.names[name]

    def hold(self, size_bytes: int) -> None:
        self.names["own"] = held(size_bytes)

    def held(self, size_bytes: int) -> Array:
        return held(size_bytes)

    def no_op(self, array: Array) -> None:
        no_op(array)

    def call(self, function: Any, *args: Any) -> Any:
        return function(*args)


@contextmanager
def session() -> Iterator[list[Any]]:
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
    import ray

    ray.init(
        address="local",
        num_cpus=ENGINES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        actors = [ray.remote(Engine).remote() for _ in range(ENGINES)]
        ray.get([actor.no_op.remote(None) for actor in actors])
        yield actors
    finally:
        ray.shutdown()


peer.session = session


class ActorMoves(Moves):
    """The store gets one copy, and the actors map it; a large argument or result goes there by itself."""

    notes: ClassVar = {
        "push": "`ray.put`, its reference to an actor per engine",
        "call": "method of an actor",
    }

    def __init__(self, actors: list[Any]) -> None:
        import ray

        self.ray = ray
        self.actors = actors

    def push(self, array: Array) -> None:
        reference = self.ray.put(array)
        self.ray.get([actor.put.remote("array", reference) for actor in self.actors])

    def hold(self, size_bytes: int) -> None:
        self.ray.get(self.actors[0].hold.remote(size_bytes))

    def pull(self) -> Array:
        return self.ray.get(self.actors[0].get.remote("own"))

    def call(self, array: Array) -> None:
        self.ray.get(self.actors[0].no_op.remote(array))

    def fetch(self, size_bytes: int) -> Array:
        return self.ray.get(self.actors[0].held.remote(size_bytes))

    def scatter_gather(self, array: Array) -> Array:
        import numpy

        parts = numpy.array_split(array, ENGINES)
        pairs = list(zip(self.actors, parts, strict=True))
        self.ray.get([actor.put.remote("part", part) for actor, part in pairs])
        return numpy.concatenate(self.ray.get([actor.get.remote("part") for actor in self.actors]))


register_moves(peer, ActorMoves)


class ActorCalls(Calls):
    """Methods of actors, the engines' likes; balanced by turns, as Ray's own pool of actors does."""

    items = 5_000
    tasks = 2_000
    notes: ClassVar = {
        "map": f"`ActorPool.map`; {items:,} items where they are short",
        "any": "an actor each, in turn",
        "submit": f"an actor each, in turn; {tasks:,} tasks",
        "graph": "references as arguments, an actor each, in turn",
    }

    def __init__(self, actors: list[Any]) -> None:
        import ray
        from ray.util import ActorPool

        self.ray = ray
        self.actors = actors
        self.turn = cycle(actors)
        self.pool = ActorPool(actors)

    def one(self, function: Function, *args: Any) -> Any:
        return self.ray.get(self.actors[0].call.remote(function, *args))

    def any(self, function: Function, *args: Any) -> Any:
        return self.ray.get(self.submit(function, *args))

    def everywhere(self, function: Function) -> Sequence[Any]:
        found: Sequence[Any] = self.ray.get([actor.call.remote(function) for actor in self.actors])
        return found

    def submit(self, function: Function, *args: Any) -> Any:
        return next(self.turn).call.remote(function, *args)

    def values(self, submitted: Sequence[Any]) -> Sequence[Any]:
        found: Sequence[Any] = self.ray.get(list(submitted))
        return found

    def map(self, function: Function, items: Iterable[Any]) -> Sequence[Any]:
        return list(self.pool.map(lambda actor, item: actor.call.remote(function, item), items))

    def graph(self, layers: int, width: int) -> int:
        last, count = layered(lambda before, _: self.submit(no_op, *before), layers, width, last=())
        self.values(last)
        return count


register_calls(peer, ActorCalls, only=[name for name in CALL_MEASURES if name != "output"])
