"""The parent of all processes of a host: starts them, reaps them, and brings them to an end.

One thread, one poll loop, no 0MQ. What it wakes for: a signal (a child has ended, or this process is to),
an order of the supervisor, the controller's ready line, the end of the owner, a deadline. What follows is
decided by `core.household.Household`.

It keeps what another supervisor needs should the present one be killed: a copy of the reading ends of each
engine's pipes (without a reader, what engines write would end them), and which engines have ended.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import socket
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from enginery.core.household import Household
from enginery.core.supervision import explain_exit
from enginery.errors import LaunchError
from enginery.host.files import last_lines
from enginery.host.orders import (
    ControllerBound,
    ControllerRestarted,
    EndAll,
    EndedEngine,
    EngineEnded,
    EngineNotStarted,
    EngineStarted,
    FromSupervisor,
    Inheritance,
    Left,
    OrderSocket,
    SignalEngine,
    StartEngine,
    Welcomed,
)
from enginery.host.processes import (
    SIGNAL_NAMES,
    SignalSource,
    kill_children,
    reap,
    signal_process,
)
from enginery.host.ready import ReadyLine
from enginery.host.starters import CONTROLLER_LOG, Gate, OutputPipes, ProcessStarter
from enginery.ids import EngineKey
from enginery.protocol.messages import EnginesStarted, ProcessInfo
from enginery.protocol.specs import ControllerSpec, EngineSpec, HostSpec, Ready
from enginery.transport import clock
from enginery.transport.channel import NO_FILE
from enginery.transport.end_watch import EndWatch

ORPHANS_S = 2.0
"""How long orphans of engines may take to die of SIGKILL."""

_END_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_DISOWNED = signal.SIGUSR1
"""From the owner: it will not take this host along when it ends."""

log = logging.getLogger("enginery.host")

RunSupervisor = Callable[[socket.socket, Inheritance], int]
"""Gets its end of the pair; returns an exit code."""

ENDS_KEPT = 256
"""Of engines, to be reported again by another supervisor,"""
LAUNCHES_KEPT = 100
"""and so these."""


class Child(NamedTuple):
    what: str  # for people
    key: EngineKey | None  # of an engine


class StartedEngine(NamedTuple):
    """An engine that runs."""

    spec: EngineSpec
    pid: int
    reading: list[int]  # copies of the ends that its supervisor reads


class Parent:
    """All processes of one host. `run` returns the exit code."""

    def __init__(
        self, spec: HostSpec, starter: ProcessStarter, run_supervisor: RunSupervisor, *, name_fd: int
    ) -> None:
        self._spec = spec
        self._starter = starter
        self._run_supervisor = run_supervisor
        self._name_fd = name_fd
        self._household = Household(
            restarts_controller=spec.restart_controller, replaces_supervisor=starter.forks
        )
        self._children: dict[int, Child] = {}
        self._engines: dict[EngineKey, StartedEngine] = {}
        self._ended: deque[EndedEngine] = deque(maxlen=ENDS_KEPT)
        self._launched: OrderedDict[int, EnginesStarted] = OrderedDict()  # by their requests
        self._controller_pid = 0
        self._orders: OrderSocket[FromSupervisor] | None = None
        self._has_left: Left | None = None  # what it said of that
        self._waiting: list[EngineSpec] = []  # to be started when the controller is bound
        self._gate: Gate | None = None  # shut until the controller is bound
        self._pipes: OutputPipes | None = None  # of the engine that is being started
        self._ready = ReadyLine(spec.ready_fd)
        self._signals = SignalSource((signal.SIGCHLD, _DISOWNED, *_END_SIGNALS))
        self._owner = EndWatch(spec.owner_pid)

    def __repr__(self) -> str:
        return f"<Parent of {len(self._children)} processes of {self._spec.cluster}, {self._household!r}>"

    # ------------------------------------------------------------ life

    def run(self, engines: list[EngineSpec]) -> int:
        """Start everything, and return when everything has ended."""
        log.info("host of %s starts with %d engines", self._spec.cluster, len(engines))
        try:
            self._start(engines)
        except LaunchError as error:
            self._ready.say(Ready(error=str(error)))
            self._end(str(error), failed=True)
        log.info("%d processes were started", len(self._children))
        while not self._household.is_over or self._children:
            self._turn()
        log.info("the host has ended: %s", self._household.reason)
        if not self._ready.passed and self._household.reason:
            self._ready.say(Ready(error=self._household.reason))
        return 1 if self._household.has_failed else 0

    @property
    def has_failed(self) -> bool:
        """Whether it ends because a process did that nobody had told to."""
        return self._household.has_failed

    def finish(self) -> None:
        """End what was left behind by processes that have ended, and let go of everything."""
        killed = kill_children(timeout_s=ORPHANS_S)
        if killed:
            log.info("%d processes that engines had started were killed", killed)
        self._starter.close()
        self._open_gate()
        self._close()

    def let_go(self, *, keep_name: bool) -> None:
        """In a forked child: close the copies of what is the parent's business."""
        if self._gate is not None:
            self._gate.let_go()
        if self._pipes is not None:
            self._pipes.let_go()
        self._close()
        if not keep_name:
            self.release_name()

    def release_name(self) -> None:
        """Stop holding the cluster's name. Repeating it does nothing."""
        if self._name_fd != NO_FILE:
            os.close(self._name_fd)
            self._name_fd = NO_FILE

    def _open_gate(self) -> None:
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.open()

    def _close(self) -> None:
        self._ready.close()
        self._signals.close()
        self._owner.close()
        for engine in self._engines.values():
            _close_all(engine.reading)
        if self._orders is not None:
            self._orders.close()

    def _start(self, engines: list[EngineSpec]) -> None:
        if self._spec.controller is not None:
            self._start_controller(self._spec.controller)
        self._start_supervisor(engines)
        if self._spec.controller is not None:
            if not self._starter.forks:
                self._waiting = engines
                return
            # Made after those two were started: who has a copy of it holds it shut.
            self._gate = Gate()
        for spec in engines:
            self._start_engine(spec)

    def _start_controller(self, spec: ControllerSpec) -> None:
        write_fd = self._ready.open()
        # Of all our children the controller alone has this end: it is closed before the next one starts.
        spec = msgspec.structs.replace(spec, ready_fd=write_fd, owner_pid=os.getpid())
        pid = self._controller_pid = self._starter.start_controller(spec)
        os.close(write_fd)
        self._children[pid] = Child("the controller", None)
        self._household.on_controller_started()

    def restart_controller(self, cause: str) -> None:
        """Start another controller on what the one before has left."""
        assert self._spec.controller is not None
        log.warning("the controller has ended (%s) and is started again", cause)
        spec = msgspec.structs.replace(
            self._spec.controller, ready_fd=NO_FILE, owner_pid=os.getpid(), restore=True
        )
        try:
            pid = self._starter.start_controller(spec)
        except LaunchError as error:
            self._end(str(error), failed=True)
            return
        self._controller_pid = pid
        self._children[pid] = Child("the controller", None)
        self._household.on_controller_started()
        self._tell(ControllerRestarted(pid))

    def replace_supervisor(self) -> None:
        """Start another supervisor for the engines that there are."""
        log.warning("the supervisor has died and is replaced")
        try:
            self._start_supervisor([engine.spec for engine in self._engines.values()])
        except LaunchError as error:
            self._end(str(error), failed=True)
            return
        if self._ready.passed:
            self._tell(ControllerBound())
        for key, engine in self._engines.items():
            self._tell(EngineStarted(key, engine.pid), _copies(engine.reading))

    def _start_supervisor(self, engines: list[EngineSpec]) -> None:
        ours, theirs = socket.socketpair()
        self._orders = OrderSocket.of_parent(ours)
        self._has_left = None
        run = self._run_supervisor
        inheritance = Inheritance(
            engines, list(self._ended), list(self._launched.values()), self._controller_pid
        )
        pid = self._starter.start_supervisor(lambda: run(theirs, inheritance))
        if pid:
            theirs.close()
            self._children[pid] = Child("the supervisor", None)
        self._household.on_supervisor_started()

    def _launch(self, order: StartEngine) -> None:
        launch = self._launched.setdefault(order.request, EnginesStarted(order.request, []))
        if len(self._launched) > LAUNCHES_KEPT:
            self._launched.popitem(last=False)
        self._start_engine(order.spec)
        engine = self._engines.get(order.spec.key)
        if engine is not None:
            launch.processes.append(ProcessInfo(order.spec.key, engine.pid, order.spec.wanted))

    def _start_engine(self, spec: EngineSpec) -> None:
        try:
            if self._household.is_ending:
                raise LaunchError("an engine", "its host is about to end")
            pid, reading = self._start_with_pipes(msgspec.structs.replace(spec, parent_pid=os.getpid()))
        except LaunchError as error:
            log.error("%s", error)
            self._tell(EngineNotStarted(spec.key, str(error)))
            return
        self._children[pid] = Child(f"engine process {spec.key}", spec.key)
        copies = _copies(reading) if self._starter.forks else []
        self._engines[spec.key] = StartedEngine(spec, pid, copies)
        self._household.on_engine_started(spec.key)
        self._tell(EngineStarted(spec.key, pid), reading)

    def _start_with_pipes(self, spec: EngineSpec) -> tuple[int, list[int]]:
        """Start an engine; returns its process id and the reading ends of its pipes."""
        try:
            self._pipes = pipes = OutputPipes()
        except OSError as error:
            raise LaunchError("an engine", f"its host can open no pipes: {error.strerror}") from error
        try:
            pid = self._starter.start_engine(spec, pipes.writing, self._gate)
        except LaunchError:  # and not what a forked child leaves by, with the writing ends
            self._pipes = None
            pipes.let_go()
            pipes.close_writing()
            raise
        self._pipes = None
        pipes.close_writing()
        return pid, pipes.take_reading()

    # ------------------------------------------------------------ the loop

    def _turn(self) -> None:
        self._wait()
        now = clock.now()
        came = self._signals.receive()
        if _DISOWNED in came:
            log.info("the owner has let this host go")
            self._owner.close()
            self._owner = EndWatch(0)
        self._on_orders(now)
        if self._ready.fileno() != NO_FILE and self._ready.receive():
            self._on_bound()
        for pid, status, peak_bytes in reap():
            self._on_reaped(pid, status, peak_bytes, now)
        for signum in came.intersection(_END_SIGNALS):
            self._end(f"it was told to by {SIGNAL_NAMES[signum]}")
        if self._owner.has_ended():
            self._end(f"its owner, process {self._spec.owner_pid}, has ended")
        self._household.on_tick(now=now, outbox=self)

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._signals.fileno(), select.POLLIN)
        owner_fd = NO_FILE if self._household.is_ending else self._owner.fileno()
        for descriptor in (self._ready.fileno(), owner_fd):
            if descriptor != NO_FILE:
                poll.register(descriptor, select.POLLIN)
        orders = self._orders
        if orders is not None and not orders.ended:
            poll.register(orders.fileno(), select.POLLIN | (select.POLLOUT if orders.wants_write else 0))
        deadline = self._household.next_deadline()
        left_s = math.inf if deadline is None else max(deadline - clock.now(), 0.0)
        if self._owner.interval_s is not None:
            left_s = min(left_s, self._owner.interval_s)
        poll.poll(None if left_s == math.inf else math.ceil(left_s * 1000))

    def _on_orders(self, now: float) -> None:
        orders = self._orders
        if orders is None or orders.ended:
            return
        orders.flush()
        for order in orders.receive():
            if isinstance(order, StartEngine):
                self._launch(order)
            elif isinstance(order, SignalEngine):
                self._signal_engine(order.key, order.signum)
            elif isinstance(order, Welcomed):
                if self._spec.controller is None:
                    self._ready.say(Ready())
            else:
                self._has_left = order
                if order.failure and not self._household.is_ending:
                    self._ready.say(Ready(error=order.failure))
        if orders.ended:
            orders.close()
            left = self._has_left
            if left is None:
                self._household.on_supervisor_died(now=now, outbox=self)
                return
            if left.failure:
                log.error("the supervisor has left: %s", left.failure)
            self._household.on_supervisor_left(orderly=not left.failure, now=now, outbox=self)

    def _on_bound(self) -> None:
        self._open_gate()
        self._tell(ControllerBound())
        waiting, self._waiting = self._waiting, []
        for spec in waiting:
            self._start_engine(spec)

    def _on_reaped(self, pid: int, status: int, peak_bytes: int, now: float) -> None:
        self._starter.on_reaped(pid, status)
        child = self._children.pop(pid, None)
        if child is None:
            return  # an orphan that has come to us
        cause = explain_exit(status, SIGNAL_NAMES)
        if not self._household.is_ending:
            log.info("%s (process %d): %s", child.what, pid, cause)
        if child.key is not None:
            engine = self._engines.pop(child.key)
            _close_all(engine.reading)
            self._ended.append(EndedEngine(child.key, engine.spec.wanted, pid, status, peak_bytes))
            self._household.on_engine_exited(child.key)
            self._tell(EngineEnded(child.key, status, peak_bytes))
        elif pid == self._controller_pid:
            if not self._ready.passed:
                # What it wrote last may say more than how it ended, and may have come with its end.
                if self._ready.fileno() != NO_FILE:
                    self._ready.receive()
                self._ready.say(Ready(error=self._why_not_ready(cause)))
                self._end(f"the controller has ended: {cause}", failed=True)
            self._household.on_controller_exited(cause, clean=status == 0, now=now, outbox=self)

    def _why_not_ready(self, cause: str) -> str:
        output = last_lines(self._spec.path("logs") / CONTROLLER_LOG)
        return f"the controller has ended before it was ready ({cause})" + (f"\n{output}" if output else "")

    def _end(self, reason: str, *, failed: bool = False) -> None:
        self._household.on_end_asked(reason, failed=failed, now=clock.now(), outbox=self)

    # ------------------------------------------------------------ effects

    def end_supervisor(self, reason: str) -> None:
        log.info("ending: %s", reason)
        waiting, self._waiting = self._waiting, []
        for spec in waiting:
            self._tell(EngineNotStarted(spec.key, reason))
        self._tell(EndAll(reason))

    def terminate_engines(self) -> None:
        for key in self._engines:
            self._signal_engine(key, signal.SIGTERM)

    def terminate_controller(self) -> None:
        if self._controller_pid in self._children:
            signal_process(self._controller_pid, signal.SIGTERM)

    def kill_all(self) -> None:
        log.warning(
            "killing what has not ended: %s", ", ".join(child.what for child in self._children.values())
        )
        for pid, child in self._children.items():
            signal_process(pid, signal.SIGKILL, group=child.key is not None)

    def _signal_engine(self, key: EngineKey, signum: int) -> None:
        engine = self._engines.get(key)
        if engine is not None:  # not reaped, so the id is still this process's
            signal_process(engine.pid, signum, group=signum == signal.SIGKILL)

    def _tell(
        self,
        order: EngineStarted
        | EngineNotStarted
        | EngineEnded
        | ControllerBound
        | ControllerRestarted
        | EndAll,
        descriptors: Iterable[int] = (),
    ) -> None:
        if self._orders is not None:
            self._orders.send(order, descriptors)


def _copies(descriptors: Iterable[int]) -> list[int]:
    """Copies of descriptors, or none: a supervisor that is replaced then leaves its engines' pipes alone."""
    copies: list[int] = []
    try:
        for descriptor in descriptors:
            copies.append(os.dup(descriptor))
    except OSError:
        _close_all(copies)
    return copies


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())
