"""Calls whose big buffers are being copied into shared memory, and what has to wait behind them.

Copies are made elsewhere, by another thread, and end in any order. Calls that are addressed to engines keep
their order, because each sees what the one before it has left in the namespace; balanced ones keep none.
"""

from __future__ import annotations

from typing import Generic, TypeVar

Item = TypeVar("Item")


class CopyLine(Generic[Item]):
    """Items in the order in which they came; each is whatever the caller keeps of a call."""

    def __init__(self) -> None:
        self._line: dict[int, tuple[Item, bool]] = {}  # by identity: (item, whether it is in order)
        self._waiting: set[int] = set()  # those that are not copied yet
        self._in_order = 0
        self.has_news = False
        """Whether `take_ready` may return more than the last time."""

    def __len__(self) -> int:
        return len(self._line)

    def __repr__(self) -> str:
        return f"<CopyLine of {len(self._line)}, {len(self._waiting)} to be copied>"

    @property
    def holds_order(self) -> bool:
        """Whether an item that is in order has to join the line, copied or not."""
        return self._in_order > 0

    def add(self, item: Item, *, in_order: bool, to_copy: bool) -> None:
        is_behind = in_order and self.holds_order
        self._line[id(item)] = item, in_order
        self._in_order += in_order
        if to_copy:
            self._waiting.add(id(item))
        elif not is_behind:
            self.has_news = True

    def on_copied(self, item: Item) -> None:
        if id(item) in self._waiting:
            self._waiting.remove(id(item))
            self.has_news = True

    def take_ready(self) -> list[Item]:
        """The items that may go now, in order."""
        self.has_news = False
        ready: list[Item] = []
        is_blocked = False
        for key, (item, in_order) in list(self._line.items()):
            if key in self._waiting or (in_order and is_blocked):
                is_blocked = is_blocked or in_order
                continue
            del self._line[key]
            self._in_order -= in_order
            ready.append(item)
        return ready

    def clear(self) -> None:
        self._line.clear()
        self._waiting.clear()
        self._in_order = 0
        self.has_news = False
