"""What goes out to engines: the tasks they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enginery.core.tasks import Task
from enginery.ids import NO_ENGINE, EngineId, TaskId
from enginery.protocol.link import RECORD_BYTES, Link
from enginery.protocol.messages import EngineCall, Run, RunOptions

if TYPE_CHECKING:
    from enginery.core.state import ClusterState

CALLS_PER_RECORD = 500
BYTES_PER_RECORD = 1 << 18


def put_runs(state: ClusterState, engine: EngineId, link: Link, runs: list[tuple[Task, bool]]) -> None:
    """Put tasks on the link of an engine: those that share options in one record, blobs before them."""
    options: Any = None
    announced = False
    calls: list[EngineCall] = []
    skips: list[tuple[TaskId, list[int]]] = []
    weight = 0
    in_bulk = in_order = False
    record: RunOptions | None = None

    def put_record() -> None:
        if record is not None and calls:
            put = link.put_after_bulk if in_bulk else link.put
            put(Run(record, calls, skips), weight, in_order=in_order)

    for task, announce in runs:
        if (
            task.options is not options
            or announce != announced
            or len(calls) >= CALLS_PER_RECORD
            or weight > BYTES_PER_RECORD
        ):
            put_record()
            options, announced = task.options, announce
            record = RunOptions(
                options.kind, options.function, options.name, announce,
                options.writeable, options.time_limit_s,
            )  # fmt: skip
            calls, skips, weight, in_bulk, in_order = [], [], RECORD_BYTES, False, False
        for blob in state.blobs.to_send(engine, task.needed_blobs):
            in_bulk = state.put_blob(("engine", engine), link, blob) or in_bulk
        in_bulk = in_bulk or bool(task.blobs)
        in_order = in_order or task.direct != NO_ENGINE
        calls.append(EngineCall(task.task_id, task.attempt, task.payload, task.blobs, task.inside))
        weight += 64 + len(task.payload)
        if task.skipped:
            skips.append((task.task_id, list(task.skipped)))
            weight += 10 + 5 * len(task.skipped)
    put_record()
