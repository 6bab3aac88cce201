"""Calls through the views of ipyparallel's programming model: enginery's, and its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.calls import Calls, Function, layered
from benchmarks.workloads.bodies import no_op


class ViewCalls(Calls):
    """A direct view of one engine, one of all, a balanced one."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.first = client[0]
        self.whole = client[:]
        self.balanced = client.load_balanced_view()

    def one(self, function: Function, *args: Any) -> Any:
        return self.first.apply_sync(function, *args)

    def any(self, function: Function, *args: Any) -> Any:
        return self.balanced.apply_sync(function, *args)

    def everywhere(self, function: Function) -> Sequence[Any]:
        found: Sequence[Any] = self.whole.apply_sync(function)
        return found

    def submit(self, function: Function, *args: Any) -> Any:
        return self.balanced.apply_async(function, *args)

    def values(self, submitted: Sequence[Any]) -> Sequence[Any]:
        return [result.get() for result in submitted]

    def map(self, function: Function, items: Iterable[Any]) -> Sequence[Any]:
        found: Sequence[Any] = self.balanced.map_sync(function, items)
        return found

    def map_chunks(self, function: Function, items: Iterable[Any], chunk: int) -> Sequence[Any]:
        found: Sequence[Any] = self.balanced.map_sync(function, items, chunksize=chunk)
        return found

    def graph(self, layers: int, width: int) -> int:
        def submit(before: Any, _: int) -> Any:
            with self.balanced.temp_flags(after=before):
                return self.balanced.apply_async(no_op)

        last, count = layered(submit, layers, width, last=None)
        self.values(last)
        return count
