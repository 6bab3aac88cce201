"""What the commands print: tables for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from enginery.client.text_table import printable

Row = Mapping[str, Any]


def print_rich(value: Any) -> None:
    """Print what rich knows how to show."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 10_000  # whoever reads a pipe wants whole words
    console.print(value)


def print_json(value: Any) -> None:
    import json

    click.echo(json.dumps(value, indent=2))


def print_table(rows: Sequence[Row], columns: Mapping[str, str]) -> None:
    """Print rows under headings: `columns` maps a key of each row to its heading."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in columns.values():
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(*(Text(printable(_cell(row[key]))) for key in columns))
    print_rich(table)


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)
