"""What the tasks do. In a module that every process can import, so that all systems send it by name."""

from __future__ import annotations

import time
from typing import Any

TASKS = 5_000
ITEMS = 100_000
CHUNK = 100
GRAPH = (10, 20)
"""Layers and width of a graph of calls."""


def no_op(*_: object) -> None:
    """Nothing: what remains is the system's own cost."""


def spin(duration_s: float) -> None:
    """Compute for so long."""
    end = time.perf_counter() + duration_s
    while time.perf_counter() < end:
        pass


def wait(duration_s: float) -> None:
    time.sleep(duration_s)


def print_lines(count: int) -> int:
    for number in range(count):
        print("line", number, "of some text that a program writes about what it does")
    return count


_held: dict[int, Any] = {}


def held(size_bytes: int) -> Any:
    """The process's array of this size, with new content at each call; it has one array at a time."""
    from benchmarks.transfers import edit, new_array

    array = _held.get(size_bytes)
    if array is None:
        _held.clear()
        array = _held[size_bytes] = new_array(size_bytes)
    edit(array)
    return array
