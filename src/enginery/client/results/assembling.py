"""Displays out of their pieces, which follow one another."""

from __future__ import annotations

from typing import NamedTuple

from enginery.ids import EngineId
from enginery.objects.displays import CONTENT_LIMIT_BYTES
from enginery.protocol.messages import Display


class Whole(NamedTuple):
    """A display that is complete."""

    kind: str
    content: bytes
    engine: EngineId


class DisplayAssembly:
    """At most one display of one task is incomplete at a time."""

    __slots__ = ("_parts", "_size_bytes")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size_bytes = 0

    def __repr__(self) -> str:
        return f"<DisplayAssembly, {self._size_bytes} bytes>"

    def add(self, piece: Display) -> Whole | None:
        """The display that this piece completes. One whose beginning is missing is dropped."""
        if piece.offset == 0:
            self._parts, self._size_bytes = [], 0
        elif piece.offset != self._size_bytes or piece.offset > CONTENT_LIMIT_BYTES:
            return None
        self._parts.append(piece.content)
        self._size_bytes += len(piece.content)
        if not piece.is_last:
            return None
        parts, self._parts, self._size_bytes = self._parts, [], 0
        return Whole(piece.kind, b"".join(parts), piece.engine)
