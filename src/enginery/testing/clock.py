"""Time that passes only when a test lets it: a clock with timers, jumping from deadline to deadline."""

from __future__ import annotations

import heapq
from collections.abc import Callable

Action = Callable[[], None]


class VirtualClock:
    """Seconds since an epoch of its own, and what is due when.

    >>> clock = VirtualClock(100.0)
    >>> clock.call_at(100.5, lambda: print("now"))
    >>> clock.next_deadline()
    100.5
    >>> clock.jump_to(101.0)
    >>> clock.run_due()
    now
    True
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._timers: list[tuple[float, int, Action]] = []
        self._count = 0

    def __repr__(self) -> str:
        return f"<VirtualClock at {self._now:g}, {len(self._timers)} timers>"

    def now(self) -> float:
        return self._now

    def call_at(self, when: float, action: Action) -> None:
        """Have `run_due` call `action` once the time has come; equal times keep their order."""
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, action))

    def next_deadline(self) -> float | None:
        return self._timers[0][0] if self._timers else None

    def jump_to(self, when: float) -> None:
        """Let time pass; ValueError for a time that is over."""
        if when < self._now:
            raise ValueError(f"it is {self._now:g} already, {when:g} is over")
        self._now = when

    def run_due(self) -> bool:
        """Call what is due; False if there was nothing."""
        ran = False
        while self._timers and self._timers[0][0] <= self._now:
            heapq.heappop(self._timers)[2]()
            ran = True
        return ran
