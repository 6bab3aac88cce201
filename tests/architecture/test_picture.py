"""The import graph in ARCHITECTURE.md is the one the code has. ENGINERY_REWRITE=1 draws it anew."""

from __future__ import annotations

import difflib
import os

from tests.architecture.source_tree import (
    ROOT,
    draw_graph,
    read_modules,
    read_picture,
    read_plan,
    replace_picture,
)


def test_the_picture_is_the_code() -> None:
    drawn = draw_graph(read_modules())
    if os.environ.get("ENGINERY_REWRITE") == "1":
        (ROOT / "ARCHITECTURE.md").write_text(replace_picture(read_plan(), drawn), encoding="utf-8")
    difference = difflib.unified_diff(
        read_picture(read_plan()), drawn, "ARCHITECTURE.md", "the code", lineterm="", n=0
    )
    text = "\n".join(difference)
    assert text == "", f"{text}\nIf the code is right: ENGINERY_REWRITE=1 scripts/test {__file__}"
