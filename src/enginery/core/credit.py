"""What clients may have the controller hold: told to them in the welcome, and counted here.

A client sends a call when fewer than `TASK_WINDOW` of its tasks and less than `BYTE_WINDOW` of their bytes
are sent and not ended, or none at all; more wait in its ledger. What the controller counts is never more than
what the client counts, so one whose calls pass `EXCESS` times the windows does not keep to them, by a defect
or on purpose, and is refused.
"""

from __future__ import annotations

from enginery.protocol.messages import CALL_LIMIT_BYTES

TASK_WINDOW = 50_000
BYTE_WINDOW = 512 << 20
EXCESS = 2
UNNAMED_BYTES = EXCESS * BYTE_WINDOW + CALL_LIMIT_BYTES
"""Of blobs whose calls have not come: those of one call, and what is under way before them."""


class Credit:
    """The open tasks of one client, by their numbers, and their bytes."""

    __slots__ = ("_open", "size_bytes")

    def __init__(self) -> None:
        self._open: dict[int, int] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._open)

    def __repr__(self) -> str:
        return f"<Credit: {len(self)} tasks, {self.size_bytes} bytes>"

    def has_room(self, tasks: int, *, awaited: int, size_bytes: int) -> bool:
        """Whether so many more may come, beside those that are to come again with their blobs."""
        if len(self._open) + awaited + tasks > EXCESS * TASK_WINDOW:
            return False
        return self.size_bytes + size_bytes <= EXCESS * BYTE_WINDOW + CALL_LIMIT_BYTES

    def on_accepted(self, numbers: range, size_bytes: int) -> None:
        """The tasks of one call are in."""
        share = size_bytes // len(numbers)
        self._open.update(dict.fromkeys(numbers, share))
        self.size_bytes += share * len(numbers)

    def on_ended(self, number: int) -> None:
        self.size_bytes -= self._open.pop(number, 0)

    def refusal(self) -> str:
        """Why a client is refused that has gone beyond."""
        return (
            f"it has {len(self):,} unfinished tasks with {self.size_bytes >> 20:,} MiB, and goes on to send: "
            f"more than {EXCESS} times the {TASK_WINDOW:,} tasks and {BYTE_WINDOW >> 20} MiB that it was told"
        )

    def check(self) -> None:
        assert self.size_bytes == sum(self._open.values())
