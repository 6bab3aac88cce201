"""Any nesting of anything comes back equal, with a small inline part and read-only arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from enginery.objects.packing import INLINE_LIMIT_BYTES, LARGE_PIECE_BYTES, SMALL_BUFFER_BYTES, pack, unpack
from enginery.objects.prepickled import PrePickled
from enginery.objects.reference import Reference

SIZES = st.sampled_from([0, 1, 63, 64, 65, SMALL_BUFFER_BYTES - 1, SMALL_BUFFER_BYTES + 1, LARGE_PIECE_BYTES])


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Of all kinds: structured, without dimensions, empty, Fortran order, with gaps, big and small."""
    dtype = draw(
        st.one_of(
            hnp.scalar_dtypes(),
            hnp.array_dtypes(
                st.one_of(hnp.integer_dtypes(), hnp.floating_dtypes(), hnp.byte_string_dtypes()), max_size=3
            ),
        )
    )
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
    array: np.ndarray[Any, Any] = draw(hnp.arrays(dtype=dtype, shape=shape))
    if draw(st.booleans()):
        array = np.resize(array, (draw(st.integers(0, 40_000)),)) if array.size else array
    change = draw(st.sampled_from(["", "fortran", "transposed", "gaps", "reversed"]))
    if change == "fortran":
        return np.asfortranarray(array)
    if change == "transposed":
        return array.T
    if change == "gaps" and array.ndim:
        return array[::2]
    if change == "reversed" and array.ndim:
        return array[::-1]
    return array


def byte_strings() -> st.SearchStrategy[bytes | bytearray]:
    data = st.one_of(st.binary(max_size=50), SIZES.map(lambda size: b"\xa5" * size))
    return st.one_of(data, data.map(bytearray))


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.complex_numbers(allow_nan=False),
)
values = st.recursive(
    st.one_of(scalars, byte_strings(), arrays()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=5), inner, max_size=4),
    ),
    max_leaves=8,
)


def assert_same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    if isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        assert ours.tobytes() == theirs.tobytes()
        assert not theirs.flags.writeable
        assert theirs.flags.aligned or not ours.flags.aligned
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key in ours:
            assert_same(ours[key], theirs[key])
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        assert ours == theirs


@given(values)
def test_values_come_back(value: Any) -> None:
    packed = pack(value)
    assert len(packed.inline) <= INLINE_LIMIT_BYTES
    assert all(buffer.readonly and buffer.contiguous and buffer.format == "B" for buffer in packed.buffers)
    arrived = [bytearray(buffer) for buffer in packed.buffers]
    assert_same(value, unpack(packed.inline, arrived))


@given(values, st.binary(max_size=7))
def test_values_come_back_from_the_middle_of_a_message(value: Any, before: bytes) -> None:
    packed = pack(value)
    message = memoryview(before + packed.inline)[len(before) :]
    assert_same(value, unpack(message, [bytes(buffer) for buffer in packed.buffers]))


def hidden(value: Any, how: dict[int, str], namespace: dict[str, Any], place: int = 0) -> tuple[Any, int]:
    """The value with some of its parts, numbered from outside in, as references or pickled by themselves."""
    here, place = how.get(place, ""), place + 1
    if type(value) in (list, tuple):
        parts = []
        for part in value:
            shown, place = hidden(part, how, namespace, place)
            parts.append(shown)
        shown = type(value)(parts)
    elif type(value) is dict:
        shown = {}
        for key, part in value.items():
            shown[key], place = hidden(part, how, namespace, place)
    else:
        shown = value
    if here == "reference":
        namespace[f"name{place}"] = value
        return Reference(f"name{place}"), place
    return (PrePickled(shown) if here == "pickled" else shown), place


@given(values, st.dictionaries(st.integers(0, 10), st.sampled_from(["reference", "pickled"])))
def test_references_and_what_was_pickled_before_arrive_as_their_values(
    value: Any, how: dict[int, str]
) -> None:
    namespace: dict[str, Any] = {}
    shown, _ = hidden(value, how, namespace)
    packed = pack([shown])
    back = unpack(packed.inline, [bytes(buffer) for buffer in packed.buffers], namespace=namespace)[0]
    if "reference" in how.values():  # what is on the engine is writable, as the engine has it
        assert repr(back) == repr(value)
    else:
        assert_same(value, back)
