"""What is said of tasks that are to end early, or to be had sooner: by clients, and to engines.

Import them from `messages`, which has all records.
"""

from __future__ import annotations

from enginery.ids import TaskId
from enginery.protocol.words import Engine, Priority, Record, Small, Task

# ---------------------------------------------------------------- client -> controller


class Abort(Record, tag=12):
    """Take these tasks out of the queues if they have not started."""

    tasks: list[Task]


class Cancel(Record, tag=130):
    """End these tasks, whether they wait or run.

    An engine that has not ended one `grace_s` later is replaced; None is what the cluster was told at its
    start, a negative number never.
    """

    tasks: list[Task]
    grace_s: float | None = None


class CancelItems(Record, tag=131):
    """Do not run these items of a part of a map, by their places in it; end the one that runs."""

    task: Task
    items: list[Small]


class SetPriority(Record, tag=132):
    """Tasks that wait are to leave the queues by this priority; those that run or have ended go on."""

    request: Small
    tasks: list[Task]
    priority: Priority


class InterruptEngines(Record, tag=133):
    """Raise KeyboardInterrupt in whatever these engines run now; none named = all."""

    request: Small
    engines: list[Engine]


# ---------------------------------------------------------------- controller -> engine's control connection


class TakeBack(Record, tag=101):
    """Give these (task, attempt) back if they have not started. Answered with `TakenBack`."""

    calls: list[tuple[TaskId, int]]


class EndCalls(Record, tag=134):
    """The same; those that have started are to be ended. Code that cleans up has half of the grace."""

    calls: list[tuple[TaskId, int]]
    grace_s: float = -1.0  # negative = for ever


class SkipItems(Record, tag=135):
    """Do not run these items of a part of a map; end the one that runs."""

    task: TaskId
    attempt: int
    items: list[int]


class Interrupt(Record, tag=136):
    """Raise KeyboardInterrupt in what runs now, if something does. Answered with `Obeyed`."""

    order: int
