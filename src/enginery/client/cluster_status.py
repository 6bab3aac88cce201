"""`rc.status()`: a cluster at a glance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any

from enginery.client.asking import Asker
from enginery.client.memory_report import show_bytes
from enginery.client.text_table import printable, text_table
from enginery.ids import NO_ENGINE, format_task_id
from enginery.protocol.messages import (
    AskStatus,
    DeathNote,
    EngineStatus,
    FailureNote,
    HostStatus,
    StatusAnswer,
)

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

_HEADINGS = ("engine", "state", "host", "runs", "for", "queue", "in flight", "done", "memory", "cpu")
_WORDS = 4
"""The first columns, which are no numbers."""


class ClusterStatus:
    """What a cluster is doing. `str` gives a table; notebooks and rich show a nicer one.

    >>> print(rc.status())                                              # doctest: +SKIP
    cluster 'default': 2 engines (1 busy, 1 idle), 1 client, up 3 min 02 s
    tasks: 1 running, 940 done
    """

    def __init__(self, answer: StatusAnswer) -> None:
        self.name = answer.cluster
        self.uptime_s = answer.uptime_s
        self.clients = answer.clients
        """Connected ones, whoever asked included."""
        self.tasks = {state: getattr(answer.tasks, state) for state in answer.tasks.__struct_fields__}
        """Numbers of tasks: submitted since the controller began, and of these by state."""
        self.engines: list[EngineStatus] = answer.engines
        self.hosts: list[HostStatus] = answer.hosts
        self.failures: list[FailureNote] = answer.failures
        """The tasks that failed last, the newest at the end."""
        self.deaths: list[DeathNote] = answer.deaths
        """The engines that died last, and of what; the newest at the end."""

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values; times in seconds, memory in bytes, None for what is not known."""
        return {
            "name": self.name,
            "uptime_s": round(self.uptime_s, 3),
            "clients": self.clients,
            "tasks": dict(self.tasks),
            "engines": [_engine_dict(engine) for engine in self.engines],
            "hosts": [_host_dict(host) for host in self.hosts],
            "failures": [_failure_dict(note) for note in self.failures],
            "deaths": [_death_dict(note) for note in self.deaths],
        }

    def __str__(self) -> str:
        lines = [self._headline(), self._tasks_line()]
        if self.engines:
            lines += ["", *text_table([_HEADINGS, *map(_row, self.engines)], left=_WORDS)]
        lines += [_host_line(host) for host in self.hosts if host.cores]
        if self.failures:
            lines += ["", "failed last:", *(f"  {_failure_line(note)}" for note in self.failures[-5:])]
        if self.deaths:
            lines += ["", "died last:", *(f"  {_death_line(note)}" for note in self.deaths[-5:])]
        return "\n".join(lines)

    __repr__ = __str__

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.table import Table
        from rich.text import Text

        yield Text(self._headline(), style="bold")
        yield Text(self._tasks_line())
        if self.engines:
            table = Table(box=None, pad_edge=False, header_style="bold")
            for place, heading in enumerate(_HEADINGS):
                table.add_column(heading, justify="left" if place < _WORDS else "right", no_wrap=True)
            for engine in self.engines:
                table.add_row(*(Text(printable(cell)) for cell in _row(engine)))
            yield table
        for line in self._closing_lines():
            yield Text(line)

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(printable(cell))}</td>" for cell in _row(engine)) + "</tr>"
            for engine in self.engines
        )
        headings = "".join(f"<th>{heading}</th>" for heading in _HEADINGS)
        closing = "<br>".join(map(escape, self._closing_lines()))
        return (
            f"<div><b>{escape(self._headline())}</b><br>{escape(self._tasks_line())}"
            f"<table><thead><tr>{headings}</tr></thead><tbody>{rows}</tbody></table>{closing}</div>"
        )

    def _closing_lines(self) -> Iterator[str]:
        yield from (_host_line(host) for host in self.hosts if host.cores)
        yield from (f"failed: {_failure_line(note)}" for note in self.failures[-5:])
        yield from (f"died: {_death_line(note)}" for note in self.deaths[-5:])

    def _headline(self) -> str:
        states = Counter(engine.state for engine in self.engines)
        which = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
        engines = count(len(self.engines), "engine") + (f" ({which})" if which else "")
        return (
            f"cluster {self.name!r}: {engines}, {count(self.clients, 'client')}, up {duration(self.uptime_s)}"
        )

    def _tasks_line(self) -> str:
        found = [
            f"{number:,} {state}" for state, number in self.tasks.items() if number and state != "submitted"
        ]
        return f"tasks: {', '.join(found) or 'none yet'}"


