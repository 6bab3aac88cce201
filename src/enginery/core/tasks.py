"""A task's record and its states: the only truth about a task.

Theory
======

A task is *ready* from the moment the controller takes it. The scheduler gives it to an engine: *sent*. The
engine runs what it was sent in the order of arrival; for tasks that are expected to last it says when it
begins: *running*. Short tasks are never announced: their result says that they ran. Until a task has started
it can be taken back, and then it is ready again, at the front of its queue. Whether a task "has started" or
"was taken back" is one atomic claim in the engine; the controller never guesses.

A task ends exactly once: *done* (it returned), *failed* (it raised, or its engine died, or there is none to
run it) or *cancelled* (it was taken out before it started). A failed attempt with retries left goes back to
ready with the next attempt number. Facts about another attempt than the present one, and facts about a task
that has ended, are late: they change nothing, and the scheduler drops them before they come to this table.

When an engine is gone, what it had started (proved by its status page, else assumed for all it was sent) is
*lost started*; what it had not started is *lost unstarted* and, being harmless to run elsewhere, ready again
unless it was meant for that very engine.

`TRANSITIONS` is the whole machine. A pair that is not in it is a defect of the caller and raises `KeyError`
before anything has changed.
"""

from __future__ import annotations

import enum
from typing import Final

from enginery.ids import NO_ENGINE, BlobId, EngineId, TaskId
from enginery.protocol.messages import TaskOptions


class TaskState(enum.Enum):
    READY = "ready"
    SENT = "sent"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    # Enum's own hash goes through Python code; these are keys of the hottest dictionary.
    __hash__ = object.__hash__

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL


class Fact(enum.Enum):
    """What can happen to a task."""

    ASSIGNED = "assigned"  # to an engine
    STARTED = "started"  # the engine announced it
    RETURNED = "returned"
    FAILED = "failed"  # raised, or lost after it had started; no retries left
    RETRIED = "retried"  # the same, with retries left
    TAKEN_BACK = "taken back"
    LOST_UNSTARTED = "lost unstarted"
    UNREACHABLE = "unreachable"  # the only engine it may run on is gone
    ABORTED = "aborted"

    __hash__ = object.__hash__


TERMINAL: Final = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED})

TRANSITIONS: Final[dict[tuple[TaskState, Fact], TaskState]] = {
    (TaskState.READY, Fact.ASSIGNED): TaskState.SENT,
    (TaskState.READY, Fact.UNREACHABLE): TaskState.FAILED,
    (TaskState.READY, Fact.ABORTED): TaskState.CANCELLED,
    (TaskState.SENT, Fact.STARTED): TaskState.RUNNING,
    (TaskState.SENT, Fact.RETURNED): TaskState.DONE,
    (TaskState.SENT, Fact.FAILED): TaskState.FAILED,
    (TaskState.SENT, Fact.RETRIED): TaskState.READY,
    (TaskState.SENT, Fact.TAKEN_BACK): TaskState.READY,
    (TaskState.SENT, Fact.LOST_UNSTARTED): TaskState.READY,
    (TaskState.SENT, Fact.UNREACHABLE): TaskState.FAILED,
    (TaskState.SENT, Fact.ABORTED): TaskState.CANCELLED,
    (TaskState.RUNNING, Fact.RETURNED): TaskState.DONE,
    (TaskState.RUNNING, Fact.FAILED): TaskState.FAILED,
    (TaskState.RUNNING, Fact.RETRIED): TaskState.READY,
}


class Task:
    """One task, from acceptance to its end. Owned by the scheduler; others read it."""

    __slots__ = (
        "attempt",
        "blobs",
        "direct",
        "engine",
        "estimate_s",
        "options",
        "payload",
        "recalled",
        "retries_left",
        "sent_at",
        "size_bytes",
        "state",
        "submitted_at",
        "task_id",
        "to_abort",
    )

    def __init__(
        self,
        task_id: TaskId,
        options: TaskOptions,
        payload: bytes,
        blobs: tuple[BlobId, ...],
        *,
        direct: EngineId,
        size_bytes: int,
        submitted_at: float,
    ) -> None:
        self.task_id = task_id
        self.options = options
        self.payload = payload
        self.blobs = blobs
        self.direct = direct  # the engine it is addressed to; NO_ENGINE = balanced
        self.size_bytes = size_bytes
        self.submitted_at = submitted_at
        self.state = TaskState.READY
        self.engine = NO_ENGINE  # where it was sent
        self.attempt = 1
        self.retries_left = options.retries
        self.sent_at = 0.0
        self.estimate_s = 0.0  # of its run time when it was sent; negative = unknown
        self.recalled = False  # a take-back is under way
        self.to_abort = False  # the take-back is for an abort

    def __repr__(self) -> str:
        where = "" if self.engine == NO_ENGINE else f" on engine {self.engine}"
        return f"<Task {self.task_id:#x} {self.state.value}{where}, attempt {self.attempt}>"

    def apply(self, fact: Fact) -> TaskState:
        """Move along the table; KeyError, and no change, if the table has no such step."""
        self.state = state = TRANSITIONS[self.state, fact]
        return state
