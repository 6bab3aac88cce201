"""enginery, default settings: the store on, CURVE on, processes as the platform has them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.catalogue import ENGINES, OURS
from benchmarks.harness import System, private_megabytes, time_calls, time_import
from benchmarks.workloads.bodies import CHUNK, ITEMS, TASKS, no_op

ours = System(OURS, package="enginery")
SYSTEMS = [ours]


@contextmanager
def session() -> Iterator[Any]:
    import enginery as ipp

    with ipp.Cluster(n=ENGINES) as rc:
        rc[:].apply_sync(no_op)
        yield rc


ours.session = session


def start_up(engines: int) -> float:
    import enginery as ipp

    began = time.perf_counter()
    with ipp.Cluster(n=engines) as rc:
        rc.load_balanced_view().apply_sync(no_op)
        return time.perf_counter() - began


@ours.measures_alone("import")
def import_it() -> float:
    return time_import("import enginery")


@ours.measures_alone("start_2")
def start_2() -> float:
    return start_up(2)


@ours.measures_alone("start_16")
def start_16() -> float:
    return start_up(16)


@ours.measures("idle_processes")
def idle_processes(_: Any) -> float:
    return len(private_megabytes())


@ours.measures("idle_largest")
def idle_largest(_: Any) -> float:
    return max(private_megabytes())


@ours.measures("idle_total")
def idle_total(_: Any) -> float:
    return sum(private_megabytes())


@ours.measures("round_trip_one")
def round_trip_one(rc: Any) -> float:
    view = rc[0]
    return time_calls(lambda: view.apply_sync(no_op))


@ours.measures("round_trip_balanced")
def round_trip_balanced(rc: Any) -> float:
    view = rc.load_balanced_view()
    return time_calls(lambda: view.apply_sync(no_op))


@ours.measures("single_tasks")
def single_tasks(rc: Any) -> float:
    view = rc.load_balanced_view()
    began = time.perf_counter()
    results = [view.apply_async(no_op) for _ in range(TASKS)]
    for result in results:
        result.get()
    return TASKS / (time.perf_counter() - began)


@ours.measures("map_default")
def map_default(rc: Any) -> float:
    view = rc.load_balanced_view()
    began = time.perf_counter()
    view.map_sync(no_op, range(ITEMS))
    return ITEMS / (time.perf_counter() - began)


@ours.measures("map_chunks")
def map_chunks(rc: Any) -> float:
    view = rc.load_balanced_view()
    began = time.perf_counter()
    view.map_sync(no_op, range(ITEMS), chunksize=CHUNK)
    return ITEMS / (time.perf_counter() - began)
