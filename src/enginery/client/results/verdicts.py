"""How a task ended, as an exception; and how several exceptions become the one that is raised."""

from __future__ import annotations

from collections.abc import Sequence

from enginery.errors import (
    CompositeError,
    EngineError,
    EngineLost,
    RemoteError,
    TaskAborted,
    TaskCancelled,
    Verdict,
)
from enginery.ids import NO_ENGINE, format_task_id
from enginery.protocol.messages import Status, TaskResult


def verdict_of(result: TaskResult, *, cancelled: bool = False) -> RemoteError:
    """The error of a task that ended without a word of its own; `cancelled` if its user asked for that."""
    task = format_task_id(result.task)
    engine = None if result.engine == NO_ENGINE else int(result.engine)
    info = {} if engine is None else {"engine_id": engine}
    match result.status:
        case Status.ABORTED if cancelled:
            return TaskCancelled(f"task {task} was cancelled before it started", engine_info=info)
        case Status.ABORTED:
            return TaskAborted(f"task {task} was aborted before it started", engine_info=info)
        case Status.ENGINE_DIED:
            return EngineError(engine=engine, cause=result.detail, task=task, last_output=result.stderr)
        case Status.ENGINE_LOST:
            return EngineLost(engine=engine, cause=result.detail, task=task, last_output=result.stderr)
        case Status.NO_ENGINE:
            which = "its engine" if engine is None else f"engine {engine}"
            why = f": {result.detail}" if result.detail else ""
            return EngineError(
                f"task {task} did not run because {which} is not there{why}; client.ids names those that are",
                engine=engine,
                cause=result.detail,
                task=task,
            )
        case Status.REFUSED:
            why = f": {result.detail}" if result.detail else ""
            return Verdict(f"task {task} came to no result{why}", engine_info=info)
        case _:
            return RemoteError(
                "UnreadableFailure", f"task {task} failed, and its error did not arrive", "", info
            )


def combine(errors: Sequence[Exception], *, of: int, what: str) -> Exception:
    """The error to raise for a call: the only one itself, else a `CompositeError`.

    `errors` has one entry for each of the `of` tasks or items that failed. Where several share one object,
    a map's items in a task that died, the group has it once. What was cancelled as a whole is one
    TaskCancelled.
    """
    different = list({id(error): error for error in errors}.values())
    if len(different) == 1:
        return different[0]
    for kind, word in ((TaskCancelled, "cancelled"), (TaskAborted, "aborted")):
        if all(isinstance(error, kind) for error in different):
            return kind(f"{len(errors)} of {of} {what} were {word} before they started")
    return CompositeError(f"{len(errors)} of {of} {what} failed", different)
