"""What is written to the standard descriptors of an engine past Python: by C code, by processes it starts.

The descriptors are pipes that the supervisor reads; the engine only has to say whose text was in them, with
marks (`protocol.marks`). It makes one where a task ends, and where a task prints in Python again, but only if
something was written since the mark before, which the pipe's meter tells (`transport.pipe_meter`).

Where nobody reads them, because no supervisor watches this engine, the descriptors are left as they are: such
text goes wherever who has started the engine wants to have it.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import itertools
import os
import signal
import sys
from collections.abc import Sequence
from typing import NamedTuple

from enginery.engine.threads import TaskRun
from enginery.ids import EngineKey
from enginery.protocol.marks import Mark, Marks
from enginery.transport.pipe_meter import UNKNOWN, PipeMeter, make_check
from enginery.transport.status_page import STREAMS, StatusPage

_NUMBERS = (1, 2)
"""Of the standard descriptors."""
_SIGNS = (signal.SIGUSR1, signal.SIGUSR2)
_UNBUFFERED = 2  # _IONBF


class Found(NamedTuple):
    """Something was written to this stream before this mark."""

    stream: str
    mark: int


class PastPython:
    """The two pipes of an engine. May be used by any thread, and by signal handlers."""

    def __init__(self, key: EngineKey, page: StatusPage) -> None:
        self._marks = Marks(key)
        # Copies that nobody can close by accident, out of reach of programs that are started.
        self._ends = [os.dup(number) for number in _NUMBERS]
        for end, sign in zip(self._ends, _SIGNS, strict=True):
            _sign(end, sign)
        self._identities = [_identity(end) for end in self._ends]
        self._meters: list[PipeMeter] = [page.meter(place) for place in range(len(STREAMS))]
        self._accounted = [meter.written(end) for meter, end in zip(self._meters, self._ends, strict=True)]
        self._is_still = make_check(self._meters, self._ends)
        self._next = itertools.count(1).__next__
        self._is_open = True

    def __repr__(self) -> str:
        return f"<PastPython to {self._ends}>"

    def look(self, run: TaskRun, *, is_over: bool = False) -> Sequence[Found]:
        """Mark what was written since the last look as this task's.

        Costs about 1 µs if that is nothing; with `is_over`, when the descriptors are put back too, 1.6 µs.
        """
        if not self._is_open:
            return ()
        if is_over:
            self._put_back()
        return () if self._is_still(self._accounted) else self._mark(run)

    def _mark(self, run: TaskRun) -> list[Found]:
        found: list[Found] = []
        for stream, meter in enumerate(self._meters):
            total = meter.written(self._ends[stream])
            if total == self._accounted[stream] != UNKNOWN:
                continue  # where it is not known, one mark too many does no harm
            mark = self._next()
            try:
                os.write(self._ends[stream], self._marks.encode(Mark(run.task, run.attempt, mark)))
            except OSError:  # the supervisor is gone, and soon this process will be
                self._is_open = False
                break
            # What somebody writes between the count and the mark is counted once too often. That is as well.
            self._accounted[stream] = UNKNOWN if total == UNKNOWN else total + self._marks.size_bytes
            found.append(Found(STREAMS[stream], mark))
        return found

    def _put_back(self) -> None:
        """Undo what a task has done to the standard descriptors: closed them, put others in their places.

        Who closes one, and opens a file that then happens to get its number, keeps that file.
        """
        first, second = self._identities
        try:
            if _identity(_NUMBERS[0]) == first and _identity(_NUMBERS[1]) == second:
                return
        except OSError:
            pass  # one is closed
        for number, end, identity in zip(_NUMBERS, self._ends, self._identities, strict=True):
            try:
                if _identity(number) == identity or fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                    continue
            except OSError:
                pass  # it is closed
            os.dup2(end, number)

    def close(self) -> None:
        """Repeating it does nothing."""
        if self._is_open:
            self._is_open = False
            for end in self._ends:
                os.close(end)


class _Unclosed(io.TextIOWrapper):
    """A stream of the process's own that a task cannot close for the next one."""

    def close(self) -> None:
        """It stays."""


def leave_input() -> None:
    """Have C code and processes find an empty file where input would come from, and never wait for any."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def unbuffer() -> None:
    """Have what C code and Python's own streams write leave at once, not with a later task, or never.

    The C library would gather what it writes to a pipe, and lose it with the process.
    """
    for name, number in (("__stdout__", 1), ("__stderr__", 2)):
        raw = io.FileIO(number, "w", closefd=False)
        setattr(sys, name, _Unclosed(raw, "utf-8", "backslashreplace", write_through=True))
    with contextlib.suppress(ImportError, OSError, AttributeError, ValueError):
        import ctypes

        library = ctypes.CDLL(None)
        name = "__stdoutp" if sys.platform == "darwin" else "stdout"
        library.setvbuf(ctypes.c_void_p.in_dll(library, name), None, _UNBUFFERED, ctypes.c_size_t(0))


def _sign(descriptor: int, sign: int) -> None:
    """Make this open file known again.

    Linux keeps a number with it, of the signal that would tell of input if somebody asked for that. To look
    at it costs 0.3 µs, at the file's identity 1 µs, and each task pays twice.
    """
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, sign)


if hasattr(fcntl, "F_GETSIG"):

    def _identity(descriptor: int) -> object:
        return fcntl.fcntl(descriptor, fcntl.F_GETSIG)
else:

    def _identity(descriptor: int) -> object:
        status = os.fstat(descriptor)
        return status.st_dev, status.st_ino
