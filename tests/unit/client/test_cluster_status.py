"""`rc.status()` and `enginery status`: what is shown of a cluster."""

from __future__ import annotations

import doctest
import json
from datetime import datetime

import pytest

from enginery.cli.output import print_rich
from enginery.client import cluster_status, text_table
from enginery.client.cluster_status import ClusterStatus
from enginery.ids import ClientId, EngineId, EngineKey, HostKey, make_task_id
from enginery.protocol import messages as m

RUNNING = make_task_id(ClientId(0x3FA9C01B), 17)
AT = datetime(2026, 5, 4, 3, 2, 1).astimezone()


def answer() -> m.StatusAnswer:
    idle = m.EngineStatus(EngineId(0), EngineKey("00"), "box", 101, "idle", 0, 0, 5)
    busy = m.EngineStatus(EngineId(1), EngineKey("11"), "box", 102, "busy", 2, 1, 3, RUNNING, "train", 1.25)
    busy.resident, busy.cpu_s = 150_000_000, 7.5
    return m.StatusAnswer(
        1,
        "night",
        3700.25,
        2,
        2,
        m.TaskCounts(17, 0, 4, 1, 1, 10, 1, 0, 0),
        [idle, busy],
        [m.HostStatus(HostKey("h"), "box", 100, 2, 8, 1.5, 16_000_000_000)],
        [m.FailureNote(RUNNING, "train", "", m.Status.ERROR, EngineId(1), "ValueError: <b>", AT.timestamp())],
    )


TEXT = """\
cluster 'night': 2 engines (1 busy, 1 idle), 2 clients, up 1 h 01 min
tasks: 4 ready, 1 sent, 1 running, 10 done, 1 failed

engine  state  host  runs                    for  queue  in flight  done  memory    cpu
0       idle   box                                    0          0     5
1       busy   box   train (3fa9c01b-17)   1.2 s      2          1     3  150 MB  7.5 s
host box: 2 engines, 8 cores, load 1.5, 16 GB free

failed last:
  03:02:01 train (3fa9c01b-17) on engine 1: ValueError: <b>"""


def test_as_text() -> None:
    shown = str(ClusterStatus(answer()))
    assert shown.split() == TEXT.split()
    assert [line[:3] for line in shown.splitlines()] == [line[:3] for line in TEXT.splitlines()]
    assert repr(ClusterStatus(answer())) == shown


def test_as_plain_values() -> None:
    values = ClusterStatus(answer()).to_dict()
    assert json.loads(json.dumps(values)) == values
    assert (values["name"], values["uptime_s"], values["clients"]) == ("night", 3700.25, 2)
    assert (values["tasks"]["submitted"], values["tasks"]["done"]) == (17, 10)
    idle, busy = values["engines"]
    assert (idle["running"], idle["memory"]) == (None, None)
    assert (busy["running"], busy["memory"]) == ("3fa9c01b-17", 150_000_000)
    assert values["hosts"][0]["cores"] == 8
    assert values["failures"][0]["error"] == "ValueError: <b>"


def test_in_a_notebook_nothing_is_markup() -> None:
    page = ClusterStatus(answer())._repr_html_()
    assert "ValueError: &lt;b&gt;" in page
    assert page.count("<tr>") == 3


def test_in_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_rich(ClusterStatus(answer()))
    words = capsys.readouterr().out.split()
    assert words[:2] == ["cluster", "'night':"]
    assert "(3fa9c01b-17)" in words
    assert "<b>" in words


def test_a_cluster_in_which_nothing_has_happened() -> None:
    empty = m.StatusAnswer(1, "c", 7.9, 1, 0, m.TaskCounts(*[0] * 9))
    assert str(ClusterStatus(empty)).splitlines() == [
        "cluster 'c': 0 engines, 1 client, up 7 s",
        "tasks: none yet",
    ]


@pytest.mark.parametrize("module", [cluster_status, text_table])
def test_the_examples_in_docstrings(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]
