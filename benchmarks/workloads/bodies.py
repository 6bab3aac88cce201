"""What the tasks do. In a module that every process can import, so that all systems send it by name."""

from __future__ import annotations

TASKS = 5_000
ITEMS = 100_000
CHUNK = 100


def no_op(*_: object) -> None:
    """Nothing: what remains is the system's own cost."""
