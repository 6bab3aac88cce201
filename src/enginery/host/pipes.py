"""What this host's engines, and the processes they start, write to their standard streams: its reading ends.

The supervisor reads them because an engine cannot: a thread of it would need the GIL while C code holds that
and waits for room in the pipe, and would end with it. All that is read goes into the engine's log, up to
`LOG_LIMIT_BYTES`; whose it is decides `core.capture`. A pipe's end means nothing: who has ended says the
parent of all processes, and what processes that outlive their engine write is for the log.
"""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Iterable
from pathlib import Path

from enginery.core.capture import Capture
from enginery.host.files import append_to_log
from enginery.ids import EngineKey, TaskId
from enginery.transport.channel import NO_FILE
from enginery.transport.pipe_meter import PipeMeter
from enginery.transport.status_page import STREAMS, PageWatch

READ_BYTES = 1 << 20
"""No less than a pipe holds: one look takes all that was there."""
LOOKS = 4
"""At one pipe, before others have their turn."""
LAST_LOOKS = 64
"""After the engine's end: others may write on for ever."""
FLOOD_PAUSE_S = 0.002
"""Between two looks at a pipe whose content is left out: about 30 MB a second, for little work."""
LOG_LIMIT_BYTES = 16 << 20
"""Of one engine's output in its log."""
_NOBODY = TaskId(0)

log = logging.getLogger("enginery.host.pipes")


class EnginePipes:
    """All pipes of one host's engines."""

    def __init__(self) -> None:
        self.capture = Capture()
        self._engines: dict[EngineKey, _Engine] = {}
        self._left_over: list[_Engine] = []  # they have ended, and somebody holds their pipes
        self._paused_until = 0.0
        self._paused: list[_Pipe] = []
        self._buffer = bytearray(READ_BYTES)

    def __repr__(self) -> str:
        return f"<EnginePipes of {len(self._engines)} engines, {len(self._left_over)} left over>"

    def open(
        self, key: EngineKey, descriptors: Iterable[int], *, log_path: Path, page_path: Path, now: float
    ) -> None:
        """An engine has started; the descriptors belong to these pipes from now on."""
        ends = list(descriptors)
        if len(ends) < len(STREAMS):
            log.error("what engine process %s writes past Python is lost: too many files are open", key)
            ends += [NO_FILE] * (len(STREAMS) - len(ends))
        self._engines[key] = _Engine(key, ends, log_path, page_path)
        self.capture.on_started(key, now=now)

    def sources(self) -> tuple[_Pipe, ...]:
        """What to wait for, beside the deadline."""
        return tuple(pipe for pipe in self._open_pipes() if pipe not in self._paused)

    def next_deadline(self) -> float | None:
        return self._paused_until if self._paused else None

    def read(self, *, now: float) -> None:
        """Take what is there."""
        if self._paused and now >= self._paused_until:
            self._paused.clear()
        pipes = {pipe.fileno(): pipe for pipe in self.sources()}
        if not pipes:
            return
        poll = select.poll()
        for descriptor in pipes:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(0):
            pipe = pipes[descriptor]
            self._look(pipe, LOOKS, now)
            if self.capture.is_flooding(pipe.engine.key) and pipe.fileno() != NO_FILE:
                self._paused.append(pipe)
                self._paused_until = now + FLOOD_PAUSE_S
        self._left_over = [engine for engine in self._left_over if engine.is_open]

    def on_ended(self, key: EngineKey, *, now: float) -> None:
        """The engine has ended: take its last words. What comes later is for its log alone."""
        engine = self._engines.pop(key, None)
        if engine is None:
            return
        for pipe in engine.pipes:
            self._look(pipe, LAST_LOOKS, now)
        self.capture.on_ended(key, engine.newest(), now=now)
        engine.end()
        if engine.is_open:
            self._left_over.append(engine)

    def close(self) -> None:
        """Let go of everything."""
        for engine in (*self._engines.values(), *self._left_over):
            engine.close()
        self._engines.clear()
        self._left_over.clear()
        self._paused.clear()

    def _open_pipes(self) -> list[_Pipe]:
        engines = (*self._engines.values(), *self._left_over)
        return [pipe for engine in engines for pipe in engine.pipes if pipe.fileno() != NO_FILE]

    def _look(self, pipe: _Pipe, looks: int, now: float) -> None:
        """Look at a pipe until it is empty; where its engine has ended, its content is for the log."""
        engine = pipe.engine
        for _ in range(looks):
            data = pipe.read(self._buffer)
            if engine.has_ended:
                clean = data
            elif data:
                clean = self.capture.on_read(engine.key, pipe.stream, data, pipe.newest, now=now)
            else:
                clean = self.capture.on_empty(engine.key, pipe.stream, pipe.newest, now=now)
            engine.write_log(clean)
            if not data:
                return
            # Asked between two looks; what it proves is written in `core.capture`.
            pipe.newest = engine.newest()


