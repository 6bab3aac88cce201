"""Values, packed and unpacked: what is copied, what is not, and what arrives."""

from __future__ import annotations

import datetime
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enginery.objects.packing import (
    INLINE_LIMIT_BYTES,
    LARGE_PIECE_BYTES,
    SMALL_BUFFER_BYTES,
    Packed,
    pack,
    pack_call,
    unpack,
    unpack_call,
)


def round_trip(value: Any) -> Any:
    packed = pack(value)
    assert len(packed.inline) <= INLINE_LIMIT_BYTES
    return unpack(packed.inline, packed.buffers)


def address(buffer: Any) -> int:
    return int(np.frombuffer(buffer, dtype=np.uint8).__array_interface__["data"][0])


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        2**200,
        -1.5,
        "",
        "ä" * 3000,
        b"",
        (),
        [1, [2, [3]]],
        {"a": {"b": (1, 2)}},
        {1, 2},
        list(range(100_000)),
        {"key": "__main__"},
        datetime.date(2026, 1, 2),
        np.float64(3.5),
    ],
)
def test_values_come_back(value: Any) -> None:
    assert round_trip(value) == value
    assert type(round_trip(value)) is type(value)


def test_small_calls_are_a_bare_pickle() -> None:
    packed = pack_call((1,), {})
    assert packed == Packed(pickle.dumps(((1,), {}), 5), ())
    assert unpack_call(*packed)[:2] == ((1,), {})
    assert unpack_call(*pack_call((), {"a": 1}))[:2] == ((), {"a": 1})


def test_big_arrays_leave_without_a_copy_and_arrive_without_one() -> None:
    array = np.arange(100_000.0)
    packed = pack_call(([array],), {"again": array})
    assert [buffer.nbytes for buffer in packed.buffers] == [800_000]
    assert address(packed.buffers[0]) == address(array)
    assert packed.buffers[0].readonly
    (args, kwargs, _) = unpack_call(*packed)
    assert kwargs["again"] is args[0][0]
    assert address(args[0][0]) == address(array)
    with pytest.raises(ValueError, match="read-only"):
        args[0][0][0] = 1


