"""The namespace of an engine: source lines for tracebacks, and not for ever."""

from __future__ import annotations

import linecache
import sys
import traceback
from collections.abc import Iterator

import pytest

from enginery.engine import namespace
from enginery.engine.namespace import SHELL_NAMES, clear, evaluate, keep_source, make_main


@pytest.fixture(autouse=True)
def own_sources(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(linecache.cache)
    monkeypatch.setattr(namespace, "_sources", type(namespace._sources)())
    yield
    linecache.cache.clear()
    linecache.cache.update(before)


def test_a_traceback_shows_the_lines_of_an_executed_text() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        keep_source("a = 0\nb = 1 / a\n", "<execute 1>")
        exec(compile("a = 0\nb = 1 / a\n", "<execute 1>", "exec"), {})
    assert "b = 1 / a" in "".join(traceback.format_exception(caught.value))


def test_the_lines_of_old_texts_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace, "SOURCES_KEPT", 10)
    for number in range(200):
        keep_source(f"x = {number}\n", f"<execute {number}>")
    kept = [name for name in linecache.cache if name.startswith("<execute ")]
    assert kept == [f"<execute {number}>" for number in range(190, 200)]
    assert linecache.getline("<execute 199>", 1) == "x = 199\n"
    assert len(namespace._sources) == 10


def test_clear_leaves_the_names_of_a_shell_and_of_python() -> None:
    before = sys.modules["__main__"]
    try:
        names = make_main()
        first = set(names)
        exec("In, Out, _ih, _oh, _dh, get_ipython, exit, quit, open = range(9)", names)
        exec("a = 1; _ = _1 = 2; __x = 3; __all__ = ['a']; globals()[7] = 8; spared = 9", names)
        assert sorted(clear(names, spare={"spared"})) == [1, 2, 2, 2, 3, 3, 4, 8]
        assert set(names) == first | SHELL_NAMES | {"__all__", "spared"}
        assert clear(names) == [9]
        assert clear(names) == []
        exec("b = [value for value in 'xy']", names)
        assert names["b"] == ["x", "y"]
    finally:
        sys.modules["__main__"] = before


def test_names_and_expressions() -> None:
    names = {"a": [1, 2], "b c": 3}
    assert evaluate("a", names) is names["a"]
    assert evaluate("a[1] + 1", names) == 3
    assert evaluate("b c", names) == 3
    with pytest.raises(NameError, match="name 'd' is not defined"):
        evaluate("d", names)
