"""What a map's sequences repeat, pickled once and sent once: ``view.map(f, items, [table] * len(items))``.

A big object that stands in a sequence more than once is put into a `PrePickled`, whose buffers every process
is given once, however many tasks name them. Which ones are repeated is seen in sequences at once. Of an
iterator it is the first item that counts: ``itertools.repeat`` and generators that yield one object again and
again come out right.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

from enginery.client.sources import Columns
from enginery.objects.packing import SMALL_BUFFER_BYTES
from enginery.objects.prepickled import PrePickled
from enginery.objects.reference import Reference

LOOKED_AT = 16
"""Objects of one sequence, the most frequent ones: packing tells whether one is big."""
_NEVER_BIG = (int, float, complex, bool, type(None), PrePickled, Reference)


def with_constants(columns: Columns) -> Columns:
    """The sequences, with what they repeat packed."""
    return tuple(map(_with_constants, columns))


def _with_constants(column: Sequence[Any]) -> Sequence[Any]:
    if not isinstance(column, (list, tuple)) or len(column) < 2 or isinstance(column[0], _NEVER_BIG):
        return column
    counts = Counter(map(id, column))
    if len(counts) == len(column):
        return column
    objects = {id(item): item for item in column}
    packed = {
        number: pack_if_big(objects[number]) for number, count in counts.most_common(LOOKED_AT) if count > 1
    }
    if all(packed[number] is objects[number] for number in packed):
        return column
    return [packed.get(id(item), item) for item in column]


def pack_if_big(value: Any) -> Any:
    """The value, packed if that is worth it; whoever cannot be packed is left to whoever sends it."""
    if isinstance(value, _NEVER_BIG) or (type(value) is str and len(value) <= SMALL_BUFFER_BYTES // 4):
        return value
    try:
        packed = PrePickled(value)
    except Exception:  # noqa: BLE001 - whatever pickling raises is raised again, with the item's name
        return value
    return packed if packed.size_bytes > SMALL_BUFFER_BYTES else value


class ConstantsOfIterators:
    """The same for rows that come one by one or in chunks. Safe to use from several threads."""

    def __init__(self, columns: int) -> None:
        self._lock = threading.Lock()
        self._firsts: list[tuple[Any, Any] | None] = [None] * columns  # as it came, as it is sent

    def in_chunk(self, columns: Columns) -> Columns:
        """Columns of the next chunk, one row at least, with what repeats the first row packed."""
        return tuple(self._in_column(number, column) for number, column in enumerate(columns))

    def in_row(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(column[0] for column in self.in_chunk(tuple((item,) for item in row)))

    def _in_column(self, number: int, column: Sequence[Any]) -> Sequence[Any]:
        with self._lock:
            first = self._firsts[number]
            if first is None:
                is_other = len(column) > 1 and column[1] is not column[0]
                first = self._firsts[number] = column[0], column[0] if is_other else pack_if_big(column[0])
        item, packed = first
        if packed is item:
            return column
        return [packed if each is item else each for each in column]
