"""ARCHITECTURE.md says what the code is. ENGINERY_REWRITE=1 draws its pictures anew."""

from __future__ import annotations

import difflib
import os
import re

import pytest

from enginery.core.tasks import TERMINAL, TRANSITIONS, Fact, TaskState
from tests.architecture.source_tree import (
    ROOT,
    SOURCES,
    draw_graph,
    read_modules,
    read_picture,
    read_plan,
    replace_picture,
    section,
)

PACKAGE_DIRECTORY = SOURCES / "enginery"


def draw_states() -> list[str]:
    """The table of a task's states: one line a state, `state -> next (fact), …`."""
    lines = []
    for state in TaskState:
        steps = [
            f"{TRANSITIONS[state, fact].value} ({fact.value})"
            for fact in Fact
            if (state, fact) in TRANSITIONS
        ]
        lines.append(f"{state.value} -> {', '.join(steps) or 'the end'}")
        assert (state in TERMINAL) == (not steps)
    return lines


@pytest.mark.parametrize("heading", ["Import graph", "A task's states"])
def test_the_picture_is_the_code(heading: str) -> None:
    drawn = draw_graph(read_modules()) if heading == "Import graph" else draw_states()
    if os.environ.get("ENGINERY_REWRITE") == "1":
        (ROOT / "ARCHITECTURE.md").write_text(replace_picture(read_plan(), drawn, heading), encoding="utf-8")
    difference = difflib.unified_diff(
        read_picture(read_plan(), heading), drawn, "ARCHITECTURE.md", "the code", lineterm="", n=0
    )
    text = "\n".join(difference)
    assert text == "", f"{text}\nIf the code is right: ENGINERY_REWRITE=1 scripts/test {__file__}"


def read_rooms() -> dict[str, set[str]]:
    """Room -> the files and directories of it that its lines under "The rooms" name."""
    rooms: dict[str, set[str]] = {}
    for line in section(read_plan(), "The rooms").split("\n- ")[1:]:
        head, _, text = line.partition(":")
        for room in re.findall(r"`(\w+)/`", head):
            rooms.setdefault(room, set()).update(re.findall(r"`([a-z_]+)(?:\.py|/)?`", text))
    return rooms


@pytest.mark.parametrize(
    "room",
    ["protocol", "objects", "core", "transport", "controller", "engine", "host", "client", "frontends"],
)
def test_the_rooms_hold_what_the_page_says(room: str) -> None:
    there = {path.stem for path in (PACKAGE_DIRECTORY / room).iterdir()}
    assert read_rooms()[room] - there == set()


def test_the_page_names_every_machine_of_the_core() -> None:
    there = {path.stem for path in (PACKAGE_DIRECTORY / "core").glob("[a-z]*.py")}
    assert there - read_rooms()["core"] == set()
