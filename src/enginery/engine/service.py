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
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from enginery.core.arrivals import Arrivals
from enginery.core.dialer import Dialer
from enginery.core.workload import Attempt, Workload
from enginery.engine.attaching import attach_through
from enginery.engine.control import Calls, ControlThread
from enginery.engine.interrupts import Interrupts, StopRunning
from enginery.engine.memory import Freeing, memory_use
from enginery.engine.namespace import make_main
from enginery.engine.output import OutputCollector
from enginery.engine.past_python import PastPython
from enginery.engine.progress import ProgressMeter
from enginery.engine.publishing import Outlet, publish_through
from enginery.engine.returning import ResultBlob, copy_buffers, held_bytes
from enginery.engine.runner import Runner, Work
from enginery.engine.startup import StartupFailed, run_startup, tell_surroundings
from enginery.engine.streams import NoInput, TaskStream
from enginery.engine.threads import TaskThreads
from enginery.engine.visits import Visits
from enginery.errors import TooLarge
from enginery.ids import NO_ENGINE, BlobId, EngineId
from enginery.objects.failures import format_remote_traceback
from enginery.protocol import codec
from enginery.protocol.assembly import BlobCache
from enginery.protocol.codec import Buffer
from enginery.protocol.link import RECORD_BYTES
from enginery.protocol.messages import (
    CALL_LIMIT_BYTES,
    BlobsMissing,
    DropBlobs,
    EngineHello,
    EngineResult,
    EngineWelcome,
    FreeSegments,
    Goodbye,
    MemoryUse,
    PutBlob,
    Results,
    Run,
    ShareBlob,
    Started,
    Stored,
    ToEngine,
    Versions,
)
from enginery.protocol.specs import CONTROL_FAILED, STARTUP_FAILED, EngineSpec
from enginery.transport import clock
from enginery.transport.channel import Channel, Waker
from enginery.transport.shared_memory import SegmentGone
from enginery.transport.sharing import Sharing
from enginery.transport.status_page import StatusPage

if TYPE_CHECKING:
    from enginery.engine.kernel import Kernel

FLUSH_S = 0.001
DRAIN_S = 2.0
"""How long large results may take to leave before the engine does: less than what its host waits for it."""
FREE_WAIT_S = 0.5
"""How long the control thread waits for the main thread, which has nothing to do, to empty its caches."""

log = logging.getLogger("enginery.engine")


