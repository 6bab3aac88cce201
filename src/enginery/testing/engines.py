"""An engine without a process: the real dialers and the real workload, running `Deed`s in virtual time.

It behaves as the real one does: while a task runs, its task connection is neither read nor written; the
control connection answers meanwhile. What it began is on its "status page", which outlives it.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from typing import NamedTuple

from enginery.core.workload import Attempt, Workload
from enginery.ids import NO_ENGINE, BlobId, EngineId, EngineKey, HostKey, TaskId
from enginery.protocol import codec
from enginery.protocol.assembly import BlobCache
from enginery.protocol.codec import Buffer
from enginery.protocol.hosts import PAGE_TASKS
from enginery.protocol.link import RECORD_BYTES, cut_blob
from enginery.protocol.messages import (
    BlobsMissing,
    ControlHello,
    ControlWelcome,
    DropBlobs,
    EndCalls,
    EngineCall,
    EngineHello,
    EngineResult,
    EngineWelcome,
    Goodbye,
    Holds,
    Interrupt,
    Obeyed,
    PutBlob,
    Results,
    Run,
    RunOptions,
    Started,
    Status,
    Stored,
    TakeBack,
    TakenBack,
    ToControl,
    ToEngine,
    Versions,
)
from enginery.testing import deeds
from enginery.testing.clock import VirtualClock
from enginery.testing.conversation import Conversation
from enginery.testing.deeds import Deed, RunLog
from enginery.testing.network import VirtualNetwork
from enginery.transport.channel import Role

VERSIONS = Versions("0", (sys.version_info.major, sys.version_info.minor))
NO_HOST = HostKey("")


class Work(NamedTuple):
    """What a scripted task needs."""

    options: RunOptions
    call: EngineCall
    arguments: tuple[Buffer, ...]


class Running(NamedTuple):
    attempt: Attempt
    work: Work
    deed: Deed
    run_count: int
    started: float
    ends_at: float
    how: Status = Status.OK  # CANCELLED or OVER_LIMIT when it is being ended, ERROR when it was interrupted


class ScriptedEngine:
    """One engine. `turn` is one turn of its loops; `kill`, `leave` and `freeze` are its fates."""

    def __init__(
        self,
        name: str,
        network: VirtualNetwork,
        clock: VirtualClock,
        runs: RunLog,
        *,
        key: EngineKey,
        wanted: EngineId = NO_ENGINE,
        host_key: HostKey = NO_HOST,
        speed: float = 1.0,
    ) -> None:
        self.name = name
        self.key = key
        self.host_key = host_key
        self.engine = NO_ENGINE
        self.speed = speed  # 2.0 needs half the time for everything
        self.workload: Workload[Work] = Workload()
        self.started: deque[TaskId] = deque(maxlen=PAGE_TASKS)  # what its status page shows
        self.running: Running | None = None
        self.is_alive = True
        self.blobs = BlobCache()
        self._wanted = wanted
        self._clock = clock
        self._runs = runs
        self._result_blobs: dict[Attempt, tuple[BlobId, bytes]] = {}
        self.tasks: Conversation[ToEngine] = Conversation(
            network.dial(Role.ENGINE, name), clock, codec.to_engine(), self._hello
        )
        self.control: Conversation[ToControl] = Conversation(
            network.dial(Role.ENGINE, f"{name}.control"), clock, codec.to_control(), self._control_hello
        )
        self.tasks.begin()

    def __repr__(self) -> str:
        state = "" if self.is_alive else ", dead"
        return f"<ScriptedEngine {self.name} as {self.engine}, {self.workload!r}{state}>"

    # ------------------------------------------------------------ its end

    def kill(self) -> None:
        """End it at once; what it has sent still arrives."""
        self.is_alive = False
        self.tasks.close(linger_s=0.5)
        self.control.close(linger_s=0.5)

    def leave(self) -> None:
        """End it on purpose; the goodbye says what it had begun."""
        self.running = None
        if self.control.is_bound:
            self.control.link.put(Goodbye())
            self.control.send()
        if self.tasks.is_bound:
            self._report()
            self.tasks.link.put(Goodbye(self.workload.begun()))
            self.tasks.send()
        self.kill()

    def forget_blobs(self) -> None:
        """Forget all blobs that wait for tasks, functions included, as a full cache would."""
        self.blobs = BlobCache()

    # ------------------------------------------------------------ the loops

    def next_deadline(self) -> float | None:
        if not self.is_alive:
            return None
        main, control = self.tasks.next_deadline(), self.control.next_deadline()
        if self.running is not None:
            main = min(self.running.ends_at, self.running.started + self._limit_s(self.running))
            if self.running.deed.manner == "deaf":
                control = None
        deadlines = [main, control]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def turn(self) -> bool:
        """Do what there is to do now; False if there was nothing."""
        if not self.is_alive:
            return False
        return self._turn_control() | self._turn_main()

    def _turn_control(self) -> bool:
        if self.running is not None and self.running.deed.manner == "deaf":
            return False
        control = self.control
        active = control.has_begun and control.is_due()
        if active:
            for record, _ in control.receive():
                if isinstance(record, TakeBack | EndCalls):
                    taken, kept = self.workload.on_take_back(record.calls)
                    control.link.put(TakenBack(taken, kept), RECORD_BYTES + 12 * len(record.calls))
                    if isinstance(record, EndCalls) and self.running and self.running.attempt in kept:
                        self._interrupt(Status.CANCELLED)
                elif isinstance(record, ControlWelcome):
                    held = self.workload.on_controller(record.controller)
                    if held is not None:
                        control.link.put(Holds(record.controller, held))
                elif isinstance(record, Interrupt):
                    self._interrupt(Status.ERROR)
                    control.link.put(Obeyed(record.order))
            control.keep_in_touch()
        return control.send() or active

    def _interrupt(self, how: Status) -> None:
        """What user code makes of an interrupt, in the manner of its deed; one that ends is not disturbed."""
        running = self.running
        if running is not None and not running.deed.manner and running.how is Status.OK:
            ends_at = min(running.ends_at, self._clock.now() + running.deed.cleanup_s)
            self.running = running._replace(how=how, ends_at=ends_at)

    def _limit_s(self, running: Running) -> float:
        limit_s = running.work.options.time_limit_s
        return limit_s if limit_s >= 0 and running.how is Status.OK and not running.deed.manner else math.inf

    def _turn_main(self) -> bool:
        now = self._clock.now()
        active = False
        if self.running is not None:
            if now >= self.running.started + self._limit_s(self.running):
                self._interrupt(Status.OVER_LIMIT)
            if now < self.running.ends_at:
                return False
            self._end_running(self.running)
            self.tasks.dialer.on_asleep(now=now)
            active = True
        if self.tasks.is_due():
            active = True
            for record, frame in self.tasks.receive():
                self._on_record(record, frame)
            self.tasks.keep_in_touch()
        active = self._start_some() or active
        self._report()
        return self.tasks.send() or active

    def _on_record(self, record: ToEngine, frame: Buffer | None) -> None:
        if isinstance(record, PutBlob):
            assert frame is not None
            self.blobs.on_piece(record, frame)
        elif isinstance(record, Run):
            for call in record.calls:
                self._on_call(record.options, call)
        elif isinstance(record, Stored):
            self._on_stored(record.below)
        elif isinstance(record, DropBlobs):
            for blob in record.blobs:
                self.blobs.drop(blob)
        elif isinstance(record, EngineWelcome):
            self._on_welcome(record)

    def _on_welcome(self, welcome: EngineWelcome) -> None:
        self.engine = welcome.engine
        self.blobs.restart()
        self._on_stored(welcome.stored)
        self.workload.on_welcome(welcome.stored, welcome.controller)
        self.workload.on_take_back(welcome.unwanted)
        if not self.control.has_begun:
            self.control.begin()

    def _on_stored(self, below: int) -> None:
        for result in self.workload.on_stored(below):
            self._result_blobs.pop((result.task, result.attempt), None)

    def _on_call(self, options: RunOptions, call: EngineCall) -> None:
        needed = (options.function, *call.blobs) if options.function else call.blobs
        found = [self.blobs.get(blob) for blob in needed]
        missing = [blob for blob, data in zip(needed, found, strict=True) if data is None]
        if missing:
            self.tasks.link.put(BlobsMissing(call.task, call.attempt, missing))
            return
        arguments = tuple(data for data in found[len(needed) - len(call.blobs) :] if data is not None)
        self.workload.on_task((call.task, call.attempt), Work(options, call, arguments))

    # ------------------------------------------------------------ running

    def _start_some(self) -> bool:
        """Claim the next task, and run those that take no time."""
        started = False
        while (claimed := self.workload.start_next()) is not None:
            started = True
            attempt, work = claimed
            now = self._clock.now()
            deed = Deed.decode(work.call.payload)
            self.started.append(attempt[0])
            count = self._runs.on_start(attempt[0], deeds.Run(now, self.key, attempt[1]))
            if work.options.announce:
                self.tasks.link.put(Started(*attempt))
            running = Running(attempt, work, deed, count, now, now + deed.duration_s / self.speed)
            if deed.duration_s > 0:
                self.running = running
                return True
            self._end_running(running)
        return started

    def _end_running(self, running: Running) -> None:
        self.running = None
        deed = running.deed
        if running.how is not Status.OK:
            self._finish(running, running.how, b"", error=running.how.name)
        elif self.engine in deed.unmet:
            self._finish(running, Status.UNMET, b"", error=f"engine {self.engine} will not do")
        elif running.run_count <= deed.raises:
            self._finish(running, Status.ERROR, b"raised")
        else:
            self._finish(running, Status.OK, deed.answer(running.work.arguments), deed.blob())

    def _finish(
        self, running: Running, status: Status, payload: bytes, blob: bytes = b"", error: str = ""
    ) -> None:
        task, attempt = running.attempt
        blobs: tuple[BlobId, ...] = ()
        if blob:
            blobs = (BlobId(task.to_bytes(8, "big") + attempt.to_bytes(4, "big") + b"rslt"),)
            self._result_blobs[running.attempt] = (blobs[0], blob)
        self.workload.on_finished(
            EngineResult(
                task, attempt, status, payload, blobs, running.started, self._clock.now(), error=error
            )
        )

    def _report(self) -> None:
        if not self.tasks.is_bound:
            return
        link = self.tasks.link
        for first, results, weight in self.workload.take_results():
            if not results[0].blobs:
                link.put(Results(first, results), weight)
                continue
            for result in results:
                blob, data = self._result_blobs[result.task, result.attempt]
                link.put_blob(cut_blob(blob, data, keep=False))
            link.put_after_bulk(Results(first, results), weight)

    # ------------------------------------------------------------ hellos

    def _hello(self) -> EngineHello:
        return EngineHello(
            self.key,
            self.key.encode(),
            VERSIONS,
            "host",
            self.host_key,
            4711,
            self.engine if self.engine != NO_ENGINE else self._wanted,
            self.workload.held(),
            self.workload.first_result,
        )

    def _control_hello(self) -> ControlHello:
        return ControlHello(self.key, self.key.encode())
