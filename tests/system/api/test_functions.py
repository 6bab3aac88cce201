"""Decorators, dependent functions, references, and what else makes or names functions."""

from __future__ import annotations

import inspect
import operator
import os
import types
from collections.abc import Iterator
from typing import Any

import pytest

import enginery as ipp
from tests.system.api.held import PATIENCE_S, each, from_main


@pytest.fixture(params=["direct", "balanced"])
def view(request: pytest.FixtureRequest, rc: ipp.Client) -> Iterator[Any]:
    yield rc[:] if request.param == "direct" else rc.load_balanced_view()
    rc.clear(block=True)


# ---------------------------------------------------------------- remote


def test_remote(rc: ipp.Client, view: Any) -> None:
    @ipp.remote(view, block=True)
    def add(x: int, y: int = 10) -> int:
        """Add two numbers."""
        return x + y

    five = 15 if view.balanced else each(rc, 15)
    assert isinstance(add, ipp.RemoteFunction)
    assert add(5) == add(x=5) == add(10, y=5) == five
    assert (add.view, add.block, add.func(1, 2)) == (view, True, 3)
    assert add.__name__ == "add"
    assert str(inspect.signature(add)) == "(x: 'int', y: 'int' = 10) -> 'int'"
    assert add.__doc__ is not None
    assert add.__doc__.startswith("RemoteFunction")
    assert add.__doc__.endswith("Add two numbers.")
    with pytest.raises(ipp.RemoteError) as caught:
        add(1, 2, 3)
    assert "TypeError(" in str(caught.value)


def test_remote_follows_the_view_unless_told(rc: ipp.Client) -> None:
    view = rc.direct_view(0, block=True, label="of the view")
    assert ipp.remote(view)(pow)(2, 3) == 8
    ar = ipp.remote(view, block=False, label="of the function")(pow)(2, 3)
    assert ar.get(timeout=PATIENCE_S) == 8
    assert ar.metadata.label == "of the function"
    assert view.label == "of the view"
    assert ipp.remote(view)(ipp.Reference("abs"))(-4) == 4


def test_a_remote_function_of_a_method_and_a_partial(rc: ipp.Client) -> None:
    import functools

    assert ipp.remote(rc[0], block=True)(functools.partial(pow, 2))(5) == 32
    assert ipp.remote(rc[0], block=True)("a,b".split)(",") == ["a", "b"]


# ---------------------------------------------------------------- parallel


def test_parallel_calls_once_for_each_part(rc: ipp.Client, view: Any) -> None:
    @ipp.parallel(view, block=True)
    def squares(part: Any) -> list[int]:
        return [x * x for x in part]

    assert isinstance(squares, ipp.ParallelFunction)
    for length in (1, 2, 5, 9):
        assert squares(range(length)) == [x * x for x in range(length)]
    assert squares([]) == []
    assert squares(()) == []
    assert squares(iter([1, 2, 3])) == [1, 4, 9]


