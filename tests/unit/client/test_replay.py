"""What was said before somebody came, what comes after, and progress: shown once and whole."""

from __future__ import annotations

import re
from typing import Any

import pytest

from enginery.client.client import Client
from enginery.client.results.hub_result import AsyncHubMapResult
from enginery.errors import UnknownTask
from enginery.ids import ClientId, EngineId, TaskId, format_task_id, make_task_id
from enginery.objects.packing import pack
from enginery.protocol.messages import Kind, Output, Progress, Report, Status, TaskOptions, TaskResult
from tests.unit.client.fake_session import FakeSession, make_client
from tests.unit.client.sayings import say, write

OTHER = ClientId(5)


@pytest.fixture
def parts() -> tuple[Client, FakeSession]:
    return make_client((0, 1))


def submit(
    session: FakeSession, count: int, *, name: str = "f", label: str = "", kind: Kind = Kind.CALL
) -> None:
    """Tasks of another client, none of which has ended."""
    start = len(session.hub.tasks) + 1
    for number in range(start, start + count):
        task = make_task_id(OTHER, number)
        session.hub.on_submitted(task, TaskOptions(kind, name=name, label=label), now=1000.0 + number)
        first = start if kind is Kind.MAP else number
        session.hub.tasks[task].record.first = make_task_id(OTHER, first)


def end(
    session: FakeSession, number: int, values: Any, *, engine: int = 0, items: int = 0, failed: int = 0
) -> None:
    task = make_task_id(OTHER, number)
    status = Status.ERROR if failed else Status.OK
    result = TaskResult(
        task,
        status,
        pack(values).inline,
        engine=EngineId(engine),
        completed=1010.0,
        items=items,
        failed=failed,
    )
    session.end(None, result)


def told(session: FakeSession, number: int) -> Any:
    """The promise of somebody who follows this task."""
    (promise,) = session.followers[make_task_id(OTHER, number)]
    return promise


def without_bar(text: str) -> list[str]:
    """The states of a bar, one after the other, without times."""
    states = re.findall(r"(\d+(?:/\d+)? \w+) \[[\d:<]*((?:, [^\]]*)?)\]", text)
    found = ["".join(state) for state in states]
    return [state for number, state in enumerate(found) if number == 0 or state != found[number - 1]]


# ---------------------------------------------------------------- one result


def test_what_runs_is_shown_from_its_beginning_to_its_end(
    parts: tuple[Client, FakeSession], capsys: pytest.CaptureFixture[str]
) -> None:
    rc, session = parts
    submit(session, 2)
    ar = rc.get_result([format_task_id(make_task_id(OTHER, number)) for number in (1, 2)])
    for number, engine in ((1, 0), (2, 1)):
        told(session, number).target = EngineId(engine)
        write(told(session, number), "stdout", "before\n")
    session.later.extend(
        [
            lambda: write(told(session, 1), "stdout", "after\n"),
            lambda: end(session, 1, "a", engine=0),
            lambda: end(session, 2, "b", engine=1),
        ]
    )
    assert ar.replay() is True
    out, err = capsys.readouterr()
    assert out == "[stdout:0]\nbefore\nafter\n[stdout:1] before\n"
    assert without_bar(err)[0] == "0/2 tasks"
    assert without_bar(err)[-1] == "2/2 tasks"


def test_one_task_is_shown_as_it_wrote(
    parts: tuple[Client, FakeSession], capsys: pytest.CaptureFixture[str]
) -> None:
    rc, session = parts
    submit(session, 1)
    ar = rc.get_result(format_task_id(make_task_id(OTHER, 1)))
    write(told(session, 1), "stdout", "half a ")
    session.later.extend(
        [lambda: write(told(session, 1), "stdout", "line\n"), lambda: end(session, 1, None)],
    )
    for _ in range(2):
        assert ar.replay() is True
        assert capsys.readouterr().out == "half a line\n"


