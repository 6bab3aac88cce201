"""Companions: the code that a function names and that travels along with it.

A function sent by value has the engine's namespace as its globals. What it names there may be missing on the
engine while the client has it. If that is code (a function, a class, a module), it travels as a companion; if
it is data, it does not, and the `NameError` says which line to type.

A companion is no name of the namespace: `CompanionTable` sets it just for the time that a task runs, only if
the engine has no such name of its own, and takes it out again. That costs the code that runs nothing, and
nested functions, comprehensions and what a function writes with ``global`` need no care. Functions that stay
when the task is over have their companions built in, see `arrival`.
"""

from __future__ import annotations

import dis
import functools
import pickle
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import cloudpickle
from cloudpickle.cloudpickle import subimport

from enginery.objects.arrival import Arrival

LruCacheWrapper = type(functools.lru_cache(lambda: None))
_MAIN = ("__main__", "__mp_main__")
_LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_MISSING = object()

_names_of_code: WeakKeyDictionary[CodeType, frozenset[str]] = WeakKeyDictionary()


# ---------------------------------------------------------------- what a function names


def global_names(code: CodeType) -> frozenset[str]:
    """The global names that a code object, or code nested in it, reads."""
    names = _names_of_code.get(code)
    if names is None:
        found = {str(i.argval) for i in dis.get_instructions(code) if i.opname in _LOADS}
        for const in code.co_consts:
            if isinstance(const, CodeType):
                found |= global_names(const)
        names = _names_of_code[code] = frozenset(found)
    return names


def importable(obj: Any) -> bool:
    """Whether a function or class is what an import of its module and name gives, so a reference suffices."""
    module_name = getattr(obj, "__module__", None)
    qualname = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
    if not isinstance(module_name, str) or not isinstance(qualname, str) or module_name in _MAIN:
        return False
    found: Any = sys.modules.get(module_name)
    if found is None or _registered_by_value(module_name):
        return False
    for part in qualname.split("."):
        found = getattr(found, part, _MISSING)
        if found is _MISSING:
            return False
    return found is obj


def _registered_by_value(module_name: str) -> bool:
    registry = cloudpickle.list_registry_pickle_by_value()
    return any(module_name == name or module_name.startswith(f"{name}.") for name in registry)


def is_code(value: Any) -> bool:
    """Whether a global is code, which travels, or data, which does not.

    Code are functions, classes and importable modules, partials and what wraps a function (``lru_cache``,
    numba), and callables that are found by importing them (NumPy's ufuncs).
    """
    if isinstance(value, (FunctionType, BuiltinFunctionType, type, functools.partial, LruCacheWrapper)):
        return True
    if isinstance(value, ModuleType):
        return sys.modules.get(value.__name__) is value
    if not callable(value):
        return False
    wrapped = getattr(value, "__dict__", {}).get("__wrapped__")
    return isinstance(wrapped, FunctionType) or importable(value)


def submodules_named(module: ModuleType, names: Iterable[str]) -> Iterator[str]:
    """Loaded submodules that code reaches as attributes: ``import a.b`` binds just ``a``."""
    names = list(names)
    for name in names:
        dotted = f"{module.__name__}.{name}"
        found = sys.modules.get(dotted)
        if isinstance(found, ModuleType):
            yield dotted
            yield from submodules_named(found, [other for other in names if other != name])


def attribute_names(code: CodeType) -> frozenset[str]:
    """Every name that stands in a code object, or in code nested in it."""
    names = set(code.co_names)
    for const in code.co_consts:
        if isinstance(const, CodeType):
            names |= attribute_names(const)
    return frozenset(names)


# ---------------------------------------------------------------- what travels


