"""A pickle and its out-of-band buffers as one byte string, for what travels as a single blob: functions.

One without buffers is the bare pickle, which starts with the byte 0x80. Otherwise a header and a table of
(place, size) come first; pickle and buffers follow, each at a multiple of 64 bytes, so that arrays are views
of the blob where it arrives.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_ALIGNMENT_BYTES = 64
_PICKLE = 0x80
_LAYOUT = 2
_HEADER = struct.Struct("<B7xQ")
_ENTRY = struct.Struct("<QQ")


class Parts(NamedTuple):
    """What was joined: views of it."""

    stream: memoryview
    buffers: list[memoryview]


def join(stream: bytes, buffers: Sequence[pickle.PickleBuffer]) -> bytes:
    """One byte string; the buffers are copied once."""
    if not buffers:
        return stream
    parts: list[bytes | memoryview] = [stream, *(buffer.raw() for buffer in buffers)]
    place = _HEADER.size + _ENTRY.size * len(parts)
    table = [_HEADER.pack(_LAYOUT, len(parts))]
    body: list[bytes | memoryview] = []
    for part in parts:
        padding = -place % _ALIGNMENT_BYTES
        size_bytes = memoryview(part).nbytes
        table.append(_ENTRY.pack(place + padding, size_bytes))
        body += (bytes(padding), part)
        place += padding + size_bytes
    return b"".join([*table, *body])


def split(data: bytes | bytearray | memoryview) -> Parts:
    """The inverse. Raises UnpicklingError for bytes that are neither a pickle nor joined."""
    whole = memoryview(data).toreadonly()
    if len(whole) and whole[0] == _PICKLE:
        return Parts(whole, [])
    try:
        layout, count = _HEADER.unpack_from(whole)
        entries = [_ENTRY.unpack_from(whole, _HEADER.size + _ENTRY.size * n) for n in range(count)]
    except struct.error as error:
        raise pickle.UnpicklingError(f"a function is damaged: {error}") from error
    if layout != _LAYOUT or not entries or any(place + size > len(whole) for place, size in entries):
        raise pickle.UnpicklingError(f"a function is damaged: layout {layout} with {count} parts")
    stream, *buffers = _cut(whole, entries)
    return Parts(stream, buffers)


def _cut(whole: memoryview, entries: Iterable[tuple[int, int]]) -> list[memoryview]:
    return [whole[place : place + size] for place, size in entries]
