"""Calling functions: what is timed stands here, once for all; how a system calls is a `Calls` in its file.

A system says with the names of its methods what it can do and, in `notes`, where that is not everybody else's
work. Items and tasks that a system is too slow for are fewer; a rate is per second all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from benchmarks.catalogue import ENGINES
from benchmarks.harness import Sample, System, time_calls
from benchmarks.workloads.bodies import CHUNK, GRAPH, ITEMS, TASKS, no_op, print_lines, spin, wait

Function = Callable[..., Any]
SHORT_S = 1e-4
LONG_S = 1e-2
SKEWED = (1.0, *(0.02,) * 100)
"""Durations of a map whose first item is by far the longest."""


class Calls:
    """How a system calls, in its best idiom."""

    notes: ClassVar[Mapping[str, str]] = {}
    items: int = ITEMS
    """How many no-ops a map with default arguments has."""
    tasks: int = TASKS

    def one(self, function: Function, *args: Any) -> Any:
        """Call on one engine, always the same, and wait for the value."""
        raise NotImplementedError

    def any(self, function: Function, *args: Any) -> Any:
        """Call on whichever engine is free, and wait for the value."""
        raise NotImplementedError

    def everywhere(self, function: Function) -> Sequence[Any]:
        """Call on all engines, and wait for all values."""
        raise NotImplementedError

    def submit(self, function: Function, *args: Any) -> Any:
        """Call on whichever engine is free; returns what `values` takes."""
        raise NotImplementedError

    def values(self, submitted: Sequence[Any]) -> Sequence[Any]:
        raise NotImplementedError

    def map(self, function: Function, items: Iterable[Any]) -> Sequence[Any]:
        """With default arguments; values in order."""
        raise NotImplementedError

    def map_chunks(self, function: Function, items: Iterable[Any], chunk: int) -> Sequence[Any]:
        raise NotImplementedError

    def graph(self, layers: int, width: int) -> int:
        """Layers of calls, each after all of the layer before; returns how many calls there were."""
        raise NotImplementedError


# ---------------------------------------------------------------- measuring


def round_trip_one(calls: Calls) -> float:
    return time_calls(lambda: calls.one(no_op))


def round_trip_balanced(calls: Calls) -> float:
    return time_calls(lambda: calls.any(no_op))


def round_trip_all(calls: Calls) -> float:
    return time_calls(lambda: calls.everywhere(no_op))


def single_tasks(calls: Calls) -> float:
    began = time.perf_counter()
    found = calls.values([calls.submit(no_op) for _ in range(calls.tasks)])
    return _rate(calls.tasks, began, found)


def map_default(calls: Calls) -> float:
    began = time.perf_counter()
    return _rate(calls.items, began, calls.map(no_op, range(calls.items)))


def map_chunks(calls: Calls) -> float:
    began = time.perf_counter()
    return _rate(ITEMS, began, calls.map_chunks(no_op, range(ITEMS), CHUNK))


def map_short(calls: Calls) -> float:
    """Quotient of the work that there is and the time that it took, on all engines: 1 is perfect."""
    return _efficiency(calls, spin, [SHORT_S] * min(calls.items, 10_000))


def map_long(calls: Calls) -> float:
    return _efficiency(calls, wait, [LONG_S] * 200)


def map_skewed(calls: Calls) -> float:
    return _efficiency(calls, wait, SKEWED)


def graph(calls: Calls) -> float:
    began = time.perf_counter()
    count = calls.graph(*GRAPH)
    return count / (time.perf_counter() - began)


def output(calls: Calls) -> float:
    began = time.perf_counter()
    lines = 20_000
    assert calls.one(print_lines, lines) == lines
    return lines / (time.perf_counter() - began)


MEASURES: dict[str, tuple[Callable[[Calls], float], str]] = {
    "round_trip_one": (round_trip_one, "one"),
    "round_trip_balanced": (round_trip_balanced, "any"),
    "round_trip_all": (round_trip_all, "everywhere"),
    "single_tasks": (single_tasks, "submit"),
    "map_default": (map_default, "map"),
    "map_chunks": (map_chunks, "map_chunks"),
    "map_short": (map_short, "map"),
    "map_long": (map_long, "map"),
    "map_skewed": (map_skewed, "map"),
    "graph": (graph, "graph"),
    "output": (output, "one"),
}
"""Workload -> how it is measured, and the method that it is about."""


def register_calls(system: System, calls: type[Calls], only: Iterable[str] = MEASURES) -> None:
    """Let a system take part in the workloads that its `calls` have methods for; it is given the session."""

    def register(name: str) -> None:
        measure, method = MEASURES[name]
        if getattr(calls, method) is getattr(Calls, method):
            return

        @system.measures(name)
        def take(session: Any) -> Sample:
            calling = calls(session)  # type: ignore[call-arg]
            return Sample(measure(calling), calling.notes.get(name, calling.notes.get(method, "")))

    for name in only:
        register(name)


def _rate(count: int, began: float, found: Sequence[Any]) -> float:
    took_s = time.perf_counter() - began
    if len(found) != count:
        raise ValueError(f"{len(found):,} values came, not {count:,}")
    return count / took_s


def _efficiency(calls: Calls, function: Function, durations: Sequence[float]) -> float:
    calls.map(function, list(durations[-ENGINES:]))  # whatever learns durations has learned it
    began = time.perf_counter()
    calls.map(function, list(durations))
    took_s = time.perf_counter() - began
    return greedy(durations, ENGINES) / took_s


def greedy(durations: Iterable[float], places: int) -> float:
    """How long this takes if the longest are begun first, each at the first place that is free.

    >>> greedy([3, 1, 1, 1], 2)
    3
    """
    ends = [0.0] * places
    for duration in sorted(durations, reverse=True):
        first = ends.index(min(ends))
        ends[first] += duration
    return max(ends)


def layered(submit: Callable[[Any, int], Any], layers: int, width: int, *, last: Any) -> tuple[Any, int]:
    """Submit the calls of a graph: `submit(those of the layer before, number)`; (last layer, how many)."""
    before = last
    count = 0
    for _ in range(layers):
        before = [submit(before, number) for number in range(width)]
        count += width
    return before, count
