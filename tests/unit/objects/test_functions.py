"""Functions by value: globals of the engine, companions, closures, and the cache of the client."""

from __future__ import annotations

import functools
import gc
import linecache
import os.path
import sys
import threading
import traceback
import types
import weakref
from typing import Any

import numpy as np
import pytest

from enginery.objects.companions import CompanionTable
from enginery.objects.functions import BuiltFunction, FunctionCache, build, function_name, pack_function
from enginery.objects.packing import pack, pack_call, unpack, unpack_call, unpack_to_stay

RATE = 3  # data of an importable module


class Engine:
    """A namespace and what runs in it."""

    def __init__(self, **names: Any) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__, **names}
        self.table = CompanionTable(self.names)

    def build(self, function: Any) -> BuiltFunction:
        return build(pack_function(function).data, self.names)

    def push(self, **values: Any) -> None:
        made, companions = unpack_to_stay(*pack(values), namespace=self.names)
        self.table.keep(companions)
        self.names.update(made)

    def run(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        before = dict(self.names)
        built = self.build(function)
        call = unpack_call(*pack_call(args, kwargs), namespace=self.names)
        try:
            with self.table.active(built.companions, call.companions):
                return built.function(*call.args, **call.kwargs)
        finally:
            self.last_change = {k: v for k, v in self.names.items() if before.get(k) is not v}


def notebook(source: str, **names: Any) -> types.SimpleNamespace:
    """What an interactive session would define."""
    session: dict[str, Any] = {"__name__": "__main__", **names}
    name = f"<cell {id(session)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec", dont_inherit=True), session)
    return types.SimpleNamespace(**{k: v for k, v in session.items() if k != "__builtins__"}, session=session)


def test_free_names_are_the_engines() -> None:
    cell = notebook("f = lambda x: x + a\na = 100")
    engine = Engine(a=7)
    assert engine.run(cell.f, 1) == 8
    assert engine.build(cell.f).function.__globals__ is engine.names


def test_a_missing_name_is_a_name_error_and_works_once_it_exists() -> None:
    cell = notebook("f = lambda: a")
    engine = Engine()
    built = engine.build(cell.f)
    with pytest.raises(NameError) as caught:
        built.call(engine.table)
    assert not hasattr(caught.value, "__notes__")
    engine.names["a"] = 5
    assert built.call(engine.table) == 5


def test_data_does_not_travel_and_the_error_has_the_line_to_type() -> None:
    cell = notebook("a = [1, 2]\ndef f():\n    return a")
    engine = Engine()
    with pytest.raises(NameError) as caught:
        engine.run(cell.f)
    assert caught.value.__notes__ == [
        "name 'a' is not defined on the engine; data does not travel with functions: run  view.push({'a': a})"
    ]
    assert engine.last_change == {}
    assert b"data does not" in pack_function(cell.f).data


def test_code_travels_is_seen_everywhere_and_leaves_no_name() -> None:
    cell = notebook(
        "import math\nimport os.path\nimport numpy as np\n"
        "class Box:\n    def __init__(self, x):\n        self.x = double(x)\n"
        "def double(x):\n    return twice(x)\n"
        "def twice(x):\n    return x * 2\n"
        "def f(xs):\n"
        "    def inner(x):\n        return Box(x).x\n"
        "    return [inner(x) for x in xs], np.sum(xs), math.floor(1.5), os.path.basename('a/b')\n"
    )
    engine = Engine()
    assert engine.run(cell.f, [1, 2]) == ([2, 4], 3, 1, "b")
    assert engine.last_change == {}
    assert set(engine.names) == {"__name__", "__builtins__"}


def test_the_engines_own_definition_wins() -> None:
    cell = notebook("def double(x):\n    return x * 2\ndef f(x):\n    return double(x)")
    assert Engine().run(cell.f, 3) == 6
    assert Engine(double=lambda x: -x).run(cell.f, 3) == -3


def test_what_a_task_makes_of_a_name_stays() -> None:
    cell = notebook("def tool():\n    return 1\ndef f():\n    global tool, seen\n    tool, seen = 2, 3\n")
    engine = Engine()
    engine.run(cell.f)
    assert (engine.names["tool"], engine.names["seen"]) == (2, 3)


