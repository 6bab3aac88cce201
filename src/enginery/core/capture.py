"""What engines and the processes they start write past Python, on its way through the supervisor.

Theory
======

Each standard stream of an engine is a pipe. Text in it belongs to the task that the next mark in the pipe
names (`protocol.marks`). While there is none yet it is shown all the same, under the task that the engine's
status page names as the newest. That is right if the page was looked at after the text was read and before
the pipe was looked at again: had the task that wrote the text ended before the page named another one, its
mark would have been in the pipe before that, and come with the second look. So what was read is *held* until
the next look, which says whose it is.

Left-over processes of a task that has ended are the limit of this: what they write while another task runs
cannot be told from what that one writes.

Text is cut in records, numbered for each engine, and gathers for `GATHER_S`; where there is a mark somebody
may wait for it, and it leaves at once, but for `MARK_GATHER_S` after the last that left. An engine that
writes faster than `RATE_BYTES_S`, beyond a first `BURST_BYTES`, is *flooding*: what it writes is read and
left out, and a sentence says how much that was. So nothing blocks, and nothing grows. The next task need not
suffer for that: the first `OWN_BYTES` of each pass as long as there is room.
"""

from __future__ import annotations

from collections import deque

from enginery.ids import EngineKey, TaskId
from enginery.protocol.marks import Mark, Marks, text_decoder
from enginery.protocol.messages import ProcessText, clean_text

GATHER_S = 0.02
MARK_GATHER_S = 0.003
"""Since the last that left: a task may print by turns in Python and past it."""
BURST_BYTES = 16 << 20
RATE_BYTES_S = 4 << 20
OWN_BYTES = 1 << 16
TEXT_LIMIT = 1 << 15
"""Characters of one record."""
NOBODY = TaskId(0)
_STREAMS = ("stdout", "stderr")


class Capture:
    """The pipes of all engines of one host."""

    def __init__(
        self,
        *,
        burst_bytes: int = BURST_BYTES,
        rate_bytes_s: int = RATE_BYTES_S,
        own_bytes: int = OWN_BYTES,
    ) -> None:
        self._burst_bytes = burst_bytes
        self._rate_bytes_s = rate_bytes_s
        self._own_bytes = own_bytes
        self._engines: dict[EngineKey, _Engine] = {}
        self._pending: deque[ProcessText] = deque()
        self._due: float | None = None
        self._taken_at = float("-inf")

    def __repr__(self) -> str:
        return f"<Capture of {len(self._engines)} engines, {len(self._pending)} texts pending>"

    # ------------------------------------------------------------ facts

    def on_started(self, key: EngineKey, *, now: float) -> None:
        allowance = _Allowance(self._burst_bytes, self._rate_bytes_s, self._own_bytes, now)
        self._engines[key] = _Engine(key, allowance)

    def on_read(self, key: EngineKey, stream: str, data: bytes, newest: TaskId, *, now: float) -> bytes:
        """This was in a pipe. `newest` is what the page has named since the look before.

        Returns the data without marks.
        """
        engine = self._engines[key]
        pipe = engine.pipes[stream]
        clean = []
        for text, mark in engine.marks.split(pipe.begun + data):
            if mark is None:
                break
            clean.append(text)
            self._emit(engine, pipe, pipe.held + text, mark, now)
            pipe.held = b""
        begun = engine.marks.begun_bytes(text)
        text, pipe.begun = (text[:-begun], text[-begun:]) if begun else (text, b"")
        clean.append(text)
        if pipe.held:
            self._emit(engine, pipe, pipe.held, Mark(newest, 0, 0), now)
        pipe.held = text
        return b"".join(clean)

    def on_empty(self, key: EngineKey, stream: str, newest: TaskId, *, now: float) -> bytes:
        """There was nothing in a pipe; `newest` and what is returned as in `on_read`."""
        engine = self._engines[key]
        pipe = engine.pipes[stream]
        begun, pipe.begun = pipe.begun, b""  # a mark comes whole: this is none
        held, pipe.held = pipe.held + begun, b""
        if held:
            self._emit(engine, pipe, held, Mark(newest, 0, 0), now)
        return begun

    def on_ended(self, key: EngineKey, newest: TaskId, *, now: float) -> None:
        """The engine has ended, and all that was in its pipes was read. What comes now is nobody's."""
        for stream in _STREAMS:
            self.on_empty(key, stream, newest, now=now)
        del self._engines[key]
        self._due = None if not self._pending else now

    def is_flooding(self, key: EngineKey) -> bool:
        """Whether what this engine writes is being left out: there is no hurry to read it."""
        engine = self._engines.get(key)
        return engine is not None and engine.allowance.is_used_up

    # ------------------------------------------------------------ out

    def next_deadline(self) -> float | None:
        """When there is something to take."""
        return self._due

    def take(self, *, now: float) -> list[ProcessText]:
        """Everything that has gathered."""
        taken = list(self._pending)
        self._pending.clear()
        self._due = None
        self._taken_at = now
        for text in taken:
            engine = self._engines.get(text.key)
            if engine is not None:
                engine.allowance.on_taken(len(text.text), now)
        return taken

    def check(self) -> None:
        assert (self._due is not None) == bool(self._pending)
        for engine in self._engines.values():
            engine.allowance.check()

    # ------------------------------------------------------------ inside

    def _emit(self, engine: _Engine, pipe: _Pipe, data: bytes, mark: Mark, now: float) -> None:
        """This text is of a task, and there may be a mark behind it."""
        is_marked = mark.number > 0
        text = pipe.decoder.decode(data, is_marked)
        if mark.task == NOBODY:
            return
        allowed = engine.allowance.take(len(text), mark.task, now)
        pieces = []
        if allowed:
            pieces += pipe.account_for_left_out(self._rate_bytes_s)
            passed = text[:allowed]
            pieces += [passed[start : start + TEXT_LIMIT] for start in range(0, allowed, TEXT_LIMIT)]
        pipe.left_out += len(text) - allowed
        if is_marked:
            pieces += pipe.account_for_left_out(self._rate_bytes_s)
        if is_marked and not pieces:
            pieces.append("")
        for position, piece in enumerate(pieces, start=1):
            engine.number += 1
            self._pending.append(
                ProcessText(
                    engine.key,
                    engine.number,
                    mark.task,
                    pipe.stream,
                    clean_text(piece),
                    mark.attempt,
                    mark.number if position == len(pieces) else 0,
                )
            )
        if pieces:
            due = max(now, self._taken_at + MARK_GATHER_S) if is_marked else now + GATHER_S
            self._due = due if self._due is None else min(due, self._due)