def test_parallel_with_several_sequences(view: Any) -> None:
    @ipp.parallel(view, block=True)
    def added(a: Any, b: Any) -> list[int]:
        return [x + y for x, y in zip(a, b, strict=True)]

    assert added([1, 2, 3], [10, 20, 30]) == [11, 22, 33]
    with pytest.raises(ValueError, match="same length"):
        added([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="same length"):
        added([], [1])
    with pytest.raises(TypeError, match="keywords"):
        added([1], b=[2])
    with pytest.raises(TypeError, match="at least one"):
        added()


def test_parallel_of_arrays(view: Any) -> None:
    import numpy

    doubled = ipp.parallel(view, block=True)(from_main("def f(part): return part * 2"))
    assert numpy.array_equal(doubled(numpy.arange(7.0)), numpy.arange(7.0) * 2)


def test_parallel_in_turn(rc: ipp.Client) -> None:
    dealt = ipp.parallel(rc[:], dist="r", block=True)(list)
    assert dealt(list(range(7))) == list(range(7))
    seen = ipp.parallel(rc[:], dist="r", block=True)(lambda part: [tuple(part)])
    assert seen([0, 1, 2, 3, 4]) == [(0, 2, 4), (1, 3)]
    with pytest.raises(ValueError, match="dist"):
        ipp.parallel(rc[:], dist="x")


def test_the_result_of_a_parallel_call(rc: ipp.Client) -> None:
    ar = ipp.parallel(rc[:], block=False)(list)(range(6))
    assert isinstance(ar, ipp.AsyncMapResult)
    assert list(ar) == ar.get(timeout=PATIENCE_S) == list(range(6))
    assert len(ar.msg_ids) == 2


def test_map_of_a_parallel_function(rc: ipp.Client, view: Any) -> None:
    @ipp.parallel(view, block=True)
    def half(x: float) -> float:
        return x / 2

    assert half.map([2, 4, 6]) == [1, 2, 3]
    assert half.map([]) == []
    later = ipp.parallel(view, block=False)(operator.add)
    assert later.map([1, 2], [3, 4, 5]).get(timeout=PATIENCE_S) == [4, 6]


def test_parallel_functions_made_by_hand(rc: ipp.Client) -> None:
    lview = rc.load_balanced_view()
    f = ipp.ParallelFunction(lview, list, "b", True, 2, ordered=True, return_exceptions=True)
    assert (f.dist, f.block, f.chunksize, f.ordered, f.return_exceptions) == ("b", True, 2, True, True)
    assert f(range(5)) == [0, 1, 2, 3, 4]
    ar = ipp.ParallelFunction(lview, list, "b", False, 2)(range(5))
    assert ar.get(timeout=PATIENCE_S) == [0, 1, 2, 3, 4]
    assert len(ar.msg_ids) == 3
    errors = ipp.ParallelFunction(lview, int, block=True, return_exceptions=True).map(["1", "x"])
    assert errors[0] == 1
    assert isinstance(errors[1], ValueError)
    for bad, error in ((0, ValueError), ("2", TypeError)):
        with pytest.raises(error, match="chunksize"):
            ipp.ParallelFunction(lview, list, chunksize=bad)


@pytest.mark.parametrize("decorator", [ipp.remote, ipp.parallel])
def test_decorators_need_a_view_and_a_function(rc: ipp.Client, decorator: Any) -> None:
    for bad in (rc, None, 0, "all"):
        with pytest.raises(TypeError, match="a view is needed"):
            decorator(bad)
    with pytest.raises(TypeError, match="a function is needed"):
        decorator(rc[:])(3)
    with pytest.raises(KeyError, match="colour"):
        decorator(rc[:], colour=1)(abs)


# ---------------------------------------------------------------- depend, require


def test_depend_on_a_direct_view(rc: ipp.Client) -> None:
    yes, no = ipp.depend(lambda: True)(abs), ipp.depend(lambda x: x > 3, 2)(abs)
    assert rc[0].apply_sync(yes, -3) == 3
    ar = rc[0].apply_async(no, -3)
    with pytest.raises(ipp.UnmetDependency) as caught:
        ar.get(timeout=PATIENCE_S)
    assert caught.value.ename == "UnmetDependency"
    assert not isinstance(caught.value, ipp.ImpossibleDependency)
    assert no(-3) == 3  # where it was made, it is the plain function


def test_a_condition_may_raise(rc: ipp.Client) -> None:
    def refuses() -> bool:
        import enginery

        raise enginery.UnmetDependency("not here")

    def breaks() -> bool:
        raise KeyError("broken")

    with pytest.raises(ipp.UnmetDependency, match="not here"):
        rc[0].apply_sync(ipp.depend(refuses)(abs), 1)
    with pytest.raises(ipp.ImpossibleDependency):
        rc.load_balanced_view().apply_sync(ipp.depend(refuses)(abs), 1)
    with pytest.raises(KeyError, match="broken"):
        rc.load_balanced_view().apply_sync(ipp.depend(breaks)(abs), 1)


def test_only_false_means_no(rc: ipp.Client) -> None:
    for value in (None, 0, "", True, []):
        assert rc.load_balanced_view().apply_sync(ipp.depend(lambda v: v, value)(abs), -1) == 1


def test_the_object_behind_depend() -> None:
    def condition(x: int) -> bool:
        return x > 1

    def f(y: int) -> int:
        """The function."""
        return y

    bound = ipp.dependent(f, condition, 5)
    assert bound.f is f
    assert bound.df is condition
    assert bound.dargs == (5,)
    assert bound.dkwargs == {}
    assert (bound.__name__, bound.__doc__) == ("f", "The function.")
    assert bound(3) == 3
    assert bound.check_dependency() is None
    with pytest.raises(ipp.UnmetDependency, match="f cannot run"):
        ipp.dependent(f, condition, x=0).check_dependency()
    for bad in (lambda: ipp.depend(3), lambda: ipp.dependent(3, condition)):
        with pytest.raises(TypeError):
            bad()


@pytest.mark.parametrize("serializer", ["use_pickle", "use_cloudpickle", "use_dill"])
def test_require_with_every_serializer(rc: ipp.Client, serializer: str) -> None:
    if serializer == "use_dill":
        pytest.importorskip("dill")
    dview = rc[:]
    try:
        getattr(dview, serializer)().get(PATIENCE_S)
        helper = from_main("def helper(x): return 3 * x", "helper")
        user = from_main("def f(x): return helper(string.ascii_letters.index(x)) + offset")
        required = ipp.require("string", helper, offset=100)(user)
        assert rc.load_balanced_view().apply_sync(required, "c") == 106
        assert rc[1].apply_sync(required, "b") == 103
        by_module = ipp.require(__import__("colorsys"))(from_main("def f(): return colorsys.__name__"))
        assert dview.apply_sync(by_module) == ["colorsys", "colorsys"]
        missing = ipp.require("no_such_module_anywhere")(from_main("def f(): return 1"))
        with pytest.raises(ipp.UnmetDependency, match="no_such_module_anywhere"):
            rc[0].apply_sync(missing)
        with pytest.raises(ipp.ImpossibleDependency):
            rc.load_balanced_view().apply_sync(missing)
    finally:
        dview.use_pickle().get(PATIENCE_S)
        rc.clear(block=True)


def test_require_needs_names() -> None:
    for bad in (3, [1], object()):
        with pytest.raises(TypeError, match="has no name"):
            ipp.require(bad)
    with pytest.raises(ValueError, match="no name of a module"):
        ipp.require("not a module")


# ---------------------------------------------------------------- interactive


def test_interactive_functions_use_the_engines_names(rc: ipp.Client) -> None:
    rc[0].push({"offset": 40}, block=True)

    @ipp.interactive
    def add(x: int) -> int:
        return x + offset  # noqa: F821

    assert add.__module__ == "__main__"
    assert rc[0].apply_sync(add, 2) == 42
    with pytest.raises(NameError, match="offset"):
        rc[1].apply_sync(add, 2)
    rc.clear(block=True)


def test_interactive_classes_travel_by_value(rc: ipp.Client) -> None:
    @ipp.interactive
    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

        def moved(self, by: int) -> Point:
            return type(self)(self.x + by)

    assert Point.__module__ == "__main__"
    moved = rc[0].apply_sync(lambda point: point.moved(3), Point(4))
    assert moved.x == 7
    assert rc[0].apply_sync(Point, 9).x == 9
    assert ipp.util.interactive is ipp.interactive


# ---------------------------------------------------------------- Reference


def test_references_in_every_place(rc: ipp.Client, view: Any) -> None:
    rc[:].execute("a = 7\ndef double(x): return 2 * x", block=True)
    value = (lambda v: v) if view.balanced else (lambda v: each(rc, v))
    a = ipp.Reference("a")
    assert view.apply_sync(ipp.Reference("double"), 4) == value(8)
    assert view.apply_sync(pow, a, 2) == value(49)
    assert view.apply_sync(lambda *, x: x, x=a) == value(7)
    assert view.apply_sync(lambda x: x, [a, {"k": (a, [a])}]) == value([7, {"k": (7, [7])}])
    assert view.apply_sync(lambda x: x, ipp.Reference("a * 6")) == value(42)
    assert view.map_sync(operator.add, [a, a], [1, 2]) == [8, 9]
    assert view.map_sync(ipp.Reference("double"), [1, 2, 3]) == [2, 4, 6]
    with pytest.raises(ipp.RemoteError) as caught:
        view.apply_sync(abs, ipp.Reference("absent"))
    assert "NameError(" in str(caught.value)


def test_references_are_values() -> None:
    assert ipp.Reference("a") == ipp.Reference("a") != ipp.Reference("b")
    assert repr(ipp.Reference("a")) == "<Reference: 'a'>"
    assert ipp.Reference("a").name == "a"
    with pytest.raises(AttributeError):
        ipp.Reference("a").name = "b"  # type: ignore[misc]
    for bad in (3, None, b"a", ["a"]):
        with pytest.raises(TypeError, match="a Reference is made of"):
            ipp.Reference(bad)


def test_a_reference_may_be_pushed_and_pulled(rc: ipp.Client) -> None:
    rc[0].push({"a": 5}, block=True)
    rc[0].push({"b": ipp.Reference("a + 1")}, block=True)
    assert rc[0]["b"] == 6
    rc.clear(block=True)


# ---------------------------------------------------------------- PrePickled


def test_prepickled_arguments_and_functions(rc: ipp.Client, view: Any) -> None:
    import numpy

    value = (lambda v: v) if view.balanced else (lambda v: each(rc, v))
    table = ipp.PrePickled({"a": [1, 2]})
    assert view.apply_sync(lambda t: t["a"], table) == value([1, 2])
    assert view.apply_sync(lambda ts: ts[0] == ts[1], [table, table]) == value(True)
    assert view.apply_sync(ipp.PrePickled(from_main("def f(x): return x + 1")), 1) == value(2)
    array = ipp.PrePickled(numpy.arange(100_000))
    for _ in range(2):
        assert view.apply_sync(lambda a: int(a.sum()), array) == value(4_999_950_000)
    assert view.map_sync(len, [table] * 3) == [1, 1, 1]


def test_prepickled_is_a_copy_of_now(rc: ipp.Client) -> None:
    items = [1]
    packed = ipp.PrePickled(items)
    items.append(2)
    assert rc[0].apply_sync(len, packed) == 1


# ---------------------------------------------------------------- publish_data


def publish_three() -> str:
    from enginery.datapub import publish_data

    publish_data({"step": 1, "state": "begun"})
    publish_data({"step": 2})
    return "done"


def test_published_data(rc: ipp.Client, view: Any) -> None:
    ar = view.apply_async(publish_three)
    expected = {"step": 2, "state": "begun"}
    all_of_it = expected if view.balanced else each(rc, expected)
    assert ar._session.wait_until(lambda: ar.data == all_of_it, PATIENCE_S)
    assert ar["data"] == all_of_it


def test_data_is_readable_while_the_task_runs(rc: ipp.Client, gate: Any) -> None:
    def publish_and_wait(path: str) -> None:
        import fcntl

        from enginery.datapub import publish_data

        publish_data({"progress": 0.5})
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH)

    ar = rc[0].apply_async(publish_and_wait, gate.path)
    assert ar._session.wait_until(lambda: ar.data == {"progress": 0.5}, PATIENCE_S)
    assert not ar.done()
    gate.open()
    ar.get(timeout=PATIENCE_S)


