"""Functions, from a client to an engine: packed once, sent once, built once.

A function that can be imported travels as a reference. All others (of ``__main__``, of a notebook, lambdas,
nested functions) travel by value, and the engine's namespace becomes their globals. Pickling one costs 15 to
100 microseconds, more than all else in a small task, so `FunctionCache` keeps the bytes as long as nothing
that went into them has changed:

* it finds them by code object, so a lambda in a loop is pickled once although each turn makes a new function;
* it compares by identity whatever was pickled: code, defaults, closure cells, attributes and each global that
  the function, or a function it names, refers to;
* where something mutable was pickled, it pickles again. Equal bytes have an equal id and are not sent again.

A hit costs one to two microseconds.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
import threading
from collections.abc import Callable, Mapping
from operator import is_
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    ModuleType,
)
from typing import Any, NamedTuple

from enginery.ids import BlobId, content_id
from enginery.objects import extensions, libraries
from enginery.objects.arrays import arrives_writeable
from enginery.objects.arrival import Arrival, find_global
from enginery.objects.companions import (
    Companions,
    CompanionTable,
    LruCacheWrapper,
    global_names,
    importable,
    is_code,
    read_companions,
)
from enginery.objects.joined import join, split
from enginery.objects.pickling import ByValuePickler, NamespaceUnpickler, contents_of, dump_by_value
from enginery.objects.reference import Reference

_CACHED_FUNCTIONS = 512
_SMALL_BYTES = 1 << 12
_DEEPEST = 8
_SCALARS = (int, float, complex, bool, type(None), type(...))
_MADE_BY_CLASS_STATEMENT = (
    "__annotations__",
    "__dataclass_fields__",
    "__dataclass_params__",
    "_abc_impl",
    "__doc__",
)
_MISSING = object()


class PackedFunction(NamedTuple):
    """A function as a blob. Equal ids mean equal bytes."""

    blob_id: BlobId
    data: bytes
    name: str


class BuiltFunction(NamedTuple):
    """A function on the engine, and what came along with it."""

    function: Callable[..., Any]
    companions: Companions

    def call(
        self, table: CompanionTable, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the function with its companions set; a NameError for the client's data says what to do."""
        with table.active(self.companions):
            return self.function(*args, **(kwargs or {}))


def pack_function(function: Callable[..., Any]) -> PackedFunction:
    """Pickle a function. Raises TypeError or PicklingError if it refers to what cannot be pickled."""
    return _pack(function)[0]


def build(data: bytes | bytearray | memoryview, namespace: dict[str, Any]) -> BuiltFunction:
    """Make a function from its blob, with `namespace` as the globals of all that travelled by value.

    Each call of one that is a `Reference`, or holds one, asks the namespace anew.
    """
    arrival = Arrival(namespace)
    stream = _unpickler(data, arrival)
    function = stream.load()
    companions = read_companions(stream, arrival)
    return BuiltFunction(_Anew(data, namespace) if arrival.has_references else function, companions)


def _unpickler(data: bytes | bytearray | memoryview, arrival: Arrival) -> NamespaceUnpickler:
    """Arrays in a function's defaults and closure become read-only views of its blob, unless they are not."""
    stream, buffers = split(data)
    wanted = map(bytearray, buffers) if arrives_writeable() else buffers
    return NamespaceUnpickler(io.BytesIO(stream), arrival, buffers=wanted)


class _Anew:
    """A function that is made for each call, because its parts are names of the namespace."""

    def __init__(self, data: bytes | bytearray | memoryview, namespace: dict[str, Any]) -> None:
        self._data = bytes(data)
        self._namespace = namespace

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arrival = Arrival(self._namespace, evaluates=True)
        return _unpickler(self._data, arrival).load()(*args, **kwargs)


