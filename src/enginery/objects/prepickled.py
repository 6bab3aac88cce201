"""`PrePickled`: a value that is pickled once and sent as often as you like."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from enginery.ids import BlobId, content_id
from enginery.objects.arrival import Arrival, arriving
from enginery.objects.functions import function_name
from enginery.objects.packing import is_by_value, pack, unpack, unpack_inside
from enginery.objects.pickling import own_reducers, refuse_in_plain_pickler


class KeptBytes(bytes):
    """Bytes that travel as a blob under the hash of what they are: sent once, kept where they arrive."""

    blob_id: BlobId

    def __new__(cls, data: Any) -> KeptBytes:
        made = super().__new__(cls, data)
        made.blob_id = content_id((made,))
        return made


def kept_id(buffer: memoryview) -> BlobId | None:
    """The id of a buffer that is to be kept where it arrives; None for all others."""
    return buffer.obj.blob_id if isinstance(buffer.obj, KeptBytes) else None


class PrePickled:
    """An object that is pickled now, once, and sent as often as you like; it arrives as the object.

    As a function, an argument, or inside of containers. Its big buffers are sent to the cluster once, however
    many calls name them. Later changes of the object are not seen. Raises TypeError or PicklingError if it
    cannot be pickled.

    >>> PrePickled([1, 2])
    <PrePickled list, 17 bytes>
    """

    def __init__(self, obj: Any) -> None:
        packed = pack(obj)
        self.__name__ = function_name(obj) if callable(obj) else type(obj).__name__
        self._kind = type(obj).__qualname__
        self._inline = packed.inline
        self._buffers = tuple(map(KeptBytes, packed.buffers))

    def __repr__(self) -> str:
        return f"<PrePickled {self._kind}, {self.size_bytes} bytes>"

    @property
    def size_bytes(self) -> int:
        return len(self._inline) + sum(map(len, self._buffers))

    def __reduce__(self) -> tuple[Any, ...]:
        return unpack_packed, (self._inline, [pickle.PickleBuffer(buffer) for buffer in self._buffers])

    def _reduce_plainly(self) -> tuple[Any, ...]:
        return refuse_in_plain_pickler(self) if is_by_value(self._inline) else self.__reduce__()


own_reducers[PrePickled] = PrePickled._reduce_plainly


@arriving
def unpack_packed(inline: bytes, buffers: Sequence[Any], *, arrival: Arrival | None = None) -> Any:
    return unpack(inline, buffers) if arrival is None else unpack_inside(inline, buffers, arrival)