class Engine:
    """One engine process. `run` returns its exit code."""

    def __init__(
        self,
        spec: EngineSpec,
        *,
        version: str,
        host: str,
        channel: Channel,
        control: Channel,
        sharing: Sharing,
        find_client_file: Callable[[], str],
    ) -> None:
        self._spec = spec
        self._find_client_file = find_client_file
        self._channel = channel
        self._control_channel = control
        self._secret = secrets.token_bytes(16)
        self._versions = Versions(version, (sys.version_info.major, sys.version_info.minor))
        self._host = host
        self._dialer: Dialer[ToEngine] = Dialer(codec.to_engine(), self._hello)
        self._lock = threading.Lock()  # around the workload: this thread claims, another gives back
        self._workload: Workload[Work] = Workload()
        self._arrivals: Arrivals[Work] = Arrivals()
        self._blobs = BlobCache()
        self._sharing = sharing
        self._unreadable: set[BlobId] = set()  # shared by name, and not to be mapped here
        self._result_blobs: dict[Attempt, list[ResultBlob]] = {}  # until their result is stored
        self._unstored_bytes = 0
        self._byte_window = 1
        self._namespace = make_main()
        self._page = StatusPage.create(Path(spec.status_page)) if spec.status_page else None
        self._waker = Waker()  # wakes this thread
        self._wakers = (self._waker,)
        self._control_waker = Waker()
        self._interrupts = Interrupts(self._control_waker.wake)
        self._threads = TaskThreads()
        self._unfollow: Callable[[], None] = lambda: None
        self._past: PastPython | None = None  # None: nobody reads what is written past Python
        if self._page is not None and spec.log:
            self._past = PastPython(spec.key, self._page)
        self._output = OutputCollector(
            self._control_waker.wake,
            self._threads,
            past=self._past,
            last_words=None if self._page is None else self._page.last_words,
        )
        self._progress = ProgressMeter(self._control_waker.wake, self._threads)
        self._visits = Visits(
            self._threads, self._interrupts, self._lock, self._waker.wake, self._past, self._page
        )
        self._output.visitors = self._visits
        self._input = NoInput()
        self._streams = TaskStream(self._output, "stdout", 1), TaskStream(self._output, "stderr", 2)
        self._discarded: deque[list[object]] = deque()  # values of a cleared namespace
        self._freeing = Freeing()
        self._control: ControlThread | None = None
        self._runner: Runner | None = None
        self.engine = NO_ENGINE
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
        except StartupFailed as error:
            log.error("the startup code failed:\n%s", format_remote_traceback(error.reason))
            self._has_crashed = True
            return STARTUP_FAILED
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
        self._interrupts.install()
        signal.signal(signal.SIGTERM, self._on_terminate)
        sys.stdin, (sys.stdout, sys.stderr) = self._input, self._streams
        if self._past is not None:
            for stream in self._streams:
                stream.log_to(self._spec.log)
        self._unfollow = self._threads.follow()
        publish_through(Outlet(self._output, self._progress))
        attach_through(self._open_kernel)

    def _leave(self) -> None:
        publish_through(None)
        attach_through(None)
        self._visits.close()
        self._unfollow()
        if self._control is not None:
            self._control.stop()
        else:
            self._control_channel.close()
        self._output.close()
        for stream in self._streams:
            stream.log_to("")
        if self._dialer.is_bound and not self._has_crashed:
            self._say_goodbye()
        self._channel.close(linger_s=0.5)
        self._sharing.close()
        self._waker.close()
        self._control_waker.close()
        if self._past is not None:
            self._past.close()
        if self._page is not None:
            self._page.close()
        if self._runner is not None:
            self._runner.close()

    def _say_goodbye(self) -> None:
        """After the results; what time does not suffice for has been begun all the same, and it says so."""
        self._report()
        self._send()
        deadline = clock.now() + DRAIN_S
        while self._dialer.is_bound and not self._dialer.link.is_drained and not self._channel.broken:
            left_s = deadline - clock.now()
            if left_s <= 0:
                break
            self._channel.wait(left_s)
            self._receive(clock.now())  # how much the controller has taken, which makes room for more
            self._send()
        if self._dialer.is_bound:
            begun = self._workload.begun()
            self._dialer.link.put(Goodbye(begun), RECORD_BYTES + 12 * len(begun or ()))
            self._send()

    def _on_terminate(self, signum: int, frame: FrameType | None) -> None:
        self.stop()
        self._interrupts.stop(frame)

    # ------------------------------------------------------------ the loop

    def _loop(self) -> None:
        channel = self._channel
        while not self._stopping and not self._dialer.refusal:
            now = clock.now()
            self._receive(now)
            self._discarded.clear()
            if self._freeing.is_wanted:
                self._free()
            if self._run_some(now) or self._run_visit():
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
            self._run_visit()
            ran = True
            now = clock.now()
        if ran:
            self._dialer.on_asleep(now=now)
            self._report()
            self._send()
        return ran

    def _run_visit(self) -> bool:
        """Run a cell of a front-end that waits for its turn. False if there is none."""
        if not self._visits.run_next():
            return False
        sys.stdin, (sys.stdout, sys.stderr) = self._input, self._streams
        return True

    def _open_kernel(self, ip: str, ports: dict[str, int]) -> Kernel:
        assert self._runner is not None, "user code runs after the welcome"
        return self._visits.open(self._runner, f"{self._spec.cluster}-{self.engine}", ip, ports)

    def _run_one(self, attempt: Attempt, work: Work) -> None:
        runner = self._runner
        assert runner is not None, "tasks come after the welcome"
        options, call = work.options, work.call
        if options.announce:
            self._dialer.link.put(Started(call.task, call.attempt))
            self._report()
            self._send()
        if self._page is not None:
            self._page.start(call.task)
        run = self._output.begin(call.task, call.attempt)
        self._progress.begin(call.task, call.attempt)
        started = clock.now()
        self._interrupts.begin(attempt, options.time_limit_s)
        outcome = runner.run(
            options.kind,
            options.function,
            work.function,
            call.payload,
            work.buffers,
            writeable=options.writeable,
        )
        completed = clock.now()
        # Who puts others in their places does so for his task.
        sys.stdin, (sys.stdout, sys.stderr) = self._input, self._streams
        last = self._progress.end()
        stdout, stderr, outputs, written = self._output.end()
        if self._page is not None:
            self._page.finish()
        if outcome.packed.size_bytes > CALL_LIMIT_BYTES:
            size_bytes = outcome.packed.size_bytes
            too_large = TooLarge("the result", size_bytes=size_bytes, limit_bytes=CALL_LIMIT_BYTES)
            outcome = runner.failed(too_large, options.kind)
        packed = outcome.packed
        blobs: list[ResultBlob] = []
        if packed.buffers:
            blobs = copy_buffers(packed.buffers, self._sharing)
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
            outcome.error,
            outcome.error_types,
            runner.unpickle_s,
            runner.pickle_s,
            last.report,
            last.items,
            last.failed,
            last.cancelled,
            written,
            self._threads.linger(run) or runner.take_left_over(),
        )
        self._unstored_bytes += len(packed.inline) + held_bytes(blobs)
        with self._lock:
            self._workload.on_finished(result)
            self._interrupts.end()

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
                elif isinstance(record, ShareBlob):
                    self._on_shared(record)
                elif isinstance(record, FreeSegments):
                    self._sharing.release(record.segments)
                elif isinstance(record, DropBlobs):
                    self._unreadable.difference_update(record.blobs)
                    for blob in record.blobs:
                        self._blobs.drop(blob)
                elif isinstance(record, EngineWelcome):
                    self._on_welcome(record)
                elif isinstance(record, Goodbye):
                    self.stop()

    def _on_shared(self, record: ShareBlob) -> None:
        try:
            data = self._sharing.read(record.segment, record.size_bytes)
        except (SegmentGone, OSError) as error:
            log.warning("a shared buffer cannot be mapped; from now on they come as frames: %s", error)
            self._unreadable.add(record.blob)
        else:
            self._blobs.put(record.blob, data, keep=record.keep)

    def _on_run(self, record: Run) -> None:
        options = record.options
        attempts = {call.task: call.attempt for call in record.calls} if record.skips else {}
        for task, items in record.skips:
            self.skip_items((task, attempts[task]), items)
        function: Buffer | None = None
        missing: list[BlobId] = []
        if options.function:
            function = self._blobs.get(options.function)
            if function is None and self._runner is not None:
                function = self._runner.function_data(options.function)
            if function is None:
                missing = [options.function]
        for call in record.calls:
            buffers = [self._blobs.get(blob) for blob in call.blobs]
            absent = [
                *missing,
                *(blob for blob, data in zip(call.blobs, buffers, strict=True) if data is None),
            ]
            work: Work | None = None
            if not absent:
                work = Work(options, call, function, [data for data in buffers if data is not None])
            with self._lock:
                if self._take_in((call.task, call.attempt), work) and absent:
                    is_unreadable = not self._unreadable.isdisjoint(absent)
                    self._dialer.link.put(BlobsMissing(call.task, call.attempt, absent, is_unreadable))

    def _take_in(self, attempt: Attempt, work: Work | None) -> bool:
        """Under the lock. False if the task is not to be run: it was given back, or is here already."""
        if not self._workload.wants(attempt):
            return False
        for ready in self._arrivals.on_task(attempt, work):
            self._workload.on_task(*ready)
        return True

    def _on_stored(self, below: int) -> None:
        with self._lock:
            safe = self._workload.on_stored(below)
        for result in safe:
            blobs = self._result_blobs.pop((result.task, result.attempt), [])
            self._unstored_bytes -= len(result.payload) + held_bytes(blobs)

    def _on_welcome(self, record: EngineWelcome) -> None:
        self._byte_window = record.result_byte_window
        self._blobs.restart()
        self._unreadable.clear()
        self._on_stored(record.stored)
        with self._lock:
            self._workload.on_welcome(record.stored, record.controller)
            self._workload.on_take_back(record.unwanted)
            self._arrivals.restart()
        if self._runner is None:
            self.engine = EngineId(record.engine)
            self._runner = Runner(
                self._namespace,
                engine=self.engine,
                key=self._spec.key,
                show=self._output.show,
                interrupts=self._interrupts,
                watch_rows=self._progress.watch_rows,
            )
            self._runner.offer_shell()
            self._control = ControlThread(
                self._control_channel,
                key=self._spec.key,
                secret=self._secret,
                waker=self._control_waker,
                outlet=Outlet(self._output, self._progress),
                take_back=self._give_back,
                interruptions=self,
                clear=self._clear_namespace,
                tell_memory=self._tell_memory,
                on_stop=self._on_stop_asked,
                on_failed=lambda: os._exit(CONTROL_FAILED),
                parent_pid=self._spec.parent_pid,
            )
            self._control.start()
            log.info("engine %d of %s", self.engine, self._spec.cluster)
            self._set_up(self._runner)

    def _set_up(self, runner: Runner) -> None:
        """Before the first task."""
        tell_surroundings(self.engine, self._find_client_file())
        try:
            run_startup(self._spec, self._namespace, runner.execute)
        except StopRunning:
            raise
        except BaseException as error:
            raise StartupFailed(error) from error
        self._dialer.on_asleep(now=clock.now())

    def _give_back(self, calls: Calls) -> tuple[Calls, Calls]:
        """Called by the control thread."""
        with self._lock:
            taken, kept = self._workload.on_take_back(calls)
            released = self._arrivals.on_taken_back(taken)
            for ready in released:
                self._workload.on_task(*ready)
        if released:
            self._waker.wake()
        return taken, kept

    # What follows is called by the control thread: it implements `control.Interruptions`.

    def end_calls(self, calls: Calls, grace_s: float) -> tuple[Calls, Calls]:
        taken, kept = self._give_back(calls)
        with self._lock:
            if (running := self._workload.running) in kept:
                self._interrupts.cancel(running, grace_s)
        return taken, kept

    def skip_items(self, attempt: Attempt, items: list[int]) -> None:
        """Also called by the main thread: items may have been cancelled before their part came."""
        with self._lock:
            self._interrupts.skip(attempt, items, is_running=self._workload.running == attempt)

    def held_for(self, controller: str) -> Calls | None:
        with self._lock:
            return self._workload.on_controller(controller)

    def interrupt(self) -> None:
        with self._lock:
            if (running := self._workload.running) is not None:
                self._interrupts.interrupt(running)

    def set_grace(self, grace_s: float) -> None:
        self._interrupts.set_grace(grace_s)

    def next_deadline(self) -> float | None:
        return self._interrupts.next_deadline()

    def on_tick(self, *, now: float) -> None:
        with self._lock:
            self._interrupts.on_tick(now=now)

    def _clear_namespace(self) -> None:
        """Called by the control thread. What goes with the values may be code of the user's: not here."""
        assert self._runner is not None, "the control thread starts after the runner is there"
        self._discarded.append(self._runner.clear())
        self._sharing.trim()
        self._waker.wake()

    def _tell_memory(self, free: bool) -> tuple[MemoryUse, bool]:
        """Called by the control thread. Also returns whether caches were emptied: not while a task runs."""
        assert self._runner is not None, "the control thread starts after the runner is there"
        freed = False
        if free:
            self._sharing.trim()
            if self._workload.running is None:
                self._freeing.ask()
                self._waker.wake()
                freed = self._freeing.wait(FREE_WAIT_S)
        blobs = self._blobs.total_bytes + self._runner.function_bytes
        return memory_use(self._namespace, self._sharing, blobs=blobs, results=self._unstored_bytes), freed

    def _free(self) -> None:
        self._blobs.forget_kept()
        if self._runner is not None:
            self._runner.forget_functions()
        self._freeing.on_done()

    def _on_stop_asked(self) -> None:
        """Called by the control thread."""
        os.kill(os.getpid(), signal.SIGTERM)  # its handler runs in the main thread, in user code or not

    # ------------------------------------------------------------ out

    def _hello(self) -> EngineHello:
        with self._lock:
            held, first_result = self._workload.held(), self._workload.first_result
        return EngineHello(
            self._spec.key,
            self._secret,
            self._versions,
            self._host,
            self._spec.host_key,
            os.getpid(),
            self.engine if self.engine != NO_ENGINE else self._spec.wanted,
            held,
            first_result,
            self._sharing.name,
            self._safely_lent(),
            self._sharing.reads and not self._sharing.name,
        )

    def _safely_lent(self) -> list[str]:
        """Segments that the controller has, and may have freed."""
        unsafe = {blob.segment for blobs in self._result_blobs.values() for blob in blobs}
        return [name for name in self._sharing.lent() if name not in unsafe]

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
                    blob.put(link)
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