class _Pipe:
    """One stream of one engine."""

    __slots__ = ("begun", "decoder", "held", "left_out", "stream")

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.decoder = text_decoder()
        self.held = b""  # read, and not known whose it is
        self.begun = b""  # what may be the beginning of a mark
        self.left_out = 0  # characters, and nobody was told

    def account_for_left_out(self, rate: int) -> list[str]:
        """A sentence on what was left out, if anything."""
        count, self.left_out = self.left_out, 0
        if not count:
            return []
        limit = f"an engine may write {rate / (1 << 20):g} MiB a second past Python"
        return [f"\n[{count:,} characters of this output were left out: {limit}]\n"]


class _Engine:
    """The pipes of one engine."""

    __slots__ = ("allowance", "key", "marks", "number", "pipes")

    def __init__(self, key: EngineKey, allowance: _Allowance) -> None:
        self.key = key
        self.marks = Marks(key)
        self.number = 0  # of the last record
        self.pipes = {stream: _Pipe(stream) for stream in _STREAMS}
        self.allowance = allowance


class _Allowance:
    """How much an engine may write now: it grows with time, as far as what waits leaves room for it."""

    __slots__ = ("_at", "_burst", "_left", "_own", "_own_left", "_rate", "_task", "_waiting", "is_used_up")

    def __init__(self, burst: int, rate: int, own: int, now: float) -> None:
        self._burst = burst
        self._rate = rate
        self._own = own
        self._left = float(burst)
        self._waiting = 0
        self._task = NOBODY
        self._own_left = 0  # of this task, whatever others have written
        self._at = now
        self.is_used_up = False

    def take(self, size: int, task: TaskId, now: float) -> int:
        """How much of this task's text may pass."""
        self._grow(now)
        if task != self._task:
            self._task, self._own_left = task, self._own
        allowed = self._own_left
        if not self.is_used_up or self._left >= min(self._rate, self._burst):
            allowed = max(int(self._left), allowed)  # not in drops: a second's worth, or nothing
        passed = min(size, allowed, self._burst - self._waiting)
        self.is_used_up = passed < size
        self._own_left = max(self._own_left - passed, 0)
        self._left = max(self._left - passed, 0.0)
        self._waiting += passed
        return passed

    def on_taken(self, size: int, now: float) -> None:
        self._waiting = max(self._waiting - size, 0)
        self._grow(now)

    def _grow(self, now: float) -> None:
        grown = self._left + (now - self._at) * self._rate
        self._left = max(min(grown, float(self._burst - self._waiting)), 0.0)
        self._at = now

    def check(self) -> None:
        assert 0 <= self._left <= self._burst
        assert 0 <= self._waiting <= self._burst
