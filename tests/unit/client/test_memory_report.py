"""`rc.memory()` as users see it."""

from __future__ import annotations

from enginery.client.memory_report import MemoryReport, ProcessMemory
from enginery.protocol.messages import AskMemory, MemoryUse, NamedObject
from tests.unit.client.fake_session import make_client

USE = MemoryUse(
    8_000_000, [NamedObject("a", "ndarray", 8_000_000)], 1_500, 0, 134_217_728, 0, 40_000_000, 20_000_000
)

TABLE = """\
process      named   blobs  results    lent  idle  resident  proportional
controller     0 B     0 B      0 B     0 B   0 B       0 B           0 B
engine 1    8.0 MB  1.5 KB      0 B  134 MB   0 B     40 MB         20 MB
engine 1: a (ndarray, 8.0 MB)
no answer from engine 0, 2"""


def report() -> MemoryReport:
    processes = [ProcessMemory("controller", "", 0, MemoryUse()), ProcessMemory("engine 1", "box", 5, USE)]
    return MemoryReport(processes, [0, 2])


def test_text() -> None:
    assert str(report()) == repr(report()) == TABLE
    assert repr(report()["engine 1"]) == "<ProcessMemory of engine 1: 40 MB>"


def test_rich() -> None:
    from rich.console import Console

    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report())
    text = console.export_text()
    console.file.close()
    assert "engine 1" in text
    assert "134 MB" in text
    assert "no answer from engine 0, 2" in text


def test_values() -> None:
    found = report().to_dict()
    assert found["silent"] == [0, 2]
    assert found["processes"][1] == {
        "process": "engine 1",
        "host": "box",
        "pid": 5,
        "named": 8_000_000,
        "blobs": 1_500,
        "results": 0,
        "lent": 134_217_728,
        "idle": 0,
        "resident": 40_000_000,
        "proportional": 20_000_000,
        "objects": [{"name": "a", "type": "ndarray", "size_bytes": 8_000_000}],
    }
    assert len(report()) == 2
    assert [each.process for each in report()] == ["controller", "engine 1"]


def test_questions_of_the_client() -> None:
    client, session = make_client((0, 1, 2))
    found = client.memory()
    assert [each.process for each in found] == ["controller", "engine 0", "engine 1", "engine 2", "client"]
    assert found["engine 1"].pid == 101
    assert [each.process for each in client.free([2, 0])] == ["controller", "engine 0", "engine 2", "client"]
    asked = [record for record in session.asked if isinstance(record, AskMemory)]
    assert [(record.engines, record.free) for record in asked] == [([], False), ([2, 0], True)]
    client.close()