def test_publishing_nonsense(rc: ipp.Client) -> None:
    def publish(value: Any) -> None:
        from enginery.datapub import publish_data

        publish_data(value)

    for bad in (3, ["a"], {1: 2}):
        with pytest.raises(TypeError):
            rc[0].apply_sync(publish, bad)
    from enginery.datapub import publish_data

    with pytest.raises(RuntimeError, match="inside a task"):
        publish_data({"a": 1})


# ---------------------------------------------------------------- what travels


def test_functions_of_every_kind_travel(rc: ipp.Client) -> None:
    import functools

    class Scale:
        def __init__(self, by: int) -> None:
            self.by = by

        def of(self, x: int) -> int:
            return x * self.by

        __call__ = of

        @staticmethod
        def twice(x: int) -> int:
            return 2 * x

        @classmethod
        def named(cls) -> str:
            return cls.__name__

    def factorial(n: int) -> int:
        return 1 if n < 2 else n * factorial(n - 1)

    def outer(x: int) -> int:
        def inner(y: int) -> int:
            return y + x

        return inner(10)

    one = rc[0]
    assert one.apply_sync(factorial, 5) == 120  # a closure that names itself
    assert one.apply_sync(outer, 1) == 11
    assert one.apply_sync(Scale(3).of, 4) == 12
    assert one.apply_sync(Scale(3), 5) == 15
    assert one.apply_sync(Scale.twice, 4) == 8
    assert one.apply_sync(Scale.named) == "Scale"
    assert one.apply_sync(functools.partial(Scale(2).of, x=8)) == 16
    assert one.apply_sync(operator.itemgetter(1), "abc") == "b"
    assert one.apply_sync(len, "four") == 4
    assert one.apply_sync(str.upper, "a") == "A"
    assert one.apply_sync(os.path.basename, "a/b") == "b"
    assert one.apply_sync(lambda: sorted([2, 1, 3], key=lambda x: -x)) == [3, 2, 1]
    returned = one.apply_sync(lambda by: lambda x: x * by, 7)
    assert isinstance(returned, types.FunctionType)
    assert returned(6) == 42


def test_code_travels_and_data_does_not(rc: ipp.Client) -> None:
    user = from_main("import math as m\ndef helper(x): return m.floor(x)\ndef f(x): return helper(x) + 1")
    assert rc[0].apply_sync(user, 2.5) == 3
    assert rc[0]["[n for n in globals() if n in ('m', 'helper', 'f')]"] == []
    reader = from_main("table = [1, 2, 3]\ndef f(): return table")
    with pytest.raises(NameError, match="push"):
        rc[0].apply_sync(reader)


def test_keywords_named_like_anything(rc: ipp.Client) -> None:
    names = ("f", "self", "args", "kwargs", "view", "block", "track", "function")
    keywords = dict.fromkeys(names, 1)
    assert rc[0].apply_sync(dict, **keywords) == keywords
