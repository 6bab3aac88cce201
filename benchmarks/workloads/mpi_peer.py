"""mpi4py.futures: an executor whose workers are MPI processes. Needs an MPI, as Debian's openmpi-bin."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.calls import register_calls
from benchmarks.catalogue import ENGINES
from benchmarks.harness import ROOT, System
from benchmarks.workloads.bodies import no_op
from benchmarks.workloads.executor_calls import WITHOUT_OUTPUT, ExecutorCalls, Pools

peer = System("mpi4py.futures", package="mpi4py", peer=True)
SYSTEMS = [peer]


@contextmanager
def session() -> Iterator[Pools]:
    # As root and with more processes than cores, which OpenMPI refuses unless it is told.
    os.environ |= {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }
    from mpi4py.futures import MPIPoolExecutor

    with (
        MPIPoolExecutor(ENGINES, path=[str(ROOT)]) as everyone,
        MPIPoolExecutor(1, path=[str(ROOT)]) as one,
    ):
        list(everyone.map(no_op, range(100 * ENGINES)))
        one.submit(no_op).result()
        yield Pools(everyone, one)


peer.session = session
register_calls(peer, ExecutorCalls, only=WITHOUT_OUTPUT)
