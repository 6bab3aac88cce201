"""`register_serializer`: types that travel in a way of their own.

A registration reaches engines by itself. With an instance goes its `Serializer`; with every function go
those of all types that are known by name, as short byte strings; a class that travels by value has its own
one with it. So the results of a task use it too. The two functions in it are unpickled when they are needed
for the first time: no engine imports what it never uses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from enginery.objects import extensions
from enginery.objects.arrival import Arrival, arriving, main_namespace
from enginery.objects.companions import importable
from enginery.objects.packing import pack, unpack_inside

Key = type | tuple[str, str]
_Functions = tuple[Callable[[Any], Any], Callable[[Any], Any]]

_serializers: dict[Key, Serializer] = {}
_ours: set[Key] = set()


class Serializer:
    """How a type travels. Two are equal if they have come from the same registration."""

    def __init__(
        self, key: Key, payload: tuple[bytes, ...], functions: _Functions | None, home: Arrival
    ) -> None:
        self.key = key
        self.payload = payload
        self._functions = functions
        self._home = home

    def __repr__(self) -> str:
        name = self.key.__qualname__ if isinstance(self.key, type) else ".".join(self.key)
        return f"<Serializer of {name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return load_serializer, (self.key, self.payload)

    def functions(self) -> _Functions:
        if self._functions is None:
            self._functions = unpack_inside(self.payload[0], self.payload[1:], self._home)
        return self._functions

    def reduce(self, obj: Any) -> tuple[Any, ...]:
        return rebuild_value, (self, self.functions()[0](obj))


def register_serializer(
    type: type,  # noqa: A002 - what it is called in the interface
    reduce: Callable[[Any], Any],
    rebuild: Callable[[Any], Any],
) -> None:
    """Have instances of exactly this type travel as what `reduce` makes of them.

    ``reduce(obj)`` returns anything that can be sent; buffers in it (bytes, memoryviews, arrays) travel
    without being copied. ``rebuild(structure)`` makes the object of it where it arrives. It holds for
    arguments, pushes, results and closures, at any depth. Engines learn of it with the next value of that
    type, function or pull that is sent to them; nothing has to be run there. Registering a type again
    replaces what was said of it.

    Raises TypeError if one of the two cannot be called or sent, or if the type is a built-in one that always
    travels as it is.

    >>> class Box:
    ...     def __init__(self, data):
    ...         self.data = data
    >>> register_serializer(Box, lambda box: memoryview(box.data), Box)
    """
    cls = type
    if not isinstance(cls, _TYPE):
        raise TypeError(f"register_serializer wants a type, not {cls!r}")
    for name, function in (("reduce", reduce), ("rebuild", rebuild)):
        if not callable(function):
            raise TypeError(f"register_serializer wants a function for {name}, not {function!r}")
    extensions.refuse_native(cls, "register_serializer")
    packed = pack((reduce, rebuild))
    key: Key = (cls.__module__, cls.__qualname__) if importable(cls) else cls
    payload = (packed.inline, *map(bytes, packed.buffers))
    _ours.add(key)
    _enter(Serializer(key, payload, (reduce, rebuild), Arrival(main_namespace())))


_TYPE = type


def _enter(serializer: Serializer) -> None:
    extensions.register(serializer.key, serializer.reduce, serializer)
    _serializers[serializer.key] = serializer


@arriving
def load_serializer(key: Key, payload: tuple[bytes, ...], *, arrival: Arrival | None = None) -> Serializer:
    known = _serializers.get(key)
    if known is not None and known.payload == payload:
        return known
    home = Arrival(main_namespace() if arrival is None else arrival.namespace)
    serializer = Serializer(key, payload, None, home)
    if key not in _ours:  # what was said here counts here
        _enter(serializer)
    return serializer


def rebuild_value(serializer: Serializer, structure: Any) -> Any:
    return serializer.functions()[1](structure)


def accompanied(value: Any) -> Any:
    """The value, or what arrives as the value and brings the registrations along."""
    announcements = extensions.announcements()
    return _Accompanied(value, announcements) if announcements else value


class _Accompanied:
    def __init__(self, value: Any, announcements: tuple[Any, ...]) -> None:
        self._parts = value, announcements

    def __reduce__(self) -> tuple[Any, ...]:
        return first, self._parts


def first(value: Any, _announcements: tuple[Any, ...]) -> Any:
    return value
