"""Hypothesis strategies for every record of every union, drawn from their own annotations."""

from __future__ import annotations

import enum
import types
import typing
from typing import Any

import msgspec
from hypothesis import strategies as st

from enginery.protocol import codec
from enginery.protocol import messages as m

UNIONS: dict[str, Any] = {
    "from_client": m.FromClient,
    "to_client": m.ToClient,
    "from_engine": m.FromEngine,
    "to_engine": m.ToEngine,
    "from_control": m.FromControl,
    "to_control": m.ToControl,
    "from_host": m.FromHost,
    "to_host": m.ToHost,
}
DECODERS: dict[str, codec.Decoder[Any]] = {name: getattr(codec, name)() for name in UNIONS}

# Small values are the likely ones, so that records refer to things that exist.
numbers = st.one_of(st.integers(-2, 5), st.integers(-(2**63), 2**64 - 1))
counts = st.integers(1, 5)
texts = st.text(max_size=8)
blobs = st.one_of(st.sampled_from([b"", b"a" * 16, b"b" * 16]), st.binary(max_size=16))


def members(union: str) -> list[type[msgspec.Struct]]:
    return list(typing.get_args(UNIONS[union]))


def of_type(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of an annotation, in the range that it gives."""
    if typing.get_origin(annotation) is typing.Annotated:
        plain, meta = typing.get_args(annotation)
        if meta.max_length is not None:
            return texts if typing.get_origin(plain) is None and plain is not tuple else of_type(plain)
        if plain is float:
            return st.floats(meta.ge, meta.le)
        low = meta.ge
        high = meta.le if meta.le is not None else meta.lt - 1
        near = st.integers(max(low, -2), min(high, 5)) if low <= 5 else st.just(low)
        assert not hasattr(plain, "__mro__") or issubclass(plain, int)
        return st.one_of(near, st.integers(low, high))
    if hasattr(annotation, "__supertype__"):
        return of_type(annotation.__supertype__)
    if isinstance(annotation, types.GenericAlias) or typing.get_origin(annotation) is not None:
        return _of_generic(typing.get_origin(annotation), typing.get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return st.sampled_from(list(annotation))
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return of_struct(annotation)
    simple = {
        int: numbers,
        bool: st.booleans(),
        float: st.floats(allow_nan=False),
        str: texts,
        bytes: blobs,
        type(None): st.none(),
        Any: st.one_of(st.none(), st.booleans(), numbers, texts, st.lists(texts, max_size=2)),
    }
    return simple[annotation]


def _of_generic(origin: Any, arguments: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*map(of_type, arguments))
    if origin is list:
        return st.lists(of_type(arguments[0]), max_size=3)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return st.lists(of_type(arguments[0]), max_size=3).map(tuple)
    return st.tuples(*map(of_type, arguments))


def of_struct(struct: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(struct, include_extras=True)
    fields = {}
    for field in msgspec.structs.fields(struct):
        values = of_type(hints[field.name])
        # A number that asks for that many of something would only test memory.
        fields[field.name] = counts if field.name == "count" else values
    return st.builds(struct, **fields)


def of_union(union: str) -> st.SearchStrategy[Any]:
    return st.one_of([of_struct(member) for member in members(union)])
