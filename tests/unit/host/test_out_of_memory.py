"""Deaths for want of memory, from what the kernel would write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from enginery.host.out_of_memory import MemoryEvidence

GB = 10**9
TOTAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Kernel:
    """Files as the kernel shows them: a control group of version 1 or 2, and its log."""

    def __init__(self, path: Path, version: int) -> None:
        self.groups, self.membership, self.log = path / "groups", path / "membership", path / "log"
        self.group = self.groups / "user/job" if version == 2 else self.groups / "memory/user/job"
        self.counter = self.group / ("memory.events" if version == 2 else "memory.oom_control")
        limit = self.group / ("memory.max" if version == 2 else "memory.limit_in_bytes")
        self.group.mkdir(parents=True)
        self.membership.write_text("0::/user/job\n" if version == 2 else "9:cpu:/\n4:memory:/user/job\n")
        limit.write_text(f"{2 * GB}\n")
        self.log.touch()
        self.count(0)

    def count(self, kills: int) -> None:
        self.counter.write_text(f"oom 0\noom_kill {kills}\n")

    def say(self, line: str) -> None:
        with open(self.log, "a") as file:
            file.write(line)

    def evidence(self) -> MemoryEvidence:
        return MemoryEvidence(groups=self.groups, membership=self.membership, kernel_log=self.log)


@pytest.fixture(params=[1, 2])
def kernel(request: pytest.FixtureRequest, tmp_path: Path) -> Kernel:
    return Kernel(tmp_path, request.param)


@pytest.fixture
def evidence(kernel: Kernel) -> Iterator[MemoryEvidence]:
    evidence = kernel.evidence()
    yield evidence
    evidence.close()
    evidence.close()


def test_nothing_speaks_for_it(evidence: MemoryEvidence) -> None:
    assert evidence.explain(7, GB // 10) == ""


def test_the_control_group_has_counted_it(kernel: Kernel, evidence: MemoryEvidence) -> None:
    kernel.count(1)
    used = "it had used up to 100 MB of 2.0 GB"
    said = f"the kernel killed it, or a process beside it, because memory ran out; {used}"
    assert evidence.explain(7, GB // 10) == said
    assert evidence.explain(8, GB // 10) == "", "that was the other one"


def test_the_kernel_s_log_names_it(kernel: Kernel, evidence: MemoryEvidence) -> None:
    kernel.say("4,1,2,-;Out of memory: Killed process 7 (python3) total-vm:9kB, anon-rss:8kB\n")
    assert evidence.explain(8, 0) == ""
    said = "the kernel killed it because memory ran out; it had used up to 1.9 GB of 2.0 GB"
    assert evidence.explain(7, 19 * GB // 10) == said


def test_who_had_nearly_all_has_probably_died_of_it(evidence: MemoryEvidence) -> None:
    said = "probably because memory ran out; it had used up to 1.5 GB of 2.0 GB"
    assert evidence.explain(7, 15 * GB // 10) == said


def test_a_group_without_a_limit_has_what_the_machine_has(kernel: Kernel, evidence: MemoryEvidence) -> None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        (kernel.group / name).write_text("max\n")
    assert evidence.explain(7, 15 * GB // 10) == "" or 15 * GB // 10 >= 0.7 * TOTAL
    assert "probably" in evidence.explain(7, TOTAL)


def test_where_the_kernel_shows_nothing(tmp_path: Path) -> None:
    none = tmp_path / "none"
    evidence = MemoryEvidence(groups=none, membership=none, kernel_log=none)
    assert evidence.explain(7, 1) == ""
    assert "probably" in evidence.explain(7, TOTAL)
    assert repr(evidence) == "<MemoryEvidence of no control group>"
