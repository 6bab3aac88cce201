"""`Reference`: a name that is looked up where it arrives."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from enginery.objects.functions import FunctionCache, build, function_name, pack_function
from enginery.objects.packing import (
    pack,
    pack_call,
    unpack,
    unpack_call,
    unpack_to_stay,
    unpack_with_companions,
)
from enginery.objects.prepickled import PrePickled
from enginery.objects.reference import Reference
from tests.unit.objects.test_functions import Engine, notebook

Ref = Reference


def arrived(engine: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    return unpack_call(*pack_call(args, kwargs), namespace=engine)[:2]


@pytest.mark.parametrize("name", [1, None, b"a", ["a"]])
def test_only_a_string_makes_one(name: Any) -> None:
    with pytest.raises(TypeError, match="a Reference is made of a name or an expression, a str, not of"):
        Reference(name)


def test_it_is_a_value() -> None:
    assert repr(Ref("a")) == "<Reference: 'a'>"
    assert Ref("a") == Ref("a") != Ref("b")
    assert len({Ref("a"), Ref("a"), Ref("b")}) == 2
    assert copy.copy(Ref("a")) == pickle.loads(pickle.dumps(Ref("a"))) == Ref("a")
    with pytest.raises(AttributeError, match="cannot be changed"):
        Ref("a").name = "b"
    assert function_name(Ref("f")) == "f"


def test_it_is_looked_up_wherever_it_stands() -> None:
    engine = {"a": [7], "b": 2}
    args, kwargs = arrived(engine, Ref("a"), [{"deep": (Ref("b"), {1: Ref(" a[0] * b ")})}], k=Ref("b + 1"))
    assert args[0] is engine["a"]
    assert (args[1], kwargs) == ([{"deep": (2, {1: 14})}], {"k": 3})
    columns, _ = unpack_with_companions(*pack(([Ref("a"), 5, Ref("b")],)), namespace=engine)
    assert columns == ([[7], 5, 2],)
    pushed, _ = unpack_to_stay(*pack({"c": Ref("b")}), namespace=engine)
    assert pushed == {"c": 2}
    assert arrived(engine, PrePickled([Ref("b")]))[0] == ([2],)


def test_a_missing_name_is_a_name_error() -> None:
    with pytest.raises(NameError, match="name 'a' is not defined"):
        arrived({}, [Ref("a")])
    with pytest.raises(SyntaxError):
        arrived({}, Ref("a b"))


def test_at_a_client_it_stays_what_it_is() -> None:
    assert unpack(*pack([Ref("a"), {"k": Ref("b")}])) == [Ref("a"), {"k": Ref("b")}]


def test_as_the_function_of_a_call_it_is_looked_up_for_each_call() -> None:
    cache = FunctionCache()
    assert cache.pack(Ref("f")).blob_id == cache.pack(Ref("f")).blob_id != cache.pack(Ref("g")).blob_id
    held = Ref("f")
    assert cache.pack(held).name == "f"
    assert cache.pack(held) is cache.pack(held)
    engine = Engine()
    built = build(cache.pack(Ref("f")).data, engine.names)
    with pytest.raises(NameError, match="'f'"):
        built.call(engine.table, (1,))
    engine.names["f"] = lambda x, k=0: x + k
    assert built.call(engine.table, (1,), {"k": 2}) == 3
    engine.names["f"] = lambda x: -x
    assert built.call(engine.table, (1,)) == -1


def test_inside_of_a_function_it_is_looked_up_for_each_call() -> None:
    engine = Engine(a=1)
    held = Ref("a")
    built = build(pack_function(lambda x: (x, held)).data, engine.names)
    assert built.call(engine.table, (0,)) == (0, 1)
    engine.names["a"] = 2
    assert built.call(engine.table, (0,)) == (0, 2)


def test_an_expression_may_call_a_function_that_was_pushed_with_a_helper() -> None:
    cell = notebook("def tool():\n    return 4\ndef f():\n    return tool()")
    engine = Engine()
    engine.push(f=cell.f)
    assert arrived(engine.names, Ref("f()"))[0] == (4,)
