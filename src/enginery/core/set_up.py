"""Set-up that stays: calls that are made again on engines that come later, before anything else runs there.

A *step* is a call that its client wants kept. It is for all engines, or for the places of those that it was
addressed to. Of steps of one name and for the same engines the last one counts, and it takes the place at the
end: what it refers to may have come after the one before. A step that raises where it is first made is
forgotten: it would raise on every engine to come.

The steps of an engine are tasks of the cluster's own, see `THE_CLUSTER`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from enginery.ids import BlobId, ClientId, EngineId, TaskId, make_task_id
from enginery.protocol.messages import TaskOptions

THE_CLUSTER = ClientId(0)
"""Whose tasks those are that nobody has submitted."""
STEPS_KEPT = 500
BYTES_KEPT = 1 << 30


class Step(NamedTuple):
    """A call that is kept."""

    number: int
    options: TaskOptions
    payload: bytes
    blobs: tuple[BlobId, ...]
    engines: tuple[EngineId, ...]  # whose places it is for; empty = all engines
    since: float
    size_bytes: int

    @property
    def needed(self) -> tuple[BlobId, ...]:
        function = self.options.function
        return (function, *self.blobs) if function else self.blobs

    @property
    def place(self) -> tuple[str, tuple[EngineId, ...]]:
        return self.options.keep, self.engines


class SetUp:
    """All steps of a cluster, in order. Whoever adds one holds its blobs, until it is given back."""

    def __init__(self, *, first_task: int = 1) -> None:
        self._steps: dict[int, Step] = {}
        self._made_by: dict[TaskId, int] = {}  # tasks that make a step for the first time
        self._next = 1
        self._next_task = first_task
        self.size_bytes = 0

    def __repr__(self) -> str:
        return f"<SetUp of {len(self._steps)} steps, {self.size_bytes} bytes>"

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def steps(self) -> list[Step]:
        return list(self._steps.values())

    def has_room(self, size_bytes: int) -> bool:
        return len(self._steps) < STEPS_KEPT and self.size_bytes + size_bytes <= BYTES_KEPT

    def on_kept(
        self,
        options: TaskOptions,
        payload: bytes,
        blobs: tuple[BlobId, ...],
        engines: tuple[EngineId, ...],
        *,
        tasks: Iterable[TaskId],
        size_bytes: int,
        now: float,
    ) -> tuple[Step, list[Step]]:
        """Keep a call, which `tasks` make where engines are. Returns the step, and those that it replaces."""
        places = () if options.keep_for_all else engines
        step = Step(self._next, options, payload, blobs, places, now, size_bytes + len(payload))
        replaced = self.forget([other.number for other in self._steps.values() if other.place == step.place])
        self._next += 1
        self._steps[step.number] = step
        self.size_bytes += step.size_bytes
        self._made_by.update(dict.fromkeys(tasks, step.number))
        return step, replaced

    def on_ended(self, task: TaskId, *, has_raised: bool) -> list[Step]:
        """A task has ended that makes a step. Returns what is forgotten."""
        number = self._made_by.pop(task, None)
        return self.forget([number]) if number is not None and has_raised else []

    def forget(self, numbers: Iterable[int]) -> list[Step]:
        """Returns those that were kept until now."""
        forgotten = [step for number in numbers if (step := self._steps.pop(number, None)) is not None]
        self.size_bytes -= sum(step.size_bytes for step in forgotten)
        return forgotten

    def of(self, engine: EngineId) -> list[Step]:
        """What is to be made on an engine that has come."""
        return [step for step in self._steps.values() if not step.engines or engine in step.engines]

    def new_task(self) -> TaskId:
        self._next_task += 1
        return make_task_id(THE_CLUSTER, self._next_task - 1)

    def check(self) -> None:
        assert self.size_bytes == sum(step.size_bytes for step in self._steps.values())
        places = [step.place for step in self._steps.values()]
        assert len(set(places)) == len(places)
