"""Functions with arrays in them: one blob, of which the arrays are views."""

from __future__ import annotations

import functools
import pickle
from typing import Any

import numpy as np
import pytest

from enginery.objects.arrays import writeable_arrivals
from enginery.objects.functions import build, pack_function
from enginery.objects.joined import join, split

BIG = np.arange(100_000)


def closure(array: Any) -> Any:
    return lambda: array


def default(array: Any) -> Any:
    def function(value: Any = array, *, other: Any = array) -> Any:
        assert value is other
        return value

    return function


def lies_in(array: Any, data: bytes) -> bool:
    start = np.frombuffer(data, "u1").__array_interface__["data"][0]
    place = array.__array_interface__["data"][0] - start
    return 0 <= place <= len(data) - array.nbytes and place % 16 == 0


@pytest.mark.parametrize("make", [closure, default, lambda array: functools.partial(np.asarray, array)])
@pytest.mark.parametrize(
    "array", [BIG, BIG[:3], np.asfortranarray(np.ones((300, 7)))], ids=["big", "small", "fortran"]
)
def test_arrays_of_a_function_are_views_of_its_blob(make: Any, array: Any) -> None:
    packed = pack_function(make(array))
    without = len(pack_function(make(0)).data)  # what is registered goes with every function
    assert len(packed.data) < without + array.nbytes + 2000
    arrived = build(packed.data, {}).function()
    assert np.array_equal(arrived, array)
    assert lies_in(arrived, packed.data)
    assert not arrived.flags.writeable
    with writeable_arrivals():
        own = build(packed.data, {}).function()
    own[...] = 0
    assert np.array_equal(build(packed.data, {}).function(), array)


def test_a_function_without_buffers_is_a_bare_pickle() -> None:
    assert pack_function(closure(3)).data[0] == 0x80


def test_join_and_split() -> None:
    stream = pickle.dumps(1)
    assert join(stream, []) is stream
    assert split(stream) == (stream, [])
    data = join(
        stream, [pickle.PickleBuffer(b"abc"), pickle.PickleBuffer(b""), pickle.PickleBuffer(bytearray(99))]
    )
    parts = split(memoryview(data))
    assert (bytes(parts.stream), list(map(bytes, parts.buffers))) == (stream, [b"abc", b"", bytes(99)])
    assert all(each.readonly for each in parts.buffers)


@pytest.mark.parametrize("cut", [0, 1, 8, 20, -1])
def test_damaged_ones_are_named(cut: int) -> None:
    data = join(pickle.dumps(1), [pickle.PickleBuffer(b"abc")])
    with pytest.raises(pickle.UnpicklingError, match="a function is damaged"):
        split(data[:cut])
    with pytest.raises(pickle.UnpicklingError, match="a function is damaged: layout 9 with 2 parts"):
        split(b"\x09" + data[1:])
