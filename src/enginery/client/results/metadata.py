"""What is known of a task beside its value, under the keys of ipyparallel, and `report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from enginery.ids import NO_ENGINE, TaskId, format_task_id
from enginery.protocol.messages import Status, TaskResult

METADATA_KEYS = frozenset(
    {
        *("msg_id", "submitted", "started", "completed", "received", "engine_uuid", "engine_id"),
        *("follow", "after", "status", "execute_input", "execute_result", "error", "stdout", "stderr"),
        *("outputs", "data", "report", "label", "is_broadcast", "is_coalescing"),
    }
)
_WORDS = {Status.OK: "ok", Status.ABORTED: "aborted", Status.CANCELLED: "cancelled"}


class Metadata(dict[str, Any]):
    """Describe a task: a dictionary whose keys are attributes too.

    Times are aware datetimes, in UTC; None stands for what is not yet known.
    `status` is ``"ok"``, ``"error"``, ``"aborted"`` or ``"cancelled"``; the task's text is in `stdout` and
    `stderr`, what it has published in `data`, how far it last said to be in `report`, and `execute_result` is
    what the last line of executed text was worth.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def describe_task(
    task: TaskId | None,
    *,
    submitted: float,
    label: str,
    source: str | None,
    engine: int | None,
    after: Sequence[TaskId] = (),
    follow: Sequence[TaskId] = (),
) -> Metadata:
    """What is known when a task has been sent."""
    return Metadata(
        msg_id=None if task is None else format_task_id(task),
        submitted=_moment(submitted),
        started=None,
        completed=None,
        received=None,
        engine_uuid=None,
        engine_id=engine,
        follow=[format_task_id(other) for other in follow],
        after=[format_task_id(other) for other in after],
        status=None,
        execute_input=source,
        execute_result=None,
        error=None,
        stdout="",
        stderr="",
        outputs=[],
        data={},
        report=None,
        label=label or None,
        is_broadcast=False,
        is_coalescing=False,
    )


def describe_end(
    metadata: Metadata,
    result: TaskResult,
    *,
    received: float,
    error: Exception | None,
    execute_result: Mapping[str, Any] | None = None,
) -> None:
    """Add what came with the result. Its text is added by who collects it."""
    metadata.update(
        msg_id=format_task_id(result.task),
        submitted=metadata["submitted"] or _moment(result.submitted),
        started=_moment(result.started),
        completed=_moment(result.completed),
        received=_moment(received),
        engine_id=None if result.engine == NO_ENGINE else int(result.engine),
        status=_WORDS.get(result.status, "error"),
        error=error,
        execute_result=execute_result,
    )


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
