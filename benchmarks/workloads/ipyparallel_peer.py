"""ipyparallel 9: the same programming model."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from benchmarks.calls import register_calls
from benchmarks.catalogue import ENGINES
from benchmarks.harness import System, private_megabytes, time_import
from benchmarks.transfers import register_moves
from benchmarks.workloads.bodies import no_op
from benchmarks.workloads.view_calls import ViewCalls
from benchmarks.workloads.view_moves import ViewMoves

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


class KeptResults(ViewMoves):
    """Its client keeps every result until it is told to forget them."""

    def tidy(self) -> None:
        self.client.purge_local_results("all")


register_moves(peer, KeptResults)


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


class FewerItems(ViewCalls):
    """A task for each item takes it long."""

    items = FEWER_ITEMS
    notes: ClassVar = {"map_default": f"chunksize 1 is its default; {FEWER_ITEMS:,} items"}


register_calls(peer, FewerItems)
