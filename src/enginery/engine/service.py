"""The engine's main thread: receive → claim → run → report.

It owns the task connection and runs user code, so signals, matplotlib, MPI and event loops behave as in any
script. While user code runs nothing is received here; the control thread answers instead. Results of short
tasks gather for `FLUSH_S` and travel together; the result of a task after which nothing waits leaves at once.

A short task costs about 10 µs beside the user's code (`scripts/bench --only single_tasks` has the whole way).
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from enginery.core.dialer import Dialer
from enginery.core.ledger import Blob
from enginery.core.workload import Attempt, Workload
from enginery.engine.control import Calls, ControlThread
from enginery.engine.namespace import make_main
from enginery.engine.output import OutputCollector, TaskStream
from enginery.engine.runner import Outcome, Runner, StopRunning
from enginery.ids import NO_ENGINE, BlobId, EngineId, TaskId
from enginery.objects.packing import Packed
from enginery.protocol import codec
from enginery.protocol.assembly import BlobCache
from enginery.protocol.codec import Buffer
from enginery.protocol.link import cut_blob
from enginery.protocol.messages import (
    BlobsMissing,
    DropBlobs,
    EngineCall,
    EngineHello,
    EngineResult,
    EngineWelcome,
    Goodbye,
    PutBlob,
    Results,
    Run,
    RunOptions,
    Started,
    Status,
    Stored,
    ToEngine,
    Versions,
)
from enginery.protocol.specs import EngineSpec
from enginery.transport import clock
from enginery.transport.channel import Channel, Waker
from enginery.transport.status_page import StatusPage

FLUSH_S = 0.001

log = logging.getLogger("enginery.engine")


class Work(NamedTuple):
    """What the runner needs for a task, kept alive until it has run."""

    options: RunOptions
    call: EngineCall
    function: Buffer | None
    buffers: Sequence[Buffer]


class Engine:
    """One engine process. `run` returns its exit code."""

    def __init__(
        self, spec: EngineSpec, *, version: str, host: str, channel: Channel, control: Channel
    ) -> None:
        self._spec = spec
        self._channel = channel
        self._control_channel = control
        self._secret = secrets.token_bytes(16)
        self._versions = Versions(version, (sys.version_info.major, sys.version_info.minor))
        self._host = host
        self._dialer: Dialer[ToEngine] = Dialer(codec.to_engine(), self._hello)
        self._lock = (
            threading.Lock()
        )  # around the workload: this thread claims, the control thread gives back
        self._workload: Workload[Work] = Workload()
        self._blobs = BlobCache()
        self._result_blobs: dict[Attempt, list[Blob]] = {}  # until their result is stored
        self._unstored_bytes = 0
        self._byte_window = 1
        self._namespace = make_main()
        self._page = StatusPage.create(Path(spec.status_page)) if spec.status_page else None
        self._waker = Waker()  # wakes this thread
        self._wakers = (self._waker,)
        self._control_waker = Waker()
        self._output = OutputCollector(self._control_waker.wake)
        self._control: ControlThread | None = None
        self._runner: Runner | None = None
        self.engine = NO_ENGINE
        self._in_user_code = False
        self._running = TaskId(0)
        self._stopping = False
        self._has_crashed = False

    def __repr__(self) -> str:
        return f"<Engine {self.engine} {self._spec.key}, {self._workload!r}>"

    # ------------------------------------------------------------ life

    def run(self) -> int:
        self._install()
        try:
            self._dialer.greet(now=clock.now())
            self._loop()
            return 0 if not self._dialer.refusal else 1
        except StopRunning:
            return 0
        except BaseException:
            # A defect. Its traceback belongs in the log; the supervisor's word on its end is the true one.
            sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
            self._has_crashed = True
            raise
        finally:
            self._leave()

    def stop(self) -> None:
        """End soon, from any thread or a signal handler; user code that runs is not interrupted."""
        self._stopping = True
        self._waker.wake()

    def _install(self) -> None:
        signal.signal(signal.SIGINT, self._on_interrupt)
        signal.signal(signal.SIGTERM, self._on_terminate)
        sys.stdout = TaskStream(self._output, "stdout", 1)
        sys.stderr = TaskStream(self._output, "stderr", 2)

    def _leave(self) -> None:
        if self._control is not None:
            self._control.stop()
        else:
            self._control_channel.close()
        if self._dialer.is_bound and not self._has_crashed:
            self._report()
            self._dialer.link.put(Goodbye(self._running))
            self._send()
        self._channel.close(linger_s=0.5)
        self._waker.close()
        self._control_waker.close()
        if self._page is not None:
            self._page.close()

    def _on_interrupt(self, signum: int, frame: object) -> None:
        if self._in_user_code:
            raise KeyboardInterrupt

    def _on_terminate(self, signum: int, frame: object) -> None:
        self.stop()
        if self._in_user_code:
            self._in_user_code = False
            raise StopRunning

    # ------------------------------------------------------------ the loop

    def _loop(self) -> None:
        channel = self._channel
        while not self._stopping and not self._dialer.refusal:
            now = clock.now()
            self._receive(now)
            if self._run_some(now):
                continue
            self._report()
            self._keep_in_touch(now)
            self._send()
            deadline = self._dialer.next_deadline()
            channel.wait(None if deadline is None else max(deadline - clock.now(), 0.0), self._wakers)
            self._waker.clear()

    def _run_some(self, now: float) -> bool:
        """Run tasks until it is time to report. False if there was nothing to run."""
        until = now + FLUSH_S
        ran = False
        while now < until and not self._stopping and self._unstored_bytes < self._byte_window:
            with self._lock:
                claimed = self._workload.start_next()
            if claimed is None:
                break
            self._run_one(*claimed)
            ran = True
            now = clock.now()
        if ran:
            self._dialer.on_asleep(now=now)
            self._report()
            self._send()
        return ran

    def _run_one(self, attempt: Attempt, work: Work) -> None:
        runner = self._runner
        assert runner is not None, "tasks come after the welcome"
        options, call = work.options, work.call
        if options.announce:
            self._dialer.link.put(Started(call.task, call.attempt))
            self._report()
            self._send()
        self._running = call.task
        if self._page is not None:
            self._page.start(call.task)
        self._output.begin(call.task)
        started = clock.now()
        try:
            # Set inside the try: an interrupt that comes later than the task must find it cleared.
            self._in_user_code = True
            outcome = runner.run(options.kind, options.function, work.function, call.payload, work.buffers)
            self._in_user_code = False
        except KeyboardInterrupt as error:  # it came between the end of user code and the flag
            self._in_user_code = False
            outcome = Outcome(Status.ERROR, runner.failure(error, options.kind))
        finally:
            self._in_user_code = False
        completed = clock.now()
        stdout, stderr, outputs = self._output.end()
        if self._page is not None:
            self._page.finish()
        packed = outcome.packed
        blobs: list[Blob] = []
        if packed.buffers:
            blobs = _copy_buffers(packed)
            self._result_blobs[attempt] = blobs
        result = EngineResult(
            attempt[0],
            attempt[1],
            outcome.status,
            packed.inline,
            tuple(blob.blob_id for blob in blobs),
            started,
            completed,
            stdout,
            stderr,
            outputs,
        )
        self._unstored_bytes += packed.size_bytes
        with self._lock:
            self._workload.on_finished(result)
        self._running = TaskId(0)

    # ------------------------------------------------------------ in

    def _receive(self, now: float) -> None:
        while (message := self._channel.receive()) is not None:
            for record, frame in self._dialer.on_message(*message, now=now):
                if frame is not None:
                    assert isinstance(record, PutBlob)
                    self._blobs.on_piece(record, frame)
                elif isinstance(record, Run):
                    self._on_run(record)
                elif isinstance(record, Stored):
                    self._on_stored(record.below)
                elif isinstance(record, DropBlobs):
                    for blob in record.blobs:
                        self._blobs.drop(blob)
                elif isinstance(record, EngineWelcome):
                    self._on_welcome(record)
                elif isinstance(record, Goodbye):
                    self._stopping = True

    def _on_run(self, record: Run) -> None:
        options = record.options
        function: Buffer | None = None
        missing: list[BlobId] = []
        if options.function:
            function = self._blobs.get(options.function)
            if function is None and not (self._runner and self._runner.has_function(options.function)):
                missing = [options.function]
        for call in record.calls:
            buffers = [self._blobs.get(blob) for blob in call.blobs]
            absent = [
                *missing,
                *(blob for blob, data in zip(call.blobs, buffers, strict=True) if data is None),
            ]
            if absent:
                self._dialer.link.put(BlobsMissing(call.task, call.attempt, absent))
                continue
            work = Work(options, call, function, [data for data in buffers if data is not None])
            with self._lock:
                self._workload.on_task((call.task, call.attempt), work)

    def _on_stored(self, below: int) -> None:
        with self._lock:
            safe = self._workload.on_stored(below)
        for result in safe:
            blobs = self._result_blobs.pop((result.task, result.attempt), [])
            self._unstored_bytes -= len(result.payload) + sum(len(blob.data) for blob in blobs)

    def _on_welcome(self, record: EngineWelcome) -> None:
        self._byte_window = record.result_byte_window
        self._blobs.restart()
        self._on_stored(record.stored)
        with self._lock:
            self._workload.on_welcome(record.stored)
        if self._runner is None:
            self.engine = EngineId(record.engine)
            self._runner = Runner(self._namespace, engine=self.engine, key=self._spec.key)
            self._control = ControlThread(
                self._control_channel,
                key=self._spec.key,
                secret=self._secret,
                waker=self._control_waker,
                output=self._output,
                take_back=self._give_back,
                on_stop=self._on_stop_asked,
                parent_pid=self._spec.parent_pid,
            )
            self._control.start()
            log.info("engine %d of %s", self.engine, self._spec.cluster)

    def _give_back(self, calls: Calls) -> tuple[Calls, Calls]:
        """Called by the control thread."""
        with self._lock:
            return self._workload.on_take_back(calls)

    def _on_stop_asked(self) -> None:
        """Called by the control thread."""
        os.kill(os.getpid(), signal.SIGTERM)  # its handler runs in the main thread, in user code or not

    # ------------------------------------------------------------ out

    def _hello(self) -> EngineHello:
        with self._lock:
            held, first_result = self._workload.held(), self._workload.first_result
        spec = self._spec
        return EngineHello(
            spec.key,
            self._secret,
            self._versions,
            self._host,
            spec.host_key,
            os.getpid(),
            self.engine if self.engine != NO_ENGINE else spec.wanted,
            held,
            first_result,
        )

    def _report(self) -> None:
        """Queue the results that have gathered."""
        if not self._dialer.is_bound:
            return
        link = self._dialer.link
        with self._lock:
            groups = list(self._workload.take_results())
        for first, results, weight in groups:
            if not results[0].blobs:
                link.put(Results(first, results), weight)
                continue
            for result in results:
                for blob in self._result_blobs[result.task, result.attempt]:
                    link.put_blob(cut_blob(blob.blob_id, blob.data, keep=False))
            link.put_after_bulk(Results(first, results), weight)

    def _keep_in_touch(self, now: float) -> None:
        self._dialer.on_tick(now=now)
        if self._dialer.wants_redial or self._channel.broken:
            self._channel.redial()
            self._dialer.greet(now=now)

    def _send(self) -> None:
        while (message := self._dialer.next_message()) is not None:
            if not self._channel.send(*message):
                return


def _copy_buffers(packed: Packed) -> list[Blob]:
    # A copy, because the next task may change an array of the namespace while this one is under way.
    return [Blob(BlobId(secrets.token_bytes(16)), bytes(buffer), keep=False) for buffer in packed.buffers]
