"""What is worth showing of a snapshot, in the order in which people want to know it."""

from __future__ import annotations

from collections import Counter
from typing import Literal, NamedTuple

from enginery.client.snapshots import (
    ClusterSnapshot,
    EngineSnapshot,
    ResultSnapshot,
    Snapshot,
    Standing,
    TaskCounts,
    TaskLine,
)
from enginery.frontends.faces.words import NAME_SHOWN, amount, counted, duration, engines, one_line, troubles

Tone = Literal["good", "busy", "bad", "idle"]
"""Of a state, at a glance."""

ENGINES_SHOWN = 128
_TONES: dict[str, Tone] = {
    "running": "busy",
    "waiting": "idle",
    "done": "good",
    "failed": "bad",
    "cancelled": "bad",
}
_ENGINE_TONES: dict[str, Tone] = {"idle": "good", "busy": "busy", "disconnected": "bad"}


class Bar(NamedTuple):
    """Shares of a whole, each from 0 to 1."""

    good: float = 0.0
    bad: float = 0.0
    ahead: float = 0.0


class Cell(NamedTuple):
    """One engine."""

    tone: Tone
    text: str


class Card(NamedTuple):
    """What is shown of one thing."""

    title: str
    head: str
    """The same in a line of text."""
    state: str = ""
    tone: Tone = "idle"
    facts: tuple[str, ...] = ()
    bar: Bar | None = None
    lines: tuple[TaskLine, ...] = ()
    more_lines: int = 0
    cells: tuple[Cell, ...] = ()
    more_cells: int = 0
    notes: tuple[str, ...] = ()
    """Sentences."""


def card_of(snapshot: Snapshot) -> Card:
    """What is shown of this."""
    if isinstance(snapshot, Standing):
        return _of_standing(snapshot)
    if isinstance(snapshot, ResultSnapshot):
        return _of_result(snapshot)
    return _of_cluster(snapshot)


# ---------------------------------------------------------------- progress


def _of_standing(standing: Standing) -> Card:
    tone: Tone = "bad" if standing.failed else "good" if standing.is_over else "busy"
    name = one_line(standing.name, NAME_SHOWN) or standing.unit
    return Card(
        name,
        name,
        "" if standing.is_over else "running",
        tone,
        (amount(standing), *troubles(standing), *_times(standing)),
        _bar(standing),
        standing.lines,
        standing.more_lines,
    )


def _times(standing: Standing) -> list[str]:
    left = standing.left_s
    times = [duration(standing.elapsed_s)]
    if left is not None:
        times.append(f"about {duration(left)} left")
    return times


def _bar(standing: Standing) -> Bar | None:
    if not standing.total:
        return None
    bad = min((standing.failed + standing.cancelled) / standing.total, 1.0)
    done = min(standing.done / standing.total, 1.0)
    ahead = min(standing.ahead / standing.total, 1.0 - done)
    return Bar(max(done - bad, 0.0), bad, ahead)


# ---------------------------------------------------------------- results


def _of_result(result: ResultSnapshot) -> Card:
    standing = result.standing
    is_over = result.state not in ("running", "waiting")
    where = f"on {engines(result.engines)}" if result.engines else ""
    facts = [amount(standing), *troubles(standing)]
    if is_over:
        facts += [where, f"in {duration(standing.elapsed_s)}"]
        if result.serial_s > 1.1 * standing.elapsed_s > 0.01:
            facts.append(f"{duration(result.serial_s)} of work")
    else:
        facts += [_under_way(result, where), *_times(standing)]
    if result.label:
        facts.append(f"label {one_line(result.label, NAME_SHOWN)!r}")
    notes = []
    if result.error:
        notes.append(f"first error: {one_line(result.error)}")
    if result.end and not is_over:
        notes.append(f"nothing more will be heard of it here: {one_line(result.end)}")
    names = [result.kind, *filter(None, [one_line(standing.name, NAME_SHOWN)])]
    return Card(
        " ".join(names),
        ": ".join(names),
        result.state,
        _TONES[result.state],
        tuple(filter(None, facts)),
        None if is_over and result.state == "done" else _bar(standing),
        standing.lines,
        standing.more_lines,
        notes=tuple(notes),
    )


def _under_way(result: ResultSnapshot, where: str) -> str:
    if result.running is None:
        return ""
    if not result.running:
        return "none running yet" if not result.standing.done else "none running now"
    return f"{result.running:,} running {where}".rstrip()


# ---------------------------------------------------------------- clusters, clients, views


def _of_cluster(cluster: ClusterSnapshot) -> Card:
    facts = []
    counts = cluster.counts
    is_there = not cluster.state
    states = Counter(engine.state for engine in cluster.engines)
    running = states["busy"]
    if is_there:
        facts.append(counted(len(cluster.engines), "engines"))
    if counts is not None:
        facts += [f"{number:,} {what}" for number, what in _numbers(running, counts) if number]
    if cluster.outstanding:
        facts.append(f"{cluster.outstanding:,} of this client unfinished")
    if cluster.clients is not None:
        facts.append(counted(cluster.clients, "clients"))
    if cluster.uptime_s is not None:
        facts.append(f"up {duration(cluster.uptime_s)}")
    facts += [f"{name}={one_line(value, NAME_SHOWN)}" for name, value in cluster.flags]
    shown = cluster.engines[:ENGINES_SHOWN]
    name = f"{cluster.kind} {one_line(cluster.name, NAME_SHOWN)}".rstrip()
    return Card(
        name,
        name,
        cluster.state or _word_of(cluster, running),
        _tone_of(cluster, running),
        tuple(facts),
        cells=tuple(map(_cell, shown)) if is_there else (),
        more_cells=len(cluster.engines) - len(shown) if is_there else 0,
        notes=(one_line(cluster.note),) if cluster.note else (),
    )


def _numbers(running: int, counts: TaskCounts) -> list[tuple[int, str]]:
    return [
        (running, "running"),
        (counts.queued, "queued"),
        (counts.done, "done"),
        (counts.failed, "failed"),
        (counts.cancelled, "cancelled"),
    ]


def _word_of(cluster: ClusterSnapshot, running: int) -> str:
    if cluster.counts is None:
        return ""
    return "running" if running or cluster.counts.queued else "idle"


def _tone_of(cluster: ClusterSnapshot, running: int) -> Tone:
    if cluster.state:
        return "idle"
    if any(engine.state == "disconnected" for engine in cluster.engines):
        return "bad"
    if running:
        return "busy"
    return "good" if cluster.engines else "idle"


def _cell(engine: EngineSnapshot) -> Cell:
    facts = [f"engine {engine.engine}"]
    if engine.host:
        facts[0] += f" on {one_line(engine.host, NAME_SHOWN)}"
    facts += [engine.state] if engine.state else []
    if engine.queued:
        facts.append(f"{engine.queued:,} queued")
    if engine.completed:
        facts.append(f"{engine.completed:,} done")
    return Cell(_ENGINE_TONES.get(engine.state, "idle"), ", ".join(facts))
