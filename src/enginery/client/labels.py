"""The label of all calls that are made in a `with` block: of this thread or asyncio task, and of no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from enginery.client.flags import read_label


class Labels:
    """The label that calls of one client get which have none of their own."""

    def __init__(self) -> None:
        self._current: ContextVar[str] = ContextVar("enginery_label", default="")

    @property
    def current(self) -> str:
        return self._current.get()

    @contextmanager
    def put(self, label: str) -> Iterator[None]:
        """Label the calls of a `with` block; an inner block's label stands before an outer one's."""
        token = self._current.set(read_label(label))
        try:
            yield
        finally:
            self._current.reset(token)
