"""What came of a task, and for one that failed what others than its client want to know of the failure.

The failure itself is a payload that the controller never reads. Its line is for the history, its types decide
whether the task is tried again (`retry_on`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from enginery.errors import ImpossibleDependency, RemoteError, UnmetDependency
from enginery.objects.packing import Packed
from enginery.protocol.messages import Status, clean_text

LINE_LIMIT = 1000
TYPE_LIMIT = 500
"""Characters of a class's full name."""
TYPES_LIMIT = 64


class Outcome(NamedTuple):
    """What came of a task."""

    status: Status
    packed: Packed
    error: str = ""
    error_types: tuple[str, ...] = ()


class RowFailures:
    """The rows of a map that failed. For the whole, any type of any of them counts; the first one's line.

    Rows that were cancelled have not failed: if there are only such ones, the whole was cancelled.
    """

    def __init__(self) -> None:
        self._rows: dict[int, tuple[Any, ...]] = {}
        self._lines: dict[int, str] = {}
        self._types: dict[str, None] = {}
        self.failed = self.cancelled = 0
        """Rows; other threads may look."""

    def __bool__(self) -> bool:
        return bool(self._rows)

    def add(self, row: int, error: BaseException, failure: Packed, *, behind: int = 0) -> None:
        """A row has failed, and so many behind it with it."""
        self._lines[row] = error_line(error)
        self._types.update(dict.fromkeys(error_types(error)))
        self._put(row, failure, behind)
        self.failed += 1 + behind

    def add_cancelled(self, row: int, failure: Packed, *, behind: int = 0) -> None:
        self._put(row, failure, behind)
        self.cancelled += 1 + behind

    def _put(self, row: int, failure: Packed, behind: int) -> None:
        place = row if not behind else (row, row + 1 + behind)
        self._rows[row] = (place, failure.inline, *map(bytes, failure.buffers))

    def rows(self) -> list[tuple[Any, ...]]:
        """In order, each as (row, inline, *buffers); where several share an error, (first, stop) for row."""
        return [self._rows[row] for row in sorted(self._rows)]

    def outcome(self, packed: Packed) -> Outcome:
        """That of the whole map, whose payload has values and failures."""
        if self._lines:
            line = self._lines[min(self._lines)]
            return Outcome(Status.ERROR, packed, line, tuple(self._types)[:TYPES_LIMIT])
        return Outcome(Status.CANCELLED if self.cancelled else Status.OK, packed)


def failed(error: BaseException, packed: Packed, status: Status = Status.ERROR) -> Outcome:
    """A task that this exception ended; `status` if it does not refuse the engine."""
    if is_refusal(error):
        status = Status.UNMET
    return Outcome(status, packed, error_line(error), error_types(error))


def is_refusal(error: BaseException) -> bool:
    """Whether a task says with this exception that it cannot run here, and perhaps elsewhere.

    An impossible dependency is another task's verdict, which this one has asked for.
    """
    return isinstance(error, UnmetDependency) and not isinstance(error, ImpossibleDependency)


def error_line(error: BaseException) -> str:
    """Class and message in one line."""
    try:
        if isinstance(error, RemoteError) and error.ename:  # its text has the whole traceback
            name, text = error.ename, error.evalue
        else:
            name, text = type(error).__name__, str(error)
        line = f"{name}: {text[: 4 * LINE_LIMIT]}" if text else name
        return clean_text(" ".join(line.split()))[:LINE_LIMIT]
    except Exception as reason:  # noqa: BLE001 - a broken `__str__` must not hide that the task failed
        return clean_text(f"{type(error).__name__} (no text: {type(reason).__name__})")[:LINE_LIMIT]


def error_types(error: BaseException) -> tuple[str, ...]:
    """The full names of its class and of the bases of that, as a client names what to retry on."""
    bases = type(error).__mro__[:-1]
    return tuple(_full_name(base) for base in bases[:TYPES_LIMIT])


def _full_name(cls: type) -> str:
    try:
        return clean_text(f"{cls.__module__}.{cls.__qualname__}")[:TYPE_LIMIT]
    except Exception:  # noqa: BLE001 - a metaclass may make anything of these attributes
        return "(no name)"
