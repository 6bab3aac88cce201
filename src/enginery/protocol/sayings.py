"""What a task says while it runs: text, displays, published values, and how far it is.

Import them from `messages`, which has all records.

Texts and pieces of displays are numbered, from 1 on in each attempt at running the task, and its result says
how many there were (`TaskResult.outputs`). Values have no numbers, for they replace each other; they come in
order with the numbered ones, and one of these comes last. How far a task is replaces itself likewise, and
may be lost: the last word on it comes with the result.
"""

from __future__ import annotations

from enginery.ids import EngineId, TaskId
from enginery.protocol.words import Attempt, Record, Report, Serial, SizeBytes, Small, Task

# ---------------------------------------------------------------- engine's control connection


class EngineOutput(Record, tag=92):
    task: Task
    stream: str
    text: str
    attempt: Attempt = 1
    number: Small = 0  # see `Output`; 0 = written after the task had ended
    mark: Small = 0
    """Not 0: without text; here belongs what was written past Python up to this mark, see `ProcessText`."""
    written: Serial = 0
    """All that any task wrote in Python up to this number has left the engine, see `LastWord`."""


class EngineData(Record, tag=93):
    """Published by a task, see `Data`."""

    task: Task
    name: str
    payload: bytes


class EngineDisplay(Record, tag=95):
    """Shown by a task, see `Display`."""

    task: Task
    kind: str
    content: bytes
    offset: SizeBytes = 0  # of this piece
    is_last: bool = True
    attempt: Attempt = 1
    number: Small = 0


class EngineProgress(Record, tag=97):
    """How far a task is, see `Progress`; of tasks that take long, and those that report of themselves."""

    task: Task
    attempt: Attempt
    items: Small = 0
    done: Small = 0
    failed: Small = 0
    cancelled: Small = 0
    report: Report | None = None


# ---------------------------------------------------------------- controller -> client


class Output(Record, tag=33):
    """Text that a task wrote while it ran."""

    task: TaskId
    engine: EngineId
    stream: str  # "stdout" | "stderr"
    text: str
    attempt: int = 1  # RECORDED = not as it was said but as it was kept: all of it, from number 1 on
    number: int = 0  # 0 = not counted: what an attempt that was not the last one wrote at its end


class Data(Record, tag=43):
    """A value that a task has published under a name while it runs; the last one counts."""

    task: TaskId
    name: str
    payload: bytes


class Display(Record, tag=44):
    """What a task shows in rich form, or a piece of it: its pieces follow one another up to the last.

    The whole is what `objects.displays` has packed; the controller never looks into it.
    """

    task: TaskId
    engine: EngineId
    kind: str  # "display_data" | "update_display" | "clear_output" | "execute_result"
    content: bytes
    offset: SizeBytes = 0  # of this piece
    is_last: bool = True
    attempt: int = 1  # as in `Output`
    number: int = 0


class Progress(Record, tag=46):
    """How far a task is; the last one counts."""

    task: TaskId
    engine: EngineId
    attempt: int
    items: int = 0  # of a part of a map; 0 = it is no such part
    done: int = 0  # of these, failed and cancelled ones included
    failed: int = 0
    cancelled: int = 0
    report: Report | None = None