def test_recursion_and_mutual_recursion() -> None:
    cell = notebook(
        "def fact(n):\n    return 1 if n < 2 else n * fact(n - 1)\n"
        "def even(n):\n    return n == 0 or odd(n - 1)\n"
        "def odd(n):\n    return n != 0 and even(n - 1)\n"
    )
    assert Engine().run(cell.fact, 5) == 120
    assert Engine().run(cell.even, 10) is True


def test_overlapping_tasks_keep_their_own_companions() -> None:
    one = notebook("def tool():\n    return 1\ndef f():\n    return tool()")
    two = notebook("def tool():\n    return 2\ndef f():\n    return tool()")
    engine = Engine()
    first, second = engine.build(one.f), engine.build(two.f)
    enter = engine.table.active(first.companions)
    with enter:
        assert first.function() == 1
        with engine.table.active(second.companions):
            assert second.function() == 2
        assert first.function() == 1
    assert "tool" not in engine.names
    overlap = [engine.table.active(first.companions), engine.table.active(second.companions)]
    overlap[0].__enter__()
    overlap[1].__enter__()
    overlap[0].__exit__(None, None, None)
    assert second.function() == 2
    overlap[1].__exit__(None, None, None)
    assert "tool" not in engine.names


def test_functions_of_modules_travel_as_references() -> None:
    engine = Engine()
    assert engine.build(os.path.join).function is os.path.join
    assert engine.build(function_name).function is function_name
    assert engine.build(len).function is len
    assert engine.build(np.sqrt).function is np.sqrt
    assert engine.build(dict).function is dict


def test_functions_nested_in_a_module_reach_its_data_by_reference() -> None:
    engine = Engine()
    assert engine.run(lambda x: x * RATE + len(function_name(len)), 2) == 9
    engine.names["RATE"] = 10
    assert engine.run(lambda x: x * RATE, 2) == 20


def test_a_module_that_the_engine_lacks_is_explained() -> None:
    session: dict[str, Any] = {"__name__": "__main__"}
    module = types.ModuleType("enginery_test_lacking")
    sys.modules["enginery_test_lacking"] = module
    try:
        session["lacking"] = module
        exec("def f():\n    return lacking.x", session)
        data = pack_function(session["f"]).data
    finally:
        del sys.modules["enginery_test_lacking"]
    engine = Engine()
    built = build(data, engine.names)
    with pytest.raises(NameError) as caught:
        built.call(engine.table)
    assert caught.value.__notes__[0].startswith(
        "name 'lacking' is not defined on the engine, and the client's"
    )
    assert "ModuleNotFoundError" in caught.value.__notes__[0]


def test_closures_of_all_kinds() -> None:
    def adder(n: int) -> Any:
        return lambda x: x + n

    def recursive() -> Any:
        def down(n: int) -> int:
            return 0 if n == 0 else down(n - 1)

        return down

    def counter() -> Any:
        count = 0

        def up() -> int:
            nonlocal count
            count += 1
            return count

        def read() -> int:
            return count

        return up, read

    def unset() -> Any:
        def f() -> int:
            return later

        if f is None:
            later = 1
        return f

    engine = Engine()
    assert engine.run(adder(3), 4) == 7
    assert engine.run(recursive(), 5) == 0
    pair = counter()
    up, read = engine.build(lambda: pair).function()
    assert (up(), up(), read()) == (1, 2, 2)
    with pytest.raises(NameError, match="later"):
        engine.run(unset())


def test_what_belongs_to_a_function_travels() -> None:
    cell = notebook(
        "def f(a, b=2, *, c: int = 3) -> 'text':\n    'doc of f'\n    return a, b, c\n"
        "f.tag = [1]\nf.__doc__ = 'changed'\n"
        "async def later():\n    return 1\n"
        "def numbers():\n    yield 1\n"
    )
    built = Engine().build(cell.f).function
    assert built(1) == (1, 2, 3)
    assert (built.__name__, built.__qualname__, built.__module__) == ("f", "f", "__main__")
    assert (built.__doc__, built.tag) == ("changed", [1])
    assert built.__annotations__ == {"c": int, "return": "text"}
    assert list(Engine().build(cell.numbers).function()) == [1]
    coroutine = Engine().build(cell.later).function()
    with pytest.raises(StopIteration, match="1"):
        coroutine.send(None)


