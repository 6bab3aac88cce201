"""The table of a task's states, walked in full; and its picture, generated."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from enginery.core.tasks import TERMINAL, TRANSITIONS, Fact, TaskState
from tests.unit.core.builders import make_task

PICTURE = Path(__file__).with_name("task_states.txt")


@pytest.mark.parametrize("state", TaskState)
@pytest.mark.parametrize("fact", Fact)
def test_every_pair_is_in_the_table_or_refused_without_a_trace(state: TaskState, fact: Fact) -> None:
    task = make_task()
    task.state = state
    before = {name: getattr(task, name) for name in task.__slots__}
    if (state, fact) in TRANSITIONS:
        assert task.apply(fact) is TRANSITIONS[state, fact]
        assert task.state is TRANSITIONS[state, fact]
        before["state"] = task.state
    else:
        with pytest.raises(KeyError):
            task.apply(fact)
    assert {name: getattr(task, name) for name in task.__slots__} == before


def test_an_ended_task_never_moves() -> None:
    assert not [state for state, _ in TRANSITIONS if state.is_terminal]
    assert {state for state in TaskState if state.is_terminal} == TERMINAL


def test_every_state_can_be_reached_and_every_task_can_end() -> None:
    reached = {TaskState.READY}
    while more := {end for (start, _), end in TRANSITIONS.items() if start in reached} - reached:
        reached |= more
    assert reached == set(TaskState)
    for state in set(TaskState) - TERMINAL:
        assert any(start is state for start, _ in TRANSITIONS)


def test_every_fact_means_something() -> None:
    assert {fact for _, fact in TRANSITIONS} == set(Fact)


def draw() -> str:
    """The table as text: one line per step, by state."""
    lines = []
    for state in TaskState:
        steps = [(fact, end) for (start, fact), end in TRANSITIONS.items() if start is state]
        if not steps:
            lines.append(f"{state.value:<10} (the end)")
        lines += [f"{state.value:<10} --{fact.value:->15}--> {end.value}" for fact, end in steps]
    return "\n".join(lines) + "\n"


def test_the_picture_is_up_to_date() -> None:
    if os.environ.get("ENGINERY_REWRITE"):
        PICTURE.write_text(draw())
    assert PICTURE.read_text() == draw(), "run the test once with ENGINERY_REWRITE=1"


def test_repr() -> None:
    task = make_task(3)
    assert repr(task) == "<Task 0x100000003 ready, attempt 1>"
