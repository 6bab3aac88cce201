"""Engines, supervisors, controllers and clients are killed at random, and no task is lost or ends wrongly."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

import enginery as ipp
from tests.chaos.rig import ENGINES, Account, Pace, Rig

CLUSTER = "chaos"


@pytest.fixture
def cluster() -> Iterator[ipp.Cluster]:
    cluster = ipp.Cluster(n=ENGINES, name=CLUSTER, restart=True)
    directory = cluster.directory.path
    try:
        yield cluster
    finally:
        cluster.stop_cluster_sync()
        shutil.rmtree(directory, ignore_errors=True)


def run(cluster: ipp.Cluster, *, seed: int, duration_s: float, pace: Pace) -> Account:
    rc = cluster.start_and_connect_sync()
    account = Rig(cluster, rc, seed=seed, pace=pace).run(duration_s)
    print(account)
    assert account.wrong == []
    return account


@pytest.mark.timeout(240)
def test_a_minute(cluster: ipp.Cluster) -> None:
    account = run(cluster, seed=1, duration_s=60.0, pace=Pace())
    assert account.kills["engines"] >= 20
    assert account.kills["supervisor"] >= 3
    assert account.kills["controller"] >= 2
    assert account.kills["clients"] >= 3
    assert account.tasks >= 5_000


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(10))
def test_ten_minutes(cluster: ipp.Cluster, seed: int) -> None:
    pace = Pace(engines=4.0, supervisor=25.0, controller=30.0, clients=15.0)
    account = run(cluster, seed=seed, duration_s=600.0, pace=pace)
    assert account.tasks >= 20_000