def test_partials_and_caches() -> None:
    cell = notebook(
        "import functools\n"
        "def scale(k, x):\n    return k * x * unit()\n"
        "def unit():\n    return 1\n"
        "@functools.lru_cache(maxsize=10)\ndef fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\n"
        "def uses_cache(n):\n    return fib(n)\n"
    )
    engine = Engine()
    assert engine.run(functools.partial(cell.scale, 3), 4) == 12
    assert engine.run(cell.fib, 20) == 6765
    assert engine.run(cell.uses_cache, 20) == 6765
    assert engine.build(cell.fib).function.cache_parameters() == {"maxsize": 10, "typed": False}


def test_callbacks_among_the_arguments_get_the_engines_names_too() -> None:
    cell = notebook(
        "def tool(x):\n    return x + a\n"
        "def callback(x):\n    return tool(x)\n"
        "def f(cb, x):\n    return cb(x)\n"
    )
    engine = Engine(a=10)
    assert engine.run(cell.f, cell.callback, 1) == 11
    assert "tool" not in engine.names
    with pytest.raises(NameError) as caught:
        notebook_with_data = notebook(
            "data = 1\ndef callback():\n    return data\ndef f(cb):\n    return cb()"
        )
        engine.run(notebook_with_data.f, notebook_with_data.callback)
    assert "view.push({'data': data})" in caught.value.__notes__[0]


def test_a_companion_that_cannot_be_pickled_stays_behind() -> None:
    cell = notebook(
        "import threading\n"
        "def good():\n    return 1\n"
        "def bad(lock=threading.Lock()):\n    return 2\n"
        "def f(use_bad):\n    return bad() if use_bad else good()\n"
    )
    engine = Engine()
    assert engine.run(cell.f, False) == 1
    with pytest.raises(NameError) as caught:
        engine.run(cell.f, True)
    assert caught.value.__notes__[0].startswith(
        "name 'bad' is not defined on the engine, and the client's could not"
    )


def test_a_function_that_cannot_be_pickled() -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"cannot pickle '_thread\.lock' object"):
        pack_function(lambda: lock)
    with pytest.raises(TypeError, match=r"cannot pickle '_thread\.lock' object"):
        FunctionCache().pack(lambda: lock)


def test_results_that_are_functions_get_the_clients_globals() -> None:
    cell = notebook("def make(n):\n    return lambda x: x + n + base")
    engine = Engine(base=1000)
    made = engine.run(cell.make, 5)
    client: dict[str, Any] = {"base": 1}
    back = unpack(*pack(made), namespace=client)
    assert back(10) == 16


def test_instances_of_notebook_classes_come_back_as_themselves() -> None:
    cell = notebook("class Point:\n    def __init__(self, x):\n        self.x = x\ndef f(p):\n    return p")
    point = Engine().run(cell.f, cell.Point(3))
    assert type(unpack(*pack([point]))[0]) is cell.Point


def test_source_lines_show_in_tracebacks() -> None:
    cell = notebook("\n\ndef f():\n    x = 1\n    raise ValueError('here is the line')\n")
    data = pack_function(cell.f).data
    name = cell.f.__code__.co_filename
    del linecache.cache[name]
    engine = Engine()
    built = build(data, engine.names)
    with pytest.raises(ValueError, match="line") as caught:
        built.function()
    text = "".join(traceback.format_exception(caught.value))
    assert f"File \"{name}\", line 5, in f\n    raise ValueError('here is the line')" in text
    assert linecache.getline(name, 1) == "\n"


# ---------------------------------------------------------------- cache


def test_the_cache_gives_the_same_object_until_something_changes() -> None:
    cell = notebook("def tool(x):\n    return x\ndef f(x):\n    return tool(x) + a\na = 1")
    cache = FunctionCache()
    first = cache.pack(cell.f)
    assert cache.pack(cell.f) is first
    cell.session["a"] = 2  # data does not travel: nothing has changed
    assert cache.pack(cell.f) is first
    exec("def tool(x):\n    return -x", cell.session)
    second = cache.pack(cell.f)
    assert second.blob_id != first.blob_id
    engine = Engine(a=0)
    assert build(second.data, engine.names).call(engine.table, (5,)) == -5
    cell.session["a"] = len  # now it is code
    assert cache.pack(cell.f).blob_id != second.blob_id


