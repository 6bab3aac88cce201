"""Functions that stay: their companions are theirs alone, behind the namespace's own names."""

from __future__ import annotations

import builtins
import sys
import threading
import types
from typing import Any

import pytest

from enginery.objects.functions import pack_function
from enginery.objects.packing import pack, unpack
from tests.unit.objects.test_functions import Engine, notebook

BODIES = {
    "plain": "def f():\n    return tool()",
    "nested": "def f():\n    def inner():\n        return tool()\n    return inner()",
    "comprehension": "def f():\n    return [tool() for _ in range(1)][0]",
    "lambda": "f = lambda: (lambda: tool())()",
    "helper of a helper": "def middle():\n    return [tool()][0]\ndef f():\n    return middle()",
    "generator": "def f():\n    return next(tool() for _ in range(1))",
    "module": "import math as tool_module\ndef f():\n    return [tool_module.floor(1.5) for _ in 'a'][0]",
    "in a nested class": "def f():\n    class Box:\n        x = tool()\n    return Box.x",
}


def pushed(source: str, tool: str = "def tool():\n    return 1\n", **names: Any) -> Engine:
    engine = Engine(**names)
    engine.push(f=notebook(tool + source).f)
    return engine


@pytest.mark.parametrize("body", BODIES)
def test_a_pushed_function_finds_its_helpers_whoever_calls_it(body: str) -> None:
    engine = pushed(BODIES[body])
    assert eval("f()", engine.names) == 1
    assert engine.run(notebook("def g():\n    return f()").g) == 1
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(engine.names["f"]()))
    thread.start()
    thread.join(10)
    assert found == [1]


@pytest.mark.parametrize("body", [body for body in BODIES if body != "in a nested class"])
def test_the_helpers_are_no_names_of_the_namespace(body: str) -> None:
    engine = pushed(BODIES[body])
    engine.names["f"]()
    assert sorted(engine.names) == ["__builtins__", "__name__", "f"]
    assert engine.names["__builtins__"] is __builtins__
    assert not hasattr(builtins, "tool")
    with pytest.raises(NameError):
        eval("tool()", engine.names)
    with pytest.raises(NameError):
        engine.run(notebook("def g():\n    return tool()").g)


@pytest.mark.parametrize("body", [body for body in BODIES if body != "module"])
def test_the_namespaces_own_name_wins_from_the_moment_it_is_there(body: str) -> None:
    engine = pushed(BODIES[body])
    assert engine.names["f"]() == 1
    exec("def tool():\n    return 2\nfirst = f()", engine.names)
    assert engine.names["first"] == 2


@pytest.mark.parametrize("body", ["plain", "nested", "comprehension"])
def test_functions_pushed_one_by_one_keep_their_own_helpers(body: str) -> None:
    engine = pushed(BODIES[body])
    engine.push(g=notebook("def tool():\n    return 2\n" + BODIES[body]).f)
    assert (engine.names["f"](), engine.names["g"]()) == (1, 2)
    engine.push(f=notebook("def tool():\n    return 3\n" + BODIES[body]).f)
    assert (engine.names["f"](), engine.names["g"]()) == (3, 2)


def test_a_helper_may_have_the_name_of_a_builtin() -> None:
    source = "def f():\n    return len([0]), [len([0]) for _ in range(1)], max(3, 2)"
    engine = pushed(source, tool="def len(x):\n    return 'ours'\n")
    assert engine.names["f"]() == ("ours", ["ours"], 3)
    assert eval("len([0])", engine.names) == 1


def test_it_reads_and_writes_the_namespace() -> None:
    source = "def f(x):\n    global seen\n    seen = tool() + a\n    return [a + i for i in range(x)]"
    engine = pushed(source, a=10)
    assert engine.names["f"](2) == [10, 11]
    assert engine.names["seen"] == 11
    assert engine.names["f"].__globals__ is engine.names
    comprehension = pushed("def f():\n    return [tool() + a for _ in range(1)]", a=1)
    assert comprehension.names["f"]() == [2]
    comprehension.names["a"] = 5
    assert comprehension.names["f"]() == [6]


def test_a_nested_function_that_writes_still_finds_its_helper() -> None:
    source = (
        "def f():\n    def inner():\n        global seen\n        seen = tool()\n    inner()\n    return seen"
    )
    engine = pushed(source)
    assert engine.names["f"]() == 1
    assert engine.names["seen"] == 1


def test_methods_of_a_pushed_class() -> None:
    engine = Engine()
    cell = notebook(
        "def tool():\n    return 1\nclass Box:\n    def get(self):\n        return [tool() for _ in 'a']"
    )
    engine.push(Box=cell.Box, box=cell.Box())
    assert eval("Box().get() + box.get()", engine.names) == [1, 1]
    assert "tool" not in engine.names


def test_a_lacking_module_is_no_obstacle_to_the_rest() -> None:
    session = notebook("def tool():\n    return 1\ndef f(x):\n    return tool() if x else lacking.x").session
    lacking = session["lacking"] = sys.modules["enginery_lacking"] = types.ModuleType("enginery_lacking")
    assert lacking
    try:
        packed = pack({"f": session["f"]})
    finally:
        del sys.modules["enginery_lacking"]
    engine = Engine()
    f = unpack(*packed, namespace=engine.names)["f"]
    assert f(True) == 1
    with pytest.raises(NameError, match="lacking"):
        f(False)


@pytest.mark.parametrize("body", [body for body in BODIES if body != "in a nested class"])
def test_a_function_that_comes_back_works_at_the_client(body: str) -> None:
    engine = Engine()
    exec("def tool():\n    return 1\n" + BODIES[body], engine.names)
    client: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    back = unpack(*pack([engine.names["f"]]), namespace=client)[0]
    assert back() == 1
    assert sorted(client) == ["__builtins__", "__name__"]
    # and what has its helpers built in takes them along once more
    other = Engine()
    other.push(f=back)
    assert other.names["f"]() == 1
    assert other.run(back) == 1
    assert pack_function(back).data != b""


def test_many_threads_may_make_such_functions() -> None:
    engine = Engine()
    packed = pack(notebook("def tool():\n    return 1\ndef f():\n    return tool()").f)
    go = threading.Barrier(4)
    sums: list[int] = []

    def make() -> None:
        go.wait(10)
        sums.append(sum(unpack(*packed, namespace=engine.names)() for _ in range(200)))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sums == [200] * 4
    assert engine.names["__builtins__"] is __builtins__
