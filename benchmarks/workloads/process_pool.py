"""`concurrent.futures.ProcessPoolExecutor`: what Python brings along."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from benchmarks.calls import register_calls
from benchmarks.catalogue import ENGINES
from benchmarks.harness import Sample, System, private_megabytes, time_import
from benchmarks.transfers import Array, Moves, register_moves
from benchmarks.workloads.bodies import held, no_op
from benchmarks.workloads.executor_calls import WITHOUT_OUTPUT, ExecutorCalls, Pools

pool = System("process pool")
SYSTEMS = [pool]


@contextmanager
def session() -> Iterator[Pools]:
    with ProcessPoolExecutor(ENGINES) as everyone, ProcessPoolExecutor(1) as one:
        list(everyone.map(no_op, range(100 * ENGINES)))
        yield Pools(everyone, one)


pool.session = session


class PoolMoves(Moves):
    """Its workers keep nothing by name, so it has arguments and results only."""

    def __init__(self, pools: Pools) -> None:
        self.one = pools.one

    def call(self, array: Array) -> None:
        self.one.submit(no_op, array).result()

    def fetch(self, size_bytes: int) -> Array:
        return self.one.submit(held, size_bytes).result()


register_moves(pool, PoolMoves, only=("small_argument", "argument_16", "result_16", "curve_argument"))


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


register_calls(pool, ExecutorCalls, only=WITHOUT_OUTPUT)
