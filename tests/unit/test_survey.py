"""The demo's parts, each on its own: what is measured, what is found, what is reported."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from examples.stdlib_survey import survey as demo
from examples.stdlib_survey.survey import FileReport, Survey, measure

SOURCE = """\
import os.path, sys
from collections import abc
from . import sibling


def short(): return 1


class Thing:
    async def longer(self, items):
        for item in items:
            if item:
                return [x for x in item if x]
        return None


def late():
    import json
"""


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "source.py"
    path.write_text(SOURCE)
    return str(path)


def test_measure(source: str) -> None:
    assert measure(source) == FileReport(
        path=source,
        lines=18,
        functions=3,
        branches=3,  # for, if, the comprehension
        nesting=4,  # class, async def, for, if
        longest_function="longer",
        longest_function_lines=5,
        imports=("collections", "json", "os", "sys"),
    )


@pytest.mark.parametrize(("text", "lines"), [("", 0), ("x = 1", 1), ("x = 1\n", 1), ("\n\n", 2)])
def test_measure_counts_lines(tmp_path: Path, text: str, lines: int) -> None:
    path = tmp_path / "a.py"
    path.write_text(text)
    report = measure(str(path))
    assert (report.lines, report.functions, report.longest_function, report.nesting) == (lines, 0, "", 0)


@pytest.mark.parametrize(
    "text", [b"def f(:\n", b"x = '\\\n", b"# coding: nonsense\n", b"x = 1\0\n", b"\xff\n"]
)
def test_what_does_not_parse_is_a_syntax_error(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(text)
    with pytest.raises(SyntaxError):
        measure(str(path))


def test_odd_escapes_are_no_error(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(r"x = '\d'")
    assert measure(str(path)).lines == 1


def test_find_sources() -> None:
    paths = demo.find_sources()
    assert len(paths) > 400
    assert paths == sorted(set(paths))
    assert any(path.endswith("json/decoder.py") for path in paths)
    assert not any("site-packages" in Path(path).parts for path in paths)


def test_a_broken_file_is_made_where_there_is_none(tmp_path: Path) -> None:
    assert not demo.has_broken_file(["/lib/json/decoder.py"])
    path = demo.write_broken_file(tmp_path)
    assert demo.has_broken_file([path])
    with pytest.raises(SyntaxError, match="invalid syntax"):
        measure(path)


def test_survey_in_one_process(source: str, tmp_path: Path) -> None:
    broken = demo.write_broken_file(tmp_path)
    found = demo.survey_in_one_process([broken, source])
    assert found.reports == [measure(source)]
    assert [(path, type(error)) for path, error in found.failures] == [(broken, SyntaxError)]
    assert found.imports == Counter({"collections": 1, "json": 1, "os": 1, "sys": 1})


def test_results_are_sorted_out_with_their_paths(source: str) -> None:
    error = SyntaxError("no")
    found = demo.sort_out(["a", source], [error, measure(source)])
    assert found.failures == [("a", error)]
    assert found.reports == [measure(source)]


def render(found: Survey, alone: Survey | None) -> str:
    file = io.StringIO()
    Console(width=120, file=file).print(demo.render_report(found, alone))
    return file.getvalue()


def test_the_report_says_what_matters(source: str) -> None:
    report = measure(source)
    error = SyntaxError("invalid syntax (b.py, line 1)\nremote traceback")
    found = Survey([report], [("/lib/test/b.py", error)], Counter({"os": 7}), 2.0, 0.5, 2)
    alone = Survey([report], [("/lib/test/b.py", error)], Counter({"os": 7}), 3.0)
    text = render(found, alone)
    for expected in (
        "5 lines: longer",
        "4 levels",
        "7 files",
        "Files that do not parse: 1",
        "lib/test/b.py",
        "invalid syntax (b.py, line 1)",
        "2 engines started in 0.50 s and surveyed the library in 2.00 s.",
        "One process took 3.00 s and came to the same result.",
        "The engines were 1.50 times as fast as one process.",
    ):
        assert expected in text
    assert "remote traceback" not in text


def test_the_report_notices_another_result(source: str) -> None:
    found = Survey([measure(source)], [], Counter(), 2.0, 0.5, 2)
    assert "came to ANOTHER result" in render(found, Survey([], [], Counter(), 3.0))


def test_the_report_of_nothing() -> None:
    text = render(Survey([], [], Counter(), 1.0, 0.5, 2), None)
    assert "Files that do not parse: 0" in text
    assert "One process" not in text


def test_elif_is_not_deeper_than_if(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("if a:\n    b\nelif c:\n    d\nelif e:\n    f\nelse:\n    if g:\n        h\n    i\n")
    report = measure(str(path))
    assert (report.branches, report.nesting) == (4, 2)
