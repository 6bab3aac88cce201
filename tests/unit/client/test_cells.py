"""The name of the cell that goes with texts, and what it changes with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import IPython
import pytest

from enginery.client.client import Client
from enginery.objects.packing import unpack
from enginery.protocol.messages import Status, TaskResult
from tests.unit.client.fake_session import FakeSession, make_client


@pytest.fixture
def parts() -> tuple[Client, FakeSession]:
    return make_client((0, 1))


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Any:
    shell = SimpleNamespace(execution_count=7)
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    return shell


def cell_of(session: FakeSession) -> str:
    """The cell of the last text that was sent."""
    _, _, _, cell = unpack(session.submissions[-1].payload)
    assert isinstance(cell, str)
    return cell


def test_outside_of_ipython_there_are_no_cells(
    parts: tuple[Client, FakeSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    rc, session = parts
    monkeypatch.setattr(IPython, "get_ipython", lambda: None)
    rc[0].execute("1", silent=False)
    assert cell_of(session) == ""


def test_texts_of_one_cell_have_one_name(parts: tuple[Client, FakeSession], shell: Any) -> None:
    rc, session = parts
    cells = []
    for silent in (True, False):
        rc[0].execute("1", silent=silent)
        cells.append(cell_of(session))
    shell.execution_count = 8
    rc[1].execute("1")
    assert [*cells, cell_of(session)] == ["0abcdef0-7-0", "0abcdef0-7-0", "0abcdef0-8-0"]
    assert repr(rc.cells) == "<Cells: In[8], 0 failures>"


@pytest.mark.parametrize(
    ("silent", "status", "name"),
    [
        (False, Status.ERROR, "0abcdef0-7-1"),
        (False, Status.OK, "0abcdef0-7-0"),
        (True, Status.ERROR, "0abcdef0-7-0"),
    ],
)
def test_a_cell_that_has_heard_of_a_failure_goes_on_under_another_name(
    parts: tuple[Client, FakeSession], shell: Any, silent: bool, status: Status, name: str
) -> None:
    rc, session = parts
    ar = rc[:].execute("1", silent=silent)
    ar.promises[1].on_result(TaskResult(ar.task_ids[1], status), ())
    rc[0].execute("2")
    assert cell_of(session) == name


def test_one_failure_is_heard_once_by_all_engines_and_not_by_the_next_cell(
    parts: tuple[Client, FakeSession], shell: Any
) -> None:
    rc, session = parts
    ar = rc[:].execute("1", silent=False)
    late = rc[:].execute("1", silent=False)
    for promise, task in zip(ar.promises, ar.task_ids, strict=True):
        promise.on_result(TaskResult(task, Status.ERROR), ())
    rc[0].execute("2")
    assert cell_of(session) == "0abcdef0-7-1"
    shell.execution_count = 8
    rc[0].execute("3")
    late.promises[0].on_result(TaskResult(late.task_ids[0], Status.ERROR), ())
    rc[0].execute("4")
    assert cell_of(session) == "0abcdef0-8-0"
