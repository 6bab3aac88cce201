"""What is measured, and what it may cost: the workloads and the budgets, as tables.

A new workload is a line here and a function in each system's file (`workloads/`) that can do it.
"""

from __future__ import annotations

from dataclasses import dataclass

ENGINES = 2
"""Engines, workers, processes of every session."""

OURS = "enginery"
RAW = "raw 0MQ, routed, ipc"
MEMCPY = "memcpy"
RAY = "Ray"


@dataclass(frozen=True)
class Workload:
    """One figure. Every system does the same work for it, each in its own best idiom."""

    name: str
    title: str
    unit: str
    higher_is_better: bool = False


TASKS = (
    Workload("import", "import in a fresh interpreter, the interpreter included", "s"),
    Workload("start_2", "start-up with 2 engines to the first result, imports done", "s"),
    Workload("start_16", "start-up with 16 engines to the first result, imports done", "s"),
    Workload("idle_processes", "processes of an idle session with 2 engines, the client not counted", ""),
    Workload("idle_largest", "private memory of the largest of them", "MB"),
    Workload("idle_total", "private memory of all of them", "MB"),
    Workload("round_trip_one", "round trip of a no-op to one engine, median", "s"),
    Workload("round_trip_balanced", "round trip of a no-op to either of 2 engines, median", "s"),
    Workload("round_trip_all", "round trip of a no-op to both of 2 engines, median", "s"),
    Workload("single_tasks", "5,000 no-ops submitted one by one, all results taken", "/s", True),
    Workload("map_default", "map of a no-op over 100,000 items, default arguments, ordered", "/s", True),
    Workload("map_chunks", "the same in chunks of 100", "/s", True),
    Workload("map_short", "map of 10,000 × 100 µs of computing, the best time ÷ the time", "of best", True),
    Workload("map_long", "map of 200 × 10 ms, likewise", "of best", True),
    Workload("map_skewed", "map of 1 × 1 s and then 100 × 20 ms, likewise", "of best", True),
    Workload("graph", "10 layers of 20 no-ops, each after all of the layer before", "/s", True),
    Workload("output", "lines that one task prints and its client has", "/s", True),
)

DATA = (
    Workload("small_argument", "call of a no-op with an array of 64 KiB on one engine, median", "s"),
    Workload("argument_16", "the same with an array of 16 MiB", "s"),
    Workload("result_16", "call of a function on one engine that returns an array of 16 MiB, median", "s"),
    Workload("push_128", "array of 128 MiB until both engines have it, bytes of one copy", "GB/s", True),
    Workload("pull_128", "array of 128 MiB fetched from one engine", "GB/s", True),
    Workload("scatter_gather_256", "256 MiB to the engines in parts and back, twice its bytes", "GB/s", True),
    Workload("curve_push", "push to both engines, 1 KiB to 1 GiB; the figure is that at 1 MiB", "GB/s", True),
    Workload("curve_pull", "pull from one engine, 1 KiB to 1 GiB; the figure is that at 1 MiB", "GB/s", True),
    Workload(
        "curve_argument", "no-op with an array, 1 KiB to 1 GiB; the figure is that at 1 MiB", "GB/s", True
    ),
)

WORKLOADS = {workload.name: workload for workload in (*TASKS, *DATA)}


@dataclass(frozen=True)
class Budget:
    """A bound on our median; with `beside`, on the median quotient to that system in the same round."""

    workload: str
    limit: float
    beside: str = ""


BUDGETS = (
    Budget("import", 0.2),
    Budget("start_2", 0.6),
    Budget("idle_processes", ENGINES + 3),
    Budget("idle_largest", 35),
    Budget("round_trip_one", 2.0, beside=RAW),
    Budget("round_trip_balanced", 2.0, beside=RAW),
    Budget("single_tasks", 10_000),
    Budget("map_chunks", 50_000),
    Budget("small_argument", 3.4, beside=RAW),  # as it was when all arrays went as frames
    Budget("argument_16", 0.005),
    Budget("push_128", 3.0),
    Budget("push_128", 4.0, beside=RAY),
    Budget("pull_128", 3.0),
    Budget("pull_128", 1.0, beside=RAY),
    Budget("scatter_gather_256", 2.0),
)
