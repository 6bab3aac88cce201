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
from enginery.core.workload import Attempt, Claim, Workload
from enginery.engine.arrived_blobs import ArrivedBlobs
from enginery.engine.attaching import attach_through
from enginery.engine.control import Calls, ControlThread
from enginery.engine.interrupts import Interrupts, StopRunning
from enginery.engine.lending import Lending
from enginery.engine.memory import Freeing, memory_use
from enginery.engine.namespace import make_main
from enginery.engine.output import OutputCollector
from enginery.engine.past_python import PastPython
from enginery.engine.progress import ProgressMeter
from enginery.engine.publishing import Outlet, publish_through
from enginery.engine.returning import UnstoredResults
from enginery.engine.runner import Runner, Work
from enginery.engine.startup import StartupFailed, run_startup, tell_surroundings
from enginery.engine.streams import NoInput, TaskStream
from enginery.engine.threads import TaskThreads
from enginery.engine.visits import Visits
from enginery.errors import TooLarge
from enginery.ids import NO_ENGINE, EngineId, TaskId
from enginery.nesting import set_stage
from enginery.objects.failures import format_remote_traceback
from enginery.protocol import codec
from enginery.protocol.link import RECORD_BYTES
from enginery.protocol.messages import (
    CALL_LIMIT_BYTES,
    DropBlobs,
    EngineHello,
    EngineResult,
    EngineWelcome,
    FreeSegments,
    Goodbye,
    Lends,
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
        self._blobs = ArrivedBlobs(sharing)
        self._sharing = sharing
        self._unstored = UnstoredResults(sharing)
        self._byte_window = 1
        self._namespace = make_main()
        self._page = StatusPage.create(Path(spec.status_page)) if spec.status_page else None
        self.waker = Waker()  # wakes this thread
        self.wakers = (self.waker,)
        self._control_waker = Waker()
        self.interrupts = Interrupts(self._control_waker.wake)
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
            self._threads, self.interrupts, self._lock, self.waker.wake, self._past, self._page
        )
        self._output.visitors = self._visits
        self._input = NoInput()
        self._streams = TaskStream(self._output, "stdout", 1), TaskStream(self._output, "stderr", 2)
        self._lending = Lending(self, self._threads, self._output, self._progress, self.interrupts)
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
        self.waker.wake()

    def _install(self) -> None:
        self.interrupts.install()
        signal.signal(signal.SIGTERM, self._on_terminate)
        sys.stdin, (sys.stdout, sys.stderr) = self._input, self._streams
        if self._past is not None:
            for stream in self._streams:
                stream.log_to(self._spec.log)
        self._unfollow = self._threads.follow()
        publish_through(Outlet(self._output, self._progress))
        attach_through(self._open_kernel)
        set_stage(self._lending)

    def _leave(self) -> None:
        publish_through(None)
        attach_through(None)
        set_stage(None)
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
        self.waker.close()
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
        self.interrupts.stop(frame)

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
            channel.wait(None if deadline is None else max(deadline - clock.now(), 0.0), self.wakers)
            self.waker.clear()

    def _run_some(self, now: float) -> bool:
        """Run tasks until it is time to report. False if there was nothing to run."""
        until = now + FLUSH_S
        ran = False
        while now < until and not self._stopping and self._unstored.size_bytes < self._byte_window:
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

    # ------------------------------------------------------------ while a task waits: see `lending`

    def claim_inside(self, may_begin: Callable[[TaskId], object]) -> Claim | None:
        """Claim a task that may begin inside another one."""
        if self._stopping or self._unstored.size_bytes >= self._byte_window:
            return None
        with self._lock:
            return self._workload.start_inside(lambda work: may_begin(work.call.inside))

    def run_inside(self, claim: Claim, waiting: TaskId) -> None:
        assert self._runner is not None, "a task runs"
        with self._runner.inside():
            self._run_one(*claim)
        if self._page is not None:
            self._page.finish(waiting)
        self._report()
        self._send()

    def hear(self) -> None:
        """Take what has come, and say what is to be said."""
        now = clock.now()
        self._receive(now)
        self._keep_in_touch(now)
        self._send()

    def sleep(self, deadline: float | None) -> None:
        """Until something comes, or is due."""
        deadlines = [moment for moment in (deadline, self._dialer.next_deadline()) if moment is not None]
        left_s = max(min(deadlines) - clock.now(), 0.0) if deadlines else None
        self._channel.wait(left_s, self.wakers)
        self.waker.clear()

    def runs(self, attempt: Attempt) -> bool:
        """Whether a task has begun here and not ended."""
        with self._lock:
            return self._workload.runs(attempt)

    def say_lends(self, attempt: Attempt, *, is_over: bool) -> None:
        if self._dialer.is_bound:  # else the next welcome has it said
            self._dialer.link.put(Lends(*attempt, is_over))
            self._send()

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
        self.interrupts.begin(attempt, options.time_limit_s)
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
        result = EngineResult(
            attempt[0], attempt[1], outcome.status, packed.inline, self._unstored.keep(attempt, packed),
            started, completed, stdout, stderr, outputs, outcome.error, outcome.error_types,
            runner.unpickle_s, runner.pickle_s, last.report, last.items, last.failed, last.cancelled,
            written, self._threads.linger(run) or runner.take_left_over(),
        )  # fmt: skip
        with self._lock:
            self._workload.on_finished(result)
            self.interrupts.end()

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
                    self._blobs.on_shared(record)
                elif isinstance(record, FreeSegments):
                    self._sharing.release(record.segments)
                elif isinstance(record, DropBlobs):
                    self._blobs.on_dropped(record.blobs)
                elif isinstance(record, EngineWelcome):
                    self._on_welcome(record)
                elif isinstance(record, Goodbye):
                    self.stop()

    def _on_run(self, record: Run) -> None:
        attempts = {call.task: call.attempt for call in record.calls} if record.skips else {}
        for task, items in record.skips:
            self.skip_items((task, attempts[task]), items)
        runner = self._runner
        assert runner is not None, "tasks come after the welcome"
        for attempt, work, missing in self._blobs.arrivals(record, runner.function_data):
            with self._lock:
                if self._take_in(attempt, work) and missing is not None:
                    self._dialer.link.put(missing)

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
            self._unstored.on_stored(result)

    def _on_welcome(self, record: EngineWelcome) -> None:
        self._byte_window = record.result_byte_window
        self._blobs.restart()
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
                interrupts=self.interrupts,
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
        for waiting in self._lending.waiting:
            self._dialer.link.put(Lends(*waiting))

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
            self.waker.wake()
        return taken, kept

    # What follows is called by the control thread: it implements `control.Interruptions`.

    def end_calls(self, calls: Calls, grace_s: float) -> tuple[Calls, Calls]:
        taken, kept = self._give_back(calls)
        with self._lock:
            for task, number in kept:
                if self._workload.runs((task, number)):
                    self.interrupts.cancel((task, number), grace_s)
        return taken, kept

    def skip_items(self, attempt: Attempt, items: list[int]) -> None:
        """Also called by the main thread: items may have been cancelled before their part came."""
        with self._lock:
            self.interrupts.skip(attempt, items, is_running=self._workload.running == attempt)

    def held_for(self, controller: str) -> Calls | None:
        with self._lock:
            return self._workload.on_controller(controller)

    def interrupt(self) -> None:
        with self._lock:
            if (running := self._workload.running) is not None:
                self.interrupts.interrupt(running)

    def set_grace(self, grace_s: float) -> None:
        self.interrupts.set_grace(grace_s)

    def next_deadline(self) -> float | None:
        return self.interrupts.next_deadline()

    def on_tick(self, *, now: float) -> None:
        with self._lock:
            if self.interrupts.on_tick(now=now) and self._lending.waiting:
                self.waker.wake()  # a wait looks after what is meant for its task itself

    def _clear_namespace(self) -> None:
        """Called by the control thread. What goes with the values may be code of the user's: not here."""
        assert self._runner is not None, "the control thread starts after the runner is there"
        self._discarded.append(self._runner.clear())
        self._sharing.trim()
        self.waker.wake()

    def _tell_memory(self, free: bool) -> tuple[MemoryUse, bool]:
        """Called by the control thread. Also returns whether caches were emptied: not while a task runs."""
        assert self._runner is not None, "the control thread starts after the runner is there"
        freed = False
        if free:
            self._sharing.trim()
            if self._workload.running is None:
                self._freeing.ask()
                self.waker.wake()
                freed = self._freeing.wait(FREE_WAIT_S)
        blobs = self._blobs.total_bytes + self._runner.function_bytes
        return memory_use(
            self._namespace, self._sharing, blobs=blobs, results=self._unstored.size_bytes
        ), freed

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
            self._unstored.safely_lent(),
            self._sharing.reads and not self._sharing.name,
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
                self._unstored.put(result, link)
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
