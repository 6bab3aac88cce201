"""The pickler that sends code by value, and the unpickler that gives it a namespace.

cloudpickle does classes, modules and odd built-in types. Functions are done here, for three reasons: every
function sent by value gets the *engine's* namespace as its globals and so drags no data of the client along,
methods of classes sent by value included; closures keep shared and self-referencing cells; and a code
object goes through `marshal`, in a tenth of the time.

The namespace is an argument of the unpickler. It hands it to `make_function`, and to others marked with
`arriving`, when the stream asks for them, so no global state is involved and streams without functions need
no Python code to load.
"""

from __future__ import annotations

import copyreg
import functools
import importlib.util
import marshal
import pickle
import sys
from collections.abc import Callable, Iterable, Mapping
from io import TextIOWrapper
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, Protocol
from weakref import WeakSet

import cloudpickle

from enginery.objects import arrays, extensions
from enginery.objects import companions as travel
from enginery.objects.arrival import Arrival, arriving, find_global, main_namespace, wants_arrival
from enginery.objects.companions import Companions, LruCacheWrapper, global_names, importable, is_code
from enginery.objects.extensions import Reducer
from enginery.objects.reference import Reference
from enginery.objects.sources import Source, register_source, source_of

_PROTOCOL = 5
_MARSHAL_VERSION = 2  # without references between objects, so that the bytes depend on the code alone
_WITH_STATE_SETTER = 6  # items of what a reducer returns
_CODE = frozenset({FunctionType, type})
_EMPTY = object()
_MISSING = object()

# cloudpickle knows a class that comes back, so instances stay instances of it, but would then set all of its
# attributes anew. A class belongs to the process that defined it: only those that came from elsewhere change.
_classes_sent: WeakSet[type] = WeakSet()
_classes_received: WeakSet[type] = WeakSet()


class Sink(Protocol):
    """Where a pickler writes; big `bytes` and `bytearray` objects are handed over as they are."""

    def write(self, data: Any, /) -> Any: ...


