"""A task's record and its states: the only truth about a task.

Theory
======

A task that names other tasks (`after`, `follow`) is *waiting* until these have ended as it needs them, and so
is one that has failed and is to be tried again, until its rest is over. Every other task is *ready* from the
moment the controller takes it. The scheduler gives a ready task to an engine:
*sent*. The engine runs what it was sent in the order of arrival; for tasks that are expected to last it says
when it begins: *running*. Short tasks are never announced: their result says that they ran. Until a task has
started it can be taken back, and then it is ready again, where it was in its queue. Whether a task "has
started" or "was taken back" is one atomic claim in the engine; the controller never guesses.

A task ends exactly once: *done* (it returned), *failed* (it raised, or ran longer than it may, or its engine
died, or there is none to run it), *cancelled* (a user has taken it back or ended it, or its engine would not
begin with it, because a text before it in the same cell has failed) or *impossible* (what it depends on
cannot be had: it ended the wrong way, nobody knows it, it did not come in time, or every engine that the task
may run on has said no). A failed attempt with retries left rests and is ready again with the next attempt
number. A task whose engine says that a condition of its function is *unmet* there is ready at once: that was
no attempt at running it and uses up no retry. Who wins when a task is cancelled while it runs is decided in
its engine, which has ended it or not; the controller's wish alone ends nothing that may have started. Facts
about another attempt than the present one, and facts about a task that has ended, are late: they change
nothing, and the scheduler drops them before they come to this table.

When an engine is gone, what it had started (proved by its status page, else assumed for all it was sent) is
*lost started*; what it had not started is *lost unstarted* and, being harmless to run elsewhere, ready again
unless it was meant for that very engine. A ready task that was to follow others to that engine is *held*: it
waits again, if one of these may still end elsewhere.

`TRANSITIONS` is the whole machine. A pair that is not in it is a defect of the caller and raises `KeyError`
before anything has changed.
"""

from __future__ import annotations

import enum
import math
from typing import Final

from enginery.core.placement import ANYWHERE, Destination
from enginery.core.retries import Death
from enginery.ids import NO_ENGINE, BlobId, EngineId, TaskId
from enginery.protocol.messages import Status, TaskOptions


class TaskState(enum.Enum):
    WAITING = "waiting"
    READY = "ready"
    SENT = "sent"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    IMPOSSIBLE = "impossible"

    # Enum's own hash goes through Python code; these are keys of the hottest dictionary.
    __hash__ = object.__hash__

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL


class Fact(enum.Enum):
    """What can happen to a task."""

    MET = "met"  # its dependencies are
    RESTED = "rested"  # long enough after a failed attempt
    ASSIGNED = "assigned"  # to an engine
    STARTED = "started"  # the engine announced it
    RETURNED = "returned"
    FAILED = "failed"  # raised, or lost after it had started; no retries left
    RETRIED = "retried"  # the same, with retries left
    UNMET = "unmet"  # a condition of its function, on this engine
    TAKEN_BACK = "taken back"
    LOST_UNSTARTED = "lost unstarted"
    UNREACHABLE = "unreachable"  # the only engine it may run on is gone
    HELD = "held"  # the engine it was to follow others to is gone; another one may come
    HOPELESS = "hopeless"  # its dependencies can never be met, or name a task that nobody knows
    TIMED_OUT = "timed out"  # its dependencies were not met in time
    REFUSED = "refused"  # it cannot both wait for others and be addressed to an engine
    ABORTED = "aborted"
    CANCELLED = "cancelled"

    __hash__ = object.__hash__


TERMINAL: Final = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED, TaskState.IMPOSSIBLE})

