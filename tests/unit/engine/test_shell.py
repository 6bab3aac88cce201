"""The shell: what cells are worth and display, where their errors point, and what it leaves alone."""

from __future__ import annotations

import base64
import builtins
import gc
import linecache
import os
import sys
import threading
import traceback
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from enginery.engine import namespace as namespace_module
from enginery.engine.execution import Execution
from enginery.objects.displays import unpack_display


class Site:
    """An execution with its shell, and what it has shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, list[Any]]] = []
        self.is_of_a_task = True
        self.names = namespace_module.make_main()
        self.execution = Execution(self.names, show=self._show)
        self.execution.offer_shell()
        self._cells = 0

    def _show(self, kind: str, content: bytes) -> bool:
        if self.is_of_a_task:
            self.shown.append((kind, list(unpack_display(content))))
        return self.is_of_a_task

    def run(self, text: str, *, silent: bool = False) -> Any:
        self._cells += 1
        reply = self.execution.run(text, f"<cell {self._cells}>", silent=silent)
        return None if reply is None else reply["data"].get("text/plain")

    def fail(self, text: str, *, silent: bool = False) -> tuple[BaseException, str]:
        with pytest.raises(BaseException) as caught:
            self.run(text, silent=silent)
        return caught.value, "".join(traceback.format_exception(caught.value))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setattr(builtins, "display", None, raising=False)
    monkeypatch.delattr(builtins, "_", raising=False)  # a doctest leaves one, which a shell would respect
    before = sys.modules["__main__"]
    site = Site()
    yield site
    site.execution.close()
    sys.modules["__main__"] = before


# ---------------------------------------------------------------- texts


def test_magics_and_commands(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    assert site.run("x = !echo one; echo two\nx") == "['one', 'two']"
    site.run("%%capture said\nprint('in'); display(5)")
    assert site.names["said"].stdout == "in\n"
    assert site.shown == []
    site.run("!echo hello; echo wrong >&2")
    said = capfd.readouterr().out.replace("\r\n", "\n")
    assert "hello\n" in said
    assert "wrong\n" in said
    assert site.run("_exit_code") == "0"


def test_top_level_await(site: Site) -> None:
    site.run("import asyncio\nasync def later(x):\n    await asyncio.sleep(0)\n    return x", silent=True)
    assert site.run("await later(5)") == "5"
    assert site.run("task = asyncio.ensure_future(later(6))\nawait asyncio.sleep(0)\nawait task") == "6"
    assert site.run("asyncio.run(later(7))") == "7", "a cell that awaits nothing may run its own loop"
    error, shown = site.fail("await later(1)\nawait later(1 / 0)")
    assert isinstance(error, ZeroDivisionError)
    assert 'File "<cell 5>", line 2' in shown
    assert "enginery/engine/shell.py" in shown, "which `pack_failure` takes off"
    assert "interactiveshell.py" not in shown


def test_history(site: Site) -> None:
    site.run("a = 1", silent=True)
    site.run("a + 1")
    site.run("a + 2;")
    assert site.run("(_, In[1:], Out)").startswith("(2, ['a + 1', 'a + 2;'")
    assert site.run("Out[1]") == "2"
    assert site.execution.count == 4
    assert site.run("get_ipython() is not None") == "True"
    site.execution.forget()
    namespace_module.clear(site.names)
    assert site.run("Out") == "{}"
    assert site.run("5") == "5"
    assert site.run("_") == "5"


def test_the_name_of_a_cell_is_its_own(site: Site) -> None:
    _, shown = site.fail("get_ipython().run_cell('b = 1')\n%time c = 1\n1 / 0")
    assert 'File "<cell 1>", line 3' in shown
    assert "1 / 0" in shown
    _, shown = site.fail("%time c = 1\nd = missing  # with its comment")
    assert "d = missing  # with its comment" in shown
    assert linecache.getlines("<cell 2>") == ["%time c = 1\n", "d = missing  # with its comment"]


def test_errors_are_raised_and_not_printed(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    for text, kind in (
        ("1 / 0", ZeroDivisionError),
        ("a b", SyntaxError),
        ("  a\n b", IndentationError),
        ("b = 1\nreturn", SyntaxError),
        ("raise KeyboardInterrupt", KeyboardInterrupt),
        ("exit", SystemExit),
        ("quit()", SystemExit),
        ("import sys; sys.exit(3)", SystemExit),
        ("def f(): f()\nf()", RecursionError),
    ):
        for silent in (True, False):
            error, _ = site.fail(text, silent=silent)
            assert isinstance(error, kind), text
    error, _ = site.fail("%no_such_magic")
    assert type(error).__name__ == "UsageError"
    assert capsys.readouterr() == ("", "")
    assert site.run("1 + 1") == "2"


def test_errors_of_texts_that_a_text_runs(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    for text, name in (
        ("1 / 0", "ZeroDivisionError"),
        ("a b", "SyntaxError"),
        ("import sys; sys.exit()", "SystemExit"),
    ):
        assert site.run(f"get_ipython().run_cell({text!r}).success") == "False"
        assert name in capsys.readouterr().err
    error, _ = site.fail("ended = get_ipython().run_cell('5')\nraise KeyError")
    assert isinstance(error, KeyError)
    assert capsys.readouterr().err == ""


class Falsy(Exception):
    def __bool__(self) -> bool:
        return False


def test_an_error_that_is_false_is_one(site: Site) -> None:
    site.names["Falsy"] = Falsy
    assert isinstance(site.fail("raise Falsy")[0], Falsy)


def test_errors_beside_the_cells_own_are_printed(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.run("def hook(): raise KeyError('hooked')\nget_ipython().events.register('post_execute', hook)")
    assert "KeyError: 'hooked'" in capsys.readouterr().err
    site.run("get_ipython().events.unregister('post_execute', hook)")
    site.run("class Broken:\n def _repr_html_(self): raise KeyError('html')\n def __repr__(self): return 'b'")
    assert site.run("Broken()") == "b"
    assert "KeyError: 'html'" in capsys.readouterr().err


def test_a_failed_cell_keeps_nothing_alive(site: Site) -> None:
    class Held:
        pass

    held = Held()
    alive = weakref.ref(held)
    site.names["give"] = [held].pop
    del held
    site.fail("def f():\n    x = give()\n    1 / 0\nf()")
    site.run("2")
    gc.collect()
    assert alive() is None


# ---------------------------------------------------------------- displays


def test_displays(site: Site) -> None:
    site.run(
        "handle = display({'text/plain': 'p', 'text/html': '<b>'}, raw=True, display_id='d')\n"
        "handle.update({'text/plain': 'q'}, raw=True)\n"
        "from IPython.display import clear_output\n"
        "clear_output(wait=True)"
    )
    assert site.shown == [
        ("display_data", [{"text/plain": "p", "text/html": "<b>"}, {}, {"display_id": "d"}]),
        ("update_display", [{"text/plain": "q"}, {}, {"display_id": "d"}]),
        ("clear_output", [{}, {}, {"wait": True}]),
    ]


def test_rich_values(site: Site) -> None:
    site.run("class Rich:\n    def _repr_html_(self): return '<i>'\n    def _repr_png_(self): return b'png'")
    reply = site.execution.run("Rich()", "<x>", silent=False)
    assert reply is not None
    assert (reply["data"]["text/html"], reply["data"]["image/png"]) == ("<i>", b"png")


def test_only_the_last_value_is_the_replys(site: Site) -> None:
    site.run("%config InteractiveShell.ast_node_interactivity = 'all'")
    assert site.run("1\n2\n3") == "3"
    assert [(kind, content[0]) for kind, content in site.shown] == [
        ("execute_result", {"text/plain": "1"}),
        ("execute_result", {"text/plain": "2"}),
    ]
    site.shown.clear()
    site.fail("4\n1 / 0")
    assert [content[0] for _, content in site.shown] == [{"text/plain": "4"}]


@pytest.mark.parametrize(
    "text",
    [
        "display({'application/json': object()}, raw=True)",
        "class J:\n    def _repr_json_(self): return {'x': object()}\nJ()",
    ],
)
def test_a_display_that_cannot_be_sent_fails_its_task(site: Site, text: str) -> None:
    error, shown = site.fail(text)
    assert isinstance(error, TypeError)
    assert "what is displayed as 'application/json' cannot be sent" in str(error)
    assert 'File "<cell 1>"' in shown
    assert site.run("1") == "1"


def test_what_displays_for_no_task_is_for_the_log(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.is_of_a_task = False
    site.run("display('late')")
    assert capsys.readouterr().out == "'late'\n"


def test_help_is_a_display(site: Site) -> None:
    site.run("len?")
    ((kind, (data, _, _)),) = site.shown
    assert kind == "display_data"
    assert "Return the number of items" in data["text/plain"]


def test_figures(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.run("%matplotlib inline\nimport matplotlib.pyplot as plt")
    site.run("plt.plot([1, 2]);")
    site.run("plt.plot([2, 1])", silent=True)
    assert [kind for kind, _ in site.shown] == ["display_data"] * 2
    for _, (data, _, _) in site.shown:
        assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert site.run("plt.get_fignums()") == "[]"
    assert capsys.readouterr().err == ""
    assert isinstance(site.fail("get_ipython().enable_gui('qt')")[0], NotImplementedError)


# ---------------------------------------------------------------- what it leaves alone


def test_the_process_is_what_it_was(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    before = list(sys.path), threading.enumerate(), os.listdir("/dev/fd")
    site.run("1")
    assert (list(sys.path), threading.enumerate(), os.listdir("/dev/fd")) == before
    assert not list(tmp_path.rglob("*.sqlite"))
    assert sys.modules["__main__"].__dict__ is site.names
    for number in range(50):
        site.fail(f"{number} / 0")
        site.run(f"{number}; display({number})")
    history = site.execution.shell().history_manager
    assert not any(getattr(history, "exceptions", {}).values())
    assert not getattr(history, "outputs", {})
