"""Numbers and names as people read them; texts of others made harmless."""

from __future__ import annotations

from collections.abc import Iterable

from enginery.client.snapshots import Standing, TaskLine
from enginery.errors import spans

TEXT_SHOWN = 200
NAME_SHOWN = 80


def counted(number: int, what: str) -> str:
    """A number of things, whose name is given in the plural.

    >>> counted(1, "engines"), counted(12000, "items")
    ('1 engine', '12,000 items')
    """
    return f"{number:,} {what.removesuffix('s') if number == 1 else what}"


def duration(seconds: float) -> str:
    """A time span, as exact as anybody wants to know.

    >>> duration(0.234), duration(12.3), duration(125), duration(7_300), duration(200_000)
    ('0.2 s', '12 s', '2 min 5 s', '2 h 1 min', '2 d 7 h')
    """
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    for size, unit, smaller, part in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{whole} s"


def clock(seconds: float) -> str:
    """A time span of a bar that moves.

    >>> clock(12.3), clock(125), clock(7_300)
    ('0:12', '2:05', '2:01:40')
    """
    minutes, rest = divmod(int(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def percent(fraction: float) -> str:
    """A share of the whole, which is complete only when it is.

    >>> percent(0.3), percent(0.999), percent(1)
    ('30 %', '99 %', '100 %')
    """
    return f"{int(fraction * 100 + 1e-9)} %"


def one_line(text: str, limit: int = TEXT_SHOWN) -> str:
    r"""A text that comes from somewhere, on one line and within a limit; it moves no cursor.

    >>> one_line("two\nlines \x1b[31m"), one_line("long text", 6)
    ('two lines [31m', 'long …')
    """
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text[: 4 * limit]).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def engines(numbers: Iterable[int]) -> str:
    """Engines by their ids: ``engine 3``, ``engines 0-2, 5``."""
    found = sorted(set(numbers))
    return f"{'engine' if len(found) == 1 else 'engines'} {spans(found)}"


def amount(standing: Standing) -> str:
    """How much is done: ``37/100 items``."""
    if standing.total is None:
        return f"{standing.done:,} {standing.unit}"
    return f"{standing.done:,}/{counted(standing.total, standing.unit)}"


def troubles(standing: Standing) -> list[str]:
    """What went otherwise than it was wanted."""
    found = [(standing.failed, "failed"), (standing.cancelled, "cancelled")]
    return [f"{number:,} {what}" for number, what in found if number]


def report(line: TaskLine) -> str:
    """What a task says of itself: ``30 % epoch 3``."""
    share = "" if line.fraction is None else percent(line.fraction)
    return " ".join(filter(None, [share, one_line(line.text)]))
