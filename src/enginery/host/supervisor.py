"""The supervisor: speaks for its host to the controller, and explains how engines ended.

One thread, one loop: the connection to the controller, the pair of sockets to the parent of all processes,
deadlines. What it does with engines is decided by `core.supervision.Supervision`; the parent carries it
out.

Reports that the controller may not have received are said again after each hello; it knows which are new to
it. If the parent is gone, so are all of its processes, and it falls to the supervisor to clean up after
them.
"""

from __future__ import annotations

import logging
import math
import os
import platform
import secrets
import select
import signal
import socket
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from enginery.core.dialer import Dialer
from enginery.core.supervision import EngineEnd, Supervision, explain_exit
from enginery.errors import EngineryError
from enginery.host.files import clean_up, connection_file
from enginery.host.orders import (
    ControllerBound,
    EndAll,
    EngineEnded,
    EngineNotStarted,
    EngineStarted,
    Left,
    OrderSocket,
    SignalEngine,
    StartEngine,
    ToSupervisor,
    Welcomed,
)
from enginery.host.processes import SIGNAL_NAMES, signal_process, wait_for_ends
from enginery.ids import NO_ENGINE, EngineId, EngineKey, HostKey, new_key
from enginery.protocol import codec
from enginery.protocol.messages import (
    EngineExited,
    EnginesStarted,
    Goodbye,
    HostHello,
    HostWelcome,
    LaunchEngines,
    ProcessInfo,
    SignalProcesses,
    StopProcesses,
    ToHost,
)
from enginery.protocol.specs import EngineSpec, HostSpec
from enginery.transport import clock
from enginery.transport.channel import Channel
from enginery.transport.connection_file import is_stale, load
from enginery.transport.dialling import dial
from enginery.transport.status_page import read_status_page

REPORTS_KEPT = 256
LINGER_S = 0.3
"""How long the last words may take to leave this process."""
WELCOME_S = 1.0
"""How long a host that has something to report waits for a controller it has greeted."""
ORDER_S = 5.0
"""How long the parent may take to listen."""

log = logging.getLogger("enginery.host.supervisor")


def engine_specs(spec: HostSpec, host_key: HostKey, wanted: Iterable[EngineId]) -> list[EngineSpec]:
    """Start records of new engine processes, each with a key of its own."""
    keys = [(EngineKey(new_key()), engine) for engine in wanted]
    return [
        EngineSpec(
            cluster=spec.cluster,
            connection_file=str(connection_file(spec).with_name("engine.json")),
            key=key,
            wanted=engine,
            host_key=host_key,
            status_page=str(status_page(spec, key)),
        )
        for key, engine in keys
    ]


def first_engines(spec: HostSpec, host_key: HostKey) -> list[EngineSpec]:
    """The engines a host begins with. Those that come with their controller can have the first ids."""
    wanted = map(EngineId, range(spec.engines)) if spec.controller else [NO_ENGINE] * spec.engines
    return engine_specs(spec, host_key, wanted)


def status_page(spec: HostSpec, key: EngineKey) -> Path:
    return spec.path("engines") / key


