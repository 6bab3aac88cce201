"""How a task ended, as an exception; and how several exceptions become the one that is raised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from enginery.errors import (
    CompositeError,
    DependencyTimeout,
    EngineError,
    EngineLost,
    ImpossibleDependency,
    InvalidDependency,
    RemoteError,
    ResultDropped,
    TaskAborted,
    TaskCancelled,
    TimeLimitExceeded,
    UnknownTask,
    UnmetDependency,
    Verdict,
)
from enginery.ids import NO_ENGINE, format_task_id
from enginery.protocol.messages import Status, TaskResult


class _Sentence(NamedTuple):
    """What is said of a task, unless its `detail` says why, after what."""

    kind: type[Verdict]
    what: str
    why: str
    advice: str = ""


_SENTENCES: dict[Status, _Sentence] = {
    Status.REFUSED: _Sentence(Verdict, "came to no result", ""),
    Status.UNMET: _Sentence(UnmetDependency, "did not run", "the engine does not meet what it depends on"),
    Status.IMPOSSIBLE: _Sentence(
        ImpossibleDependency, "can never run", "its dependencies can no longer be met"
    ),
    Status.INVALID: _Sentence(InvalidDependency, "can never run", "it depends on a task that nobody knows"),
    Status.TIMED_OUT: _Sentence(
        DependencyTimeout, "did not run", "its dependencies were not met within its timeout"
    ),
    Status.OVER_LIMIT: _Sentence(TimeLimitExceeded, "ran longer than it may", ""),
    Status.UNKNOWN: _Sentence(
        UnknownTask, "has no result", "it was never sent to this cluster, or has been purged"
    ),
    Status.DROPPED: _Sentence(
        ResultDropped,
        "has no value any more",
        "it has ended, and its value is no longer kept",
        "; the history drops the oldest values above its payload_limit; start the cluster with a larger "
        "one to keep more",
    ),
}


def verdict_of(result: TaskResult, *, cancelled: bool = False, last_output: str = "") -> RemoteError:
    """The error of a task that ended without a word of its own; `cancelled` if its user asked for that.

    Its `last_output` says more than anything else if its engine died.
    """
    task = format_task_id(result.task)
    engine = None if result.engine == NO_ENGINE else int(result.engine)
    info = {} if engine is None else {"engine_id": engine}
    match result.status:
        case Status.ABORTED if not cancelled:
            return TaskAborted(f"task {task} was aborted before it started", engine_info=info)
        case Status.ABORTED | Status.CANCELLED:
            why = f": {result.detail}" if result.detail and not cancelled else " before it started"
            return TaskCancelled(f"task {task} was cancelled{why}", engine_info=info)
        case Status.ENGINE_DIED:
            return EngineError(engine=engine, cause=result.detail, task=task, last_output=last_output)
        case Status.ENGINE_LOST:
            return EngineLost(engine=engine, cause=result.detail, task=task, last_output=last_output)
        case Status.NO_ENGINE:
            which = "its engine" if engine is None else f"engine {engine}"
            why = f": {result.detail}" if result.detail else ""
            return EngineError(
                f"task {task} did not run because {which} is not there{why}; client.ids names those that are",
                engine=engine,
                cause=result.detail,
                task=task,
            )
        case Status.ERROR | Status.OK:
            return RemoteError(
                "UnreadableFailure", f"task {task} failed, and its error did not arrive", "", info
            )
        case _:
            kind, what, why, advice = _SENTENCES[result.status]
            why = result.detail or why
            return kind(f"task {task} {what}{': ' if why else ''}{why}{advice}", engine_info=info)


def combine(errors: Sequence[Exception], *, of: int, what: str) -> Exception:
    """The error to raise for a call: the only one itself, else a `CompositeError`.

    `errors` has one entry for each of the `of` tasks or items that failed. Where several share one object,
    a map's items in a task that died, the group has it once. What was cancelled as a whole is one
    TaskCancelled.
    """
    different = list({id(error): error for error in errors}.values())
    if len(different) == 1:
        return different[0]
    for kind, word in ((TaskCancelled, "cancelled"), (TaskAborted, "aborted before they started")):
        if all(isinstance(error, kind) for error in different):
            return kind(f"{len(errors)} of {of} {what} were {word}")
    return CompositeError(f"{len(errors)} of {of} {what} failed", different)
