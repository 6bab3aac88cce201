"""A supervisor is killed while its cluster works: another one takes its place, and nobody notices."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import enginery as ipp
from tests.system.api.held import Gate
from tests.system.shared import until

pytestmark = pytest.mark.skipif(
    os.environ.get("ENGINERY_TEST_START_METHOD") == "spawn", reason="the supervisor is a thread"
)


@pytest.fixture
def rc() -> Iterator[ipp.Client]:
    with ipp.Cluster(n=2) as rc:
        yield rc


def supervisors() -> list[int]:
    """Process ids of those that this process's clusters have, and that have not ended."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # or a zombie
            if "(supervisor)" in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


def kill_supervisor() -> None:
    (before,) = supervisors()
    os.kill(before, signal.SIGKILL)
    until(lambda: len(found := supervisors()) == 1 and found != [before])


def say(text: str) -> str:
    """Write past Python."""
    os.write(1, text.encode())
    return text


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_tasks_go_on_and_are_heard(rc: ipp.Client, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    held = gate.hold(rc[:])
    kill_supervisor()
    gate.open()
    assert held.get(timeout=20) == ["through"] * 2
    heard = rc[:].apply_async(say, "past Python\n")
    heard.get(timeout=20)
    assert heard.wait_for_output(20)
    assert heard.stdout == ["past Python\n"] * 2


def test_deaths_are_explained_and_engines_started_by_the_next_one(rc: ipp.Client) -> None:
    kill_supervisor()
    with pytest.raises(ipp.error.EngineError, match=r"killed by SIGKILL \(signal 9\)"):
        rc[0].apply_async(die).get(timeout=20)
    kill_supervisor()
    cluster = rc.cluster
    assert cluster is not None
    cluster.start_engines_sync(1)
    rc.wait_for_engines(2, timeout=20)
    assert rc[:].apply_async(say, "more\n").get(timeout=20) == ["more\n"] * 2
