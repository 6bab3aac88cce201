"""The engine's control thread: it answers while the main thread runs user code.

It has its own connection. It gives tasks back, stops the engine, and sends what tasks print. It never touches
the main thread's connection; what both use (the workload, the output) has a lock of its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from enginery.core.dialer import Dialer
from enginery.engine.output import GATHER_S, OutputCollector
from enginery.ids import EngineKey, TaskId
from enginery.protocol import codec
from enginery.protocol.link import RECORD_BYTES
from enginery.protocol.messages import (
    ControlHello,
    EngineOutput,
    Goodbye,
    StopEngine,
    TakeBack,
    TakenBack,
    ToControl,
    text_size,
)
from enginery.transport import clock
from enginery.transport.channel import NO_FILE, Channel, HasFileno, Waker
from enginery.transport.end_watch import EndWatch

ORPHAN_GRACE_S = 5.0
"""How long user code may go on after the host of its engine has ended."""

Calls = list[tuple[TaskId, int]]


class ControlThread:
    """Runs from `start` to `stop`."""

    def __init__(
        self,
        channel: Channel,
        *,
        key: EngineKey,
        secret: bytes,
        waker: Waker,
        output: OutputCollector,
        take_back: Callable[[Calls], tuple[Calls, Calls]],
        on_stop: Callable[[], None],
        parent_pid: int,
    ) -> None:
        self._channel = channel
        self._dialer: Dialer[ToControl] = Dialer(codec.to_control(), lambda: ControlHello(key, secret))
        self._waker = waker
        self._output = output
        self._take_back = take_back
        self._on_stop = on_stop
        self._parent = EndWatch(parent_pid)
        self._give_up_at: float | None = None
        self._output_at: float | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="enginery-control", daemon=True)

    def __repr__(self) -> str:
        return f"<ControlThread, {self._dialer!r}>"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send what is left, say goodbye and end the thread."""
        self._stopping = True
        self._waker.wake()
        self._thread.join()

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        self._dialer.greet(now=clock.now())
        while not self._stopping:
            self._send()
            self._channel.wait(self._timeout_s(), self._sources())
            self._turn(clock.now())
        self._send_output()
        if self._dialer.is_bound:
            self._dialer.link.put(Goodbye())
        self._send()
        self._channel.close(linger_s=0.5)
        self._parent.close()

    def _sources(self) -> tuple[HasFileno, ...]:
        if self._give_up_at is None and self._parent.fileno() != NO_FILE:
            return self._waker, self._parent
        return (self._waker,)

    def _turn(self, now: float) -> None:
        if self._waker.clear() and self._output_at is None:
            self._output_at = now + GATHER_S
        while (message := self._channel.receive()) is not None:
            for record, _ in self._dialer.on_message(*message, now=now):
                self._on_record(record)
        if self._output_at is not None and now >= self._output_at:
            self._output_at = None
            self._send_output()
        self._watch_parent(now)
        self._dialer.on_tick(now=now)
        if self._dialer.wants_redial or self._channel.broken:
            self._channel.redial()
            self._dialer.greet(now=now)

    def _watch_parent(self, now: float) -> None:
        """An engine whose host has ended is nobody's: it ends too, if need be in the middle of C code."""
        if self._give_up_at is None:
            if self._parent.has_ended():
                self._give_up_at = now + ORPHAN_GRACE_S
                self._on_stop()
        elif now >= self._give_up_at:
            os._exit(1)

    def _on_record(self, record: ToControl) -> None:
        if isinstance(record, TakeBack):
            taken, kept = self._take_back(record.calls)
            self._dialer.link.put(TakenBack(taken, kept), RECORD_BYTES + 12 * len(record.calls))
        elif isinstance(record, StopEngine):
            self._on_stop()

    def _send_output(self) -> None:
        if not self._dialer.is_bound:
            self._output_at = clock.now() + GATHER_S  # it gathers until there is a connection again
            return
        for piece in self._output.take():
            self._dialer.link.put(
                EngineOutput(piece.task, piece.stream, piece.text), RECORD_BYTES + text_size(piece.text)
            )

    def _send(self) -> None:
        while (message := self._dialer.next_message()) is not None:
            self._channel.send(*message)

    def _timeout_s(self) -> float | None:
        wanted = (self._dialer.next_deadline(), self._output_at, self._give_up_at)
        deadlines = [deadline for deadline in wanted if deadline is not None]
        if self._parent.interval_s is not None:
            deadlines.append(clock.now() + self._parent.interval_s)
        return max(min(deadlines) - clock.now(), 0.0) if deadlines else None
