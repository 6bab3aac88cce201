"""What the commands print: tables for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from enginery.ids import format_task_id

if TYPE_CHECKING:
    from enginery.protocol.messages import StatusAnswer

Row = Mapping[str, Any]


def print_json(value: Any) -> None:
    import json

    click.echo(json.dumps(value, indent=2))


def print_table(rows: Sequence[Row], columns: Mapping[str, str]) -> None:
    """Print rows under headings: `columns` maps a key of each row to its heading."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in columns.values():
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(*(Text(_cell(row[key])) for key in columns))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 10_000  # whoever reads a pipe wants whole words
    console.print(table)


def status_as_dict(status: StatusAnswer) -> dict[str, Any]:
    """What a cluster says of itself, under stable names. The client that has asked is not counted."""
    tasks = ("ready", "sent", "running", "done", "failed", "cancelled")
    return {
        "name": status.cluster,
        "uptime_s": round(status.uptime_s, 3),
        "clients": status.clients - 1,
        "tasks": {state: getattr(status, state) for state in tasks},
        "engines": [
            {
                "id": engine.engine,
                "state": engine.state,
                "host": engine.host,
                "pid": engine.pid,
                "queue": engine.direct_queue,
                "in_flight": engine.in_flight,
                "running": format_task_id(engine.running) if engine.running else None,
                "completed": engine.completed,
            }
            for engine in status.engines
        ],
    }


def print_status(status: Mapping[str, Any]) -> None:
    engines = status["engines"]
    click.echo(
        f"cluster {status['name']!r}: {count(len(engines), 'engine')}, {count(status['clients'], 'client')}, "
        f"up {duration(status['uptime_s'])}"
    )
    tasks = ", ".join(f"{number} {state}" for state, number in status["tasks"].items())
    click.echo(f"tasks: {tasks}")
    if engines:
        keys = ("id", "state", "host", "pid", "queue", "in_flight", "running", "completed")
        print_table(engines, {key: key.replace("_", " ") for key in keys})


def count(number: int, noun: str) -> str:
    """
    >>> count(1, "engine"), count(4, "engine")
    ('1 engine', '4 engines')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Put a time span for people.

    >>> duration(7.9), duration(3700), duration(200_000)
    ('7 s', '1 h 01 min', '2 d 7 h')
    """
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)
