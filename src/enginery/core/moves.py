"""Where unfinished tasks are, and the blobs they need, as far as that has changed since the history was told.

What another life of the controller has to know: a task that was given to an engine must not be given to
another one before that engine has said what has become of it. Told once for each batch of facts, and only of
tasks that have not ended by then: a short task that comes and ends within one costs an entry of a list. So
with blobs that are no part of the history otherwise: of those in shared memory it is told the name, those
that came as frames it is given to keep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from enginery.core.registry import Registry
from enginery.core.tasks import Task
from enginery.ids import NO_ENGINE, EngineKey
from enginery.protocol.history import BlobPlaced, TasksMoved

if TYPE_CHECKING:
    from enginery.core.state import ClusterState

NOWHERE = EngineKey("")


class Moves:
    """The tasks that have moved; `note` one is on the hot path."""

    def __init__(self) -> None:
        self._moved: list[Task] = []
        self.note = self._moved.append

    def __len__(self) -> int:
        return len(self._moved)

    def __repr__(self) -> str:
        return f"<Moves of {len(self)} tasks>"

    def record(self, state: ClusterState) -> None:
        """Tell the history."""
        for moved in self.take(state.registry):
            state.remember(moved)
        for blob in state.blobs.take_settled(state.ended_blobs):
            shared = state.blobs.shared(blob)
            if shared is None:
                pieces = [frame for _, frame in state.blobs.pieces(blob)]
                place = BlobPlaced(blob, state.blobs.size_bytes((blob,)), False, "")
                state.recording.add_blob(place, pieces)
            else:
                state.remember(BlobPlaced(blob, shared.size_bytes, shared.keep, shared.segment))
            state.blobs.placed.add(blob)

    def take(self, registry: Registry) -> list[TasksMoved]:
        """Where they are now, by engine."""
        if not self._moved:
            return []
        found: dict[EngineKey, dict[int, Task]] = {}
        for task in self._moved:
            if not task.state.is_terminal:
                place = registry.engines.get(task.engine) if task.engine != NO_ENGINE else None
                found.setdefault(NOWHERE if place is None else place.key, {})[task.task_id] = task
        self._moved.clear()
        return [
            TasksMoved(key, [(task.task_id, task.attempt, task.retries_left) for task in tasks.values()])
            for key, tasks in found.items()
        ]
