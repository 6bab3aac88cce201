"""Values and calls as lists of buffers, for those who move them by themselves.

The first buffer of each value is its inline part; `deserialize_object` knows from it how many follow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from enginery.objects.packing import Buffer, buffer_count, pack, pack_call, unpack

MAX_BYTES = 1024
MAX_ITEMS = 64


def serialize_object(
    obj: Any, buffer_threshold: int = MAX_BYTES, item_threshold: int = MAX_ITEMS
) -> list[bytes | memoryview]:
    """Return an object as a list of buffers, big ones without a copy.

    The thresholds are accepted and not needed: buffers are found at any depth, in containers of any size,
    and what is big enough to go by itself is known. Raises TypeError or PicklingError for what cannot be
    sent.
    """
    packed = pack(obj)
    return [packed.inline, *packed.buffers]


def deserialize_object(
    buffers: Sequence[Buffer], g: dict[str, Any] | None = None
) -> tuple[Any, list[Buffer]]:
    """Return the object that the first buffers hold, and the buffers that are left.

    `g` is the namespace: the globals of functions, and where a `Reference` is looked up. Without it these are
    ``__main__``, and a Reference stays one. Raises ValueError if there are no buffers, UnpicklingError if
    they hold no object.
    """
    if not buffers:
        raise ValueError("there is nothing to deserialize: the list of buffers is empty")
    end = 1 + buffer_count(buffers[0])
    return unpack(buffers[0], buffers[1:end], namespace=g), list(buffers[end:])


def pack_apply_message(
    f: Callable[..., Any],
    args: tuple[Any, ...] | list[Any],
    kwargs: dict[str, Any] | None = None,
    buffer_threshold: int = MAX_BYTES,
    item_threshold: int = MAX_ITEMS,
) -> list[bytes | memoryview]:
    """Return a function and its arguments as a list of buffers; thresholds as in `serialize_object`."""
    packed = pack_call(tuple(args), dict(kwargs or {}))
    return [*serialize_object(f), packed.inline, *packed.buffers]


def unpack_apply_message(
    bufs: Sequence[Buffer], g: dict[str, Any] | None = None, copy: bool = True
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """Return function, arguments and keyword arguments; `g` as in `deserialize_object`.

    With `copy` the buffers are copied first, so that the arguments do not keep them.
    """
    function, rest = deserialize_object([bytes(buffer) for buffer in bufs] if copy else bufs, g)
    (args, kwargs), _ = deserialize_object(rest, g)
    return function, args, kwargs
