"""enginery, default settings: the store on, CURVE on, processes as the platform has them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.calls import register_calls
from benchmarks.catalogue import ENGINES, OURS
from benchmarks.harness import System, private_megabytes, time_import
from benchmarks.transfers import register_moves
from benchmarks.workloads.bodies import no_op
from benchmarks.workloads.view_calls import ViewCalls
from benchmarks.workloads.view_moves import ViewMoves

ours = System(OURS, package="enginery")
SYSTEMS = [ours]


@contextmanager
def session() -> Iterator[Any]:
    import enginery as ipp

    with ipp.Cluster(n=ENGINES) as rc:
        rc[:].apply_sync(no_op)
        yield rc


ours.session = session
register_moves(ours, ViewMoves)


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


register_calls(ours, ViewCalls)
