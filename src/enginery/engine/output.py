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
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from enginery.ids import TaskId
from enginery.protocol.messages import clean_text

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
    """Gathers text by task. `wake` is called at the first text that somebody should send soon.

    Writers only append, without a lock: they may be signal handlers or finalizers that run in the middle of a
    reader, in the reader's own thread.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._task: TaskId | None = None
        self._written: deque[Piece] = deque()
        self._lock = threading.Lock()  # around what follows; taken by readers only
        self._pieces: list[Piece] = []
        self._sent = 0  # pieces of the present task
        self._armed = False

    def __repr__(self) -> str:
        return f"<OutputCollector of task {self._task}>"

    def begin(self, task: TaskId) -> None:
        self._sent = 0
        self._task = task

    def end(self) -> tuple[str, str, int]:
        """The present task is over: (stdout, stderr) that go with its result, and the pieces sent apart."""
        task, self._task = self._task, None
        if not self._written:
            return "", "", self._sent
        with self._lock:
            texts = self._drain(task)
            if sum(map(len, texts.values())) <= RESULT_TEXT_LIMIT:
                return texts["stdout"], texts["stderr"], self._sent
            self._cut(task, texts)
        self._wake()
        return "", "", self._sent

    def write(self, stream: str, text: str) -> bool:
        """Take text of the present task; False if there is none."""
        task = self._task
        if task is None:
            return False
        self._written.append(Piece(task, stream, text))
        if not self._armed:
            self._armed = True
            self._wake()
        return True

    def take(self) -> list[Piece]:
        """Everything that has gathered."""
        self._armed = False
        with self._lock:
            task = self._task
            if task is not None:
                self._cut(task, self._drain(task))
            pieces, self._pieces = self._pieces, []
        return pieces

    def _drain(self, task: TaskId | None) -> dict[str, str]:
        """What the present task has written. Stragglers of earlier tasks are nobody's any more."""
        parts: dict[str, list[str]] = {"stdout": [], "stderr": []}
        while self._written:
            piece = self._written.popleft()
            if piece.task == task:
                parts[piece.stream].append(piece.text)
        return {stream: "".join(texts) for stream, texts in parts.items()}

    def _cut(self, task: TaskId | None, texts: dict[str, str]) -> None:
        if task is None:
            return
        for stream, text in texts.items():
            for start in range(0, len(text), RECORD_TEXT_LIMIT):
                self._pieces.append(Piece(task, stream, text[start : start + RECORD_TEXT_LIMIT]))
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
        if text and not self._collector.write(self._name, clean_text(text)):
            os.write(self._descriptor, text.encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Nothing waits here: the collector sends by itself."""

    def close(self) -> None:
        """A task that closes its stdout must not close the next one's."""
