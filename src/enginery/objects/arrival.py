"""What an unpickler knows of the place where a value arrives, and the globals of functions that stay there.

Functions sent by value have a namespace as their globals. The code that came along with them, their
companions, must not become names of it: only those functions see it, behind the namespace's own names.

For a function that is gone after its task, `CompanionTable` does that. One that stays (pushed, returned, in a
registered serializer) may be called at any time, by any code, in any thread. So its companions are built into
it: CPython looks for a global name in the function's globals, then in its builtins, and the builtins of these
functions are the real ones and the companions.

A function nested in it gets its builtins from its globals, where the namespace has the real ones. If it needs
companions, the outer function's globals are a `Behind` instead: an empty dictionary that asks the namespace
for what it lacks and has builtins of its own. It would keep what a function assigns with ``global``, and
class bodies and ``eval`` look past it, so functions that do such things do without; the companions of
functions nested in them become names of the namespace after all.
"""

from __future__ import annotations

import builtins
import dis
import sys
import threading
from collections.abc import Callable
from types import CellType, CodeType, FunctionType
from typing import Any

_CO_OPTIMIZED = 1
_WRITES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})
_ASKS_FOR_GLOBALS = frozenset({"globals", "eval", "exec"})
_MISSING = object()

_arriving: set[Any] = set()
_builtins_lock = threading.Lock()


def arriving(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function that streams name and that an unpickler is to call with ``arrival=``."""
    _arriving.add(function)
    return function


def wants_arrival(found: FunctionType) -> bool:
    return found in _arriving


class Arrival:
    """Where a value arrives.

    `evaluates` says whether a `Reference` becomes its value, `stays` whether functions outlive the task.
    """

    has_references = False
    exposed: frozenset[str] = frozenset()
    """Companions that must become names of the namespace."""
    _builtins: dict[str, Any] | None = None
    _globals: Behind | None = None

    def __init__(self, namespace: dict[str, Any], *, evaluates: bool = False, stays: bool = False) -> None:
        self.namespace = namespace
        self.evaluates = evaluates
        self.stays = stays

    @classmethod
    def at(cls, namespace: dict[str, Any] | None, *, stays: bool = False) -> Arrival:
        """On an engine, which has a namespace and evaluates, or, without one, at a client."""
        if namespace is None:
            return cls(main_namespace(), stays=stays)
        return cls(namespace, evaluates=True, stays=stays)

    def staying(self) -> Arrival:
        """The same place, for a value inside of the value that stays there."""
        return Arrival(self.namespace, evaluates=self.evaluates, stays=True)

    def make_function(
        self, code: CodeType, closure: tuple[CellType, ...] | None, companions: tuple[str, ...]
    ) -> FunctionType:
        """A function whose globals are the namespace; `companions` are names of code that comes along."""
        if not companions or not self.stays:
            return FunctionType(code, self.namespace, None, None, closure)
        nested = names_of_nested(code).intersection(companions)
        if nested and _is_tame(code):
            return FunctionType(code, self._behind(), None, None, closure)
        self.exposed |= nested
        return self._with_builtins(code, closure)

    def fill(self, name: str, value: Any) -> None:
        """Let the functions made so far see a companion."""
        self._own_builtins()[name] = value

    def _with_builtins(self, code: CodeType, closure: tuple[CellType, ...] | None) -> FunctionType:
        # A function takes its builtins from its globals when it is made, and keeps them.
        with _builtins_lock:
            usual = self.namespace.get("__builtins__", builtins)
            self.namespace["__builtins__"] = self._own_builtins()
            try:
                return FunctionType(code, self.namespace, None, None, closure)
            finally:
                self.namespace["__builtins__"] = usual

    def _own_builtins(self) -> dict[str, Any]:
        if self._builtins is None:
            self._builtins = dict(vars(builtins))
        return self._builtins

    def _behind(self) -> Behind:
        if self._globals is None:
            self._globals = _class_behind(self.namespace)()
            self._globals["__builtins__"] = self._own_builtins()
            self._globals["__name__"] = self.namespace.get("__name__", "__main__")
        return self._globals


class Behind(dict[str, Any]):
    """Globals that ask a namespace for all names."""

    namespace: dict[str, Any]

    def get(self, name: str, default: Any = None) -> Any:
        return self.namespace.get(name, default)


def _class_behind(namespace: dict[str, Any]) -> type[Behind]:
    # A bound method is no descriptor, so `__missing__` is called with the name alone, by C from C.
    return type("Behind", (Behind,), {"namespace": namespace, "__missing__": namespace.__getitem__})


def main_namespace() -> dict[str, Any]:
    return vars(sys.modules["__main__"])


def find_global(function: FunctionType, name: str, default: Any) -> Any:
    """What a global name means to a function, companions that are built into it included."""
    value = function.__globals__.get(name, _MISSING)
    if value is _MISSING:
        builtins_of: dict[str, Any] = getattr(function, "__builtins__")  # noqa: B009 - not in all stubs
        value = builtins_of.get(name, _MISSING)
        if value is vars(builtins).get(name, _MISSING):
            return default
    return value


def names_of_nested(code: CodeType) -> set[str]:
    """The names in all code that is nested in a code object."""
    names: set[str] = set()
    for nested in _nested(code):
        names.update(nested.co_names)
        names |= names_of_nested(nested)
    return names


def _nested(code: CodeType) -> list[CodeType]:
    return [const for const in code.co_consts if isinstance(const, CodeType)]


def _is_tame(code: CodeType) -> bool:
    """Whether code only reads globals, by name."""
    if not code.co_flags & _CO_OPTIMIZED or not _ASKS_FOR_GLOBALS.isdisjoint(code.co_names):
        return False
    if any(instruction.opname in _WRITES for instruction in dis.get_instructions(code)):
        return False
    return all(map(_is_tame, _nested(code)))