class Stream(Protocol):
    """Where an unpickler reads."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self) -> bytes: ...


# ---------------------------------------------------------------- sending


class NeedsNamespace(Exception):
    """A value for the by-value pickler: the place where it arrives matters to it."""


def reducers() -> dict[type, Reducer]:
    """How types pickle that need no Python call for other objects: a dispatch table for the plain pickler."""
    global _table, _made_of
    extra = extensions.reducers()
    if len(sys.modules) != _made_of[0] or extra is not _made_of[1] or copyreg.dispatch_table != _made_of[2]:
        _made_of = len(sys.modules), extra, dict(copyreg.dispatch_table)
        _table = {**copyreg.dispatch_table, **own_reducers, **arrays.reducers(), **extra}
        _table.update(dict.fromkeys(extensions.canned, refuse_in_plain_pickler))
    return _table


def refuse_in_plain_pickler(obj: Any) -> Any:
    raise NeedsNamespace(type(obj).__name__)


own_reducers: dict[type, Reducer] = {Reference: refuse_in_plain_pickler}
"""For the plain pickler alone."""
_table: dict[type, Reducer] = {}
_made_of: tuple[int, dict[type, Reducer], dict[Any, Any]] = (0, {}, {})


def reduce_value(obj: Any, kind: type, extra: dict[type, Reducer]) -> Any:
    """How values travel in every by-value pickler; NotImplemented if there is nothing special about one."""
    # Functions and classes that can be imported are parts of the streams themselves.
    if kind in extra and not (kind in _CODE and importable(obj)):
        return extra[kind](obj)
    if kind is memoryview:
        return arrays.reduce_memoryview(obj)
    if kind is TextIOWrapper and obj not in (sys.stdout, sys.stderr):
        raise TypeError(
            f"an open file cannot be sent: {getattr(obj, 'name', obj)!r}; send its path, or what it holds"
        )
    if arrays.is_array(obj):
        return arrays.reduce_array(obj) if kind.__name__ == "ndarray" else arrays.reduce_subarray(obj)
    return NotImplemented


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles functions and classes that cannot be imported by value; notes what the functions name."""

    def __init__(
        self,
        sink: Sink,
        *,
        buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None,
        with_companions: bool = True,
        unsendable: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(sink, protocol=_PROTOCOL, buffer_callback=buffer_callback)
        self.functions: list[FunctionType] = []
        self.classes: list[type] = []
        self.companions = Companions()
        self.companions.missing.update(unsendable or {})
        self._with_companions = with_companions
        self._pending: dict[str, Any] = {}
        self._cells: set[int] = set()
        self._unsendable = frozenset(unsendable or {})
        self._extra = extensions.reducers()

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is FunctionType and FunctionType not in self._extra:
            return NotImplemented if importable(obj) else self._reduce_function(obj)
        if kind is CellType:
            return self._reduce_cell(obj)
        if kind is CodeType:
            return load_code, (marshal.dumps(obj, _MARSHAL_VERSION), importlib.util.MAGIC_NUMBER)
        if kind is LruCacheWrapper and not importable(obj):
            return make_lru_cache, (obj.__wrapped__, obj.cache_parameters())
        reduced = reduce_value(obj, kind, self._extra)
        if reduced is NotImplemented:
            reduced = super().reducer_override(obj)
        if isinstance(obj, type) and isinstance(reduced, tuple) and len(reduced) == _WITH_STATE_SETTER:
            return self._reduce_class(obj, *reduced)
        return reduced

    def _reduce_class(
        self, cls: type, make: Any, arguments: Any, state: Any, _items: None, _pairs: None, set_state: Any
    ) -> tuple[Any, ...]:
        self.classes.append(cls)
        if cls not in _classes_received:
            _classes_sent.add(cls)
        how = (set_state, state, extensions.announcement_of(cls))
        return make, arguments, how, None, None, set_class_state

    def _reduce_function(self, function: FunctionType) -> tuple[Any, ...]:
        self.functions.append(function)
        companions = self._note_names(function) if self._with_companions else ()
        code = function.__code__
        cells = function.__closure__ or ()
        self._cells.update(map(id, cells))
        state = (
            function.__name__,
            function.__qualname__,
            function.__module__,
            function.__defaults__,
            function.__kwdefaults__,
            function.__annotations__ or None,
            function.__dict__ or None,
            # Not part of the arguments: a cell may hold the function itself.
            tuple((cell, contents_of(cell)) for cell in cells if contents_of(cell) is not _EMPTY),
            None if function.__doc__ is _code_doc(code) else (function.__doc__,),
            getattr(function, "__type_params__", ()) or None,
        )
        arguments = (code, function.__closure__, source_of(code), companions)
        return make_function, arguments, state, None, None, set_function_state

    def _reduce_cell(self, cell: CellType) -> tuple[Any, ...]:
        contents = contents_of(cell)
        if id(cell) in self._cells or contents is _EMPTY:
            return CellType, ()
        return CellType, (), contents, None, None, set_cell_contents

    # -------------------------------------------------------- companions

    def _note_names(self, function: FunctionType) -> tuple[str, ...]:
        """Note what a function names; returns the names of what goes along."""
        known: list[str] = []
        for name in sorted(global_names(function.__code__)):
            value = find_global(function, name, _MISSING)
            if value is _MISSING or name in self._unsendable:
                continue
            if is_code(value):
                self._note_code(name, value, function)
                known.append(name)
            elif self._note_data(name, function.__globals__):
                known.append(name)
        return tuple(known)

    def _note_code(self, name: str, value: Any, function: FunctionType) -> None:
        if isinstance(value, ModuleType):
            named = travel.attribute_names(function.__code__)
            dotted = (value.__name__, *travel.submodules_named(value, named))
            known = self.companions.modules.get(name, ())
            self.companions.modules[name] = tuple(dict.fromkeys([*known, *dotted]))
        elif name not in self.companions.values:
            self.companions.values[name] = self._pending[name] = value

    def _note_data(self, name: str, client: dict[str, Any]) -> bool:
        home = client.get("__name__")
        module = sys.modules.get(home) if isinstance(home, str) and home != "__main__" else None
        if module is not None and vars(module) is client:
            self.companions.references[name] = module.__name__
            return True
        self.companions.missing[name] = travel.push_note(name)
        return False

    def dump_companions(self) -> None:
        """Write what the functions written so far name, and what these name in turn, until nothing is new."""
        while self._pending:
            batch, self._pending = self._pending, {}
            self.dump(batch)
        self.dump({})
        self.dump((*travel.companion_facts(self.companions), extensions.announcements()))


def dump_by_value(value: Any, make_pickler: Callable[[Mapping[str, str]], ByValuePickler]) -> ByValuePickler:
    """Pickle a value with its companions; a companion that cannot be pickled stays behind, with a note.

    `make_pickler` is called with the names to leave behind, a second time only if there are any.
    """
    pickler = make_pickler({})
    pickler.dump(value)
    try:
        pickler.dump_companions()
    except Exception:
        unsendable = _unsendable(pickler.companions.values)
        if not unsendable:
            raise
        pickler = make_pickler(unsendable)
        pickler.dump(value)
        pickler.dump_companions()
    return pickler


def _unsendable(values: dict[str, Any]) -> dict[str, str]:
    refused: dict[str, str] = {}
    for name, value in values.items():
        try:
            ByValuePickler(_Nowhere()).dump(value)
        except Exception as error:  # noqa: BLE001 - whatever a `__reduce__` raises: it goes into the note
            refused[name] = travel.unsent_note(name, f"{type(error).__name__}: {error}")
    return refused


class _Nowhere:
    def write(self, data: Any, /) -> None:
        pass


def contents_of(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY


def _code_doc(code: CodeType) -> str | None:
    first = code.co_consts[0] if code.co_consts else None
    return first if isinstance(first, str) else None


# ---------------------------------------------------------------- arriving


class NamespaceUnpickler(pickle.Unpickler):
    """Tells those parts of a stream that ask for it where they arrive."""

    def __init__(self, stream: Stream, arrival: Arrival, *, buffers: Iterable[Any] | None = None) -> None:
        super().__init__(stream, buffers=buffers)
        self.arrival = arrival

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        found = super().find_class(module_name, global_name)
        if type(found) is FunctionType and wants_arrival(found):
            return functools.partial(found, arrival=self.arrival)
        return found


@arriving
def make_function(
    code: CodeType,
    closure: tuple[CellType, ...] | None,
    source: Source | None,
    companions: tuple[str, ...],
    *,
    arrival: Arrival | None = None,
) -> FunctionType:
    if source is not None:
        register_source(source)
    return (arrival or Arrival(main_namespace())).make_function(code, closure, companions)


def set_function_state(function: FunctionType, state: tuple[Any, ...]) -> None:
    name, qualname, module, defaults, kwdefaults, annotations, attributes, cells, doc, type_params = state
    function.__name__ = name
    function.__qualname__ = qualname
    function.__module__ = module
    function.__defaults__ = defaults
    function.__kwdefaults__ = kwdefaults
    if annotations:
        function.__annotations__ = annotations
    if attributes:
        function.__dict__.update(attributes)
    for cell, contents in cells:
        cell.cell_contents = contents
    if doc is not None:
        function.__doc__ = doc[0]
    if type_params:
        function.__type_params__ = type_params  # type: ignore[attr-defined, unused-ignore]


def set_class_state(cls: type, how: tuple[Callable[[type, Any], Any], Any, Any]) -> None:
    if cls not in _classes_sent:
        _classes_received.add(cls)
        set_state, state, _announcement = how
        set_state(cls, state)


def set_cell_contents(cell: CellType, contents: Any) -> None:
    cell.cell_contents = contents


def load_code(data: bytes, magic: bytes) -> CodeType:
    if magic != importlib.util.MAGIC_NUMBER:
        version = ".".join(map(str, sys.version_info[:2]))
        raise pickle.UnpicklingError(
            f"a function made by another version of Python cannot run on this Python {version}; use the same "
            "minor version for clients and engines"
        )
    code: CodeType = marshal.loads(data)
    return code


def make_lru_cache(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """The same cache, empty: what a client has cached is its data."""
    return functools.lru_cache(**parameters)(function)
