"""ipyparallel 9: the same programming model."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.catalogue import ENGINES
from benchmarks.harness import Sample, System, private_megabytes, time_calls, time_import
from benchmarks.workloads.bodies import CHUNK, ITEMS, TASKS, no_op

FEWER_ITEMS = 2_000

peer = System("ipyparallel", package="ipyparallel", peer=True)
SYSTEMS = [peer]


@contextmanager
def cluster(engines: int) -> Iterator[Any]:
    import ipyparallel

    with ipyparallel.Cluster(n=engines, log_level=logging.ERROR) as rc:
        yield rc


@contextmanager
def session() -> Iterator[Any]:
    with cluster(ENGINES) as rc:
        rc[:].apply_sync(no_op)
        yield rc


peer.session = session


def start_up(engines: int) -> float:
    import ipyparallel

    ipyparallel.Cluster  # noqa: B018 - its parts load on first touch
    began = time.perf_counter()
    with cluster(engines) as rc:
        rc.load_balanced_view().apply_sync(no_op)
        return time.perf_counter() - began


@peer.measures_alone("import")
def import_it() -> float:
    return time_import("import ipyparallel")


@peer.measures_alone("start_2")
def start_2() -> float:
    return start_up(2)


@peer.measures_alone("start_16")
def start_16() -> float:
    return start_up(16)


@peer.measures("idle_processes")
def idle_processes(_: Any) -> float:
    return len(private_megabytes())


@peer.measures("idle_largest")
def idle_largest(_: Any) -> float:
    return max(private_megabytes())


@peer.measures("idle_total")
def idle_total(_: Any) -> float:
    return sum(private_megabytes())


@peer.measures("round_trip_one")
def round_trip_one(rc: Any) -> float:
    view = rc[0]
    return time_calls(lambda: view.apply_sync(no_op), warm_up=20, calls=100)


@peer.measures("round_trip_balanced")
def round_trip_balanced(rc: Any) -> float:
    view = rc.load_balanced_view()
    return time_calls(lambda: view.apply_sync(no_op), warm_up=20, calls=100)


@peer.measures("single_tasks")
def single_tasks(rc: Any) -> float:
    view = rc.load_balanced_view()
    began = time.perf_counter()
    results = [view.apply_async(no_op) for _ in range(TASKS)]
    for result in results:
        result.get()
    return TASKS / (time.perf_counter() - began)


@peer.measures("map_default")
def map_default(rc: Any) -> Sample:
    view = rc.load_balanced_view()
    began = time.perf_counter()
    view.map_sync(no_op, range(FEWER_ITEMS))
    rate = FEWER_ITEMS / (time.perf_counter() - began)
    return Sample(rate, f"chunksize 1 is its default; {FEWER_ITEMS:,} items")


@peer.measures("map_chunks")
def map_chunks(rc: Any) -> float:
    view = rc.load_balanced_view()
    began = time.perf_counter()
    view.map_sync(no_op, range(ITEMS), chunksize=CHUNK)
    return ITEMS / (time.perf_counter() - began)
