"""`become_dask`: workers in the engines, which go on serving tasks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import enginery as ipp


@pytest.fixture(scope="module")
def rc() -> Iterator[ipp.Client]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of distributed's own imports
        from distributed import utils
    with ipp.Cluster(n=2) as client:
        yield client
    utils._offload_executor.shutdown()  # dask's own, for all of a process


def pid(number: int) -> int:
    import os
    import time

    time.sleep(0.05)
    return os.getpid()


def test_tasks_of_dask_run_in_the_engines(rc: ipp.Client) -> None:
    dask = rc.become_dask()
    try:
        pids = set(dask.gather(dask.map(pid, range(8))))
        assert pids == set(rc[:].apply_sync(pid, 0))
        assert set(dask.scheduler_info()["workers"]) == set(rc[:]["dask_worker.address"])
        assert rc.become_dask(targets=[0]) is dask  # it is one already
        assert sum(worker["nthreads"] for worker in dask.scheduler_info()["workers"].values()) == 2
    finally:
        rc.stop_dask()
    assert rc[:].apply_sync(lambda: "dask_worker" in globals()) == [False, False]
    assert dask.status == "closed"


def test_some_engines_then_others(rc: ipp.Client) -> None:
    dask: Any = rc.become_distributed(targets=0, nthreads=3)
    try:
        (worker,) = dask.scheduler_info()["workers"].values()
        assert (worker["nthreads"], worker["id"]) == (3, f"{rc.name}-0")
        rc.become_dask(targets=1)
        dask.wait_for_workers(2, timeout=20)
        rc.stop_dask(targets=0)
        assert dask.submit(pid, 0).result(20) == rc[1].apply_sync(pid, 0)
    finally:
        rc.stop_distributed()
    rc.stop_dask()  # there is none


def test_workers_that_cannot_start_leave_nothing(rc: ipp.Client) -> None:
    with pytest.raises(ipp.CompositeError) as caught:
        rc.become_dask(no_such_option=1)
    assert all("no_such_option" in str(error) for error in caught.value.exceptions)
    assert rc[:].apply_sync(lambda: "dask_worker" in globals()) == [False, False]