class Companions:
    """What came along with a function or with the arguments of a call.

    `values` are functions and classes, `modules` dotted names to import (the first one is what the name
    means), `references` names of data in an importable module, `missing` names of the client's data with the
    reason why they are not here.
    """

    __slots__ = ("missing", "modules", "references", "values")

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.modules: dict[str, tuple[str, ...]] = {}
        self.references: dict[str, str] = {}
        self.missing: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self.values or self.modules or self.references or self.missing)

    def __repr__(self) -> str:
        names = ", ".join(sorted(set(self.names()))) or "none"
        return f"<Companions: {names}; missing: {', '.join(sorted(self.missing)) or 'none'}>"

    def names(self) -> Iterator[str]:
        yield from self.values
        yield from self.modules
        yield from self.references

    def find(self, name: str) -> Any:
        """The companion of that name. Raises ImportError if this machine lacks its module."""
        if name in self.values:
            return self.values[name]
        if name in self.modules:
            module, *submodules = self.modules[name]
            for dotted in (module, *submodules):
                subimport(dotted)
            value: Any = sys.modules[module]
        else:
            subimport(self.references[name])
            try:
                value = getattr(sys.modules[self.references[name]], name)
            except AttributeError as error:
                raise ImportError(str(error)) from error
        self.values[name] = value
        return value

    def find_or_note(self, name: str) -> Any:
        """The same; if the module is lacking, a note says so to the NameError to come."""
        try:
            return self.find(name)
        except ImportError as error:
            self.missing[name] = unsent_note(name, f"{type(error).__name__}: {error}")
            return _MISSING

    def explain(self, error: NameError) -> None:
        """Add to a NameError what the client has under that name, and how to send it."""
        reason = self.missing.get(getattr(error, "name", None) or "")
        # The same error passes here twice if a task's function and its arguments both brought companions.
        if reason and reason not in getattr(error, "__notes__", ()):
            error.add_note(reason)


NO_COMPANIONS = Companions()


def push_note(name: str) -> str:
    return (
        f"name {name!r} is not defined on the engine; data does not travel with functions: run  "
        f"view.push({{{name!r}: {name}}})"
    )


def unsent_note(name: str, reason: str) -> str:
    return f"name {name!r} is not defined on the engine, and the client's could not be sent: {reason}"


# ---------------------------------------------------------------- on the engine


class CompanionTable:
    """Sets companions into one namespace and takes them out again.

    Tasks may overlap (coroutines) or nest. Each name has a list of the companions that running tasks have
    brought; the latest one is set, and an engine's own definition is never touched.
    """

    def __init__(self, namespace: dict[str, Any]) -> None:
        self._namespace = namespace
        self._active: dict[str, list[Any]] = {}

    def __repr__(self) -> str:
        return f"<CompanionTable: {len(self._active)} names set>"

    @contextmanager
    def active(self, *groups: Companions) -> Iterator[None]:
        """Set companions for the time of a `with` block, and explain a NameError that leaves it."""
        entered: list[tuple[str, Any]] = []
        try:
            for companions in groups:
                if companions:
                    self._enter(companions, entered)
            yield
        except NameError as error:
            for companions in groups:
                companions.explain(error)
            raise
        finally:
            for name, value in reversed(entered):
                self._leave(name, value)

    def keep(self, companions: Companions) -> None:
        """Set companions for good: those that could not be built into a function that stays."""
        self._enter(companions, [])

    def _enter(self, companions: Companions, entered: list[tuple[str, Any]]) -> None:
        namespace = self._namespace
        for name in list(companions.names()):
            ours = self._active.get(name)
            if name in namespace and not (ours and namespace[name] is ours[-1]):
                continue
            value = companions.find_or_note(name)
            if value is _MISSING:
                continue
            self._active.setdefault(name, []).append(value)
            entered.append((name, value))
            namespace[name] = value

    def _leave(self, name: str, value: Any) -> None:
        ours = self._active[name]
        last = next(i for i in reversed(range(len(ours))) if ours[i] is value)
        del ours[last]
        if not ours:
            del self._active[name]
        # Somebody else's value under that name is the engine's own by now: it stays.
        if self._namespace.get(name, _MISSING) is value:
            if ours:
                self._namespace[name] = ours[-1]
            else:
                del self._namespace[name]


def companion_facts(
    companions: Companions,
) -> tuple[dict[str, tuple[str, ...]], dict[str, str], dict[str, str]]:
    return companions.modules, companions.references, companions.missing


def read_companions(load: pickle.Unpickler, arrival: Arrival) -> Companions:
    """The companions that follow a value in its stream, see `pickling.ByValuePickler.dump_companions`.

    Where the value stays, they are built into its functions; returned are those that cannot be.
    """
    companions = Companions()
    while batch := load.load():
        companions.values.update(batch)
    companions.modules, companions.references, companions.missing, _announcements = load.load()
    return _built_in(companions, arrival) if arrival.stays else companions


def _built_in(companions: Companions, arrival: Arrival) -> Companions:
    exposed = Companions()
    exposed.missing = companions.missing
    for name in list(companions.names()):
        if (value := companions.find_or_note(name)) is not _MISSING:
            arrival.fill(name, value)
            if name in arrival.exposed:
                exposed.values[name] = value
    return exposed
