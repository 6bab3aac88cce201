"""Calls through executors of `concurrent.futures`: the process pool, loky, mpi4py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.calls import Calls, Function


@dataclass
class Pools:
    """All workers, and a pool of one for what is addressed to one engine."""

    all: Executor
    one: Executor


class ExecutorCalls(Calls):
    """Their workers are not addressed one by one, and their calls name no others."""

    items = 20_000
    notes: ClassVar = {"map_default": f"chunksize 1 is its default; {items:,} items"}

    def __init__(self, pools: Pools) -> None:
        self.pools = pools

    def one(self, function: Function, *args: Any) -> Any:
        return self.pools.one.submit(function, *args).result()

    def any(self, function: Function, *args: Any) -> Any:
        return self.pools.all.submit(function, *args).result()

    def submit(self, function: Function, *args: Any) -> Any:
        return self.pools.all.submit(function, *args)

    def values(self, submitted: Sequence[Any]) -> Sequence[Any]:
        return [future.result() for future in submitted]

    def map(self, function: Function, items: Iterable[Any]) -> Sequence[Any]:
        return list(self.pools.all.map(function, items))

    def map_chunks(self, function: Function, items: Iterable[Any], chunk: int) -> Sequence[Any]:
        return list(self.pools.all.map(function, items, chunksize=chunk))


WITHOUT_OUTPUT = (
    "round_trip_one",
    "round_trip_balanced",
    "single_tasks",
    "map_default",
    "map_chunks",
    "map_short",
    "map_long",
    "map_skewed",
)
"""What their workers print goes to the terminal, and no client has it."""
