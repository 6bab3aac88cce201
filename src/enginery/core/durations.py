"""How long the tasks of each function have taken: what the in-flight window is measured in.

A moving average per function, over the time an engine spent per task, its own overhead included. The table is
bounded; the functions not heard of for longest are forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict

from enginery.protocol.messages import Kind, TaskOptions

UNKNOWN = -1.0
FUNCTIONS_KEPT = 4096
_WEIGHT = 0.25  # of the newest measurement: follows a change within about ten tasks


class DurationTable:
    """Estimated seconds per task, by function.

    >>> durations = DurationTable()
    >>> durations.estimate_s(b"f")
    -1.0
    >>> durations.on_measured(b"f", 0.5)
    >>> durations.estimate_s(b"f")
    0.5
    """

    __slots__ = ("_capacity", "_mean_s")

    def __init__(self, capacity: int = FUNCTIONS_KEPT) -> None:
        self._capacity = capacity
        self._mean_s: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._mean_s)

    def __repr__(self) -> str:
        return f"<DurationTable of {len(self)} functions>"

    def estimate_s(self, function: bytes) -> float:
        return self._mean_s.get(function, UNKNOWN)

    def on_measured(self, function: bytes, duration_s: float) -> None:
        mean = self._mean_s.get(function)
        if mean is None:
            self._mean_s[function] = max(duration_s, 0.0)
            if len(self._mean_s) > self._capacity:
                self._mean_s.popitem(last=False)
            return
        self._mean_s[function] = mean + _WEIGHT * (max(duration_s, 0.0) - mean)
        self._mean_s.move_to_end(function)


_KIND_KEYS = {kind: kind.name.encode() for kind in Kind}


def duration_key(options: TaskOptions) -> bytes:
    """What tasks of these options are measured by: their function, else their kind."""
    return options.function or _KIND_KEYS[options.kind]