def test_a_replay_may_end_before_its_tasks(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    session.is_held = True
    ar = rc[:].apply_async(abs, -1)
    assert ar.replay(timeout=0) is False
    assert rc.replay(ar, timeout=0) == [ar]
    assert not ar.done()


# ---------------------------------------------------------------- maps of others


def test_a_followed_map_counts_items_as_far_as_it_knows(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    submit(session, 3, name="simulate", label="night", kind=Kind.MAP)
    (ar,) = rc.get_label("night")
    assert isinstance(ar, AsyncHubMapResult)
    assert (ar.standing().done, ar.standing().total, ar.standing().unit) == (0, None, "items")
    for number in (1, 2, 3):
        task = make_task_id(OTHER, number)
        say(told(session, number), Progress(task, EngineId(number), 1, 4, number, 1, 0, Report(0.1, "x")))
    standing = ar.standing()
    assert (standing.done, standing.total, standing.failed, standing.name) == (6, 12, 3, "simulate")
    assert [line.where for line in standing.lines] == ["engine 1", "engine 2", "engine 3"]
    end(session, 1, ([1, 2, 3, 4], []), items=4)
    assert (ar.progress, ar.standing().failed, len(ar)) == (9, 2, 12)
    for number in (2, 3):
        end(session, number, ([1, 2, 3, 4], []), items=4)
    assert (ar.progress, ar.standing().failed, ar.done()) == (12, 0, True)
    assert ar.get(0) == [1, 2, 3, 4] * 3
    assert ar.elapsed == 1010.0 - 1001.0, "until it ended, not until it was asked for"


def test_what_comes_out_of_the_history_is_looked_into(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    submit(session, 2, label="night", kind=Kind.MAP)
    end(session, 1, ([1, 2, 3], []))
    end(session, 2, ([1, None], [(1, pack(1).inline)]), failed=1)
    (ar,) = rc.get_label("night")
    standing = ar.standing()
    assert (standing.done, standing.total, standing.failed) == (5, 5, 1)


# ---------------------------------------------------------------- which


def ids(results: list[Any]) -> list[list[int]]:
    return [[int(task) & 0xFFFF for task in result.task_ids] for result in results]


def test_by_default_what_has_not_ended_is_replayed_whole(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    assert rc.replay() == []
    submit(session, 1, name="over")
    end(session, 1, 1)
    submit(session, 3, name="simulate", kind=Kind.MAP)
    submit(session, 1, name="last")
    end(session, 2, ([1], []), items=1)
    results = rc.replay(timeout=0)
    assert ids(results) == [[2, 3, 4], [5]]
    for number in (3, 4):
        end(session, number, ([1], []), items=1)
    assert ids(rc.replay(timeout=0)) == [[5]]
    end(session, 5, 1)
    assert ids(rc.replay()) == [[5]], "the last one, since all have ended"


def test_by_label_and_by_id(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    submit(session, 2, name="f", label="night")
    submit(session, 1, name="f")
    for number in (1, 2, 3):
        end(session, number, number)
    assert ids(rc.replay("night")) == [[1], [2]]
    assert ids(rc.replay(format_task_id(make_task_id(OTHER, 3)))) == [[3]]
    assert ids(rc.replay([format_task_id(make_task_id(OTHER, number)) for number in (3, 1)])) == [[3, 1]]
    with pytest.raises(UnknownTask, match="no task has the label 'day', and it is no task id"):
        rc.replay("day")


def test_what_is_missing_before_the_first_that_was_heard_is_said(
    parts: tuple[Client, FakeSession], capsys: pytest.CaptureFixture[str]
) -> None:
    rc, session = parts
    submit(session, 1)
    ar = rc.get_result(format_task_id(make_task_id(OTHER, 1)))
    say(told(session, 1), Output(TaskId(1), EngineId(0), "stdout", "third\n", 1, 3))
    end(session, 1, None)
    assert ar.replay() is True
    out, err = capsys.readouterr()
    assert out == "third\n"
    assert "[2 pieces of this task's output did not arrive here]\n" in err
