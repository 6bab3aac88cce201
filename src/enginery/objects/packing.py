"""Python objects as a small byte string and big buffers, and back.

Problem: a value may be ``((1,), {})`` thousands of times a second, or a structure that holds gigabytes. The
first must cost a few microseconds, the second no copy.

What is done:

* Scalars go through `pickle.dumps`. All else goes through the plain C pickler with protocol 5, whose buffers
  (arrays, data frames, Arrow tables) leave it out of band. It hands big `bytes` and `bytearray` objects, at
  any depth, to its file as they are, so a file that only collects them makes no copy, and no object costs a
  Python call. What it cannot do (functions and classes by value) is recognised afterwards, by an exception or
  by the word ``__main__`` in the stream, and done again by the by-value pickler.
* Big buffers and big byte strings become `Packed.buffers`, one blob each. All else is the *body*: it rides
  inside the record, or, if it is above `INLINE_LIMIT_BYTES`, becomes the last blob.

Layout. `Packed.inline` is a bare pickle if it starts with the byte 0x80, which every pickle does. Otherwise
it is a header, then the body unless that is a blob. A body is a table of pieces, then the pieces: those of
the stream one after the other, and small buffers each at a multiple of 64 bytes. An entry of the table is
(place, size); a place below zero is the blob number ``-1 - place``.

Arrays arrive as read-only views of the frames that they came in, aligned to 16 bytes at least. On arrival,
`bytes` and `bytearray` alone cost a copy. Within `writeable_arrivals` they arrive as views of private memory.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import cloudpickle

from enginery.objects import libraries
from enginery.objects.arrays import MADE_BY_NUMPY, arrives_writeable, private_buffer
from enginery.objects.arrival import Arrival
from enginery.objects.companions import NO_COMPANIONS, Companions, read_companions
from enginery.objects.pickling import (
    ByValuePickler,
    NamespaceUnpickler,
    dump_by_value,
    reducers,
)

INLINE_LIMIT_BYTES = 1 << 16
"""Size of `Packed.inline` at most."""
SMALL_BUFFER_BYTES = 1 << 16
"""Out-of-band buffers up to this size are copied into the body."""
LARGE_PIECE_BYTES = 1 << 18
"""Byte strings from this size on leave the stream uncopied. The pickler's frames are smaller (128 KiB)."""
ALIGNMENT_BYTES = 64

Buffer: TypeAlias = bytes | bytearray | memoryview

_PROTOCOL = 5
_PICKLE = 0x80
_LAYOUT = 1
_BY_VALUE = 1
_BODY_IS_BLOB = 2
_HEADER = struct.Struct("<BBxxIII")
_SCALARS = frozenset({int, float, complex, bool, type(None)})
_SHORT_TEXT = 1 << 10
_SHORT_SEQUENCE = 16


class Packed(NamedTuple):
    """A value, ready to travel."""

    inline: bytes
    buffers: Sequence[memoryview] = ()

    @property
    def size_bytes(self) -> int:
        return len(self.inline) + sum(buffer.nbytes for buffer in self.buffers)


class UnpackedCall(NamedTuple):
    """The arguments of a call, and the code that functions among them name."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    companions: Companions = NO_COMPANIONS


# ---------------------------------------------------------------- packing


def pack(value: Any) -> Packed:
    """Pickle a value without copying its big buffers.

    The buffers are read-only views of the caller's memory. Raises what the pickling of a part raises, mostly
    TypeError or PicklingError.
    """
    if _is_plain(value):
        return Packed(pickle.dumps(value, _PROTOCOL))
    if not cloudpickle.list_registry_pickle_by_value():
        collected = _Collected()
        try:
            pickler = pickle.Pickler(collected, _PROTOCOL, buffer_callback=collected.buffers.append)
            pickler.dispatch_table = reducers()
            pickler.dump(value)
        except Exception:  # noqa: BLE001 - the by-value pickler can do more; else its error is the one to see
            pass
        else:
            if not collected.is_for_by_value():
                return collected.lay_out(0)
    return _pack_by_value(value)


def _is_plain(value: Any) -> bool:
    """Whether a value is so small and simple that looking for buffers and functions in it is a waste."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is str or kind is bytes:
        return len(value) < _SHORT_TEXT
    if (kind is not tuple and kind is not list) or len(value) > _SHORT_SEQUENCE:
        return False
    for item in value:
        kind = type(item)
        if kind not in _SCALARS and not ((kind is str or kind is bytes) and len(item) < _SHORT_TEXT):
            return False
    return True


def _pack_by_value(value: Any) -> Packed:
    attempts: list[_Collected] = []

    def make_pickler(unsendable: Mapping[str, str]) -> ByValuePickler:
        attempts.append(_Collected())
        return ByValuePickler(
            attempts[-1],
            buffer_callback=attempts[-1].buffers.append,
            unsendable=unsendable,
        )

    dump_by_value(libraries.carried(value), make_pickler)
    return attempts[-1].lay_out(_BY_VALUE)


