"""Moving arrays: what is timed stands here, once for all; how a system moves is a `Moves` in its file.

Every call moves new content, edited in place since the call before, so that a system that recognises what it
has sent already gains nothing by it. Neither the edit nor the release of what was received is timed.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.harness import Sample, System

KIB = 1 << 10
MIB = 1 << 20
CURVE_SIZES = tuple(KIB * 4**step for step in range(11))
"""1 KiB to 1 GiB."""

FIGURE_SIZE = MIB
"""Where a curve's own figure is taken: the same size for all systems."""

LONGEST_CALL_S = 20.0
"""A curve ends before a size whose calls would take longer than this, judged by the size before."""

Array = Any
"""A one-dimensional NumPy array of bytes."""


class Moves:
    """How a system moves arrays, in its best idiom; a method that has returned has moved its array.

    `notes` say, by the names of the methods, where the work is not the same as everybody else's.
    """

    notes: ClassVar[Mapping[str, str]] = {}

    def push(self, array: Array) -> None:
        """Give all engines the array to keep, in place of the one before."""
        raise NotImplementedError

    def hold(self, size_bytes: int) -> None:
        """Let one engine have an array of its own, with new content; not timed."""
        raise NotImplementedError

    def pull(self) -> Array:
        """Fetch what `hold` made."""
        raise NotImplementedError

    def call(self, array: Array) -> None:
        """Call a no-op with the array on one engine."""
        raise NotImplementedError

    def fetch(self, size_bytes: int) -> Array:
        """Call a function on one engine that returns an array with new content."""
        raise NotImplementedError

    def scatter_gather(self, array: Array) -> Array:
        """Give each engine its part, fetch the parts, join them."""
        raise NotImplementedError

    def tidy(self) -> None:
        """Drop what the system keeps of past calls; not timed."""


@dataclass(frozen=True)
class Transfer:
    """A move of one size, and what comes before it untimed."""

    size_bytes: int
    before: Callable[[], object]
    move: Callable[[], Array | None]


def pushing(moves: Moves, size_bytes: int) -> Transfer:
    array = new_array(size_bytes)
    return Transfer(size_bytes, lambda: edit(array), lambda: moves.push(array))


def pulling(moves: Moves, size_bytes: int) -> Transfer:
    return Transfer(size_bytes, lambda: moves.hold(size_bytes), moves.pull)


def calling(moves: Moves, size_bytes: int) -> Transfer:
    array = new_array(size_bytes)
    return Transfer(size_bytes, lambda: edit(array), lambda: moves.call(array))


def fetching(moves: Moves, size_bytes: int) -> Transfer:
    return Transfer(size_bytes, lambda: None, lambda: moves.fetch(size_bytes))


