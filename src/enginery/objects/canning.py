"""`can` and `uncan`, `can_map` and `uncan_map`: ipyparallel's way of making objects portable.

`register_serializer` is the better way: it reaches engines by itself. This one works with and without
enginery's own packing: a canned object survives any pickle, and has `get_object` to make the original again.
An entry that a user puts into `can_map` is honoured for exactly that type, wherever a value travels; the
entries that are there from the start need not be asked, because enginery's packing does all of them.
"""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable, Iterable
from types import CellType, FunctionType
from typing import Any

from enginery.objects.arrival import Arrival, arriving, main_namespace
from enginery.objects.extensions import can_map, resolve, set_defaults, uncan_map
from enginery.objects.packing import pack, unpack

__all__ = ["can", "can_map", "uncan", "uncan_map"]


class CannedObject:
    """A portable stand-in: a copy of an object whose attributes named by `keys` are canned.

    `hook` is called with the object and the namespace after these attributes are restored. Subclasses with
    an `__init__` and a `get_object` of their own are what goes into `can_map`.
    """

    buffers: list[Any]

    def __init__(self, obj: Any, keys: Iterable[str] = (), hook: Callable[..., Any] | None = None) -> None:
        self.keys = list(keys)
        self.obj = copy.copy(obj)
        self.hook = can(hook)
        for key in self.keys:
            setattr(self.obj, key, can(getattr(obj, key)))
        self.buffers = []

    def get_object(self, g: dict[str, Any] | None = None) -> Any:
        """Return the original object; `g` is the namespace that functions in it get."""
        for key in self.keys:
            setattr(self.obj, key, uncan(getattr(self.obj, key), g))
        hook = uncan(self.hook, g)
        if hook is not None:
            hook(self.obj, g)
        return self.obj

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        if "obj" in state:  # it is of the type that is canned: by itself it would be canned again
            state["obj"] = _InParts(state["obj"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if isinstance(state.get("obj"), _InParts):
            self.obj = state["obj"].obj


class _InParts:
    """An object that pickles as the parts that `__reduce_ex__` makes of it."""

    def __init__(self, obj: Any) -> None:
        self.obj = obj

    def __reduce__(self) -> tuple[Any, ...]:
        reduced: Any = self.obj.__reduce_ex__(5)
        if isinstance(reduced, str):
            return _InParts, (self.obj,)
        make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        return _from_parts, (make, arguments, state, list(items or ()), list(pairs or ()))


def _from_parts(
    make: Callable[..., Any], arguments: tuple[Any, ...], state: Any, items: list[Any], pairs: list[Any]
) -> _InParts:
    obj = make(*arguments)
    if state is not None:
        _set_state(obj, state)
    if items:
        obj.extend(items)
    for key, value in pairs:
        obj[key] = value
    return _InParts(obj)


def _set_state(obj: Any, state: Any) -> None:
    if hasattr(obj, "__setstate__"):
        obj.__setstate__(state)
        return
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    vars(obj).update(attributes or {})
    for name, value in (slots or {}).items():
        setattr(obj, name, value)


class _CannedPacked(CannedObject):
    """A stand-in that holds its object packed, as it would travel."""

    def __init__(self, obj: Any) -> None:
        packed = pack(obj)
        self.inline = packed.inline
        self.buffers = list(packed.buffers)

    def get_object(self, g: dict[str, Any] | None = None) -> Any:
        return unpack(self.inline, self.buffers, namespace=g)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        whole = pickle.PickleBuffer if protocol >= 5 else bytes
        buffers: list[Any] = [whole(buffer) for buffer in self.buffers]
        return _canned_packed, (type(self), self.inline, buffers)


def _canned_packed(cls: type[_CannedPacked], inline: bytes, buffers: list[Any]) -> _CannedPacked:
    canned = cls.__new__(cls)
    canned.inline, canned.buffers = inline, buffers
    return canned


class CannedFunction(_CannedPacked):
    """A function by value, whose globals are the namespace that it is uncanned in."""

    def __init__(self, f: FunctionType) -> None:
        _check(f, FunctionType, "a function")
        self.__name__ = f.__name__
        super().__init__(f)


class CannedPartial(_CannedPacked):
    """A `functools.partial` with all that it holds."""

    def __init__(self, f: functools.partial[Any]) -> None:
        _check(f, functools.partial, "a partial")
        super().__init__(f)


class CannedClass(_CannedPacked):
    """A class by value."""

    def __init__(self, cls: type) -> None:
        _check(cls, type, "a class")
        self.__name__ = cls.__name__
        super().__init__(cls)


class CannedCell(_CannedPacked):
    """A cell of a closure."""

    def __init__(self, cell: CellType) -> None:
        _check(cell, CellType, "a cell")
        super().__init__(cell)


class CannedArray(_CannedPacked):
    """A NumPy array; it comes back read-only."""


class CannedBuffer(_CannedPacked):
    """Anything that has the buffer interface; it comes back as a memoryview."""

    def __init__(self, obj: Any) -> None:
        super().__init__(memoryview(obj))


class CannedMemoryView(CannedBuffer):
    """A memoryview; it comes back read-only."""


class CannedBytes(_CannedPacked):
    """A byte string."""

    def __init__(self, obj: bytes) -> None:
        _check(obj, bytes, "a byte string")
        super().__init__(obj)


def _check(obj: Any, kind: type, what: str) -> None:
    if not isinstance(obj, kind):
        raise TypeError(f"{what} was to be canned, not {obj!r}")


# ---------------------------------------------------------------- can, uncan


def can(obj: Any) -> Any:
    """Return a portable stand-in if `can_map` has an entry for exactly this type, else the object itself."""
    canner = _entry(can_map, obj)
    return obj if canner is None else canner(obj)


def uncan(obj: Any, g: dict[str, Any] | None = None) -> Any:
    """Return the object that a stand-in stands for; all else is returned as it is.

    Looks into exact dicts, lists, tuples and sets. `g` is the namespace of functions, `__main__` by default.
    """
    opener = _entry(uncan_map, obj)
    if opener is not None:
        return opener(obj, main_namespace() if g is None else g)
    return obj.get_object(g) if isinstance(obj, CannedObject) else obj


def can_class(obj: type) -> Any:
    """Return a stand-in for a class of ``__main__``; others are imported where they arrive."""
    return CannedClass(obj) if obj.__module__ == "__main__" else obj


def can_dict(obj: dict[Any, Any]) -> dict[Any, Any]:
    """Can the values of a dict."""
    return {key: can(value) for key, value in obj.items()} if type(obj) is dict else obj


def can_sequence(obj: Any) -> Any:
    """Can the items of a list, tuple or set."""
    return type(obj)(map(can, obj)) if type(obj) in (list, tuple, set) else obj


def uncan_dict(obj: dict[Any, Any], g: dict[str, Any] | None = None) -> dict[Any, Any]:
    """Restore the values of a dict."""
    return {key: uncan(value, g) for key, value in obj.items()} if type(obj) is dict else obj


def uncan_sequence(obj: Any, g: dict[str, Any] | None = None) -> Any:
    """Restore the items of a list, tuple or set."""
    return type(obj)(uncan(item, g) for item in obj) if type(obj) in (list, tuple, set) else obj


def _entry(table: dict[Any, Any], obj: Any) -> Any:
    kind = type(obj)
    if kind in table:
        return table[kind]
    named = (entry for key, entry in table.items() if isinstance(key, str) and resolve(key) is kind)
    return next(named, None)


# ---------------------------------------------------------------- inside of what is sent


def _travels(canned: Any) -> tuple[Any, ...]:
    return uncan_arrived, (canned,)


@arriving
def uncan_arrived(canned: Any, *, arrival: Arrival | None = None) -> Any:
    return uncan(canned, None if arrival is None else arrival.namespace)


def _defaults() -> dict[Any, Callable[[Any], Any]]:
    return {
        "numpy.ndarray": CannedArray,
        FunctionType: CannedFunction,
        functools.partial: CannedPartial,
        bytes: CannedBytes,
        memoryview: CannedMemoryView,
        CellType: CannedCell,
        type: can_class,
    }


set_defaults(_defaults(), _travels)
uncan_map.update({dict: uncan_dict, list: uncan_sequence, tuple: uncan_sequence, set: uncan_sequence})


# ---------------------------------------------------------------- interactive


def interactive(f: Any) -> Any:
    """Make a function or class of any module behave as if it had been defined interactively.

    Its free names resolve in the namespace of ``__main__``: here that of the script or notebook, on an engine
    the engine's.
    """
    if isinstance(f, FunctionType):
        made = FunctionType(f.__code__, main_namespace(), f.__name__, f.__defaults__, f.__closure__)
        made.__kwdefaults__ = f.__kwdefaults__
        functools.update_wrapper(made, f)
        del made.__wrapped__  # type: ignore[attr-defined]
        f = made
    f.__module__ = "__main__"
    return f
