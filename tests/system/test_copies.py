"""How much memory a large data frame takes on its way: one copy more on each side, at most."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

import enginery as ipp

SIZE = 200_000_000
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def begin() -> int:
    """Forget the highest mark of this process's memory; returns what it has now, in bytes."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return memory("VmRSS")


def memory(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(f"{field}:"))


def grown(before: int) -> int:
    """By how much this process has been larger than that at most, in bytes."""
    return memory("VmHWM") - before


def frame() -> Any:
    columns = {name: np.arange(SIZE // 32, dtype="f8") for name in "abcd"}
    return pd.DataFrame(columns)


@pytest.fixture
def engine() -> Any:
    with ipp.Cluster(n=1) as rc:
        rc[0].apply_sync(lambda: __import__("pandas"))  # which has memory of its own
        rc[0].push({"begin": begin, "grown": grown, "memory": memory}, block=True)
        yield rc[0]


def test_one_copy_on_each_side_of_an_argument(engine: Any) -> None:
    data = frame()
    there = engine.apply_sync(begin)
    here = begin()
    assert engine.apply_sync(lambda x: float(x["b"].sum()), data) == float(data["b"].sum())
    assert grown(here) < 1.15 * SIZE
    assert engine.apply_sync(grown, there) < 1.15 * SIZE


def test_one_copy_on_each_side_of_a_result(engine: Any) -> None:
    engine.push({"data": frame()}, block=True)
    engine.execute("data = data.copy()", block=True)
    there = engine.apply_sync(begin)
    here = begin()
    fetched = engine.pull("data", block=True)
    assert fetched.shape == (SIZE // 32, 4)
    assert grown(here) < 1.15 * SIZE
    assert engine.apply_sync(grown, there) < 1.15 * SIZE
