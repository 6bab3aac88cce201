"""Marks among text: found wherever a pipe is cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginery.ids import EngineKey, TaskId
from enginery.protocol.marks import Mark, Marks

MARKS = Marks(EngineKey("0123456789abcdef"))
FIRST, LAST = Mark(TaskId(1), 1, 1), Mark(TaskId((1 << 63) - 1), (1 << 31) - 1, 7)


def test_texts_and_the_marks_behind_them() -> None:
    data = b"a" + MARKS.encode(FIRST) + MARKS.encode(LAST) + b"b\n"
    assert list(MARKS.split(data)) == [(b"a", FIRST), (b"", LAST), (b"b\n", None)]
    assert len(MARKS.encode(FIRST)) == MARKS.size_bytes < 512, "a pipe takes it whole"


def test_a_mark_of_another_engine_is_text() -> None:
    data = Marks(EngineKey("fedcba9876543210")).encode(FIRST)
    assert list(MARKS.split(data)) == [(data, None)]
    assert MARKS.begun_bytes(data) == 0


@pytest.mark.parametrize("size", range(1, MARKS.size_bytes))
def test_the_beginning_of_a_mark_is_seen(size: int) -> None:
    begun = MARKS.encode(FIRST)[:size]
    assert MARKS.begun_bytes(b"text \x1b[0m" + begun) == size


@given(st.binary(max_size=80), st.lists(st.integers(0, 200), max_size=6))
def test_cut_anywhere(noise: bytes, cuts: list[int]) -> None:
    data = noise + MARKS.encode(FIRST) + noise + MARKS.encode(LAST) + noise
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    found: list[tuple[bytes, Mark | None]] = []
    text = rest = b""
    for start, end in itertools.pairwise(places):
        for piece, mark in MARKS.split(rest + data[start:end]):
            if mark is not None:
                found.append((text + piece, mark))
                text = b""
        begun = MARKS.begun_bytes(piece)
        text, rest = text + piece[: len(piece) - begun], piece[len(piece) - begun :]
    assert found == [(noise, FIRST), (noise, LAST)]
    assert text + rest == noise
