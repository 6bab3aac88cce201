"""Functions that run only where a condition holds: `depend` and `require`.

The condition travels with the function and is looked at where the function has travelled to, before each
call. Called where it was made, the function is the plain one.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

from enginery.errors import UnmetDependency
from enginery.objects.arrival import Arrival, arriving, main_namespace
from enginery.objects.functions import function_name


def depend(
    condition: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Callable[[Callable[..., Any]], dependent]:
    """Decorate a function so that it runs only on engines where ``condition(*args, **kwargs)`` is not False.

    The condition may raise `UnmetDependency` too. A load-balanced task then tries another engine; a direct
    one fails with UnmetDependency.

    >>> @depend(os.path.exists, "/scratch")                             # doctest: +SKIP
    ... def clean(): ...
    """
    if not callable(condition):
        raise TypeError(f"depend takes a function that says yes or no, not {condition!r}")
    return lambda function: dependent(function, condition, *args, **kwargs)


def require(*objects: Any, **named: Any) -> Callable[[Callable[..., Any]], dependent]:
    """Decorate a function with what it needs on its engine: modules, functions and other named objects.

    Modules, or their names, are imported there; an engine that cannot import one is not fit for the task.
    Functions and classes are set in the engine's namespace under their own names, all else under its keyword.
    Raises TypeError for an object without a name.

    >>> @require("numpy", scale=3)                                      # doctest: +SKIP
    ... def f(n): return scale * numpy.arange(n)
    """
    modules = []
    for each in objects:
        if isinstance(each, (str, ModuleType)):
            modules.append(_module_name(each))
        elif isinstance(name := getattr(each, "__name__", None), str):
            named[name] = each
        else:
            raise TypeError(
                f"require takes modules, their names, functions and classes; {each!r} has no name: give it "
                f"one, require(name={each!r})"
            )
    return lambda function: dependent(function, Requirement(modules, named, function))


class dependent:
    """A function with a condition: what `depend` and `require` make."""

    def __init__(
        self, function: Callable[..., Any], condition: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> None:
        if not callable(function):
            raise TypeError(f"a function is needed to depend on something, not {function!r}")
        self.f = function
        self.df = condition
        self.dargs = args
        self.dkwargs = kwargs
        self.__name__ = function_name(function)
        self.__qualname__ = getattr(function, "__qualname__", self.__name__)
        self.__doc__ = getattr(function, "__doc__", None)
        self.__wrapped__ = function
        self._has_travelled = False

    def __repr__(self) -> str:
        return f"<dependent {self.__name__}, on {_text(self.df)}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._has_travelled:
            self.check_dependency()
        return self.f(*args, **kwargs)

    def check_dependency(self) -> None:
        """Raise UnmetDependency if the condition does not hold here."""
        if self.df(*self.dargs, **self.dkwargs) is False:
            raise UnmetDependency(f"{self.__name__} cannot run on this engine: {_text(self.df)} says no")

    def __reduce__(self) -> tuple[Any, ...]:
        return make_dependent, (self.f, self.df, self.dargs, self.dkwargs)


def make_dependent(
    function: Callable[..., Any],
    condition: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> dependent:
    """The same function in another process."""
    made = dependent(function, condition, *args, **kwargs)
    made._has_travelled = True
    return made


class Requirement:
    """What `require` asks of an engine: the condition that sets names where its function looks for them."""

    def __init__(
        self,
        modules: list[str],
        named: Mapping[str, Any],
        function: Callable[..., Any],
        namespace: dict[str, Any] | None = None,
    ) -> None:
        self._modules = modules
        self._named = dict(named)
        self._function = function
        self._namespace = namespace

    def __repr__(self) -> str:
        return f"<Requirement: {', '.join([*self._modules, *self._named]) or 'nothing'}>"

    def __call__(self) -> None:
        found = dict(self._named)
        for name in self._modules:
            try:
                importlib.import_module(name)
            except ImportError as error:
                asking = function_name(self._function)
                raise UnmetDependency(
                    f"this engine cannot import {name}, which {asking} requires: {error}"
                ) from error
            first = name.partition(".")[0]
            found[first] = sys.modules[first]
        for names in self._places():
            names.update(found)

    def _places(self) -> Iterator[dict[str, Any]]:
        """The engine's namespace; and the globals of a function that brought its own, as cloudpickle's do."""
        namespace = main_namespace() if self._namespace is None else self._namespace
        yield namespace
        function = self._function
        while not isinstance(function, FunctionType) and hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        own = getattr(function, "__globals__", namespace)
        module = sys.modules.get(getattr(function, "__module__", None) or "")
        if own is not namespace and (module is None or vars(module) is not own):
            yield own

    def __reduce__(self) -> tuple[Any, ...]:
        return make_requirement, (self._modules, self._named, self._function)


@arriving
def make_requirement(
    modules: list[str],
    named: Mapping[str, Any],
    function: Callable[..., Any],
    *,
    arrival: Arrival | None = None,
) -> Requirement:
    return Requirement(modules, named, function, None if arrival is None else arrival.namespace)


def _module_name(module: str | ModuleType) -> str:
    name = module if isinstance(module, str) else module.__name__
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"require: {name!r} is no name of a module")
    return name


def _text(condition: Any) -> str:
    return repr(condition) if isinstance(condition, Requirement) else function_name(condition)
