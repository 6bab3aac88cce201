"""Which task code works for: threads for the one that their starter worked for, coroutines for their maker's.

What is printed belongs to that task, also after it has ended: never to another one that the main thread
happens to run by then. A context variable says it for everything that asyncio runs, whose contexts are copies
of the one in which they were made. Threads begin with an empty context and cannot be asked who started them,
so `TaskThreads.follow` has `Thread.start` leave a mark; it is the one place where the starter is still known.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import NamedTuple

from enginery.ids import TaskId

_MARK = "_enginery_run"


class TaskRun(NamedTuple):
    """One attempt at running a task."""

    task: TaskId
    attempt: int


class TaskThreads:
    """The task that runs, and whose threads are whose. Takes no lock: signal handlers ask too."""

    def __init__(self) -> None:
        self.running: TaskRun | None = None
        self._main = threading.get_ident()
        self._run: ContextVar[TaskRun | None] = ContextVar("enginery_run", default=None)
        self._has_started_threads = False

    def __repr__(self) -> str:
        return f"<TaskThreads of task {0 if self.running is None else self.running.task}>"

    def begin(self, task: TaskId, attempt: int = 1) -> TaskRun:
        """The calling thread runs this task from now on."""
        self._main = threading.get_ident()
        self._has_started_threads = False
        run = TaskRun(task, attempt)
        self._run.set(run)
        self.running = run
        return run

    def end(self) -> TaskRun | None:
        """The running task is over; returns it."""
        run, self.running = self.running, None
        self._run.set(None)
        return run

    def resume(self, run: TaskRun) -> None:
        """A task that has waited goes on, in the calling thread."""
        self._run.set(run)
        self.running = run
        self._has_started_threads = True  # or may have: it is looked at

    def is_running_here(self) -> bool:
        """Whether the caller is what the main thread runs for the running task, and no thread of it."""
        return self.running is not None and threading.get_ident() == self._main

    def here(self) -> TaskRun | None:
        """The task that the caller works for; it may have ended. None if there is none."""
        run = self._run.get()
        return self._run_of_thread() if run is None else run

    def linger(self, run: TaskRun) -> bool:
        """Whether threads of a task that has just ended are still there."""
        return self._has_started_threads and any(
            getattr(thread, _MARK, None) is run for thread in threading.enumerate()
        )

    def follow(self) -> Callable[[], None]:
        """Mark threads as they start, in the whole process; returns what ends it."""
        start, here = threading.Thread.start, self.here

        def marking_start(self: threading.Thread) -> None:
            setattr(self, _MARK, here())
            note_start()
            start(self)

        def note_start() -> None:
            self._has_started_threads = True

        def end() -> None:
            threading.Thread.start = start  # type: ignore[method-assign]

        threading.Thread.start = marking_start  # type: ignore[method-assign]
        return end

    def _run_of_thread(self) -> TaskRun | None:
        if threading.get_ident() == self._main:
            return self.running
        mark: TaskRun | None = getattr(threading.current_thread(), _MARK, None)
        return mark
