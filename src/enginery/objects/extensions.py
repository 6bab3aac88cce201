"""What users have said of how types travel: `register_serializer`, and entries of their own in `can_map`.

This is the table alone, below the picklers that read it. Without such entries it is empty, and looking it up
costs a comparison. How a registered type travels is in `serializers`, how a canned one does in `canning`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from typing import Any

Reducer = Callable[[Any], Any]

can_map: dict[Any, Callable[[Any], Any]] = {}
"""Type, or its dotted name, to a function that makes a canned object of an instance; users may edit it."""
uncan_map: dict[Any, Callable[[Any, dict[str, Any]], Any]] = {}
"""Type of a canned object, or its dotted name, to a function ``(canned, namespace) -> object``."""

generation = 0
"""Grows with every change of how functions travel: what was packed before it may not be used again."""

canned: frozenset[type] = frozenset()
"""Types with an entry in `can_map`: what they become wants to know the namespace where it arrives."""

# Types that picklers write without asking anybody.
_NATIVE = frozenset(
    {type(None), bool, int, float, complex, str, bytes, bytearray, tuple, list, dict, set, frozenset}
)
_MISSING = object()

_can_defaults: dict[Any, Callable[[Any], Any]] = {}
_canned: Callable[[Any], Any] | None = None
_registered: dict[Hashable, Reducer] = {}  # by type, or (module, qualified name) while that is not imported
_announced: dict[Hashable, Any] = {}
_waiting: dict[Any, Reducer] = {}
_compiled: dict[type, Reducer] = {}
_compiled_from: dict[Any, Callable[[Any], Any]] = {}
_is_stale = False


def changed() -> None:
    """Say that functions travel in another way from now on."""
    global generation
    generation += 1


def set_defaults(defaults: dict[Any, Callable[[Any], Any]], wrap: Callable[[Any], Any]) -> None:
    """Fill `can_map` with what needs no canning, and say how a canned object travels."""
    global _canned, _is_stale
    _can_defaults.update(defaults)
    _canned = wrap
    can_map.update(defaults)
    _is_stale = True


def register(key: type | tuple[str, str], reducer: Reducer, announcement: Any) -> None:
    """Have instances of a type travel by `reducer`.

    `key` is the type, or its module and qualified name, which wait until the module is imported. The
    announcement goes along with functions, or with the class where that goes by value.
    """
    global _is_stale
    _registered[key] = reducer
    _announced[key] = announcement
    _is_stale = True
    changed()


def announcements() -> tuple[Any, ...]:
    """What goes along with every function: of types that are known by their names."""
    return tuple(value for key, value in _announced.items() if isinstance(key, tuple)) if _announced else ()


def announcement_of(cls: type) -> Any:
    """What goes along with a class that travels by value; None if there is nothing to say."""
    return _announced.get(cls) if _announced else None


def reducers() -> dict[type, Reducer]:
    """How instances of exactly these types travel. Do not change it."""
    if _is_stale or _waiting or can_map != _compiled_from:
        _compile()
    return _compiled


def type_named(module: str, qualname: str) -> type | None:
    """The type of that name, if its module has been imported."""
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) else None


def resolve(key: Any) -> type | None:
    """The type that a key of `can_map` or `uncan_map` stands for, if its module has been imported."""
    if isinstance(key, type):
        return key
    if not isinstance(key, str):
        raise TypeError(f"the keys of can_map and uncan_map are types and dotted names, not {key!r}")
    parts = key.split(".")
    for count in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:count])
        if module in sys.modules:
            return type_named(module, ".".join(parts[count:]))
    return None


def _compile() -> None:
    global _compiled, _compiled_from, _is_stale, canned
    seen = dict(can_map)
    table: dict[type, Reducer] = {}
    _waiting.clear()
    for key, canner in seen.items():
        if _can_defaults.get(key, _MISSING) is canner:
            continue
        _enter(table, key, resolve(key), _can_reducer(canner))
    canned = frozenset(table)
    for name, reducer in _registered.items():
        _enter(table, name, name if isinstance(name, type) else type_named(*name), reducer)  # type: ignore[misc]
    _compiled, _compiled_from, _is_stale = table, seen, False


def _enter(table: dict[type, Reducer], key: Any, cls: type | None, reducer: Reducer) -> None:
    if cls is None:
        _waiting[key] = reducer
    else:
        refuse_native(cls, "can_map")
        table[cls] = reducer


def _can_reducer(canner: Callable[[Any], Any]) -> Reducer:
    def reduce(obj: Any) -> Any:
        assert _canned is not None  # `can_map` has an owner, or it would be empty
        return _canned(canner(obj))

    return reduce


def refuse_native(cls: type, where: str) -> None:
    """Raise TypeError for a type whose instances picklers write without asking."""
    if cls in _NATIVE:
        raise TypeError(
            f"{where} has an entry for {cls.__name__}: built-in values of this type always travel as they "
            "are; use a class of your own, a subclass for instance"
        )
