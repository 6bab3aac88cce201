"""Source text: what its last line is worth, its number, its errors; with a shell and without IPython."""

from __future__ import annotations

import builtins
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from enginery.engine import namespace as namespace_module
from enginery.engine.execution import Execution


@pytest.fixture
def names() -> Iterator[dict[str, Any]]:
    before = sys.modules["__main__"]
    yield namespace_module.make_main()
    sys.modules["__main__"] = before


@pytest.fixture(params=["shell", "plain"])
def execution(
    names: dict[str, Any], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Execution]:
    if request.param == "plain":
        hide_ipython(monkeypatch)
    execution = Execution(names)
    yield execution
    execution.close()


@pytest.fixture
def fresh(names: dict[str, Any]) -> Iterator[Execution]:
    execution = Execution(names)
    yield execution
    execution.close()


def hide_ipython(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "IPython" or name == "enginery.engine.shell":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "IPython", None)


def worth(execution: Execution, text: str) -> Any:
    reply = execution.run(text, "<execute>", silent=False)
    assert reply is not None
    return reply["data"].get("text/plain")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 1", "2"),
        ("a = 3\na * 2", "6"),
        ("'text'", "'text'"),
        ("a = 3", None),
        ("None", None),
        ("", None),
        ("# nothing", None),
        ("for i in range(3): i", None),
        ("def f(): return 5\nf()\nf", "<function "),
        ("from __future__ import annotations\nx: int = 1\nx", "1"),
    ],
)
def test_the_value_of_the_last_line(execution: Execution, text: str, expected: str | None) -> None:
    value = worth(execution, text)
    assert value is None if expected is None else value.startswith(expected)


def test_names_stay_and_each_statement_runs_once(execution: Execution, names: dict[str, Any]) -> None:
    assert worth(execution, "seen = []\nseen.append(1)\nseen.append(2)") is None
    assert names["seen"] == [1, 2]
    assert worth(execution, "[x for x in seen if x in seen]") == "[1, 2]"


def test_numbers_of_those_that_are_not_silent(execution: Execution) -> None:
    assert execution.run("a = 1\na", "<execute>", silent=True) is None
    assert execution.run("a", "<execute>", silent=False) == {
        "execution_count": 1,
        "data": {"text/plain": "1"},
        "metadata": {},
    }
    for text in ("1 / 0", "a b"):
        with pytest.raises((ZeroDivisionError, SyntaxError)):
            execution.run(text, "<execute>", silent=False)
    assert execution.run("a = 2", "<execute>", silent=False) == {
        "execution_count": 4,
        "data": {},
        "metadata": {},
    }
    assert execution.count == 4


@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize("text", ["a = 0\nb = 1 / a", "a = 0\n1 / a"])
def test_tracebacks_show_the_lines_and_none_of_the_shells(
    execution: Execution, text: str, silent: bool
) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        execution.run(text, "<execute 1>", silent=silent)
    shown = "".join(traceback.format_exception(caught.value))
    assert 'File "<execute 1>", line 2' in shown
    assert text.splitlines()[1] in shown
    assert "interactiveshell" not in shown


@pytest.mark.parametrize("silent", [True, False])
def test_what_does_not_parse_changes_nothing(
    execution: Execution, names: dict[str, Any], silent: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SyntaxError) as caught:
        execution.run("a = 1\nb c", "<execute 1>", silent=silent)
    assert (caught.value.filename, caught.value.lineno) == ("<execute 1>", 2)
    assert str(caught.value.text).strip() == "b c"
    assert "a" not in names
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("silent", [True, False])
def test_annotations_are_not_texts(execution: Execution, silent: bool) -> None:
    execution.run("def g(x: int): ...", "<x>", silent=silent)
    assert worth(execution, "g.__annotations__['x'].__name__") == "'int'"
    assert worth(execution, "def f(x: int): ...\nf.__annotations__['x'].__name__") == "'int'"


# ---------------------------------------------------------------- when there is a shell


@pytest.mark.parametrize(
    "text",
    [
        "a = 5",
        "import os",
        "import os; os.getcwd()",
        "print(end='')",
        "a = [x for x in range(3)]\nfor _ in a: pass",
        "async def f(): await g()",
        "ls = 3",
        "class In5: pass  # In and Out",
        "",
    ],
)
def test_plain_texts_need_no_shell(fresh: Execution, text: str) -> None:
    assert fresh.run(text, "<x>", silent=True) is None
    assert repr(fresh) == "<Execution, 0 texts numbered, plain>"


@pytest.mark.parametrize(
    "text",
    [
        "%time a = 5",
        "a = !echo 5",
        "import asyncio\nawait asyncio.sleep(0)",
        "pwd",
        "env",
        "%%capture\n1",
        "from __future__ import annotations",
        "len(In)",
        "def f():\n    return [lambda: Out]",
        "try:\n    import matplotlib.pyplot as plt\nexcept ImportError: pass",
        "get_ipython()",
        "display()",
    ],
)
def test_texts_that_need_one(fresh: Execution, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    fresh.offer_shell()
    assert fresh.run(text, "<x>", silent=True) is None
    assert repr(fresh) == "<Execution, 0 texts numbered, in a shell>"
    assert fresh.run("1", "<x>", silent=False) == {
        "execution_count": 1,
        "data": {"text/plain": "1"},
        "metadata": {},
    }


def test_a_name_of_the_namespace_is_no_magic(fresh: Execution, names: dict[str, Any]) -> None:
    names.update(ls=5, l=2)
    fresh.run("ls -l", "<x>", silent=True)
    assert "plain" in repr(fresh)


def test_what_is_offered_is_taken_back(fresh: Execution, names: dict[str, Any]) -> None:
    before = getattr(builtins, "display", None)
    fresh.offer_shell()
    assert "get_ipython" in names
    assert builtins.display is not before  # type: ignore[attr-defined]
    fresh.close()
    assert "get_ipython" not in names
    assert not hasattr(builtins, "display")


def test_importing_ipython_starts_the_shell(fresh: Execution, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    found: list[str] = []
    monkeypatch.setattr(Execution, "shell", lambda self: found.append("IPython" in sys.modules))
    for name in list(sys.modules):
        if name.partition(".")[0] == "IPython":
            monkeypatch.delitem(sys.modules, name)
    fresh.offer_shell()
    import os.path  # noqa: F401

    assert found == []
    __import__("IPython.display")
    assert found == [True]
    __import__("IPython")
    assert found == [True]


# ---------------------------------------------------------------- without IPython


@pytest.mark.parametrize("text", ["%time a = 5", "!ls", "a b", "import asyncio\nawait asyncio.sleep(0)"])
def test_what_only_ipython_could_run_says_so(
    fresh: Execution, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    hide_ipython(monkeypatch)
    with pytest.raises(SyntaxError) as caught:
        fresh.run(text, "<x>", silent=True)
    (note,) = caught.value.__notes__
    assert "pip install ipython" in note
    assert fresh.run("b = 5", "<x>", silent=True) is None
    assert worth(fresh, "b") == "5"


@pytest.mark.parametrize("text", ["get_ipython()", "display(5)"])
def test_names_of_ipython_say_that_it_is_missing(
    fresh: Execution, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    hide_ipython(monkeypatch)
    fresh.offer_shell()
    with pytest.raises(ModuleNotFoundError, match="pip install ipython") as caught:
        fresh.run(text, "<x>", silent=True)
    assert caught.value.name == "IPython"
