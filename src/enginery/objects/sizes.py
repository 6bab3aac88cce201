"""How big an object is, told without running code of the user's: any thread may ask, at any time."""

from __future__ import annotations

import sys
from typing import Any

_DEEPEST = 4
_ITEMS_LOOKED_AT = 1000
_HAVE_SIZES = frozenset({"numpy", "pandas", "pyarrow", "torch", "scipy", "polars", "cupy", "xarray"})
"""Packages whose objects say how big they are, in ``nbytes`` or the like."""
_PLAIN = frozenset({int, float, complex, bool, str, bytes, bytearray})


def size_of(value: Any) -> int:
    """Bytes; containers with what is in them, of long ones as many times the first items."""
    return _size(value, 0)


def _size(value: Any, depth: int) -> int:
    cls = type(value)
    if cls in _PLAIN:
        return sys.getsizeof(value)
    if cls is memoryview:
        return int(value.nbytes)
    if cls.__module__.partition(".")[0] in _HAVE_SIZES:
        return _told_size(value)
    if cls in (list, tuple, set, frozenset, dict):
        return _container_size(value, depth)
    return object.__sizeof__(value) if cls.__flags__ & _HEAP_TYPE else sys.getsizeof(value, 0)


_HEAP_TYPE = 1 << 9  # a class made in Python, whose `__sizeof__` may be anybody's


def _container_size(value: Any, depth: int) -> int:
    size = sys.getsizeof(value)
    count = len(value)
    if not count or depth >= _DEEPEST:
        return size
    try:
        items = [item for pair in value.items() for item in pair] if type(value) is dict else list(value)
    except RuntimeError:  # it is being changed
        return size
    looked_at = items[:_ITEMS_LOOKED_AT]
    inside = sum(_size(item, depth + 1) for item in looked_at)
    return size + inside * len(items) // len(looked_at)


def _told_size(value: Any) -> int:
    try:
        size = getattr(value, "nbytes", None)
        if size is None and hasattr(value, "memory_usage"):
            size = value.memory_usage(deep=False).sum()
        return int(sys.getsizeof(value) if size is None else size)
    except Exception:  # noqa: BLE001 - another thread may be in the middle of changing it
        return 0