def pack_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Packed:
    """Pack the arguments of a call.

    Raises TypeError or PicklingError that names the argument which cannot be pickled, and its type.
    """
    if not kwargs and _is_plain(args):
        return Packed(pickle.dumps((args, kwargs), _PROTOCOL))
    try:
        return pack((args, kwargs))
    except Exception as error:
        raise _name_culprit(args, kwargs, error) from error


def _name_culprit(args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> Exception:
    kind = TypeError if isinstance(error, TypeError) else pickle.PicklingError
    named: list[tuple[str, Any]] = [(f"argument {i}", value) for i, value in enumerate(args)]
    named += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    for name, value in named:
        try:
            pack(value)
        except Exception as reason:  # noqa: BLE001 - whatever it is, this is the argument
            cls = type(value)
            module = "" if cls.__module__ == "builtins" else f"{cls.__module__}."
            return kind(f"{name}, of type {module}{cls.__qualname__}, cannot be sent: {_text(reason)}")
    return kind(f"the arguments cannot be sent: {_text(error)}")


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


class _Collected:
    """Where a pickler writes: keeps what it is given, copies nothing."""

    __slots__ = ("buffers", "chunks", "write")

    def __init__(self) -> None:
        self.chunks: list[bytes | bytearray] = []
        self.buffers: list[pickle.PickleBuffer] = []
        self.write = self.chunks.append

    def is_for_by_value(self) -> bool:
        """Whether the stream names what only the by-value pickler does right."""
        for chunk in self.chunks:
            if len(chunk) < LARGE_PIECE_BYTES and (
                b"__main__" in chunk or b"__mp_main__" in chunk or MADE_BY_NUMPY in chunk
            ):
                return True
        return False

    def lay_out(self, flags: int) -> Packed:
        chunks = self.chunks
        if len(chunks) == 1 and not self.buffers and not flags and len(chunks[0]) <= INLINE_LIMIT_BYTES:
            return Packed(bytes(chunks[0]))
        blobs: list[memoryview] = []
        places: list[tuple[int, int]] = []
        pieces = list(self._pieces())
        table_bytes = 16 * (len(pieces) + len(self.buffers))
        body = bytearray(table_bytes)
        for piece in pieces:
            if isinstance(piece, list):
                places.append((len(body), sum(map(len, piece))))
                body += b"".join(piece) if len(piece) > 1 else piece[0]
            else:
                places.append((-1 - len(blobs), len(piece)))
                blobs.append(memoryview(piece).toreadonly())
        for buffer in self.buffers:
            raw = buffer.raw().toreadonly()
            if raw.nbytes > SMALL_BUFFER_BYTES:
                places.append((-1 - len(blobs), raw.nbytes))
                blobs.append(raw)
            else:
                body += bytes(-len(body) % ALIGNMENT_BYTES)
                places.append((len(body), raw.nbytes))
                body += raw
        struct.pack_into(f"<{2 * len(places)}q", body, 0, *(number for place in places for number in place))
        if len(body) + ALIGNMENT_BYTES > INLINE_LIMIT_BYTES:
            flags |= _BODY_IS_BLOB
            blobs.append(memoryview(body).toreadonly())
        header = _HEADER.pack(_LAYOUT, flags, len(pieces), len(self.buffers), len(blobs)).ljust(
            ALIGNMENT_BYTES, b"\0"
        )
        return Packed(header if flags & _BODY_IS_BLOB else header + body, blobs)

    def _pieces(self) -> Iterator[list[bytes | bytearray] | bytes | bytearray]:
        """The stream: runs of small chunks, and big byte strings of the caller one by one."""
        run: list[bytes | bytearray] = []
        for chunk in self.chunks:
            if len(chunk) < LARGE_PIECE_BYTES:
                run.append(chunk)
                continue
            if run:
                yield run
                run = []
            yield chunk
        if run:
            yield run


# ---------------------------------------------------------------- unpacking


def unpack(inline: Buffer, buffers: Sequence[Buffer] = (), *, namespace: dict[str, Any] | None = None) -> Any:
    """The value that was packed, to stay. Arrays in it are read-only views of the buffers.

    `namespace` becomes the globals of functions in the value; `__main__` if there is none, and then a
    `Reference` stays what it is. Raises UnpicklingError for bytes that are no packed value, and what the
    unpickling of a part raises.
    """
    return _unpack(inline, buffers, namespace, stays=True)[0]


def unpack_to_stay(
    inline: Buffer, buffers: Sequence[Buffer] = (), *, namespace: dict[str, Any] | None = None
) -> tuple[Any, Companions]:
    """The same, with the companions that could not be built into its functions."""
    return _unpack(inline, buffers, namespace, stays=True)


def unpack_call(
    inline: Buffer, buffers: Sequence[Buffer] = (), *, namespace: dict[str, Any] | None = None
) -> UnpackedCall:
    """The arguments that `pack_call` packed, and what came along with functions among them."""
    if len(inline) and inline[0] == _PICKLE:
        return UnpackedCall(*pickle.loads(inline))
    (args, kwargs), companions = unpack_with_companions(inline, buffers, namespace=namespace)
    return UnpackedCall(args, kwargs, companions)


def unpack_with_companions(
    inline: Buffer, buffers: Sequence[Buffer] = (), *, namespace: dict[str, Any] | None = None
) -> tuple[Any, Companions]:
    """The value for the time of a task, and what is to be set while it runs, by a `CompanionTable`."""
    return _unpack(inline, buffers, namespace)


def unpack_inside(inline: Buffer, buffers: Sequence[Buffer], arrival: Arrival) -> Any:
    """A value that was packed by itself and arrives inside of another one."""
    inner = arrival.staying()
    value, _ = _unpack(inline, buffers, None, arrival=inner)
    arrival.has_references |= inner.has_references
    return value


def is_by_value(inline: bytes) -> bool:
    """Whether it matters to a packed value where it arrives."""
    return inline[0] != _PICKLE and bool(inline[1] & _BY_VALUE)


def buffer_count(inline: Buffer) -> int:
    """How many buffers belong to a packed value."""
    if len(inline) and inline[0] == _PICKLE:
        return 0
    try:
        return int(_HEADER.unpack_from(inline)[-1])
    except struct.error as error:
        raise pickle.UnpicklingError(f"the payload is damaged: {error}") from error


def _unpack(
    inline: Buffer,
    buffers: Sequence[Buffer],
    namespace: dict[str, Any] | None,
    *,
    stays: bool = False,
    arrival: Arrival | None = None,
) -> tuple[Any, Companions]:
    if not len(inline):
        raise pickle.UnpicklingError("there is no value: the payload is empty")
    if inline[0] == _PICKLE:
        return pickle.loads(inline), NO_COMPANIONS
    flags, stream, out_of_band = _read_layout(inline, buffers)
    if flags & _BY_VALUE:
        arrival = arrival or Arrival.at(namespace, stays=stays)
        unpickler = NamespaceUnpickler(_PieceReader(stream), arrival, buffers=out_of_band)
        value = unpickler.load()
        return value, read_companions(unpickler, arrival)
    if len(stream) == 1:
        return pickle.loads(stream[0], buffers=out_of_band), NO_COMPANIONS
    return pickle.Unpickler(_PieceReader(stream), buffers=out_of_band).load(), NO_COMPANIONS


def _read_layout(inline: Buffer, buffers: Sequence[Buffer]) -> tuple[int, list[memoryview], list[memoryview]]:
    # A bytes object starts at a multiple of 16; part of a bigger message starts anywhere, and pins it all.
    if arrives_writeable():
        head = memoryview(bytearray(inline))
        blobs = [private_buffer(buffer) for buffer in buffers]
    else:
        head = memoryview(inline if isinstance(inline, bytes) else bytes(inline))
        blobs = [memoryview(buffer).toreadonly() for buffer in buffers]
    try:
        layout, flags, stream_pieces, buffer_pieces, blob_count = _HEADER.unpack_from(head)
        if layout != _LAYOUT or blob_count != len(blobs):
            raise pickle.UnpicklingError(
                f"a payload of layout {layout} with {len(blobs)} of {blob_count} buffers"
            )
        body = blobs[-1] if flags & _BODY_IS_BLOB else head[ALIGNMENT_BYTES:]
        numbers = struct.unpack_from(f"<{2 * (stream_pieces + buffer_pieces)}q", body)
        found = [
            _piece(body, blobs, place, size) for place, size in zip(numbers[::2], numbers[1::2], strict=True)
        ]
    except (struct.error, IndexError) as error:
        raise pickle.UnpicklingError(f"the payload is damaged: {error}") from error
    return flags, found[:stream_pieces], found[stream_pieces:]


def _piece(body: memoryview, blobs: Sequence[memoryview], place: int, size: int) -> memoryview:
    piece = body[place : place + size] if place >= 0 else blobs[-1 - place]
    if piece.nbytes != size:
        raise pickle.UnpicklingError(f"the payload is damaged: {piece.nbytes} bytes instead of {size}")
    return piece


class _PieceReader:
    """The pieces of a stream as one file for an unpickler; copies into memory that the unpickler has made."""

    __slots__ = ("_pieces", "_rest")

    def __init__(self, pieces: Sequence[memoryview]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def _take(self, size: int) -> memoryview:
        while not self._rest:
            following = next(self._pieces, None)
            if following is None:
                break
            self._rest = following
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def read(self, size: int, /) -> bytes:
        taken = self._take(size)
        if len(taken) == size:
            return bytes(taken)
        parts = [taken]
        missing = size - len(taken)
        while missing and (taken := self._take(missing)):
            parts.append(taken)
            missing -= len(taken)
        return b"".join(parts)

    def readinto(self, target: Any, /) -> int:
        view = memoryview(target).cast("B")
        done = 0
        while done < len(view) and (taken := self._take(len(view) - done)):
            view[done : done + len(taken)] = taken
            done += len(taken)
        return done

    def readline(self) -> bytes:
        parts = []
        while part := self.read(1):
            parts.append(part)
            if part == b"\n":
                break
        return b"".join(parts)
