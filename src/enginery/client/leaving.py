"""How a client leaves: as late as is needed for what it has submitted to be safe at the controller.

An asynchronous call returns before its buffers have left the process, and a script may end with one. So
whoever closes waits as long as something moves: buffers are copied into shared memory, pieces go out,
the controller says what it has. What stands still for `STALL_S` will not move any more.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable
from typing import NamedTuple, Protocol

from enginery.transport import clock

LINGER_S = 30.0
"""How long a client that closes, or whose interpreter ends, waits at most."""
STALL_S = 1.0

log = logging.getLogger("enginery.client")


class Progress(NamedTuple):
    """What has not left. Any change is a movement."""

    unsafe: int  # tasks that the controller has not said to have
    waiting: int  # records and pieces of buffers on the link
    is_copying: bool  # which moves without showing it


class CanClose(Protocol):
    def close(self, linger_s: float, /) -> None: ...


def linger(
    wait_until: Callable[[Callable[[], bool], float], bool],
    progress: Callable[[], Progress],
    linger_s: float,
) -> int:
    """Wait while tasks get to safety, `linger_s` at most; returns how many have not."""
    deadline = clock.now() + linger_s
    last = progress()
    while last.unsafe and (left_s := deadline - clock.now()) > 0:
        before = last
        has_moved = wait_until(lambda: progress() != before, min(STALL_S, left_s))  # noqa: B023 - called here
        last = progress()
        if not has_moved and not last.is_copying:
            break
    return last.unsafe


def close_at_exit(leaver: CanClose) -> None:
    """Close this when the interpreter ends, if it has not been closed before."""
    _open.add(leaver)


def is_closed(leaver: CanClose) -> None:
    _open.discard(leaver)


_open: set[CanClose] = set()


def _close_all() -> None:
    for leaver in list(_open):
        leaver.close(LINGER_S)


atexit.register(_close_all)
