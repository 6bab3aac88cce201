"""Arrays of all kinds: out of band, read-only where they arrive, private where that is asked."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
import pytest

from enginery.objects.arrays import READ_ONLY_NOTE, read_only_note, writeable_arrivals
from enginery.objects.packing import SMALL_BUFFER_BYTES, pack, unpack
from enginery.objects.prepickled import PrePickled

ROWS = SMALL_BUFFER_BYTES  # at one byte and more each: beyond what is copied into the body


def read_only(array: Any) -> Any:
    array = array.copy()
    array.flags.writeable = False
    return array


KINDS = {
    "plain": np.arange(ROWS, dtype="f8"),
    "small": np.arange(5),
    "fortran": np.asfortranarray(np.arange(2 * ROWS, dtype="i4").reshape(-1, 2)),
    "view with gaps": np.arange(4 * ROWS, dtype="i2")[::2],
    "reversed": np.arange(ROWS, dtype="i8")[::-1],
    "zero-dimensional": np.array(3.5),
    "empty": np.empty((0, 7), dtype="f4"),
    "records": np.zeros(ROWS, dtype=[("a", "i4"), ("b", "f8", (2,))]),
    "aligned records": np.zeros(ROWS, dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    "dates": np.arange(ROWS).astype("M8[s]"),
    "durations": np.arange(3).astype("m8[ms]"),
    "text": np.array(["ä", "bc"] * ROWS),
    "bytes": np.array([b"a", b"bc"] * ROWS),
    "bool": np.ones(ROWS, dtype=bool),
    "half": np.ones(ROWS, dtype="f2"),
    "big-endian": np.arange(ROWS, dtype=">i4"),
    "void": np.zeros(ROWS, dtype="V3"),
    "read-only": read_only(np.arange(ROWS)),
    "read-only fortran": read_only(np.asfortranarray(np.ones((ROWS, 2)))),
    "read-only dates": read_only(np.arange(ROWS).astype("M8[s]")),
    "objects": np.array([1, "a", None], dtype=object),
    "masked": np.ma.masked_array(np.arange(ROWS), mask=np.arange(ROWS) % 2 == 0),
    "subclass": np.ones((ROWS, 1)).view(np.recarray),
}


def same(ours: Any, theirs: Any) -> bool:
    assert type(ours) is type(theirs)
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    if ours.ndim > 1 and ours.size:
        assert ours.flags.f_contiguous == theirs.flags.f_contiguous
    return repr(ours.ravel()[:99].tolist()) == repr(theirs.ravel()[:99].tolist())


def arrive(value: Any) -> Any:
    packed = pack(value)
    return unpack(packed.inline, packed.buffers)


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_arrive_read_only(kind: str) -> None:
    array = KINDS[kind]
    arrived = arrive({"nested": [array]})["nested"][0]
    assert same(arrived, array)
    assert not arrived.flags.writeable


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrap", [lambda array: array, PrePickled], ids=["plainly", "prepickled"])
def test_writeable_arrays_are_private(kind: str, wrap: Any) -> None:
    array = KINDS[kind]
    before = array.copy(order="K")
    packed = pack([wrap(array)])
    with writeable_arrivals():
        (first,) = unpack(packed.inline, packed.buffers)
        (second,) = unpack(packed.inline, packed.buffers)
    assert first.flags.writeable
    first[...] = np.zeros_like(first)
    assert same(second, before)
    assert same(array, before)
    (third,) = unpack(packed.inline, packed.buffers)
    assert not third.flags.writeable


@pytest.mark.parametrize(
    "kind", sorted(set(KINDS) - {"small", "zero-dimensional", "empty", "durations", "objects"})
)
def test_big_arrays_leave_out_of_band(kind: str) -> None:
    packed = pack([KINDS[kind]])
    assert sum(buffer.nbytes for buffer in packed.buffers) >= KINDS[kind].nbytes * (kind != "masked")


class Pair(NamedTuple):
    first: int
    second: Any


def test_writeable_memoryviews_and_nested_containers() -> None:
    value = [memoryview(b"abc"), memoryview(bytearray(b"abc")), {"x": Pair(1, np.arange(3))}]
    packed = pack(value)
    with writeable_arrivals():
        frozen, view, rest = unpack(packed.inline, packed.buffers)
    frozen[0] = view[0] = ord("z")
    rest["x"][1][0] = 7
    assert (bytes(frozen), bytes(view), rest["x"][1].tolist()) == (b"zbc", b"zbc", [7, 1, 2])
    assert bytes(value[0]) == bytes(value[1]) == b"abc"


def test_the_wish_is_of_one_thread_and_ends() -> None:
    seen = []
    with writeable_arrivals():
        thread = threading.Thread(target=lambda: seen.append(arrive(np.arange(3)).flags.writeable))
        thread.start()
        thread.join()
        with writeable_arrivals():
            pass
        seen.append(arrive(np.arange(3)).flags.writeable)
    seen.append(arrive(np.arange(3)).flags.writeable)
    assert seen == [False, True, False]


def edit(value: Any) -> None:
    value[0] = 1


@pytest.mark.parametrize(
    "action",
    [
        edit,
        lambda array: array.sort(),
        lambda array: np.add(array, 1, out=array),
        lambda array: array.__iadd__(1),
        lambda array: array.setflags(write=True),
        lambda array: edit(memoryview(array)),
    ],
)
def test_errors_of_read_only_arrays_name_the_flag(action: Any) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        action(arrive(np.arange(3)))
    assert read_only_note(caught.value) == READ_ONLY_NOTE
    assert "writeable=True" in READ_ONLY_NOTE


def test_other_errors_have_no_such_note() -> None:
    class Odd(ValueError):
        @property
        def args(self) -> Any:  # type: ignore[override]
            raise AssertionError("looked at")

    for error in (ValueError("no"), ValueError(), ValueError(3), KeyError("array is read-only"), Odd()):
        assert read_only_note(error) == ""
