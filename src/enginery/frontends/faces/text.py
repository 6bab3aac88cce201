"""Cards as text, for terminals and wherever HTML is not shown; and the lines of a terminal's progress bar."""

from __future__ import annotations

from enginery.client.snapshots import Standing, TaskLine
from enginery.frontends.faces.cards import Card
from enginery.frontends.faces.words import clock, counted, one_line, report, troubles

CELLS_SHOWN = 16


def card_text(card: Card) -> str:
    """All of a card: what can be said in a line, and lines for what cannot.

    >>> print(card_text(Card("AsyncResult f", "AsyncResult: f", "running", facts=("1 of 2 tasks", "3.0 s"))))
    <AsyncResult: f: running, 1 of 2 tasks, 3.0 s>
    """
    said = ", ".join(filter(None, [card.state, *card.facts]))
    lines = [f"<{card.head}: {said}>" if said else f"<{card.head}>"]
    lines += [line_text(line) for line in card.lines]
    if card.more_lines:
        lines.append(f"and {counted(card.more_lines, 'more tasks')}")
    lines += [cell.text for cell in card.cells[:CELLS_SHOWN]]
    more_cells = card.more_cells + len(card.cells[CELLS_SHOWN:])
    if more_cells:
        lines.append(f"and {counted(more_cells, 'more engines')}")
    lines += card.notes
    return "\n  ".join(lines)


def line_text(line: TaskLine) -> str:
    """One task's own line.

    >>> line_text(TaskLine("item 3, engine 0", 0.3, "epoch 3"))
    'item 3, engine 0: 30 % epoch 3'
    """
    return ": ".join(filter(None, [one_line(line.where), report(line)]))


def bar_tail(standing: Standing) -> str:
    """What stands behind the bar in a terminal.

    >>> bar_tail(Standing(37, 100, failed=2, unit="items", elapsed_s=12.0))
    '37/100 items [0:12<0:20, 2 failed]'
    """
    total = "" if standing.total is None else f"/{standing.total:,}"
    left = "" if standing.left_s is None else f"<{clock(standing.left_s)}"
    times = ", ".join([f"{clock(standing.elapsed_s)}{left}", *troubles(standing)])
    return f"{standing.done:,}{total} {standing.unit} [{times}]"
