"""Where tasks that wait for tasks of their own meet the engine that runs them.

A client inside a task cannot know the engine around it, nor that the client. The engine sets the *stage*
here; the client of `enginery.get_client` asks it whose task makes a call, and has it serve while that waits.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from enginery.ids import TaskId

Listen = Callable[[Callable[[], bool], Callable[[], None]], AbstractContextManager[None]]
"""``with listen(predicate, wake):`` has `wake` called whenever the predicate may have come true."""


class Stage(Protocol):
    """An engine that runs tasks."""

    def current(self) -> TaskId:
        """The task that the caller works for; 0 = none that has not ended."""

    def may_lend(self) -> bool:
        """Whether the caller is what the engine runs now, so that nothing else runs while it waits."""

    def lend(self, predicate: Callable[[], bool], deadline: float | None, listen: Listen) -> None:
        """Run descendants of the caller's task until the predicate holds or the deadline has come."""


stage: Stage | None = None
"""None: no task runs in this process."""


def set_stage(new: Stage | None) -> None:
    global stage
    stage = new
