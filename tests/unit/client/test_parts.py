"""Sequences in parts and together again."""

from __future__ import annotations

import array
from collections import deque
from typing import Any

import numpy as np
import pytest

from enginery.client.parts import cut, join

SEQUENCES: list[Any] = [
    [1, 2, 3, 4, 5],
    (1, 2, 3, 4, 5),
    range(5),
    "abcde",
    b"abcde",
    array.array("i", range(5)),
]


@pytest.mark.parametrize("items", SEQUENCES, ids=lambda items: type(items).__name__)
@pytest.mark.parametrize("dist", ["b", "r"])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_what_was_cut_is_joined(items: Any, dist: str, count: int) -> None:
    parts = cut(items, count, dist)
    assert len(parts) == count
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert {type(part) for part in parts} == {list if type(items) is range else type(items)}
    assert join(parts, dist) == list(items)


@pytest.mark.parametrize("dist", ["b", "r"])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_arrays_are_views_and_joined_to_arrays(dist: str, count: int) -> None:
    items = np.arange(10).reshape(5, 2)
    parts = cut(items, count, dist)
    assert all(np.shares_memory(part, items) for part in parts if len(part))
    whole = join(parts, dist)
    assert type(whole) is np.ndarray
    assert np.array_equal(whole, items)


def test_masks_survive() -> None:
    items = np.ma.masked_array([1, 2, 3], mask=[False, True, False])
    assert join(cut(items, 2)).mask.tolist() == [False, True, False]


def test_which_parts() -> None:
    assert cut([1, 2, 3, 4, 5], 3) == [[1, 2], [3, 4], [5]]
    assert cut([1, 2, 3, 4, 5], 3, "r") == [[1, 4], [2, 5], [3]]
    assert cut([1], 3) == [[1], [], []]
    assert cut([], 2, "r") == [[], []]


@pytest.mark.parametrize("items", [{1: "a", 2: "b"}, deque([1, 2]), iter([1, 2]), {1: 0, 2: 0}.keys()])
def test_what_has_no_slices_is_listed(items: Any) -> None:
    assert cut(items, 2) == [[1], [2]]


def test_what_is_no_sequence_is_one_item() -> None:
    assert join([[1, 2], 3, {4: 5}, (6,)]) == [1, 2, 3, {4: 5}, 6]
    assert join([np.arange(2), [5]]) == [0, 1, 5]
    assert join([1, 2], "r") == [1, 2]
    assert join([np.float64(1.5), np.float64(2.5)]) == [1.5, 2.5]


def test_parts_that_have_changed_since() -> None:
    assert join([[1, 4, 5], [2], [3]], "r") == [1, 2, 3, 4, 5]


def test_bad_input() -> None:
    with pytest.raises(
        TypeError, match=r"a sequence is needed, not 3 \(int\), which cannot be iterated over"
    ):
        cut(3, 2)
    for call in (lambda: cut([1], 1, "x"), lambda: join([[1]], "x")):
        with pytest.raises(ValueError, match=r"dist is 'b' \(blocks\) or 'r' \(in turn\), not 'x'"):
            call()
