"""The supervisor: speaks for its host to the controller, and explains how engines ended.

One thread, one loop: the connection to the controller, the pair of sockets to the parent of all processes,
the engines' pipes, deadlines. What it does with engines is decided by `core.supervision.Supervision`; the
parent carries it out. Big data that several of its engines need comes to it once, see `handing_on`; of that
it takes a few pieces in a turn.

Reports that the controller may not have received are said again after each hello; it knows which are new to
it. If the parent is gone, so are all of its processes, and it falls to the supervisor to clean up after
them. If the supervisor is gone, the parent starts another one, which has the same engines, speaks under the
same identity, and says again which ones have ended.
"""

from __future__ import annotations

import logging
import math
import os
import platform
import select
import signal
import socket
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from enginery.core.dialer import Dialer
from enginery.core.supervision import EngineEnd, Supervision, explain_exit
from enginery.errors import EngineryError
from enginery.host.files import append_to_log, clean_up, connection_file, engine_log
from enginery.host.handing_on import HandingOn
from enginery.host.orders import (
    ControllerBound,
    ControllerRestarted,
    EndAll,
    EngineEnded,
    EngineNotStarted,
    EngineStarted,
    Inheritance,
    Left,
    OrderSocket,
    SignalEngine,
    StartEngine,
    ToSupervisor,
    Welcomed,
)
from enginery.host.out_of_memory import MemoryEvidence
from enginery.host.parent import LAUNCHES_KEPT
from enginery.host.pipes import EnginePipes
from enginery.host.processes import SIGNAL_NAMES, signal_process, wait_for_ends
from enginery.host.use import host_use
from enginery.ids import NO_ENGINE, EngineId, EngineKey, HostKey, format_task_id, host_pool, new_key
from enginery.protocol import codec
from enginery.protocol.codec import Buffer
from enginery.protocol.link import RECORD_BYTES
from enginery.protocol.messages import (
    DropBlobs,
    EngineExited,
    EnginesStarted,
    FreeSegments,
    Goodbye,
    HostHello,
    HostWelcome,
    KillProcess,
    LastWord,
    LaunchEngines,
    ProcessInfo,
    PutBlob,
    ReportUse,
    SignalProcesses,
    StopProcesses,
    ToHost,
    text_size,
)
from enginery.protocol.specs import EngineSpec, HostSpec
from enginery.transport import clock, shared_memory
from enginery.transport.channel import Channel, HasFileno
from enginery.transport.connection_file import is_stale, load
from enginery.transport.dialling import dial
from enginery.transport.sharing import Sharing
from enginery.transport.status_page import STREAMS, read_status_page

REPORTS_KEPT = 256
"""And more on hosts where more may be outstanding."""
LINGER_S = 0.3
"""How long the last words may take to leave this process."""
WELCOME_S = 1.0
"""How long a host that has something to report waits for a controller it has greeted."""
LOOK_S = 0.02
"""How often it then looks whether that is still there."""
ORDER_S = 5.0
"""How long the parent may take to listen."""
MESSAGES_PER_TURN = 4
"""Of the controller's, which may bring a MiB each; then ends and deadlines are looked at."""

log = logging.getLogger("enginery.host.supervisor")


def engine_specs(
    spec: HostSpec, host_key: HostKey, wanted: Iterable[EngineId], *, shared: str
) -> list[EngineSpec]:
    """Start records of new engine processes, each with a key of its own."""
    keys = [(EngineKey(new_key()), engine) for engine in wanted]
    return [
        EngineSpec(
            cluster=spec.cluster,
            connection_file=str(connection_file(spec).with_name("engine.json")),
            key=key,
            wanted=engine,
            host_key=host_key,
            host_shared=shared,
            status_page=str(status_page(spec, key)),
            log=str(engine_log(spec, key, engine)),
            run_startup=spec.run_startup,
            startup_code=spec.startup_code,
            startup_script=spec.startup_script,
        )
        for key, engine in keys
    ]


def first_engines(spec: HostSpec, host_key: HostKey, *, shared: str = "") -> list[EngineSpec]:
    """The engines a host begins with. Those that come with their controller can have the first ids."""
    wanted = map(EngineId, range(spec.engines)) if spec.controller else [NO_ENGINE] * spec.engines
    return engine_specs(spec, host_key, wanted, shared=shared)


def status_page(spec: HostSpec, key: EngineKey) -> Path:
    return spec.path("engines") / key


