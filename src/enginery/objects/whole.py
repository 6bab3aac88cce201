"""A value as one byte string, for records that carry no blobs; `packing.unpack` reads it like any other."""

from __future__ import annotations

import pickle
from typing import Any

from enginery.objects.packing import Packed, pack, unpack


def pack_whole(value: Any) -> bytes:
    """Pickle a value with all its buffers inside. Raises what the pickling of a part raises."""
    packed = pack(value)
    return pickle.dumps(_Whole(packed), 5) if packed.buffers else packed.inline


class _Whole:
    """Becomes, when it is unpickled, the value that was packed."""

    def __init__(self, packed: Packed) -> None:
        self._packed = packed

    def __reduce__(self) -> tuple[Any, ...]:
        return unpack, (self._packed.inline, [bytes(buffer) for buffer in self._packed.buffers])
