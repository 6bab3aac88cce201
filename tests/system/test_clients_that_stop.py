"""Clients that are stopped in mid-course: what is held for them is bounded, and nothing is lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import enginery as ipp
from tests.system.shared import MIB, PATIENCE_S, Program, altered, until

FULL_MIB = 450
"""What is held for one client (256 MiB), what is on its way to the disk and to it, and some."""


@pytest.fixture(params=["sqlite", "memory"])
def rc(request: pytest.FixtureRequest) -> Iterator[ipp.Client]:
    with ipp.Cluster(n=2, db=request.param) as client:
        client[:].apply_sync(abs, -1)
        yield client


SUBMITS = """
def make(number, size):
    print("made", number)
    return number.to_bytes(4, "big") * (size // 4)

rc = ipp.Client(sys.argv[1])
count, size = map(int, sys.argv[2:])
view = rc.load_balanced_view()
sent = [view.apply_async(make, number, size) for number in range(count)]
rc.session.wait_until(lambda: all(ar.sent for ar in sent[-1:]))
print("sent", flush=True)
sys.stdin.readline()
right = 0
for number in range(count):
    ar, sent[number] = sent[number], None
    right += ar.get(60) == number.to_bytes(4, "big") * (size // 4)
    ar.wait_for_output(20)
    right += ar.stdout == f"made {number}\\n"
print(right, flush=True)
rc.close()
"""


def controller_of(rc: ipp.Client) -> psutil.Process:
    return psutil.Process(rc.session.info.controller_pid)


def has_ended(rc: ipp.Client) -> bool:
    queues = rc.queue_status()
    return not queues["unassigned"] and not any(queues[engine]["tasks"] for engine in rc.ids)


@pytest.mark.parametrize("fields", [{}, {"shared": ""}], ids=["shared", "frames"])
@pytest.mark.parametrize(
    "count", [800, pytest.param(3000, marks=[pytest.mark.slow, pytest.mark.timeout(300)])]
)
def test_results_of_a_client_that_is_stopped(
    rc: ipp.Client, tmp_path: Path, count: int, fields: dict[str, Any]
) -> None:
    size = 1_000_000
    program = Program(SUBMITS, altered(rc, tmp_path / "client.json", **fields), count, size)
    assert program.line() == "sent"
    program.process.send_signal(signal.SIGSTOP)
    largest = 0

    def look() -> bool:
        nonlocal largest
        largest = max(largest, controller_of(rc).memory_info().rss - controller_of(rc).memory_info().shared)
        assert rc[0].apply_sync(abs, -1) == 1, "others go on"
        return has_ended(rc)

    until(look, patience_s=120)
    assert largest < FULL_MIB * MIB
    program.process.send_signal(signal.SIGCONT)
    assert program.process.stdin is not None
    program.process.stdin.write("go on\n")
    program.process.stdin.flush()
    assert program.line() == str(2 * count)
    program.end()


PRINTS = """
def write(count):
    for number in range(count):
        print(number, "x" * 1000)
    return "written"

rc = ipp.Client(sys.argv[1])
ar = rc[0].apply_async(write, int(sys.argv[2]))
ar.wait_on_send()
print("sent", flush=True)
sys.stdin.readline()
print(ar.get(60), ar.wait_for_output(20))
lines = ar.stdout.splitlines()
print(lines[0])
numbers = [int(line.split()[0]) for line in lines[2:]]
print(numbers == list(range(numbers[0], int(sys.argv[2]))), len(numbers) > 900, flush=True)
rc.close()
"""


def test_what_is_written_to_a_client_that_is_stopped(rc: ipp.Client) -> None:
    program = Program(PRINTS, rc.connection_file, 60_000)
    assert program.line() == "sent"
    program.process.send_signal(signal.SIGSTOP)
    before = controller_of(rc).memory_info().rss
    assert rc[1].apply_sync(abs, -1) == 1
    until(lambda: not rc.queue_status()[0]["queue"])
    assert controller_of(rc).memory_info().rss - before < 120 * MIB
    program.process.send_signal(signal.SIGCONT)
    assert program.process.stdin is not None
    program.process.stdin.write("go on\n")
    program.process.stdin.flush()
    assert program.line() == "written True"
    assert program.line() == "[of this text only the last 1 MiB are kept]"
    assert program.line() == "True True"
    program.end()


def test_large_results_of_a_client_that_was_killed_are_there_for_others(rc: ipp.Client) -> None:
    program = Program(
        """
        rc = ipp.Client(sys.argv[1])
        sent = [rc[0].apply_async(lambda n: n.to_bytes(4, "big") * 250_000, n) for n in range(20)]
        sent[-1].wait_on_send()
        print(*[ar.msg_ids[0] for ar in sent], flush=True)
        sys.stdin.readline()
        """,
        rc.connection_file,
    )
    tasks = program.line().split()
    program.kill()
    until(lambda: has_ended(rc) and not rc.queue_status()[0]["queue"])
    found = rc.get_result(tasks).get(PATIENCE_S)
    assert [value == number.to_bytes(4, "big") * 250_000 for number, value in enumerate(found)] == [True] * 20