class Supervisor:
    """One host's side of the conversation. `run` returns the exit code of its process.

    `shared` is the path of this host's own shared memory; empty: it has none of its own.
    """

    def __init__(
        self,
        spec: HostSpec,
        *,
        host_key: HostKey,
        secret: bytes,
        end: socket.socket,
        inheritance: Inheritance,
        shared: str = "",
    ) -> None:
        self._spec = spec
        self._shared = shared
        self._handing_on = HandingOn(Sharing.read_only("", ""))
        self._key = host_key
        self._orders = OrderSocket.of_supervisor(end)
        self._controller_pid = inheritance.controller_pid
        self._secret = secret
        self._supervision = Supervision()
        self._pipes = EnginePipes()
        self._memory = MemoryEvidence()
        self._logs: dict[EngineKey, Path] = {}
        self._reports: deque[EngineExited | EnginesStarted] = deque()
        self._dialer: Dialer[ToHost] = Dialer(codec.to_host(), self._hello)
        self._channel: Channel | None = None
        self._is_bound = spec.controller is None  # whether there is a controller to dial
        self._failure = ""
        self._linger_s = LINGER_S
        self._supervision.on_launch(
            [(engine.key, engine.wanted) for engine in inheritance.engines], request=None, outbox=self
        )
        self._taken: deque[int] = deque(maxlen=LAUNCHES_KEPT)  # launches that are done, or under way
        for launched in inheritance.launched:
            self._taken.append(launched.request)
            self._report(launched)
        for ended in inheritance.ended:
            self._report(
                self._explain(EngineEnd(ended.key, ended.pid, ended.status, False, ended.peak_bytes))
            )

    def __repr__(self) -> str:
        return f"<Supervisor {self._key}, {self._supervision!r}, {self._dialer!r}>"

    def run(self) -> int:
        try:
            while not self._is_done:
                self._turn()
            if self._orders.ended:
                self._outlive_parent()
                return 1
            self._say_goodbye()
            return 1 if self._failure else 0
        finally:
            if self._channel is not None:
                self._channel.close()
            self._handing_on.close()
            self._pipes.close()
            self._memory.close()
            self._orders.close()

    @property
    def _is_done(self) -> bool:
        return self._orders.ended or (self._supervision.is_closing and self._supervision.is_empty)

    # ------------------------------------------------------------ the loop

    def _turn(self) -> None:
        self._wait()
        for order in self._orders.receive():
            self._on_order(order, clock.now())
        now = clock.now()
        self._pipes.read(now=now)
        if self._channel is None:
            if self._is_bound and not self._supervision.is_launching and not self._supervision.is_closing:
                self._dial(now)
        else:
            self._talk(self._channel, now)
        self._supervision.on_tick(now=now, outbox=self)
        if self._channel is not None:
            due = self._pipes.capture.next_deadline()
            if due is not None and due <= now:
                self._pass_on_texts(now)
            self._send(self._channel)
        self._orders.flush(timeout_s=ORDER_S)

    def _wait(self) -> None:
        deadlines = [self._supervision.next_deadline(), self._pipes.next_deadline()]
        if self._channel is not None:
            deadlines.append(self._dialer.next_deadline())
        if self._dialer.is_bound:
            deadlines.append(self._pipes.capture.next_deadline())
        deadline = min((moment for moment in deadlines if moment is not None), default=None)
        timeout_s = None if deadline is None else max(deadline - clock.now(), 0.0)
        sources: tuple[HasFileno, ...] = (self._orders, *self._pipes.sources())
        if self._channel is not None:
            self._channel.wait(timeout_s, sources)
            return
        if self._is_bound and not self._supervision.is_launching and not self._supervision.is_closing:
            return  # it can dial now
        poll = select.poll()
        for source in sources:
            poll.register(source.fileno(), select.POLLIN)
        poll.poll(None if timeout_s is None else math.ceil(timeout_s * 1000))

    def _on_order(self, order: ToSupervisor, now: float) -> None:
        if isinstance(order, EngineStarted):
            path = engine_log(self._spec, order.key, self._supervision.wanted(order.key))
            ends = self._orders.take_descriptors(len(STREAMS))
            self._logs[order.key] = path
            self._pipes.open(
                order.key, ends, log_path=path, page_path=status_page(self._spec, order.key), now=now
            )
            self._supervision.on_started(order.key, order.pid, now=now, outbox=self)
        elif isinstance(order, EngineNotStarted):
            self._supervision.on_not_started(order.key, order.error, outbox=self)
        elif isinstance(order, EngineEnded):
            self._pipes.on_ended(order.key, now=now)
            self._pass_on_texts(now)  # before the report of its end
            self._supervision.on_exited(order.key, order.status, peak_bytes=order.peak_bytes, outbox=self)
        elif isinstance(order, ControllerBound):
            self._is_bound = True
        elif isinstance(order, ControllerRestarted):
            self._controller_pid = order.pid
        elif isinstance(order, EndAll):
            self._supervision.on_stop_asked(None, now=now, outbox=self)

    # ------------------------------------------------------------ the controller

    def _dial(self, now: float) -> None:
        try:
            info = load(connection_file(self._spec))
            self._channel = dial(info)
        except (EngineryError, OSError) as error:
            self._fail(str(error), now)
            return
        pool = Sharing.join(
            self._shared, self._key, host_pool(self._key), limit_bytes=info.shared_limit_bytes
        )
        self._handing_on = HandingOn(pool)
        self._dialer.greet(now=now)

    def _talk(self, channel: Channel, now: float) -> None:
        for _ in range(MESSAGES_PER_TURN):
            message = channel.receive()
            if message is None:
                break
            for record, frame in self._dialer.on_message(*message, now=now):
                self._on_record(record, frame, now)
        if self._dialer.refusal and not self._failure:
            self._fail(f"the controller refuses this host: {self._dialer.refusal}", now)
        self._dialer.on_tick(now=now)
        if self._dialer.wants_redial or channel.broken:
            # Of a controller of our own the parent knows, and says it.
            if self._spec.controller is None and self._is_controller_gone():
                self._fail("its controller has ended", now)
            channel.redial()
            self._dialer.greet(now=now)

    def _on_record(self, record: ToHost, frame: Buffer | None, now: float) -> None:
        if frame is not None:
            assert isinstance(record, PutBlob)
            answer = self._handing_on.on_piece(record, frame)
            if answer is not None:
                self._dialer.link.put(answer)
        elif isinstance(record, HostWelcome):
            self._pass_on_texts(now)
            for report in self._reports:
                self._dialer.link.put(report, _report_size(report))
                if isinstance(report, EngineExited):
                    status_page(self._spec, report.key).unlink(missing_ok=True)
            self._orders.send(Welcomed())
        elif isinstance(record, LaunchEngines):
            self._launch(record)
        elif isinstance(record, FreeSegments):
            self._handing_on.on_freed(record.segments)
        elif isinstance(record, DropBlobs):
            self._handing_on.on_dropped(record.blobs)
        elif isinstance(record, SignalProcesses):
            for key in record.keys:
                self._orders.send(SignalEngine(key, record.signum))
        elif isinstance(record, ReportUse):
            self._dialer.link.put(host_use(record.order, self._supervision.processes()))
        elif isinstance(record, KillProcess):
            self._kill_if_running(record)
        elif isinstance(record, StopProcesses):
            self._supervision.on_stop_asked(record.keys or None, now=now, outbox=self)
        elif isinstance(record, Goodbye):
            log.info("the controller has said goodbye")
            self._supervision.on_stop_asked(None, now=now, outbox=self)

    def _kill_if_running(self, record: KillProcess) -> None:
        """What an engine does not end is ended with it. It may have ended by now, and something else runs."""
        content = read_status_page(status_page(self._spec, record.key))
        if content is not None and content.running == record.running:
            task = format_task_id(record.running)
            log.warning("engine process %s has not ended task %s and is killed", record.key, task)
            self._orders.send(SignalEngine(record.key, signal.SIGKILL))

    def _launch(self, record: LaunchEngines) -> None:
        if record.request in self._taken:
            return  # said again, because the controller has had no answer: it comes, or came after this hello
        self._taken.append(record.request)
        specs = engine_specs(self._spec, self._key, record.wanted, shared=self._shared)
        asked = [(spec.key, spec.wanted) for spec in specs]
        if self._supervision.on_launch(asked, request=record.request, outbox=self):
            for spec in specs:
                self._orders.send(StartEngine(spec, record.request))

    def _hello(self) -> HostHello:
        lent = self._handing_on.begin_anew()
        return HostHello(
            self._key,
            self._secret,
            platform.node(),
            os.getpid(),
            self._supervision.processes(),
            self._handing_on.pool,
            lent,
        )

    def _is_controller_gone(self) -> bool:
        """Whether it is known to have ended; False where that cannot be known."""
        try:
            return is_stale(load(connection_file(self._spec)))
        except (EngineryError, OSError):
            return True  # it has taken its files along

    def _send(self, channel: Channel) -> None:
        while (message := self._dialer.next_message()) is not None:
            if not channel.send(*message):
                return  # a gap that the controller will notice

    # ------------------------------------------------------------ effects

    def terminate(self, key: EngineKey) -> None:
        self._orders.send(SignalEngine(key, signal.SIGTERM))

    def kill(self, key: EngineKey) -> None:
        log.warning("engine process %s has not ended within the grace and is killed", key)
        self._orders.send(SignalEngine(key, signal.SIGKILL))

    def report_end(self, end: EngineEnd) -> None:
        report = self._explain(end)
        log_path = self._logs.pop(end.key)
        if self._dialer.is_bound:  # else another controller may have to read it
            status_page(self._spec, end.key).unlink(missing_ok=True)
        if not end.expected:
            log.warning("engine process %s (%d): %s", end.key, end.pid, report.cause)
            _log_last_words(log_path, end.key, report.words)
        self._report(report)

    def _explain(self, end: EngineEnd) -> EngineExited:
        content = read_status_page(status_page(self._spec, end.key))
        return EngineExited(
            end.key,
            end.pid,
            self._cause_of(end),
            [] if content is None else content.started,
            proof=content is not None,
            expected=end.expected,
            words=tuple(
                LastWord(word.number, word.task, word.attempt, STREAMS[word.stream], *word[4:])
                for word in (() if content is None else content.words)
            ),
        )

    def _cause_of(self, end: EngineEnd) -> str:
        cause = explain_exit(end.status, SIGNAL_NAMES)
        why = self._memory.explain(end.pid, end.peak_bytes) if end.status == -signal.SIGKILL else ""
        return f"{cause}, {why}" if why and not end.expected else cause

    def report_launch(self, request: int, processes: list[ProcessInfo], error: str) -> None:
        self._report(EnginesStarted(request, processes, error))

    def _report(self, report: EngineExited | EnginesStarted) -> None:
        self._reports.append(report)
        while len(self._reports) > max(REPORTS_KEPT, self._supervision.most_reports):
            self._reports.popleft()
        if self._dialer.is_bound:
            self._dialer.link.put(report, _report_size(report))

    def _pass_on_texts(self, now: float) -> None:
        """What engines have written past Python; it gathers while nobody is there to hear it."""
        if self._dialer.is_bound:
            for text in self._pipes.capture.take(now=now):
                self._dialer.link.put(text, RECORD_BYTES + text_size(text.text))

    # ------------------------------------------------------------ the end

    def _fail(self, failure: str, now: float) -> None:
        log.error("%s", failure)
        self._failure = failure
        self._linger_s = 0.0
        self._supervision.on_stop_asked(None, now=now, outbox=self)

    def _say_goodbye(self) -> None:
        channel = self._channel
        if channel is not None:
            self._await_welcome(channel)
            if self._dialer.is_bound:
                self._dialer.link.put(Goodbye())
            self._send(channel)
            channel.close(linger_s=self._linger_s)
        self._orders.send(Left(self._failure))
        self._orders.flush(timeout_s=ORDER_S)

    def _await_welcome(self, channel: Channel) -> None:
        """Ends that were faster than the controller's welcome have not been reported yet."""
        deadline = clock.now() + WELCOME_S
        while self._reports and not self._dialer.is_bound and not self._failure:
            left_s = deadline - clock.now()
            if left_s <= 0 or self._is_controller_gone():
                return
            channel.wait(min(left_s, LOOK_S))
            self._talk(channel, clock.now())
            self._send(channel)

    def _outlive_parent(self) -> None:
        """The parent was killed. The system kills its children; what engines had started is killed here."""
        log.error("the parent of all processes of this host is gone; cleaning up after it")
        if self._channel is not None:
            self._channel.close()
        pids = [process.pid for process in self._supervision.processes()]
        for pid in pids:
            # The ids cannot be another's yet: a group's id is not given away while it has members.
            signal_process(pid, signal.SIGKILL, group=True)
        wait_for_ends([self._controller_pid, *pids], timeout_s=ORDER_S)
        clean_up(self._spec, has_failed=True)
        if self._shared:
            shared_memory.remove(Path(self._shared))


def _report_size(report: EngineExited | EnginesStarted) -> int:
    words = report.words if isinstance(report, EngineExited) else ()
    return RECORD_BYTES + sum(RECORD_BYTES + text_size(word.text) for word in words)


def _log_last_words(path: Path, key: EngineKey, words: Iterable[LastWord]) -> None:
    text = "".join(word.text for word in words).rstrip()
    if not text:
        return
    try:
        append_to_log(path, f"[what tasks of engine process {key} wrote last]\n{text}\n".encode())
    except OSError as error:
        log.error("the last words of engine process %s cannot be kept: %s", key, error)