class _Engine:
    """One engine's pipes, its page while it lives, and its log."""

    def __init__(self, key: EngineKey, descriptors: Iterable[int], log_path: Path, page_path: Path) -> None:
        self.key = key
        self.has_ended = False
        self._log_path = log_path
        self._log_left = LOG_LIMIT_BYTES
        self._page = _watch(page_path)
        self.pipes = [
            _Pipe(self, stream, descriptor, None if self._page is None else self._page.meter(place))
            for place, (stream, descriptor) in enumerate(zip(STREAMS, descriptors, strict=True))
        ]

    def __repr__(self) -> str:
        return f"<_Engine {self.key}{' ended' if self.has_ended else ''}>"

    @property
    def is_open(self) -> bool:
        return any(pipe.fileno() != NO_FILE for pipe in self.pipes)

    def newest(self) -> TaskId:
        """The task that it has begun last."""
        return _NOBODY if self._page is None else self._page.newest()

    def write_log(self, data: bytes) -> None:
        if not data or self._log_left <= 0:
            return
        data = data[: self._log_left]
        self._log_left -= len(data)
        if not self._log_left:
            data += f"\n[output of engine process {self.key} is no longer kept here]\n".encode()
        try:
            append_to_log(self._log_path, data)
        except OSError as error:
            log.error("%s cannot be written: %s", self._log_path, error)
            self._log_left = 0

    def end(self) -> None:
        """Let go of its page."""
        self.has_ended = True
        for pipe in self.pipes:
            pipe.meter = None
        if self._page is not None:
            self._page.close()
            self._page = None

    def close(self) -> None:
        self.end()
        for pipe in self.pipes:
            pipe.close()


def _watch(path: Path) -> PageWatch | None:
    """An engine's page; None if it cannot be made, which the engine will find too."""
    try:
        return PageWatch(path)
    except OSError as error:
        log.error("the status page %s cannot be mapped: %s", path, error)
        return None


class _Pipe:
    """The reading end of one pipe."""

    def __init__(self, engine: _Engine, stream: str, descriptor: int, meter: PipeMeter | None) -> None:
        if descriptor != NO_FILE:
            os.set_blocking(descriptor, False)
        self.engine = engine
        self.stream = stream
        self.meter = meter
        self.newest = _NOBODY
        self._descriptor = descriptor

    def __repr__(self) -> str:
        return f"<_Pipe {self.stream} of {self.engine.key}>"

    def fileno(self) -> int:
        return self._descriptor

    def read(self, buffer: bytearray) -> bytes:
        """All that is there; empty if there is nothing, now or ever."""
        if self._descriptor == NO_FILE:
            return b""
        size_bytes = 0
        if self.meter is not None:
            self.meter.begin()
        try:
            size_bytes = os.readv(self._descriptor, [buffer])
            if not size_bytes:
                self.close()  # nobody can write to it any more
        except BlockingIOError:
            pass
        finally:
            if self.meter is not None:
                self.meter.end(size_bytes)
        return bytes(memoryview(buffer)[:size_bytes])

    def close(self) -> None:
        """Repeating it does nothing."""
        if self._descriptor != NO_FILE:
            os.close(self._descriptor)
            self._descriptor = NO_FILE
