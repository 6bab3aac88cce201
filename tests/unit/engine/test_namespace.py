"""The namespace of an engine: source lines for tracebacks, and not for ever."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Iterator

import pytest

from enginery.engine import namespace
from enginery.engine.namespace import compile_source, evaluate


@pytest.fixture(autouse=True)
def own_sources(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(linecache.cache)
    monkeypatch.setattr(namespace, "_sources", type(namespace._sources)())
    yield
    linecache.cache.clear()
    linecache.cache.update(before)


def test_a_traceback_shows_the_lines_of_an_executed_text() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        exec(compile_source("a = 0\nb = 1 / a\n", "<execute 1>"), {})
    assert "b = 1 / a" in "".join(traceback.format_exception(caught.value))


def test_the_lines_of_old_texts_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace, "SOURCES_KEPT", 10)
    for number in range(200):
        compile_source(f"x = {number}\n", f"<execute {number}>")
    kept = [name for name in linecache.cache if name.startswith("<execute ")]
    assert kept == [f"<execute {number}>" for number in range(190, 200)]
    assert linecache.getline("<execute 199>", 1) == "x = 199\n"
    assert len(namespace._sources) == 10


def test_a_text_that_does_not_parse_is_shown_too() -> None:
    with pytest.raises(SyntaxError):
        compile_source("a b\n", "<execute 1>")
    assert linecache.getline("<execute 1>", 1) == "a b\n"


def test_names_and_expressions() -> None:
    names = {"a": [1, 2], "b c": 3}
    assert evaluate("a", names) is names["a"]
    assert evaluate("a[1] + 1", names) == 3
    assert evaluate("b c", names) == 3
    with pytest.raises(NameError, match="name 'd' is not defined"):
        evaluate("d", names)