class Supervisor:
    """One host's side of the conversation. `run` returns the exit code of its process."""

    def __init__(
        self,
        spec: HostSpec,
        *,
        host_key: HostKey,
        end: socket.socket,
        engines: list[EngineSpec],
        controller_pid: int = 0,
    ) -> None:
        self._spec = spec
        self._key = host_key
        self._orders = OrderSocket.of_supervisor(end)
        self._controller_pid = controller_pid
        self._secret = secrets.token_bytes(16)
        self._supervision = Supervision()
        self._reports: deque[EngineExited | EnginesStarted] = deque(maxlen=REPORTS_KEPT)
        self._dialer: Dialer[ToHost] = Dialer(codec.to_host(), self._hello)
        self._channel: Channel | None = None
        self._is_bound = spec.controller is None  # whether there is a controller to dial
        self._failure = ""
        self._linger_s = LINGER_S
        self._supervision.on_launch(
            [(engine.key, engine.wanted) for engine in engines], request=None, outbox=self
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
        if self._channel is None:
            if self._is_bound and not self._supervision.is_launching and not self._supervision.is_closing:
                self._dial(now)
        else:
            self._talk(self._channel, now)
        self._supervision.on_tick(now=now, outbox=self)
        if self._channel is not None:
            self._send(self._channel)
        self._orders.flush(timeout_s=ORDER_S)

    def _wait(self) -> None:
        deadlines = [self._supervision.next_deadline()]
        if self._channel is not None:
            deadlines.append(self._dialer.next_deadline())
        deadline = min((moment for moment in deadlines if moment is not None), default=None)
        timeout_s = None if deadline is None else max(deadline - clock.now(), 0.0)
        if self._channel is not None:
            self._channel.wait(timeout_s, (self._orders,))
            return
        if self._is_bound and not self._supervision.is_launching and not self._supervision.is_closing:
            return  # it can dial now
        poll = select.poll()
        poll.register(self._orders.fileno(), select.POLLIN)
        poll.poll(None if timeout_s is None else math.ceil(timeout_s * 1000))

    def _on_order(self, order: ToSupervisor, now: float) -> None:
        if isinstance(order, EngineStarted):
            self._supervision.on_started(order.key, order.pid, now=now, outbox=self)
        elif isinstance(order, EngineNotStarted):
            self._supervision.on_not_started(order.key, order.error, outbox=self)
        elif isinstance(order, EngineEnded):
            self._supervision.on_exited(order.key, order.status, outbox=self)
        elif isinstance(order, ControllerBound):
            self._is_bound = True
        elif isinstance(order, EndAll):
            self._supervision.on_stop_asked(None, now=now, outbox=self)

    # ------------------------------------------------------------ the controller

    def _dial(self, now: float) -> None:
        try:
            self._channel = dial(load(connection_file(self._spec)))
        except (EngineryError, OSError) as error:
            self._fail(str(error), now)
            return
        self._dialer.greet(now=now)

    def _talk(self, channel: Channel, now: float) -> None:
        while (message := channel.receive()) is not None:
            for record, _ in self._dialer.on_message(*message, now=now):
                self._on_record(record, now)
        if self._dialer.refusal and not self._failure:
            self._fail(f"the controller refuses this host: {self._dialer.refusal}", now)
        self._dialer.on_tick(now=now)
        if self._dialer.wants_redial or channel.broken:
            if self._is_controller_gone():
                self._fail("its controller has ended", now)
            channel.redial()
            self._dialer.greet(now=now)

    def _on_record(self, record: ToHost, now: float) -> None:
        if isinstance(record, HostWelcome):
            for report in self._reports:
                self._dialer.link.put(report)
            self._orders.send(Welcomed())
        elif isinstance(record, LaunchEngines):
            self._launch(record)
        elif isinstance(record, SignalProcesses):
            for key in record.keys:
                self._orders.send(SignalEngine(key, record.signum))
        elif isinstance(record, StopProcesses):
            self._supervision.on_stop_asked(record.keys or None, now=now, outbox=self)
        elif isinstance(record, Goodbye):
            log.info("the controller has said goodbye")
            self._supervision.on_stop_asked(None, now=now, outbox=self)

    def _launch(self, record: LaunchEngines) -> None:
        specs = engine_specs(self._spec, self._key, record.wanted)
        asked = [(spec.key, spec.wanted) for spec in specs]
        if self._supervision.on_launch(asked, request=record.request, outbox=self):
            for spec in specs:
                self._orders.send(StartEngine(spec))

    def _hello(self) -> HostHello:
        return HostHello(self._key, self._secret, platform.node(), os.getpid(), self._supervision.processes())

    def _is_controller_gone(self) -> bool:
        """Of a controller on this machine that we joined; of our own, the parent knows before us."""
        try:
            return self._spec.controller is None and is_stale(load(connection_file(self._spec)))
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
        path = status_page(self._spec, end.key)
        content = read_status_page(path)
        path.unlink(missing_ok=True)
        cause = explain_exit(end.status, SIGNAL_NAMES)
        if not end.expected:
            log.warning("engine process %s (%d): %s", end.key, end.pid, cause)
        started = [] if content is None else content.started
        self._report(
            EngineExited(end.key, end.pid, cause, started, proof=content is not None, expected=end.expected)
        )

    def report_launch(self, request: int, processes: list[ProcessInfo], error: str) -> None:
        self._report(EnginesStarted(request, processes, error))

    def _report(self, report: EngineExited | EnginesStarted) -> None:
        self._reports.append(report)
        if self._dialer.is_bound:
            self._dialer.link.put(report)

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
            if left_s <= 0:
                return
            channel.wait(left_s)
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
        clean_up(self._spec)
