"""Data frames and tables: out of band, without copies, read-only where they arrive."""

from __future__ import annotations

import functools
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from enginery.objects.arrays import writeable_arrivals
from enginery.objects.packing import Packed, pack, unpack

pandas = pytest.importorskip("pandas")
pyarrow = pytest.importorskip("pyarrow")

ROWS = 200_000
NUMBERS = np.arange(ROWS)
FRAMES: dict[str, Callable[[], Any]] = {
    "one block": lambda: pandas.DataFrame(np.ones((ROWS, 4)), columns=list("abcd")),
    "mixed": lambda: pandas.DataFrame({"a": NUMBERS, "b": NUMBERS / 2, "c": NUMBERS % 2 == 0}),
    "dates": lambda: pandas.DataFrame({"a": pandas.date_range("2020", periods=ROWS, freq="s", tz="UTC")}),
    "categories": lambda: pandas.DataFrame({"a": pandas.Categorical(NUMBERS % 3), "b": NUMBERS}),
    "nullable": lambda: pandas.DataFrame({"a": pandas.array(NUMBERS, dtype="Int64")}),
    "arrow": lambda: pandas.DataFrame({"a": pandas.array(NUMBERS, dtype="int64[pyarrow]")}),
    "series": lambda: pandas.Series(NUMBERS),
    "index": lambda: pandas.DataFrame({"a": NUMBERS}, index=NUMBERS / 2),
    "table": lambda: pyarrow.table({"a": NUMBERS, "b": NUMBERS / 2}),
    "batch": lambda: pyarrow.record_batch({"a": NUMBERS}),
    "chunked": lambda: pyarrow.chunked_array([NUMBERS, NUMBERS]),
}


def peak_of(work: Callable[[], Any]) -> tuple[Any, int]:
    """What it makes, and the memory that was taken meanwhile."""
    tracemalloc.start()
    try:
        return work(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_are_copied_on_neither_side(kind: str) -> None:
    frame = FRAMES[kind]()
    packed, peak_out = peak_of(functools.partial(pack, {"nested": [frame]}))
    size_bytes = sum(buffer.nbytes for buffer in packed.buffers)
    assert size_bytes >= NUMBERS.nbytes
    assert peak_out < size_bytes / 10
    arrived = Packed(packed.inline, [memoryview(bytes(buffer)) for buffer in packed.buffers])
    value, peak_in = peak_of(functools.partial(unpack, arrived.inline, arrived.buffers))
    assert value["nested"][0].equals(frame)
    assert peak_in < size_bytes / 2  # pandas checks a few of its arrays


def test_texts_travel() -> None:
    frame = pandas.DataFrame({"text": [f"text {number}" for number in range(1000)]})
    packed = pack(frame)
    assert unpack(packed.inline, packed.buffers).equals(frame)


@pytest.mark.parametrize("kind", ["one block", "mixed", "categories", "index"])
def test_writeable_frames_are_private(kind: str) -> None:
    frame = FRAMES[kind]()
    packed = pack(frame)
    with writeable_arrivals():
        first, second = (unpack(packed.inline, packed.buffers) for _ in range(2))
    column = first.columns[-1]
    first.loc[first.index[0], column] = first[column].iloc[-1]
    values = first[column].to_numpy(copy=False)
    assert values[0] == values[-1]
    assert second.equals(frame)


def test_a_frame_of_200_mb_needs_one_copy_at_most() -> None:
    frame = pandas.DataFrame(np.zeros((1_250_000, 20)))
    packed, peak_out = peak_of(functools.partial(pack, frame))
    with writeable_arrivals():
        value, peak_in = peak_of(functools.partial(unpack, packed.inline, packed.buffers))
    assert value.shape == frame.shape
    assert (peak_out < 20_000_000, peak_in < 220_000_000) == (True, True)
