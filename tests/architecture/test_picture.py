"""The pictures in ARCHITECTURE.md are those of the code. ENGINERY_REWRITE=1 draws them anew."""

from __future__ import annotations

import difflib
import os

import pytest

from enginery.core.tasks import TERMINAL, TRANSITIONS, Fact, TaskState
from tests.architecture.source_tree import (
    ROOT,
    draw_graph,
    read_modules,
    read_picture,
    read_plan,
    replace_picture,
)


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