TRANSITIONS: Final[dict[tuple[TaskState, Fact], TaskState]] = {
    (TaskState.WAITING, Fact.MET): TaskState.READY,
    (TaskState.WAITING, Fact.HOPELESS): TaskState.IMPOSSIBLE,
    (TaskState.WAITING, Fact.TIMED_OUT): TaskState.IMPOSSIBLE,
    (TaskState.WAITING, Fact.REFUSED): TaskState.FAILED,
    (TaskState.WAITING, Fact.ABORTED): TaskState.CANCELLED,
    (TaskState.WAITING, Fact.CANCELLED): TaskState.CANCELLED,
    (TaskState.WAITING, Fact.RESTED): TaskState.READY,
    (TaskState.WAITING, Fact.UNREACHABLE): TaskState.FAILED,
    (TaskState.READY, Fact.ASSIGNED): TaskState.SENT,
    (TaskState.READY, Fact.HELD): TaskState.WAITING,
    (TaskState.READY, Fact.HOPELESS): TaskState.IMPOSSIBLE,
    (TaskState.READY, Fact.UNREACHABLE): TaskState.FAILED,
    (TaskState.READY, Fact.ABORTED): TaskState.CANCELLED,
    (TaskState.READY, Fact.CANCELLED): TaskState.CANCELLED,
    (TaskState.SENT, Fact.STARTED): TaskState.RUNNING,
    (TaskState.SENT, Fact.RETURNED): TaskState.DONE,
    (TaskState.SENT, Fact.FAILED): TaskState.FAILED,
    (TaskState.SENT, Fact.RETRIED): TaskState.WAITING,
    (TaskState.SENT, Fact.UNMET): TaskState.READY,
    (TaskState.SENT, Fact.TAKEN_BACK): TaskState.READY,
    (TaskState.SENT, Fact.LOST_UNSTARTED): TaskState.READY,
    (TaskState.SENT, Fact.UNREACHABLE): TaskState.FAILED,
    (TaskState.SENT, Fact.ABORTED): TaskState.CANCELLED,
    (TaskState.SENT, Fact.CANCELLED): TaskState.CANCELLED,
    (TaskState.RUNNING, Fact.RETURNED): TaskState.DONE,
    (TaskState.RUNNING, Fact.FAILED): TaskState.FAILED,
    (TaskState.RUNNING, Fact.RETRIED): TaskState.WAITING,
    (TaskState.RUNNING, Fact.UNMET): TaskState.READY,
    (TaskState.RUNNING, Fact.ABORTED): TaskState.CANCELLED,
    (TaskState.RUNNING, Fact.CANCELLED): TaskState.CANCELLED,
}


class Task:
    """One task, from acceptance to its end. Owned by the scheduler; others read it."""

    __slots__ = (
        "attempt",
        "blobs",
        "cancelled_by",
        "completed_before",
        "deaths",
        "destination",
        "direct",
        "engine",
        "estimate_s",
        "family",
        "grace_s",
        "inside",
        "is_watched",
        "options",
        "overdue",
        "payload",
        "priority",
        "recalled",
        "retries_left",
        "sent_at",
        "size_bytes",
        "skipped",
        "state",
        "submitted_at",
        "task_id",
        "turn",
        "unmet",
        "wanted_end",
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
        family: tuple[TaskId, ...] = (),
    ) -> None:
        self.task_id = task_id
        self.options = options
        self.payload = payload
        self.blobs = blobs
        self.direct = direct  # the engine it is addressed to; NO_ENGINE = balanced
        self.size_bytes = size_bytes
        self.submitted_at = submitted_at
        depends = options.after is not None or options.follow is not None
        self.state = TaskState.WAITING if depends else TaskState.READY
        self.priority = options.priority  # by which tasks of one queue leave it, higher first
        self.turn = 0  # and of the same priority, lower first
        self.family = family  # the task that has made it, while it ran, that one's maker, and so on
        self.inside = TaskId(0)  # the one of these that waited in its engine when it was sent there
        is_free = not (options.candidates or family)
        self.destination = ANYWHERE if is_free else Destination(options.candidates, family=family)
        self.engine = NO_ENGINE  # where it was sent
        self.completed_before = 0  # tasks that this engine had completed then
        self.attempt = 1
        self.retries_left = options.retries
        self.sent_at = 0.0
        self.estimate_s = 0.0  # of its run time when it was sent; negative = unknown
        self.recalled = False  # a take-back is under way
        self.wanted_end: Status | None = None  # ABORTED, CANCELLED or OVER_LIMIT, once somebody wants that
        self.is_watched = False  # its engine is to have ended it at some time
        self.grace_s = -1.0  # of a cancel, after which that is replaced; negative = never
        self.cancelled_by = math.inf  # when it is over
        self.overdue = ""  # why it has to be replaced: a sentence
        self.deaths: tuple[Death, ...] = ()  # of engines that it may have caused
        self.skipped: tuple[int, ...] = ()  # items of a part of a map that are not to run
        self.unmet = ""  # what the last engine said that refused it

    def __repr__(self) -> str:
        where = "" if self.engine == NO_ENGINE else f" on engine {self.engine}"
        return f"<Task {self.task_id:#x} {self.state.value}{where}, attempt {self.attempt}>"

    @property
    def needed_blobs(self) -> tuple[BlobId, ...]:
        """Everything that must be on an engine before the task."""
        function = self.options.function
        return (function, *self.blobs) if function else self.blobs

    def apply(self, fact: Fact) -> TaskState:
        """Move along the table; KeyError, and no change, if the table has no such step."""
        self.state = state = TRANSITIONS[self.state, fact]
        return state
