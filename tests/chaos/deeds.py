"""What tasks do: a little work, and a value that can be checked."""

from __future__ import annotations

import time


def square(number: int) -> int:
    time.sleep(number % 5 * 0.002)  # work, as far as schedulers are concerned
    return number * number
