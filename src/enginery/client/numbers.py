"""Numbers as users give them, checked."""

from __future__ import annotations

import math
from typing import Any

_PRIORITY_LIMIT = 1 << 31


def check_whole(name: str, value: Any, *, smallest: int = 0, below: int | None = None) -> int:
    """Return the number. Raises TypeError if it is none, ValueError if it is out of range."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < smallest:
        least = "not be negative" if smallest == 0 else f"be at least {smallest}"
        raise ValueError(f"{name} must {least}, and is {value}")
    if below is not None and value >= below:
        raise ValueError(f"{name} must be below {below}, and is {value}")
    return value


def read_priority(value: Any) -> int:
    return check_whole("priority", value, smallest=-_PRIORITY_LIMIT, below=_PRIORITY_LIMIT)


def read_seconds(name: str, value: Any) -> float | None:
    """Seconds; None for ever, and so are negative ones."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number of seconds or None, not {value!r} ({type(value).__name__})")
    if math.isnan(value):
        raise ValueError(f"{name} is a number of seconds or None, not nan")
    return float(value) if 0 <= value < math.inf else None