@pytest.mark.parametrize("count", [0, 1, 7, 1000, SMALL_BUFFER_BYTES // 8, SMALL_BUFFER_BYTES // 8 + 1])
def test_arrays_of_any_size_are_read_only_and_aligned(count: int) -> None:
    array = round_trip({"x": [np.arange(float(count))]})["x"][0]
    assert array.tolist() == list(range(count))
    assert not array.flags.writeable
    assert array.flags.aligned


def test_a_part_of_a_bigger_message_is_not_pinned_and_still_aligned() -> None:
    packed = pack([np.arange(10.0), np.arange(3.0)])
    message = bytearray(b"xyz" + packed.inline)
    arrays = unpack(memoryview(message)[3:], packed.buffers)
    message.extend(b"a bytearray that is exported cannot grow")
    assert [a.tolist() for a in arrays] == [list(range(10)), list(range(3))]
    assert all(a.flags.aligned for a in arrays)


def test_many_small_arrays_share_one_blob() -> None:
    packed = pack([np.full(512, float(i)) for i in range(100)])
    assert len(packed.inline) == 64
    assert len(packed.buffers) == 1
    arrays = unpack(*packed)
    assert [float(a.sum()) for a in arrays] == [512.0 * i for i in range(100)]
    assert not any(a.flags.writeable for a in arrays)


def test_a_long_stream_becomes_one_blob() -> None:
    value = [str(i) for i in range(100_000)]
    packed = pack(value)
    assert len(packed.inline) == 64
    assert len(packed.buffers) == 1
    assert unpack(*packed) == value


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("size", [0, 100, LARGE_PIECE_BYTES - 1, LARGE_PIECE_BYTES, 3 * LARGE_PIECE_BYTES])
def test_byte_strings_at_any_depth(kind: type, size: int) -> None:
    data = kind(b"\x5a" * size)
    packed = pack({"deep": [(data, 1)], "rest": "x"})
    if size >= LARGE_PIECE_BYTES:
        assert any(buffer.obj is data for buffer in packed.buffers)
    value = unpack(*packed)
    assert value == {"deep": [(data, 1)], "rest": "x"}
    assert type(value["deep"][0][0]) is kind


def test_big_pieces_between_small_ones_keep_their_order() -> None:
    value = [
        "a",
        b"1" * LARGE_PIECE_BYTES,
        "b",
        np.arange(20_000),
        bytearray(b"2" * LARGE_PIECE_BYTES),
        "c" * 300_000,
    ]
    packed = pack(value)
    assert len(packed.inline) <= INLINE_LIMIT_BYTES
    back = unpack(*packed)
    assert back[:3] == value[:3]
    assert back[3].tolist() == list(range(20_000))
    assert back[4:] == value[4:]


@pytest.mark.parametrize("size", [10, SMALL_BUFFER_BYTES * 2])
def test_memoryviews(size: int) -> None:
    data = bytes(range(10)) * (size // 10)
    assert round_trip([memoryview(data)])[0] == data
    assert round_trip(memoryview(data)[::2]).tobytes() == data[::2]
    numbers = memoryview(np.arange(6, dtype=np.int32).reshape(2, 3))
    back = round_trip(numbers)
    assert (back.format, back.shape, back.tolist()) == ("i", (2, 3), [[0, 1, 2], [3, 4, 5]])
    assert back.readonly


def test_a_big_memoryview_is_not_copied() -> None:
    data = bytearray(SMALL_BUFFER_BYTES * 2)
    packed = pack([memoryview(data)])
    assert address(packed.buffers[0]) == address(data)


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.array(3.5),
        np.zeros((0, 3)),
        np.arange(100_000)[::3],
        np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
        np.array([(1, 2.5), (3, 4.5)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array(["2026-01-02"], dtype="datetime64[D]"),
        np.array(["ab", "c"]),
        np.array([1, 2], dtype=">i4"),
        np.array([True, False]),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_kinds_of_arrays(array: np.ndarray[Any, Any]) -> None:
    back = round_trip((array,))[0]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert (back == array).all()
    assert not back.flags.writeable
    assert back.flags.f_contiguous or not array.flags.f_contiguous


def test_arrays_of_objects_are_read_only_too() -> None:
    array = np.array([1, "a", None], dtype=object)
    for back in (round_trip(array), round_trip([array])[0], round_trip({"f": lambda: 1, "a": array})["a"]):
        assert back.tolist() == [1, "a", None]
        assert not back.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            back[0] = 2


def test_an_array_may_hold_itself() -> None:
    array = np.zeros(2, dtype=object)
    array[0] = array
    back = round_trip(array)
    assert back[0] is back
    assert not back.flags.writeable


class Tagged(np.ndarray[Any, Any]):
    """A subclass that leaves pickling to NumPy."""


class Stateful(np.ndarray[Any, Any]):
    """One that does not."""

    tag = ""

    def __reduce__(self) -> Any:
        make, arguments, state = super().__reduce__()  # type: ignore[misc]
        return make, arguments, (*state, self.tag)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[:-1])
        self.tag = state[-1]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(4).reshape(2, 2).view(np.matrix),
        np.rec.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
        np.arange(6.0).reshape(2, 3).view(Tagged),
        np.arange(6.0).view(Stateful),
        np.arange(50_000.0).view(Tagged)[::2],
    ],
    ids=lambda array: f"{type(array).__name__}{array.shape}",
)
@pytest.mark.parametrize("by_value", [False, True])
def test_subclasses_of_arrays_are_read_only_too(array: np.ndarray[Any, Any], by_value: bool) -> None:
    array = array.copy()
    if isinstance(array, Stateful):
        array.tag = "kept"
    back = round_trip([array, (lambda: 1) if by_value else 1])[0]
    assert type(back) is type(array)
    assert back.dtype == array.dtype
    assert back.tolist() == array.tolist()
    assert not back.flags.writeable
    if isinstance(array, Stateful):
        assert back.tag == "kept"


def test_a_big_array_of_a_subclass_is_not_copied() -> None:
    array = np.arange(50_000.0).view(Tagged)
    packed = pack([array])
    assert address(packed.buffers[0]) == address(array)


@pytest.mark.parametrize("mask", [False, [True, False, False]])
def test_masked_arrays_are_read_only_too(mask: Any) -> None:
    array = np.ma.masked_array([1.0, 2.0, 3.0], mask=mask, fill_value=-1)
    back = round_trip([array])[0]
    assert back.tolist() == array.tolist()
    assert back.fill_value == -1
    assert not back.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        back[1] = 5
    with pytest.raises(ValueError, match="read-only"):
        back.mask = [True, True, True]


@pytest.mark.parametrize("by_value", [False, True])
def test_an_open_file_is_refused_by_its_name(tmp_path: Path, by_value: bool) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("text")
    with path.open() as file:
        args = (1, {"file": file, "f": (lambda: 1) if by_value else 1})
        with pytest.raises(
            TypeError, match=r"argument 1, of type dict, .*open file cannot be sent: '.*notes.txt'"
        ):
            pack_call(args, {})
        with pytest.raises(TypeError, match=r"argument 'k'.*'.*notes.txt'; send its path, or what it holds"):
            pack_call((), {"k": file})


class Refuses:
    def __reduce__(self) -> Any:
        raise RuntimeError("I stay here")


@pytest.mark.parametrize(
    ("args", "kwargs", "kind", "text"),
    [
        (
            (1, threading.Lock()),
            {},
            TypeError,
            r"argument 1, of type _thread\.lock, cannot be sent: TypeError: cannot pickle",
        ),
        ((1,), {"gen": (i for i in ())}, TypeError, "argument 'gen', of type generator, cannot be sent"),
        (
            ([Refuses()],),
            {},
            pickle.PicklingError,
            "argument 0, of type list, cannot be sent: RuntimeError: I stay",
        ),
    ],
)
def test_an_argument_that_cannot_be_pickled_is_named(
    args: tuple[Any, ...], kwargs: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text) as caught:
        pack_call(args, kwargs)
    assert caught.value.__cause__ is not None


def test_a_value_nested_too_deep_is_named() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(pickle.PicklingError, match="argument 0, of type list, cannot be sent"):
        pack_call((value,), {})
    while value:  # freed step by step: the interpreter's own recursion is limited, too
        value = value.pop()


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x02" + bytes(100), b"\x01\x00" + bytes(100)])
def test_damaged_payloads_are_refused(payload: bytes) -> None:
    with pytest.raises((pickle.UnpicklingError, EOFError)):
        unpack(payload)


def test_a_lost_buffer_is_refused() -> None:
    packed = pack([np.zeros(SMALL_BUFFER_BYTES)])
    with pytest.raises(pickle.UnpicklingError, match="0 of 1 buffers"):
        unpack(packed.inline)
    with pytest.raises(pickle.UnpicklingError, match="10 bytes instead of"):
        unpack(packed.inline, [bytes(10)])


def test_size() -> None:
    assert pack(1).size_bytes == len(pickle.dumps(1, 5))
    assert pack(np.zeros(100_000)).size_bytes > 800_000
