"""`sys.stdout`, `sys.stderr` and `sys.stdin` of an engine.

What is written goes to the task that the writer works for, by way of the collector; what is nobody's goes to
the engine's log. Nobody can close these streams: they are the next task's too. There is nobody who could type
anything, so whatever reads is told so.
"""

from __future__ import annotations

import codecs
import io
import os
from typing import Any, NoReturn

from enginery.engine.output import OutputCollector
from enginery.engine.threads import TaskRun

NO_INPUT = "a task has no standard input, and nobody to ask: give it what it needs as an argument"


class TaskStream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of an engine."""

    def __init__(self, collector: OutputCollector, name: str, descriptor: int) -> None:
        self._collector = collector
        self._name = name
        self._descriptor = descriptor
        self._log = descriptor
        self.buffer = _TaskBytes(self, collector, name)

    def __repr__(self) -> str:
        return f"<TaskStream {self._name}>"

    def log_to(self, path: str) -> None:
        """Append what is nobody's to this file; empty = leave it to the descriptor again."""
        before, self._log = self._log, self._descriptor
        if before != self._descriptor:
            os.close(before)
        if path:
            self._log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

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
        """The descriptor that processes inherit; what is written there finds its task too."""
        return self._descriptor

    def isatty(self) -> bool:
        return False

    def reconfigure(self, **_: object) -> None:
        """Change nothing: text is UTF-8 and waits in no buffer."""

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if text and not self._collector.write(self._name, text):
            # Nobody's. In a forked child it is somebody's all the same; whose, the supervisor finds out.
            _write_all(self._log if self._collector.is_open else self._descriptor, text)
        return len(text)

    def flush(self) -> None:
        """Nothing waits here: the collector sends by itself."""

    def close(self) -> None:
        """A task that closes its stdout must not close the next one's."""


class _TaskBytes(io.RawIOBase):
    """Takes bytes for a `TaskStream`: UTF-8, cut wherever the writer likes, but not across tasks."""

    def __init__(self, stream: TaskStream, collector: OutputCollector, name: str) -> None:
        self._stream = stream
        self._collector = collector
        self._name = name
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._run: TaskRun | None = None  # who wrote last

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        run = self._collector.current()
        if run is not self._run:
            half = self._decoder.decode(b"", final=True)
            if half and self._run is not None:
                self._collector.write_for(self._run, self._name, half)
            self._run = run
        with memoryview(data) as view:
            self._stream.write(self._decoder.decode(bytes(view)))
            return view.nbytes

    def flush(self) -> None:
        """Half a character waits for its other half."""

    def close(self) -> None:
        """As with the stream itself."""


class NoInput(io.TextIOBase):
    """`sys.stdin` of an engine. C code and processes find an empty file there."""

    def __repr__(self) -> str:
        return "<NoInput>"

    @property
    def name(self) -> str:
        return "<stdin>"

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def buffer(self) -> NoInput:
        return self

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 0

    def isatty(self) -> bool:
        return False

    def read(self, *_: object) -> NoReturn:
        raise EOFError(NO_INPUT)

    readline = readlines = readinto = read1 = __next__ = read

    def close(self) -> None:
        """It is the next task's too; `exit()` closes it."""


def _write_all(descriptor: int, text: str) -> None:
    left = memoryview(text.encode("utf-8", "backslashreplace"))
    while left:
        left = left[os.write(descriptor, left) :]