def ask_cluster(asker: Asker) -> ClusterStatus:
    """Ask the controller, which asks the hosts. Raises ClusterNotResponding."""
    return ClusterStatus(asker.ask(lambda number: AskStatus(number, whole=True), StatusAnswer))


def _row(engine: EngineStatus) -> tuple[str, ...]:
    runs = "" if not engine.task else f"{engine.name or 'task'} ({format_task_id(engine.task)})"
    return (
        str(engine.engine),
        engine.state,
        engine.host,
        runs,
        f"{engine.running_s:.1f} s" if engine.task else "",
        f"{engine.queue:,}",
        f"{engine.in_flight:,}",
        f"{engine.completed:,}",
        "" if engine.resident < 0 else show_bytes(engine.resident),
        "" if engine.resident < 0 else f"{engine.cpu_s:.1f} s",
    )


def _host_line(host: HostStatus) -> str:
    return (
        f"host {printable(host.host)}: {count(host.engines, 'engine')}, {count(host.cores, 'core')}, "
        f"load {host.load:.1f}, {show_bytes(host.available)} free"
    )


def _failure_line(note: FailureNote) -> str:
    when = datetime.fromtimestamp(note.at, UTC).astimezone().strftime("%H:%M:%S")
    where = "" if note.engine == NO_ENGINE else f" on engine {note.engine}"
    name = f"{note.name} " if note.name else ""
    return printable(f"{when} {name}({format_task_id(note.task)}){where}: {note.error or note.status.name}")


def _death_line(note: DeathNote) -> str:
    when = datetime.fromtimestamp(note.at, UTC).astimezone().strftime("%H:%M:%S")
    which = "an engine that was not ready" if note.engine == NO_ENGINE else f"engine {note.engine}"
    where = f" on {note.host}" if note.host else ""
    lost = f", with task {', '.join(map(format_task_id, note.tasks))}" if note.tasks else ""
    return printable(f"{when} {which}{where}{lost}: {note.cause}")


def _engine_dict(engine: EngineStatus) -> dict[str, Any]:
    is_measured = engine.resident >= 0
    return {
        "id": int(engine.engine),
        "uuid": engine.key,
        "state": engine.state,
        "host": engine.host,
        "pid": engine.pid,
        "running": format_task_id(engine.task) if engine.task else None,
        "name": engine.name or None,
        "running_s": round(engine.running_s, 3) if engine.task else None,
        "queue": engine.queue,
        "in_flight": engine.in_flight,
        "completed": engine.completed,
        "memory": engine.resident if is_measured else None,
        "cpu_s": round(engine.cpu_s, 3) if is_measured else None,
    }


def _host_dict(host: HostStatus) -> dict[str, Any]:
    has_answered = bool(host.cores)
    return {
        "host": host.host,
        "pid": host.pid,
        "engines": host.engines,
        "cores": host.cores or None,
        "load": round(host.load, 2) if has_answered else None,
        "memory_available": host.available if has_answered else None,
    }


def _failure_dict(note: FailureNote) -> dict[str, Any]:
    return {
        "msg_id": format_task_id(note.task),
        "name": note.name,
        "label": note.label or None,
        "status": note.status.name.lower(),
        "engine": None if note.engine == NO_ENGINE else int(note.engine),
        "error": note.error,
        "at": note.at,
    }


def _death_dict(note: DeathNote) -> dict[str, Any]:
    return {
        "engine": None if note.engine == NO_ENGINE else int(note.engine),
        "host": note.host,
        "cause": note.cause,
        "msg_ids": list(map(format_task_id, note.tasks)),
        "at": note.at,
    }


def count(number: int, noun: str) -> str:
    """
    >>> count(1, "engine"), count(4000, "engine")
    ('1 engine', '4,000 engines')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


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
