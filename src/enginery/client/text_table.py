"""A table in plain text: for terminals, logs and notebooks alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def text_table(rows: Iterable[Sequence[str]], *, left: int = 1) -> list[str]:
    """The lines of a table whose first row has the headings; the first `left` columns are words.

    >>> print("\\n".join(text_table([("name", "count"), ("a", "12"), ("bcdef", "3")])))
    name   count
    a         12
    bcdef      3
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(_aligned(row, widths, left)).rstrip() for row in cells]


def _aligned(row: Sequence[str], widths: Sequence[int], left: int) -> Iterable[str]:
    for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.ljust(width) if place < left else cell.rjust(width)


def printable(text: str) -> str:
    """Without what would move the cursor or forge a line: names of hosts come from other machines."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
