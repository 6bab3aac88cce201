"""What commands print."""

import doctest

import pytest

from enginery.cli import output
from enginery.ids import ClientId, EngineId, EngineKey, make_task_id
from enginery.protocol.messages import EngineStatus, StatusAnswer

RUNNING = make_task_id(ClientId(0x3FA9C01B), 17)


def answer() -> StatusAnswer:
    engines = [
        EngineStatus(
            EngineId(0), EngineKey("0" * 16), "box", 101, "ready", 0, 0, make_task_id(ClientId(0), 0), 5
        ),
        EngineStatus(EngineId(1), EngineKey("1" * 16), "box", 102, "ready", 2, 1, RUNNING, 3),
    ]
    return StatusAnswer(
        request=1,
        cluster="night",
        uptime_s=3700.25,
        engines=engines,
        clients=2,
        ready=4,
        sent=1,
        running=1,
        done=7,
        failed=1,
        cancelled=0,
    )


def test_status_as_a_dictionary() -> None:
    status = output.status_as_dict(answer())
    assert {key: status[key] for key in ("name", "uptime_s", "clients")} == {
        "name": "night",
        "uptime_s": 3700.25,
        "clients": 1,
    }
    assert status["tasks"] == {"ready": 4, "sent": 1, "running": 1, "done": 7, "failed": 1, "cancelled": 0}
    assert [engine["running"] for engine in status["engines"]] == [None, "3fa9c01b-17"]
    assert status["engines"][1]["queue"] == 2


def test_status_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_status(output.status_as_dict(answer()))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert " ".join(lines[0]) == "cluster 'night': 2 engines, 1 client, up 1 h 01 min"
    assert " ".join(lines[1]) == "tasks: 4 ready, 1 sent, 1 running, 7 done, 1 failed, 0 cancelled"
    assert lines[2] == ["id", "state", "host", "pid", "queue", "in", "flight", "running", "completed"]
    assert lines[3] == ["0", "ready", "box", "101", "0", "0", "-", "5"]
    assert lines[4] == ["1", "ready", "box", "102", "2", "1", "3fa9c01b-17", "3"]


def test_tables_in_a_pipe_keep_whole_words(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table([{"path": "/long" * 60}], {"path": "where"})
    assert capsys.readouterr().out.split() == ["where", "/long" * 60]


def test_words_in_brackets_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table([{"name": "[bold]x"}], {"name": "name"})
    assert capsys.readouterr().out.split() == ["name", "[bold]x"]


def test_the_examples_in_docstrings() -> None:
    assert doctest.testmod(output).failed == 0
