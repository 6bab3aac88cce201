"""NumPy's arrays and memoryviews: out of band where they leave, read-only where they arrive.

Within `writeable_arrivals` what arrives in this thread may be changed. The unpickler is then given private
buffers; but whatever was read-only where it left would be read-only again, and is copied here.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
import threading
from collections.abc import Iterator
from typing import Any

from enginery.objects.extensions import Reducer

_PROTOCOL = 5

MADE_BY_NUMPY = b"\x8c\x0c_reconstruct"
"""In a stream: NumPy has written an array itself, which is then of a subclass and would arrive writable."""

READ_ONLY_NOTE = (
    "Arrays arrive read-only. Either copy this one before changing it, or have the call's arrays arrive as "
    "private ones with the flag writeable=True, for example:  view.set_flags(writeable=True)"
)
_READ_ONLY_ERRORS = (
    "assignment destination is read-only",
    "output array is read-only",
    "array is read-only",
    "buffer source array is read-only",
    "cannot set WRITEABLE flag to True",
    "cannot modify read-only memory",
)
"""What NumPy, compiled extensions and memoryview say."""


def reducers() -> dict[type, Reducer]:
    """How the types pickle that are known by now. A module that is just being imported has none yet."""
    table: dict[type, Reducer] = {memoryview: reduce_memoryview}
    if (array := getattr(sys.modules.get("numpy"), "ndarray", None)) is not None:
        table[array] = reduce_array
    if (masked := getattr(sys.modules.get("numpy.ma"), "MaskedArray", None)) is not None:
        table[masked] = reduce_subarray
    return table


class _Arrivals(threading.local):
    are_writeable = False


_arrivals = _Arrivals()


@contextlib.contextmanager
def writeable_arrivals() -> Iterator[None]:
    """Have what this thread unpickles within the block arrive as private memory that may be changed."""
    before, _arrivals.are_writeable = _arrivals.are_writeable, True
    try:
        yield
    finally:
        _arrivals.are_writeable = before


def arrives_writeable() -> bool:
    return _arrivals.are_writeable


def private_buffer(buffer: Any) -> memoryview:
    """The same bytes in memory of one's own: copied on write where the buffer knows how, else copied now."""
    view = memoryview(buffer)
    as_private = getattr(view.obj, "as_private", None)  # of shared memory
    if as_private is not None and view.nbytes == len(view.obj):  # type: ignore[arg-type]
        private: memoryview | None = as_private()
        if private is not None:
            return private
    return memoryview(bytearray(view))


def is_array(obj: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(obj, numpy.ndarray)


def read_only_note(error: BaseException) -> str:
    """What to do about an error of somebody who has tried to change what arrived; empty for all others."""
    is_built_in = type(error) in (ValueError, TypeError)  # others may do anything when they are looked at
    text = error.args[0] if is_built_in and error.args else ""
    return READ_ONLY_NOTE if isinstance(text, str) and any(map(text.__contains__, _READ_ONLY_ERRORS)) else ""


def reduce_memoryview(view: memoryview) -> tuple[Any, ...]:
    data = view if view.c_contiguous else memoryview(view.tobytes())
    return make_memoryview, (pickle.PickleBuffer(data), view.format, view.shape)


def reduce_array(array: Any) -> Any:
    # What NumPy itself would put into the stream goes out of band like all other arrays: those with gaps as
    # a gapless copy; dates and records, whose memory it does not export, as plain bytes.
    if array.dtype.hasobject or not array.itemsize:
        _, _, state, *_ = array.__reduce__()
        return make_empty_array, (), state, None, None, set_read_only
    if not array.flags.forc:
        array = array.copy(order="C")
    if array.dtype.kind not in "mMV" and array.flags.writeable:
        return array.__reduce_ex__(_PROTOCOL)
    order = "C" if array.flags.c_contiguous else "F"
    data = pickle.PickleBuffer(array.reshape(-1, order=order).view("u1"))
    return make_array, (data, array.dtype, array.shape, order)


def reduce_subarray(array: Any) -> Any:
    """Of an array of a subclass: its memory out of band, if the class leaves pickling to NumPy."""
    cls, usual = type(array), sys.modules["numpy"].ndarray
    names = ("__reduce__", "__reduce_ex__", "__setstate__")
    if not array.dtype.hasobject and all(getattr(cls, name) is getattr(usual, name) for name in names):
        return make_subarray, (array.view(usual), cls)
    reduced = array.__reduce_ex__(_PROTOCOL)
    if len(reduced) != 3 or not isinstance(reduced[2], tuple):
        return reduced
    return (*reduced, None, None, set_read_only)


def make_array(data: Any, dtype: Any, shape: tuple[int, ...], order: str) -> Any:
    import numpy  # the stream says that there is one

    return numpy.ndarray(shape, dtype, _as_wanted(data), order=order)  # type: ignore[arg-type]


def _as_wanted(data: Any) -> Any:
    return bytearray(data) if _arrivals.are_writeable and memoryview(data).readonly else data


def make_empty_array() -> Any:
    import numpy  # the stream says that there is one

    return numpy.ndarray(0, "b")


def make_subarray(array: Any, cls: type) -> Any:
    return array.view(cls)


def set_read_only(array: Any, state: Any) -> None:
    array.__setstate__(state)
    if _arrivals.are_writeable:
        return
    array.flags.writeable = False
    mask = getattr(array, "_mask", None)  # of a masked array
    if mask is not None and is_array(mask):
        mask.flags.writeable = False


def make_memoryview(data: Any, layout: str, shape: tuple[int, ...]) -> memoryview:
    view = memoryview(_as_wanted(data))
    if not _arrivals.are_writeable:
        view = view.toreadonly()
    if layout == "B" and len(shape) == 1:
        return view
    try:
        return view.cast("B").cast(layout, shape)  # type: ignore[call-overload, no-any-return]
    except ValueError:  # a layout that memoryview itself cannot make: its bytes
        return view.cast("B")
