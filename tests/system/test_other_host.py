"""Engines on another host: what several of them need is sent there once, and mapped by all.

The other host is a mount namespace with a shared memory of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import enginery as ipp
from tests.system.shared import PATIENCE_S, checksum, pattern, until

THERE = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'
MAY = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
pytestmark = pytest.mark.skipif(not MAY, reason="this user may not unshare the mount namespace")


@pytest.fixture(scope="module")
def rc() -> Iterator[ipp.Client]:
    """One engine here, three there."""
    with ipp.Cluster(n=1) as client:
        file = Path(client.connection_file).with_name("host.json")
        command = [sys.executable, "-m", "enginery", "engine", "--file", str(file), "-n", "3"]
        own = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # as engines here have it
        process = subprocess.Popen(["unshare", "-m", "sh", "-c", THERE, "sh", *command], env=own)
        try:
            client.wait_for_engines(4, timeout=PATIENCE_S)
            yield client
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def segments_mapped() -> list[str]:
    """The segments of shared memory that this process maps, by their inodes."""
    with open("/proc/self/maps") as file:
        return sorted(line.split()[4] for line in file if "/dev/shm/enginery-" in line)


def test_a_broadcast_is_in_the_other_hosts_memory_once(rc: ipp.Client) -> None:
    there = rc[1:4]
    pushed = pattern(20_000_000)
    there.push({"array": pushed}, block=True)
    mapped = there.apply_sync(segments_mapped)
    assert mapped[0] == mapped[1] == mapped[2]
    assert len(mapped[0]) == 1
    assert there.apply_sync(checksum, ipp.Reference("array")) == [checksum(pushed)] * 3
    there.apply_sync(lambda: globals().pop("array") is None)
    until(lambda: there.apply_sync(segments_mapped) == [[], [], []])


def test_results_and_arguments_come_as_they_are(rc: ipp.Client) -> None:
    array = pattern(3_000_000, seed=2)
    for view in (rc[1], rc[0]):
        assert np.array_equal(view.apply_sync(lambda x: x, array), array)
    assert [checksum(part) for part in rc[:].apply_sync(lambda x: x, array)] == [checksum(array)] * 4


def test_a_constant_of_a_map_goes_there_once(rc: ipp.Client) -> None:
    array = pattern(5_000_000, seed=3)
    view = rc.load_balanced_view([1, 2, 3])
    found = view.map_sync(lambda constant, place: int(constant[place]), [array] * 60, range(60), chunksize=1)
    assert found == [int(value) for value in array[:60]]
