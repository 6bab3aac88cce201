"""loky, joblib's process pool."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.calls import register_calls
from benchmarks.catalogue import ENGINES
from benchmarks.harness import System, time_import
from benchmarks.workloads.bodies import no_op
from benchmarks.workloads.executor_calls import WITHOUT_OUTPUT, ExecutorCalls, Pools

peer = System("loky", package="loky", peer=True)
SYSTEMS = [peer]


@contextmanager
def session() -> Iterator[Pools]:
    import loky

    everyone, one = loky.ProcessPoolExecutor(ENGINES), loky.ProcessPoolExecutor(1)
    try:
        list(everyone.map(no_op, range(100 * ENGINES)))
        yield Pools(everyone, one)
    finally:
        everyone.shutdown(kill_workers=True)
        one.shutdown(kill_workers=True)


peer.session = session
register_calls(peer, ExecutorCalls, only=WITHOUT_OUTPUT)


@peer.measures_alone("import")
def import_it() -> float:
    return time_import("import loky")


@peer.measures_alone("start_2")
def start_2() -> float:
    import loky

    began = time.perf_counter()
    executor = loky.ProcessPoolExecutor(2)
    executor.submit(no_op).result()
    took_s = time.perf_counter() - began
    executor.shutdown(kill_workers=True)
    return took_s