@pytest.mark.parametrize(
    "change",
    [
        "f.__defaults__ = (9,)",
        "f.__kwdefaults__ = {'k': 9}",
        "f.__kwdefaults__['k'] = 9",
        "f.__code__ = (lambda x=1, *, k=2: 99).__code__",
        "f.tag = 1",
        "f.__qualname__ = 'g'",
        "tool.__defaults__ = (9,)",
        "deep.__code__ = (lambda: 4).__code__",
        "Box.size = 9",
        "Box.get = lambda self: 9",
        "Box.get.__defaults__ = (9,)",
    ],
)
def test_every_part_of_a_function_is_watched(change: str) -> None:
    cell = notebook(
        "class Box:\n    size = 1\n    def get(self, x=1):\n        return self.size\n"
        "def deep():\n    return 3\n"
        "def tool(y=1):\n    return deep() + Box().get() + y\n"
        "def f(x=1, *, k=2):\n    return tool()\n"
    )
    cache = FunctionCache()
    first = cache.pack(cell.f)
    assert cache.pack(cell.f) is first
    exec(change, cell.session)
    assert cache.pack(cell.f).data != first.data


def test_closure_cells_are_watched() -> None:
    def make(n: Any) -> Any:
        def f() -> Any:
            return n

        def change(value: Any) -> None:
            nonlocal n
            n = value

        return f, change

    cache = FunctionCache()
    f, change = make(1)
    first = cache.pack(f)
    assert cache.pack(f) is first
    change(2)
    assert cache.pack(f).data != first.data
    mutable: list[int] = []
    f, _ = make(mutable)
    empty = cache.pack(f)
    mutable.append(1)
    assert cache.pack(f).blob_id != empty.blob_id


def test_lambdas_of_a_loop_are_pickled_once() -> None:
    cache = FunctionCache()
    packed = [cache.pack(lambda x: x + 1) for _ in range(3)]
    assert packed[0] is packed[1] is packed[2]
    assert len({cache.pack(f).blob_id for f in [lambda x, i=i: x + i for i in range(3)]}) == 3


def test_equal_bytes_have_equal_ids() -> None:
    cell = notebook("state = []\ndef f(x, log=state):\n    return x")
    cache = FunctionCache()
    assert cache.pack(cell.f) is not cache.pack(cell.f)
    assert cache.pack(cell.f).blob_id == cache.pack(cell.f).blob_id
    assert len(cache.pack(cell.f).blob_id) == 16


def test_the_cache_is_bounded_and_holds_no_functions() -> None:
    cache = FunctionCache(size=10)
    functions = [notebook(f"def f{i}():\n    return {i}").session[f"f{i}"] for i in range(30)]
    for function in functions:
        cache.pack(function)
    assert len(cache) == 10
    assert repr(cache) == "<FunctionCache: 10 of 10 functions>"

    def local() -> int:
        return 1

    cache.pack(local)
    seen = weakref.ref(local)
    del local
    gc.collect()
    assert seen() is None

    def constant(array: Any) -> Any:
        return lambda: array

    big = np.zeros(1000)
    cache.pack(constant(big))
    gone = weakref.ref(big)
    del big
    gc.collect()
    assert gone() is None


def test_classes_as_functions_are_watched() -> None:
    cell = notebook(
        "def tool():\n    return 1\nclass Box:\n    def __init__(self):\n        self.x = tool()\n"
    )
    cache = FunctionCache()
    first = cache.pack(cell.Box)
    assert cache.pack(cell.Box) is first
    exec("def tool():\n    return 2", cell.session)
    assert cache.pack(cell.Box).blob_id != first.blob_id


def test_many_threads_may_pack() -> None:
    cell = notebook("def tool():\n    return 1\ndef f():\n    return tool()")
    cache = FunctionCache(size=4)
    others = [notebook(f"def f():\n    return {i}").f for i in range(8)]
    ids: list[set[bytes]] = [set() for _ in range(8)]
    go = threading.Barrier(8)

    def pack_often(i: int) -> None:
        go.wait(10)
        for _ in range(200):
            ids[i].add(cache.pack(cell.f).blob_id)
            cache.pack(others[i])

    threads = [threading.Thread(target=pack_often, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set.union(*ids)) == 1
    assert len(cache) == 4


def test_names() -> None:
    cell = notebook("def f():\n    pass\nclass Call:\n    def __call__(self):\n        pass")
    assert function_name(functools.partial(cell.f)) == "f"
    assert function_name(cell.Call()) == "Call"
    assert pack_function(cell.f).name == "f"
