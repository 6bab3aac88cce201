"""What is measured, and what it may cost: the workloads and the budgets, as tables.

A new workload is a line here and a function in each system's file (`workloads/`) that can do it.
"""

from __future__ import annotations

from dataclasses import dataclass

ENGINES = 2
"""Engines, workers, processes of every session."""

OURS = "enginery"
RAW = "raw 0MQ, routed, ipc"


@dataclass(frozen=True)
class Workload:
    """One figure. Every system does the same work for it, each in its own best idiom."""

    name: str
    title: str
    unit: str
    higher_is_better: bool = False


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("import", "import in a fresh interpreter, the interpreter included", "s"),
        Workload("start_2", "start-up with 2 engines to the first result, imports done", "s"),
        Workload("start_16", "start-up with 16 engines to the first result, imports done", "s"),
        Workload("idle_processes", "processes of an idle session with 2 engines, the client not counted", ""),
        Workload("idle_largest", "private memory of the largest of them", "MB"),
        Workload("idle_total", "private memory of all of them", "MB"),
        Workload("round_trip_one", "round trip of a no-op to one engine, median", "s"),
        Workload("round_trip_balanced", "round trip of a no-op to either of 2 engines, median", "s"),
        Workload("single_tasks", "5,000 no-ops submitted one by one, all results taken", "/s", True),
        Workload("map_default", "map of a no-op over 100,000 items, default arguments, ordered", "/s", True),
        Workload("map_chunks", "the same in chunks of 100", "/s", True),
    )
}


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
)