def scattering(moves: Moves, size_bytes: int) -> Transfer:
    array = new_array(size_bytes)
    array[size_bytes // 2] += 1  # parts that differ, so that parts joined in a wrong order are found
    if bytes(moves.scatter_gather(array).data) != bytes(array.data):
        raise ValueError("what was gathered is not what was scattered")
    return Transfer(size_bytes, lambda: edit(array), lambda: moves.scatter_gather(array))


def new_array(size_bytes: int) -> Array:
    import numpy

    return numpy.ones(size_bytes, dtype=numpy.uint8)


def edit(array: Array) -> None:
    """Change a byte in each page of memory."""
    array[::4096] += 1


# ---------------------------------------------------------------- measuring


def time_transfer(transfer: Transfer, tidy: Callable[[], object]) -> float:
    """The median duration of the calls that fit into a second; 300 at most, three at least within 10 s."""
    _warm_up(transfer, tidy)
    durations: list[float] = []
    while len(durations) < 300 and (sum(durations) < 1 or (len(durations) < 3 and sum(durations) < 10)):
        durations.append(_time_one(transfer, tidy))
    return statistics.median(durations)


def _warm_up(transfer: Transfer, tidy: Callable[[], object]) -> None:
    took_s = 0.0
    for _ in range(3):
        if took_s < 1:
            took_s += _time_one(transfer, tidy)


def _time_one(transfer: Transfer, tidy: Callable[[], object]) -> float:
    transfer.before()
    began = time.perf_counter()
    received = transfer.move()
    took_s = time.perf_counter() - began
    if received is not None and received.nbytes != transfer.size_bytes:
        raise ValueError(f"received {received.nbytes:,} bytes, not {transfer.size_bytes:,}")
    del received
    tidy()
    return took_s


Start = Callable[[Moves, int], Transfer]


@dataclass(frozen=True)
class Measure:
    """A workload: the transfer, the method that it is noted under, and how the figure is made."""

    start: Start
    method: str
    figure: Callable[[Moves, Start], Sample]


def duration(size_bytes: int) -> Callable[[Moves, Start], Sample]:
    return lambda moves, start: Sample(time_transfer(start(moves, size_bytes), moves.tidy))


def bandwidth(size_bytes: int, *, times: int = 1) -> Callable[[Moves, Start], Sample]:
    """GB/s; `times` counts how often each byte is moved by one transfer."""

    def figure(moves: Moves, start: Start) -> Sample:
        took_s = time_transfer(start(moves, size_bytes), moves.tidy)
        return Sample(times * size_bytes / took_s / 1e9)

    return figure


def curve(moves: Moves, start: Start) -> Sample:
    """Bandwidth at each size. Beyond the size of the figure it ends where calls fail or take too long."""
    found: dict[int, float] = {}
    note = ""
    for size_bytes in CURVE_SIZES:
        try:
            took_s = time_transfer(start(moves, size_bytes), moves.tidy)
        except Exception as error:
            if size_bytes <= FIGURE_SIZE:
                raise
            print(f"a curve ends at {size_bytes:,} bytes: {error!r}", file=sys.stderr)
            note = f"failed at {show_size(size_bytes)}"
            break
        found[size_bytes] = size_bytes / took_s / 1e9
        if FIGURE_SIZE <= size_bytes < CURVE_SIZES[-1] and took_s * 4 > LONGEST_CALL_S:
            note = f"too slow beyond {show_size(size_bytes)}"
            break
    return Sample(found[FIGURE_SIZE], note, found)


def show_size(size_bytes: int) -> str:
    """A size in binary units.

    >>> show_size(1024), show_size(4 << 20), show_size(1 << 30)
    ('1 KiB', '4 MiB', '1 GiB')
    """
    for unit, name in ((1 << 30, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:g} {name}"
    return f"{size_bytes} B"


MEASURES = {
    "small_argument": Measure(calling, "call", duration(64 * KIB)),
    "argument_16": Measure(calling, "call", duration(16 * MIB)),
    "result_16": Measure(fetching, "fetch", duration(16 * MIB)),
    "push_128": Measure(pushing, "push", bandwidth(128 * MIB)),
    "pull_128": Measure(pulling, "pull", bandwidth(128 * MIB)),
    "scatter_gather_256": Measure(scattering, "scatter_gather", bandwidth(256 * MIB, times=2)),
    "curve_push": Measure(pushing, "push", curve),
    "curve_pull": Measure(pulling, "pull", curve),
    "curve_argument": Measure(calling, "call", curve),
}


def register_moves(system: System, moves: Callable[[Any], Moves], only: Iterable[str] = MEASURES) -> None:
    """Let a system take part in the workloads on data; `moves` is given the open session."""

    def register(name: str) -> None:
        @system.measures(name)
        def measure(session: Any) -> Sample:
            return take(moves(session), MEASURES[name])

    for name in only:
        register(name)


def take(moves: Moves, measure: Measure) -> Sample:
    """One workload's sample, with the system's own note before what was found on the way."""
    sample = measure.figure(moves, measure.start)
    notes = filter(None, [moves.notes.get(measure.method, ""), sample.note])
    return Sample(sample.value, "; ".join(notes), sample.curve)
