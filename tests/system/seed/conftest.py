"""The clusters that the statements are held against: 1, 2 and 4 engines, and 2 that the command line started.

Each is started once for all files of this directory, and leaves nothing when it ends.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

import enginery as ipp
from tests.leftovers import Ground
from tests.system.seed.held import PATIENCE_S


@pytest.fixture(scope="package", params=["1", "2", "4", "2 by command"])
def rc(request: pytest.FixtureRequest, this_run: Ground) -> Iterator[ipp.Client]:
    number, _, by_command = request.param.partition(" ")
    with this_run.as_it_was(f"the cluster of {request.param}"):
        yield from by_command_line(int(number)) if by_command else by_python(int(number))


@pytest.fixture(scope="module", autouse=True)
def nothing_left_behind() -> None:
    """In place of the check of each module: the clusters outlive these, and `rc` looks at their ends."""


def by_python(number: int) -> Iterator[ipp.Client]:
    with ipp.Cluster(n=number) as client:
        yield client


def by_command_line(number: int) -> Iterator[ipp.Client]:
    enginery = [sys.executable, "-m", "enginery"]
    subprocess.run(
        [*enginery, "start", "-n", str(number), "--name", "seed", "--daemonize"], check=True, timeout=60
    )
    try:
        with ipp.Client("seed") as client:
            client.wait_for_engines(number, timeout=PATIENCE_S)
            yield client
    finally:
        subprocess.run([*enginery, "stop", "seed"], check=True, timeout=60)
        subprocess.run([*enginery, "clean", "seed"], check=True, timeout=60)


@pytest.fixture
def dview(rc: ipp.Client) -> Iterator[ipp.DirectView]:
    view = rc[:]
    yield view
    view.clear(block=True)


@pytest.fixture
def lview(rc: ipp.Client) -> ipp.LoadBalancedView:
    return rc.load_balanced_view()