def function_name(function: Any) -> str:
    """What a task is called after its function: the plain name, also of a partial or a callable object."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, Reference):
        return function.name
    return getattr(function, "__name__", "") or type(function).__name__


def _pack(function: Any) -> tuple[PackedFunction, ByValuePickler]:
    stream = io.BytesIO()
    buffers: list[pickle.PickleBuffer] = []

    def make_pickler(unsendable: Mapping[str, str]) -> ByValuePickler:
        nonlocal stream
        stream = io.BytesIO()
        buffers.clear()
        return ByValuePickler(stream, buffer_callback=buffers.append, unsendable=unsendable)

    pickler = dump_by_value(libraries.carried(function), make_pickler)
    data = join(stream.getvalue(), buffers)
    return PackedFunction(content_id((data,)), data, function_name(function)), pickler


# ---------------------------------------------------------------- cache


class FunctionCache:
    """Packed functions of one client. Safe to use from several threads.

    It holds on to code objects and small constants, not to the functions that it was asked for; a function
    whose pickle holds anything big or mutable is not kept at all.
    """

    def __init__(self, size: int = _CACHED_FUNCTIONS) -> None:
        self._size = size
        self._entries: dict[int, _Entry] = {}
        self._generation = extensions.generation
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<FunctionCache: {len(self)} of {self._size} functions>"

    def pack(self, function: Callable[..., Any]) -> PackedFunction:
        """Return the function as a blob. Raises TypeError or PicklingError naming what cannot be pickled."""
        if self._generation != extensions.generation:
            self._forget()
        key = id(getattr(function, "__code__", function))
        entry = self._entries.get(key)
        if entry is not None and entry.is_of(function) and entry.is_fresh():
            return entry.packed
        packed, pickler = _pack(function)
        fresh = _watch(function, packed, pickler)
        with self._lock:
            if self._generation != extensions.generation:
                return packed
            self._entries.pop(key, None)
            if fresh is not None:
                self._entries[key] = fresh
                if len(self._entries) > self._size:
                    del self._entries[next(iter(self._entries))]
        return packed

    def _forget(self) -> None:
        """Functions travel in another way from now on."""
        with self._lock:
            self._entries.clear()
            self._generation = extensions.generation


class _Entry:
    """Packed bytes, and everything that must still be the same for them to be true."""

    __slots__ = (
        "anchor",
        "cells",
        "packed",
        "shape",
        "watched_classes",
        "watched_data",
        "watched_functions",
        "watched_globals",
    )

    def __init__(self, function: Any, packed: PackedFunction) -> None:
        self.anchor = getattr(function, "__code__", function)
        self.packed = packed
        self.shape = _shape(function) if type(function) is FunctionType else None
        self.cells: tuple[Any, ...] = ()
        self.watched_globals: list[tuple[Mapping[str, Any], str, Any]] = []
        self.watched_data: list[tuple[Mapping[str, Any], str, type]] = []
        self.watched_functions: list[tuple[FunctionType, tuple[Any, ...], tuple[Any, ...]]] = []
        self.watched_classes: list[tuple[type, tuple[Any, ...]]] = []

    def is_of(self, function: Any) -> bool:
        """Whether this is the function, or another one made by the same code with the same parts."""
        if self.shape is None:
            return self.anchor is function
        if type(function) is not FunctionType or function.__code__ is not self.anchor:
            return False
        return _same(_shape(function), self.shape) and _same(_contents(function), self.cells)

    def is_fresh(self) -> bool:
        for names, name, value in self.watched_globals:
            if names.get(name, _MISSING) is not value:
                return False
        for names, name, kind in self.watched_data:
            if type(names.get(name, _MISSING)) is not kind:
                return False
        for function, shape, cells in self.watched_functions:
            if not (_same(_shape(function), shape) and _same(_contents(function), cells)):
                return False
        return all(_same(tuple(vars(cls).values()), seen) for cls, seen in self.watched_classes)


def _shape(function: FunctionType) -> tuple[Any, ...]:
    return (
        function.__code__,
        function.__globals__,
        function.__defaults__,
        function.__qualname__,
        function.__kwdefaults__,
        *(function.__kwdefaults__ or {}).values(),
        *function.__dict__.values(),
    )


def _contents(function: FunctionType) -> tuple[Any, ...]:
    closure = function.__closure__
    return () if closure is None else tuple(map(contents_of, closure))


def _same(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> bool:
    return len(ours) == len(theirs) and all(map(is_, ours, theirs))


def _watch(function: Any, packed: PackedFunction, pickler: ByValuePickler) -> _Entry | None:
    """An entry for the cache; None if something was pickled whose changes nobody would see."""
    if libraries.in_use():
        return None  # they carry the client's data, which nobody watches
    if type(function) is Reference:
        return _Entry(function, packed)
    if type(function) is not FunctionType and not isinstance(function, (type, BuiltinFunctionType)):
        return None
    entry = _Entry(function, packed)
    for cls in pickler.classes:
        if not all(_is_constant_attribute(name, value) for name, value in vars(cls).items()):
            return None
        entry.watched_classes.append((cls, tuple(vars(cls).values())))
    if not pickler.functions and not pickler.classes:
        _watch_reference(function, entry)
        return entry
    for member in pickler.functions:
        if not all(map(_is_constant, _parts(member))):
            return None
        for name in global_names(member.__code__):
            value = find_global(member, name, _MISSING)
            # Data need not be watched or held: what counts is that there is some.
            if value is _MISSING or (is_code(value) and _is_constant(value)):
                entry.watched_globals.append((member.__globals__, name, value))
            elif is_code(value):
                return None
            else:
                entry.watched_data.append((member.__globals__, name, type(value)))
        if member is not function:
            entry.watched_functions.append((member, _shape(member), _contents(member)))
    if type(function) is FunctionType:
        entry.cells = _contents(function)
    return entry


def _watch_reference(function: Any, entry: _Entry) -> None:
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    first = function.__qualname__.partition(".")[0]
    if module is not None and first in vars(module):
        entry.watched_globals.append((vars(module), first, vars(module)[first]))


def _parts(function: FunctionType) -> list[Any]:
    keywords = function.__kwdefaults__ or {}
    return [
        *(function.__defaults__ or ()),
        *keywords.values(),
        *function.__dict__.values(),
        *_contents(function),
    ]


def _is_constant(value: Any, depth: int = 0) -> bool:
    """Whether an object pickles to the same bytes for ever, as far as its identity is watched."""
    kind = type(value)
    if kind in _SCALARS or kind in (FunctionType, BuiltinFunctionType, ModuleType, CodeType):
        return True
    if kind in (str, bytes):
        return len(value) <= _SMALL_BYTES
    if kind in (tuple, frozenset) and depth < _DEEPEST:
        return len(value) <= _SMALL_BYTES and all(_is_constant(item, depth + 1) for item in value)
    if kind is functools.partial:
        return _is_constant((value.func, value.args, *value.keywords.values()), depth + 1)
    if kind is LruCacheWrapper:
        return _is_constant(value.__wrapped__, depth + 1)
    if isinstance(value, type):  # those sent by value are watched themselves
        return True
    return callable(value) and importable(value)


def _is_constant_attribute(name: str, value: Any) -> bool:
    if name in _MADE_BY_CLASS_STATEMENT or isinstance(value, (MemberDescriptorType, GetSetDescriptorType)):
        return True
    if isinstance(value, (classmethod, staticmethod)):
        return _is_constant(value.__func__)
    if type(value) is property:
        return _is_constant((value.fget, value.fset, value.fdel))
    return _is_constant(value)
