"""The engine's control thread: it answers while the main thread runs user code.

It has its own connection. It gives tasks back, clears the namespace, stops the engine, and sends what tasks
print, display and publish, and how far they are. It never touches the main thread's connection; what both use
(the workload, the output) has a lock of its own.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Protocol

from enginery.core.dialer import Dialer
from enginery.core.workload import Attempt
from enginery.engine.output import GATHER_S, Shown, Value
from enginery.engine.publishing import Outlet
from enginery.ids import EngineKey, TaskId
from enginery.protocol import codec
from enginery.protocol.link import RECORD_BYTES
from enginery.protocol.messages import (
    ClearNamespace,
    ControlHello,
    ControlWelcome,
    EndCalls,
    EngineData,
    EngineDisplay,
    EngineMemory,
    EngineOutput,
    Goodbye,
    Holds,
    Interrupt,
    MemoryUse,
    Obeyed,
    ReportMemory,
    SkipItems,
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
OBJECT_BYTES = 250
"""What the record of a named object weighs at most."""

Calls = list[tuple[TaskId, int]]

log = logging.getLogger("enginery.engine.control")


class Interruptions(Protocol):
    """How what runs in the main thread is interrupted. Called by the control thread."""

    def end_calls(self, calls: Calls, grace_s: float) -> tuple[Calls, Calls]:
        """Give these back; end the one that has begun. Returns what `take_back` would."""

    def skip_items(self, attempt: Attempt, items: list[int]) -> None:
        """Do not run these items of a part of a map; end the one that runs."""

    def held_for(self, controller: str) -> Calls | None:
        """If this is another controller than the main thread knows: what is here, and to be finished."""

    def interrupt(self) -> None:
        """Interrupt what runs now, if something does."""

    def set_grace(self, grace_s: float) -> None:
        """How long a task that is over its limit may take to end."""

    def next_deadline(self) -> float | None:
        """When to call `on_tick`."""

    def on_tick(self, *, now: float) -> None:
        """Knock, if that is due."""


class ControlThread:
    """Runs from `start` to `stop`.

    An engine without it could be neither stopped nor asked: if it fails, `on_failed` is to end the process.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        key: EngineKey,
        secret: bytes,
        waker: Waker,
        outlet: Outlet,
        take_back: Callable[[Calls], tuple[Calls, Calls]],
        interruptions: Interruptions,
        clear: Callable[[], None],
        tell_memory: Callable[[bool], tuple[MemoryUse, bool]],
        on_stop: Callable[[], None],
        on_failed: Callable[[], None],
        parent_pid: int,
    ) -> None:
        self._channel = channel
        self._dialer: Dialer[ToControl] = Dialer(codec.to_control(), lambda: ControlHello(key, secret))
        self._waker = waker
        self._output, self._progress = outlet
        self._take_back = take_back
        self._interruptions = interruptions
        self._clear = clear
        self._tell_memory = tell_memory
        self._on_stop = on_stop
        self._on_failed = on_failed
        self._parent = EndWatch(parent_pid)
        self._give_up_at: float | None = None
        self._output_at: float | None = None
        self._sent_output_at = 0.0
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
        try:
            self._converse()
        except BaseException:
            log.critical("the control thread has failed", exc_info=True)
            if not self._stopping:  # an engine that leaves goes on with that
                self._on_failed()

    def _converse(self) -> None:
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
        if self._waker.clear():
            due = now + self._output.delay_s(sent_ago_s=now - self._sent_output_at)
            self._output_at = due if self._output_at is None else min(due, self._output_at)
        while (message := self._channel.receive()) is not None:
            for record, _ in self._dialer.on_message(*message, now=now):
                self._on_record(record)
        if self._output_at is not None and now >= self._output_at:
            self._output_at = None
            self._send_output()
        self._interruptions.on_tick(now=clock.now())
        self._send_progress(now)
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
        elif isinstance(record, EndCalls):
            taken, kept = self._interruptions.end_calls(record.calls, record.grace_s)
            self._dialer.link.put(TakenBack(taken, kept), RECORD_BYTES + 12 * len(record.calls))
        elif isinstance(record, SkipItems):
            self._interruptions.skip_items((record.task, record.attempt), record.items)
        elif isinstance(record, Interrupt):
            self._interruptions.interrupt()
            self._dialer.link.put(Obeyed(record.order))
        elif isinstance(record, ControlWelcome):
            self._interruptions.set_grace(record.grace_s)
            held = self._interruptions.held_for(record.controller)
            if held is not None:
                self._dialer.link.put(Holds(record.controller, held), RECORD_BYTES + 12 * len(held))
        elif isinstance(record, ClearNamespace):
            self._clear()
            self._dialer.link.put(Obeyed(record.order))
        elif isinstance(record, ReportMemory):
            use, freed = self._tell_memory(record.free)
            size_bytes = RECORD_BYTES + OBJECT_BYTES * len(use.objects)
            self._dialer.link.put(EngineMemory(record.order, use, freed), size_bytes)
        elif isinstance(record, StopEngine):
            self._on_stop()

    def _send_output(self) -> None:
        self._sent_output_at = now = clock.now()
        if not self._dialer.is_bound or not self._dialer.link.has_room:
            self._output.gather()
            self._output_at = now + GATHER_S  # it gathers until there is a connection that takes it
            return
        put = self._dialer.link.put
        for piece in self._output.take():
            if isinstance(piece, Value):
                size_bytes = RECORD_BYTES + text_size(piece.name) + len(piece.payload)
                put(EngineData(piece.task, piece.name, piece.payload), size_bytes)
            elif isinstance(piece, Shown):
                put(EngineDisplay(*piece), RECORD_BYTES + len(piece.content))
            else:
                put(EngineOutput(*piece), RECORD_BYTES + text_size(piece.text))

    def _send_progress(self, now: float) -> None:
        if not self._dialer.is_bound:
            self._progress.postpone(now=now)
        elif (progress := self._progress.take(now=now)) is not None:
            self._dialer.link.put(progress)

    def _send(self) -> None:
        while (message := self._dialer.next_message()) is not None:
            self._channel.send(*message)

    def _timeout_s(self) -> float | None:
        wanted = (
            self._dialer.next_deadline(),
            self._interruptions.next_deadline(),
            self._output_at,
            self._progress.due_at(),
            self._give_up_at,
        )
        deadlines = [deadline for deadline in wanted if deadline is not None]
        if self._parent.interval_s is not None:
            deadlines.append(clock.now() + self._parent.interval_s)
        return max(min(deadlines) - clock.now(), 0.0) if deadlines else None
