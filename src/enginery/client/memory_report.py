"""`rc.memory()`: who holds how much of what."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from enginery.client.asking import Asker
from enginery.client.contract import TaskSession
from enginery.client.text_table import text_table
from enginery.ids import EngineId
from enginery.protocol.messages import AskMemory, MemoryAnswer, MemoryUse

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

ANSWER_S = 15.0
"""Longer than the controller waits for its engines' word."""
_COLUMNS = ("named", "blobs", "results", "lent", "idle", "resident", "proportional")
_UNITS = ("B", "KB", "MB", "GB", "TB")
_STEP = 1000


class LargeObject(NamedTuple):
    """An object that an engine's namespace has a name for."""

    name: str
    type: str
    size_bytes: int


class ProcessMemory:
    """What one process holds, in bytes.

    `named`: objects of the engine's namespace, the largest of them in `objects`. `blobs`: arguments,
    functions and constants, kept or on their way. `results`: the same of what tasks returned. `lent`: shared
    memory that this process has written and others may read. `idle`: shared memory that it keeps to use
    again. `resident` and `proportional`: the whole process as the system counts it, all that is not listed
    included; in `proportional` (PSS) each page that several processes share is divided among them, and it is
    0 where the system does not tell.
    """

    def __init__(self, process: str, host: str, pid: int, use: MemoryUse) -> None:
        self.process = process
        """``"controller"``, ``"engine 3"`` or ``"client"``."""
        self.host = host
        self.pid = pid
        self.named = use.named
        self.blobs = use.blobs
        self.results = use.results
        self.lent = use.lent
        self.idle = use.idle
        self.resident = use.resident
        self.proportional = use.proportional
        self.objects = [LargeObject(each.name, each.kind, each.size_bytes) for each in use.objects]

    def __repr__(self) -> str:
        return f"<ProcessMemory of {self.process}: {show_bytes(self.resident)}>"

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        values: dict[str, Any] = {"process": self.process, "host": self.host, "pid": self.pid}
        values.update((column, getattr(self, column)) for column in _COLUMNS)
        values["objects"] = [each._asdict() for each in self.objects]
        return values


class MemoryReport:
    """What the processes of a cluster held when they were asked; sequence of `ProcessMemory`.

    `str` gives a table; notebooks and rich show a nicer one. `silent` has the engines that did not answer.
    """

    def __init__(self, processes: list[ProcessMemory], silent: list[int]) -> None:
        self.processes = processes
        self.silent = silent

    def __iter__(self) -> Iterator[ProcessMemory]:
        return iter(self.processes)

    def __len__(self) -> int:
        return len(self.processes)

    def __getitem__(self, process: str) -> ProcessMemory:
        """That of ``"controller"``, ``"client"`` or ``"engine 3"``; raises KeyError for any other."""
        for each in self.processes:
            if each.process == process:
                return each
        raise KeyError(f"there is no {process!r} here; there are {[each.process for each in self.processes]}")

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {"processes": [each.to_dict() for each in self.processes], "silent": list(self.silent)}

    def __str__(self) -> str:
        lines = text_table([("process", *_COLUMNS), *map(_row, self.processes)])
        return "\n".join([*lines, *self._notes()])

    __repr__ = __str__

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.table import Table

        table = Table("process", title="memory")
        for column in _COLUMNS:
            table.add_column(column, justify="right")
        for each in self.processes:
            table.add_row(*_row(each))
        yield table
        yield from self._notes()

    def _notes(self) -> list[str]:
        notes = []
        for each in self.processes:
            if each.objects:
                named = (f"{one.name} ({one.type}, {show_bytes(one.size_bytes)})" for one in each.objects)
                notes.append(f"{each.process}: {', '.join(named)}")
        if self.silent:
            notes.append(f"no answer from engine {', '.join(map(str, self.silent))}")
        return notes


def ask_memory(
    session: TaskSession, asker: Asker, engines: Sequence[EngineId], *, free: bool = False
) -> MemoryReport:
    """Ask the controller, these engines and this process; none named = all engines.

    With `free`, all of them first let go of what they can do without.
    """
    wanted = list(engines)
    answer = asker.ask(lambda number: AskMemory(number, wanted, free), MemoryAnswer, timeout_s=ANSWER_S)
    processes = []
    if answer.controller is not None:
        processes.append(ProcessMemory("controller", "", 0, answer.controller))
    known = session.engines()
    for each in answer.engines:
        info = known.get(each.engine)
        where = ("", 0) if info is None else (info.host, info.pid)
        processes.append(ProcessMemory(f"engine {each.engine}", *where, each.use))
    own = session.memory_use(free=free)
    processes.append(ProcessMemory("client", platform.node(), os.getpid(), own))
    return MemoryReport(processes, list(map(int, answer.silent)))


def _row(each: ProcessMemory) -> tuple[str, ...]:
    return (each.process, *(show_bytes(getattr(each, column)) for column in _COLUMNS))


def show_bytes(size_bytes: int) -> str:
    """Three digits or so.

    >>> show_bytes(0), show_bytes(999), show_bytes(1500), show_bytes(128 << 20)
    ('0 B', '999 B', '1.5 KB', '134 MB')
    """
    size = float(size_bytes)
    unit = 0
    while size >= _STEP - 0.5 and unit < len(_UNITS) - 1:
        size /= _STEP
        unit += 1
    return f"{size:.1f} {_UNITS[unit]}" if unit and size < 10 else f"{size:.0f} {_UNITS[unit]}"
