"""`use_pickle`, `use_cloudpickle`, `use_dill`: which library sends what cannot be sent by reference.

By our own rule a function has the engine's namespace as its globals. cloudpickle and dill instead send the
client's data along. What they have pickled travels as a value of ours, a stream inside of the stream, so all
else (references, arrays out of band, registered types) is the same for each of them.
"""

from __future__ import annotations

import importlib
import io
import pickle
from collections.abc import Iterable
from types import FunctionType
from typing import Any

import cloudpickle

from enginery.objects import extensions
from enginery.objects.arrival import Arrival, arriving, main_namespace, wants_arrival
from enginery.objects.pickling import NamespaceUnpickler, reduce_value

_PROTOCOL = 5
_CLOUDPICKLE, _DILL = "cloudpickle", "dill"

_library = ""


def use_pickle() -> None:
    """Send functions by enginery's own rule again: free names resolve in the engine's namespace."""
    _use("")


def use_cloudpickle() -> None:
    """Send functions, from this process on, with the data that they name, as cloudpickle does."""
    _use(_CLOUDPICKLE)


def use_dill() -> None:
    """Send functions, from this process on, as dill does. Raises ImportError if dill is not installed."""
    try:
        importlib.import_module(_DILL)
    except ImportError as error:
        raise ImportError("use_dill() needs the package dill, here and on the engines") from error
    _use(_DILL)


def in_use() -> str:
    """Name of the library that sends what goes by value; empty for our own rule."""
    return _library


def _use(library: str) -> None:
    global _library
    if library != _library:
        _library = library
        extensions.changed()


def carried(value: Any) -> Any:
    """The value itself, or what carries it as the stream of the library in use."""
    return _Carried(_library, value) if _library else value


class _Carried:
    """A value that another library has pickled."""

    def __init__(self, library: str, value: Any) -> None:
        self._library = library
        self._buffers: list[pickle.PickleBuffer] = []
        stream = io.BytesIO()
        make: Any = _CloudPickler if library == _CLOUDPICKLE else _dill_pickler()
        make(stream, protocol=_PROTOCOL, buffer_callback=self._buffers.append).dump(value)
        self._data = stream.getvalue()

    def __reduce__(self) -> tuple[Any, ...]:
        return load_carried, (self._library, self._data, self._buffers)


@arriving
def load_carried(library: str, data: bytes, buffers: Iterable[Any], *, arrival: Arrival | None = None) -> Any:
    arrival = arrival or Arrival(main_namespace())
    make: Any = NamespaceUnpickler if library == _CLOUDPICKLE else _dill_unpickler()
    return make(io.BytesIO(data), arrival, buffers=buffers).load()


class _CloudPickler(cloudpickle.Pickler):  # type: ignore[misc]
    def reducer_override(self, obj: Any) -> Any:
        reduced = reduce_value(obj, type(obj), extensions.reducers())
        return super().reducer_override(obj) if reduced is NotImplemented else reduced


def _dill_pickler() -> type:
    dill: Any = importlib.import_module(_DILL)

    class DillPickler(dill.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, io.TextIOWrapper):
                return NotImplemented  # dill sends files
            return reduce_value(obj, type(obj), extensions.reducers())

    return DillPickler


def _dill_unpickler() -> type:
    dill: Any = importlib.import_module(_DILL)

    class DillUnpickler(dill.Unpickler):  # type: ignore[misc]
        def __init__(self, stream: io.BytesIO, arrival: Arrival, *, buffers: Iterable[Any]) -> None:
            super().__init__(stream, buffers=buffers)
            self._arrival = arrival

        def find_class(self, module: str, name: str) -> Any:
            found = super().find_class(module, name)
            if isinstance(found, FunctionType) and wants_arrival(found):
                return lambda *args: found(*args, arrival=self._arrival)
            return found

    return DillUnpickler
