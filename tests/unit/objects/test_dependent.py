"""Functions with conditions: `depend` and `require`."""

from __future__ import annotations

import fractions
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from enginery.errors import UnmetDependency
from enginery.objects.companions import CompanionTable
from enginery.objects.dependent import depend, dependent, require
from enginery.objects.functions import build, pack_function
from enginery.objects.libraries import use_cloudpickle, use_pickle


def here(**names: Any) -> Callable[[str], Any]:
    """Make functions as a user does in ``__main__``."""
    main = {"__name__": "__main__", **names}

    def define(source: str) -> Any:
        exec(source, main)
        return main["f"]

    return define


def on_an_engine(function: Any, *args: Any, namespace: dict[str, Any] | None = None) -> Any:
    """Call a function after it has travelled."""
    namespace = {"__builtins__": __builtins__, "__name__": "__main__"} if namespace is None else namespace
    return build(pack_function(function).data, namespace).call(CompanionTable(namespace), args)


@pytest.fixture(params=["pickle", "cloudpickle"])
def serializer(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "cloudpickle":
        use_cloudpickle()
    yield request.param
    use_pickle()


# ---------------------------------------------------------------- depend


def test_the_condition_is_looked_at_where_the_function_arrives() -> None:
    f = depend(lambda answer: answer, False)(lambda x: x + 1)
    assert f(1) == 2  # here it is the plain function
    with pytest.raises(UnmetDependency, match="<lambda> cannot run on this engine: <lambda> says no"):
        on_an_engine(f, 1)
    assert on_an_engine(depend(lambda answer: answer, True)(lambda x: x + 1), 1) == 2
    assert on_an_engine(depend(lambda answer=None: answer)(lambda x: x + 1), 1) == 2  # only False says no


def test_the_condition_may_raise() -> None:
    def refuse(reason: str = "") -> None:
        raise UnmetDependency(reason)

    with pytest.raises(UnmetDependency, match="too small"):
        on_an_engine(depend(refuse, reason="too small")(abs), 1)


def test_the_condition_sees_the_engines_names() -> None:
    f = depend(here()("f = lambda: gpu"))(abs)
    assert on_an_engine(f, -1, namespace={"gpu": True}) == 1
    with pytest.raises(UnmetDependency):
        on_an_engine(f, -1, namespace={"gpu": False})


def test_the_object_behind_it() -> None:
    def half(x: float) -> float:
        """Halve it."""
        return x / 2

    f = depend(lambda a, b: a < b, 1, b=2)(half)
    assert isinstance(f, dependent)
    assert (f.f, f.dargs, f.dkwargs) == (half, (1,), {"b": 2})
    assert f.df(*f.dargs, **f.dkwargs)
    assert (f.__name__, f.__doc__, inspect.signature(f)) == ("half", "Halve it.", inspect.signature(half))
    assert repr(f) == "<dependent half, on <lambda>>"
    f.check_dependency()
    f.dkwargs = {"b": 0}
    with pytest.raises(UnmetDependency):
        f.check_dependency()


def test_conditions_add_up() -> None:
    f = depend(lambda: False)(depend(lambda: True)(abs))
    g = depend(lambda: True)(depend(lambda: False)(abs))
    for each in (f, g):
        with pytest.raises(UnmetDependency):
            on_an_engine(each, 1)


# ---------------------------------------------------------------- require


def test_modules_are_imported_under_their_names(serializer: str) -> None:
    f = require("fractions", "xml.dom.minidom")(
        here()("def f(): return fractions.Fraction(1, 2), xml.dom.minidom")
    )
    half, module = on_an_engine(f)
    assert (half, module.__name__) == (fractions.Fraction(1, 2), "xml.dom.minidom")
    assert on_an_engine(require(fractions)(here()("f = lambda: fractions.__name__"))) == "fractions"


def test_functions_and_objects_are_set_by_name(serializer: str) -> None:
    twice = here()("def f(x): return 2 * x")
    twice.__name__ = "twice"
    f = require(twice, fractions.Fraction, scale=10)(
        here()("def f(x): return twice(x) * scale, Fraction(1, 2)")
    )
    assert on_an_engine(f, 2) == (40, 0.5)


def test_names_become_the_namespaces() -> None:
    namespace = {"__builtins__": __builtins__, "__name__": "__main__"}
    on_an_engine(require("fractions", scale=10)(abs), -1, namespace=namespace)
    assert namespace["scale"] == 10
    assert namespace["fractions"] is fractions


def test_an_engine_that_lacks_a_module(serializer: str) -> None:
    with pytest.raises(
        UnmetDependency, match="this engine cannot import no_such_module, which abs requires: No mod"
    ):
        on_an_engine(require("no_such_module")(abs), 1)


def test_modules_of_functions_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("module_of_a_user")
    monkeypatch.setitem(sys.modules, "module_of_a_user", module)
    exec("def f(): return 1", vars(module))
    assert on_an_engine(require(scale=3)(module.f)) == 1
    assert not hasattr(module, "scale")


def test_here_it_is_the_plain_function() -> None:
    assert require("no_such_module")(abs)(-1) == 1


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: depend(3), TypeError, "depend takes a function that says yes or no, not 3"),
        (lambda: depend(abs)(3), TypeError, "a function is needed to depend on something, not 3"),
        (
            lambda: require(3),
            TypeError,
            r"require takes modules, .*; 3 has no name: give it one, require\(name=3\)",
        ),
        (lambda: require("no module"), ValueError, "'no module' is no name of a module"),
        (lambda: require("os")(3), TypeError, "a function is needed to depend on something, not 3"),
    ],
)
def test_bad_input(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
