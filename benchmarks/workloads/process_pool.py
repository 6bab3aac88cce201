"""`concurrent.futures.ProcessPoolExecutor`: what Python brings along."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.catalogue import ENGINES
from benchmarks.harness import Sample, System, private_megabytes, time_calls, time_import
from benchmarks.workloads.bodies import CHUNK, ITEMS, TASKS, no_op

FEWER_ITEMS = 20_000

pool = System("process pool")
SYSTEMS = [pool]


@dataclass
class Pools:
    """All workers, and a pool of one for what is addressed to one engine."""

    all: ProcessPoolExecutor
    one: ProcessPoolExecutor


@contextmanager
def session() -> Iterator[Pools]:
    with ProcessPoolExecutor(ENGINES) as everyone, ProcessPoolExecutor(1) as one:
        list(everyone.map(no_op, range(100 * ENGINES)))
        yield Pools(everyone, one)


pool.session = session


def start_up(workers: int) -> float:
    began = time.perf_counter()
    with ProcessPoolExecutor(workers) as executor:
        executor.submit(no_op).result()
        return time.perf_counter() - began


@pool.measures_alone("import")
def import_it() -> float:
    return time_import("import concurrent.futures.process")


@pool.measures_alone("start_2")
def start_2() -> Sample:
    return Sample(start_up(2), "starts its workers when they are needed")


@pool.measures_alone("start_16")
def start_16() -> Sample:
    return Sample(start_up(16), "starts its workers when they are needed")


@pool.measures("idle_processes")
def idle_processes(pools: Pools) -> float:
    return len(private_megabytes())  # before the pool of one has been used


@pool.measures("idle_largest")
def idle_largest(pools: Pools) -> float:
    return max(private_megabytes())


@pool.measures("idle_total")
def idle_total(pools: Pools) -> float:
    return sum(private_megabytes())


@pool.measures("round_trip_one")
def round_trip_one(pools: Pools) -> float:
    return time_calls(lambda: pools.one.submit(no_op).result())


@pool.measures("round_trip_balanced")
def round_trip_balanced(pools: Pools) -> float:
    return time_calls(lambda: pools.all.submit(no_op).result())


@pool.measures("single_tasks")
def single_tasks(pools: Pools) -> float:
    began = time.perf_counter()
    futures = [pools.all.submit(no_op) for _ in range(TASKS)]
    for future in futures:
        future.result()
    return TASKS / (time.perf_counter() - began)


@pool.measures("map_default")
def map_default(pools: Pools) -> Sample:
    began = time.perf_counter()
    for _ in pools.all.map(no_op, range(FEWER_ITEMS)):
        pass
    rate = FEWER_ITEMS / (time.perf_counter() - began)
    return Sample(rate, f"chunksize 1 is its default; {FEWER_ITEMS:,} items")


@pool.measures("map_chunks")
def map_chunks(pools: Pools) -> float:
    began = time.perf_counter()
    for _ in pools.all.map(no_op, range(ITEMS), chunksize=CHUNK):
        pass
    return ITEMS / (time.perf_counter() - began)
