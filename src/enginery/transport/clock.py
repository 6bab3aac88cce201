"""The time: seconds since the epoch that never go back.

Deadlines and the times in results come from one clock, so it has to be both wall time and monotonic: wall
time when the process read it first, and from then on the monotonic clock. A step of the system's clock moves
no deadline.
"""

from __future__ import annotations

import time

_offset_s = time.time() - time.monotonic()


def now() -> float:
    return time.monotonic() + _offset_s
