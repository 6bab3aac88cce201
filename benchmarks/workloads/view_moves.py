"""How arrays move through views: enginery's way, and ipyparallel's, whose views have the same methods."""

from __future__ import annotations

from typing import Any

from benchmarks.transfers import Array, Moves
from benchmarks.workloads.bodies import held, no_op


class ViewMoves(Moves):
    """Names in the engines' namespaces."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.all = client[:]
        self.one = client[0]

    def push(self, array: Array) -> None:
        self.all.push({"array": array}, block=True)

    def hold(self, size_bytes: int) -> None:
        code = f"from benchmarks.workloads.bodies import held; own = held({size_bytes})"
        self.one.execute(code, block=True)

    def pull(self) -> Array:
        return self.one.pull("own", block=True)

    def call(self, array: Array) -> None:
        self.one.apply_sync(no_op, array)

    def fetch(self, size_bytes: int) -> Array:
        return self.one.apply_sync(held, size_bytes)

    def scatter_gather(self, array: Array) -> Array:
        self.all.scatter("part", array, block=True)
        return self.all.gather("part", block=True)
