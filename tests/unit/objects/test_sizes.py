"""Sizes of objects, told without running anybody's code."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from enginery.objects.sizes import size_of


@pytest.mark.parametrize("value", [1, "text", b"bytes", bytearray(5), None, [], {}, (), object()])
def test_plain_objects(value: Any) -> None:
    assert size_of(value) == sys.getsizeof(value)


def test_arrays_and_views() -> None:
    assert size_of(np.zeros(1000)) == 8000
    assert size_of(memoryview(bytes(100))) == 100
    assert size_of(np.zeros(1000)[::2]) == 4000


def test_frames_and_tables() -> None:
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    assert size_of(pandas.DataFrame({"a": np.zeros(1000)})) >= 8000
    assert size_of(pandas.Series(np.zeros(1000))) == 8000
    assert size_of(pyarrow.table({"a": np.zeros(1000)})) == 8000


def test_containers() -> None:
    assert size_of([np.zeros(1000)] * 3) == sys.getsizeof([0] * 3) + 24_000
    assert size_of({"a": (np.zeros(1000),)}) > 8000
    assert 8_000_000 <= size_of([np.zeros(100) for _ in range(10_000)]) < 9_000_000  # by its first items
    nested: Any = np.zeros(1000)
    for _ in range(10):
        nested = [nested]
    assert size_of(nested) < 8000  # too deep to be looked at
    endless: list[Any] = []
    endless.append(endless)
    assert size_of(endless) < 1000


def test_code_of_users_is_not_run() -> None:
    class Odd:
        def __sizeof__(self) -> int:
            raise AssertionError("run")

        def __getattr__(self, name: str) -> Any:
            raise AssertionError("run")

    assert 0 < size_of(Odd()) < 1000
    assert size_of([Odd()]) > 0
