"""What tasks print: kept apart by task, sent while they run, attached to their results when short.

`sys.stdout` and `sys.stderr` of an engine are `TaskStream`s. Text goes to the task that the main thread runs
at that moment; between tasks it goes to the engine's log. Writers only append; the control thread, woken at
the first text, collects what has gathered after `GATHER_S` and sends it, so a task that prints much costs few
messages. What is left when the task ends and fits travels with its result.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from typing import NamedTuple

from enginery.ids import TaskId

GATHER_S = 0.05
RESULT_TEXT_LIMIT = 1 << 15
"""Characters of output that travel with a result."""
RECORD_TEXT_LIMIT = 1 << 15


class Piece(NamedTuple):
    """Text of one task, to be sent on its own."""

    task: TaskId
    stream: str
    text: str


class OutputCollector:
    """Gathers text by task. `wake` is called at the first text that somebody should send soon."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._task: TaskId | None = None
        self._parts: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._pieces: list[Piece] = []
        self._sent = 0  # pieces of the present task
        self._armed = False

    def __repr__(self) -> str:
        return f"<OutputCollector of task {self._task}>"

    @property
    def has_task(self) -> bool:
        return self._task is not None

    def begin(self, task: TaskId) -> None:
        with self._lock:
            self._task = task
            self._sent = 0

    def end(self) -> tuple[str, str, int]:
        """The present task is over: (stdout, stderr) that go with its result, and the pieces sent apart."""
        with self._lock:
            stdout, stderr = self._parts["stdout"], self._parts["stderr"]
            if not stdout and not stderr:
                self._task = None
                return "", "", self._sent
            if sum(map(len, stdout)) + sum(map(len, stderr)) > RESULT_TEXT_LIMIT:
                self._gather()
            texts = "".join(self._parts["stdout"]), "".join(self._parts["stderr"])
            self._parts = {"stdout": [], "stderr": []}
            self._task = None
            wake = bool(self._pieces)
        if wake:
            self._wake()
        return *texts, self._sent

    def write(self, stream: str, text: str) -> bool:
        """Take text of the present task; False if there is none."""
        with self._lock:
            if self._task is None:
                return False
            self._parts[stream].append(text)
            wake = not self._armed
            self._armed = True
        if wake:
            self._wake()
        return True

    def take(self) -> list[Piece]:
        """Everything that has gathered."""
        with self._lock:
            self._armed = False
            self._gather()
            pieces, self._pieces = self._pieces, []
        return pieces

    def _gather(self) -> None:
        if self._task is None:
            return
        for stream, parts in self._parts.items():
            text = "".join(parts)
            parts.clear()
            for start in range(0, len(text), RECORD_TEXT_LIMIT):
                self._pieces.append(Piece(self._task, stream, text[start : start + RECORD_TEXT_LIMIT]))
                self._sent += 1


class TaskStream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of an engine."""

    def __init__(self, collector: OutputCollector, name: str, descriptor: int) -> None:
        self._collector = collector
        self._name = name
        self._descriptor = descriptor

    def __repr__(self) -> str:
        return f"<TaskStream {self._name}>"

    @property
    def name(self) -> str:
        return f"<{self._name}>"

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if text and not self._collector.write(self._name, text):
            os.write(self._descriptor, text.encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Nothing waits here: the collector sends by itself."""

    def close(self) -> None:
        """A task that closes its stdout must not close the next one's."""
