"""Which processes a host has, how they are made to end, and what their end means.

Theory
======

Two machines. `Supervision` is the supervisor's: the engine processes of one host. An engine is *launching*
from the moment it is ordered, *running* when its process is known, *stopping* when it was told to end, and
*killed* when it did not end within the grace. One that is to stop before it is known to run is *doomed*: it
is stopped as soon as it runs. Its end is *expected* if it was told to. `TRANSITIONS` is the whole table; a
pair that is not in it is a defect of the caller and raises `KeyError` before anything has changed. An
engine that is gone is forgotten.

`Household` is that of the parent of all processes of a host, which has to bring them to an end, whatever
happens: controller, supervisor, engines. It lets the supervisor end the engines, because that one explains
their deaths; if the supervisor is gone it does so itself, and what is left after the grace is killed.

Who restarts what (a later part) is decided here as well, in `Supervision.on_exited` and
`Household.on_controller_exited`.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, Protocol

from enginery.ids import EngineId, EngineKey
from enginery.protocol.messages import ProcessInfo

STOP_GRACE_S = 5.0
"""From the polite signal to the one that cannot be refused."""
CONTROLLER_GRACE_S = 2.0
"""How long a controller whose host has left may take to end by itself."""
MARGIN_S = 0.5
"""The parent's grace is longer than the supervisor's by this, so that the supervisor can report."""
KILL_INTERVAL_S = 1.0
"""What was killed and has not been seen to end is killed again after this."""


# ---------------------------------------------------------------- what an end means

_FAULTS: Final = {
    "SIGSEGV": "segmentation fault (SIGSEGV)",
    "SIGBUS": "bus error (SIGBUS)",
    "SIGABRT": "aborted (SIGABRT)",
    "SIGFPE": "arithmetic fault (SIGFPE)",
    "SIGILL": "illegal instruction (SIGILL)",
}


def explain_exit(status: int, signal_names: Mapping[int, str]) -> str:
    """How a process ended, as a verb phrase or a noun.

    `status` is as `os.waitstatus_to_exitcode` and `subprocess` give it: an exit code, or a negative signal
    number.

    >>> explain_exit(-9, {9: "SIGKILL"})
    'killed by SIGKILL (signal 9)'
    >>> explain_exit(3, {})
    'exited with code 3'
    """
    if status >= 0:
        return f"exited with code {status}"
    name = signal_names.get(-status)
    if name is None:
        return f"killed by signal {-status}"
    return _FAULTS.get(name) or f"killed by {name} (signal {-status})"


# ---------------------------------------------------------------- engines of one host


class ProcessState(enum.Enum):
    LAUNCHING = "launching"
    DOOMED = "doomed"
    RUNNING = "running"
    STOPPING = "stopping"
    KILLED = "killed"
    GONE = "gone"


class Fact(enum.Enum):
    STARTED = "started"
    NOT_STARTED = "not started"
    STOP_ASKED = "stop asked"
    GRACE_OVER = "grace over"
    EXITED = "exited"


TRANSITIONS: Final[dict[tuple[ProcessState, Fact], ProcessState]] = {
    (ProcessState.LAUNCHING, Fact.STARTED): ProcessState.RUNNING,
    (ProcessState.LAUNCHING, Fact.NOT_STARTED): ProcessState.GONE,
    (ProcessState.LAUNCHING, Fact.STOP_ASKED): ProcessState.DOOMED,
    (ProcessState.DOOMED, Fact.STARTED): ProcessState.STOPPING,
    (ProcessState.DOOMED, Fact.NOT_STARTED): ProcessState.GONE,
    (ProcessState.DOOMED, Fact.STOP_ASKED): ProcessState.DOOMED,
    (ProcessState.RUNNING, Fact.STOP_ASKED): ProcessState.STOPPING,
    (ProcessState.RUNNING, Fact.EXITED): ProcessState.GONE,
    (ProcessState.STOPPING, Fact.STOP_ASKED): ProcessState.STOPPING,
    (ProcessState.STOPPING, Fact.GRACE_OVER): ProcessState.KILLED,
    (ProcessState.STOPPING, Fact.EXITED): ProcessState.GONE,
    (ProcessState.KILLED, Fact.STOP_ASKED): ProcessState.KILLED,
    (ProcessState.KILLED, Fact.GRACE_OVER): ProcessState.KILLED,
    (ProcessState.KILLED, Fact.EXITED): ProcessState.GONE,
}

_EXPECTED = frozenset({ProcessState.STOPPING, ProcessState.KILLED})


class EngineEnd(NamedTuple):
    """The end of an engine process."""

    key: EngineKey
    pid: int
    status: int  # see `explain_exit`
    expected: bool  # it was told to stop


class SupervisionOutbox(Protocol):
    def terminate(self, key: EngineKey) -> None:
        """Ask this engine's process to end."""

    def kill(self, key: EngineKey) -> None:
        """End this engine's process, and what it started."""

    def report_end(self, end: EngineEnd) -> None:
        """An engine that had started is gone."""

    def report_launch(self, request: int, processes: list[ProcessInfo], error: str) -> None:
        """All engines of a request have started or failed to."""


class EngineProcess:
    """An engine process as its host sees it."""

    __slots__ = ("deadline", "key", "pid", "request", "state", "wanted")

    def __init__(self, key: EngineKey, wanted: EngineId, request: int | None) -> None:
        self.key = key
        self.wanted = wanted
        self.request = request
        self.pid = 0
        self.state = ProcessState.LAUNCHING
        self.deadline: float | None = None  # of the grace

    def __repr__(self) -> str:
        return f"<EngineProcess {self.key} {self.state.value}, pid {self.pid}>"

    def apply(self, fact: Fact) -> ProcessState:
        """Move along the table; KeyError, and no change, if the table has no such step."""
        self.state = state = TRANSITIONS[self.state, fact]
        return state


class Launch:
    """A request for engines of which some are not decided yet."""

    __slots__ = ("errors", "pending", "processes")

    def __init__(self) -> None:
        self.pending: set[EngineKey] = set()
        self.processes: list[ProcessInfo] = []
        self.errors: dict[str, None] = {}  # in order, each once


class Supervision:
    """All engine processes of one host."""

    def __init__(self, *, stop_grace_s: float = STOP_GRACE_S) -> None:
        self._stop_grace_s = stop_grace_s
        self._processes: dict[EngineKey, EngineProcess] = {}
        self._launches: dict[int, Launch] = {}
        self._ends: Counter[str] = Counter()
        self.is_closing = False  # everything was told to stop; nothing is launched any more

    def __repr__(self) -> str:
        closing = ", closing" if self.is_closing else ""
        return f"<Supervision of {len(self._processes)} engine processes{closing}>"

    @property
    def is_empty(self) -> bool:
        return not self._processes

    @property
    def is_launching(self) -> bool:
        return any(process.pid == 0 for process in self._processes.values())

    def processes(self) -> list[ProcessInfo]:
        """Those that are known to run, in the order in which they were ordered."""
        return [
            ProcessInfo(process.key, process.pid, process.wanted)
            for process in self._processes.values()
            if process.pid
        ]

    # ------------------------------------------------------------ facts

    def on_launch(
        self,
        engines: Iterable[tuple[EngineKey, EngineId]],
        *,
        request: int | None,
        outbox: SupervisionOutbox,
    ) -> bool:
        """Engines are to be started; False if there is no use in that any more.

        With a `request`, `report_launch` follows when all of them are decided.
        """
        asked = list(engines)
        if self.is_closing or not asked:
            if request is not None:
                error = "this host is about to end and starts no engines" if self.is_closing else ""
                outbox.report_launch(request, [], error)
            return False
        for key, wanted in asked:
            self._processes[key] = EngineProcess(key, wanted, request)
            if request is not None:
                self._launches.setdefault(request, Launch()).pending.add(key)
        return True

    def on_started(self, key: EngineKey, pid: int, *, now: float, outbox: SupervisionOutbox) -> None:
        process = self._processes[key]
        state = process.apply(Fact.STARTED)
        process.pid = pid
        if state is ProcessState.STOPPING:
            process.deadline = now + self._stop_grace_s
            outbox.terminate(key)
        self._decide(process, "", outbox)

    def on_not_started(self, key: EngineKey, error: str, *, outbox: SupervisionOutbox) -> None:
        process = self._processes[key]
        process.apply(Fact.NOT_STARTED)
        del self._processes[key]
        self._ends["not started"] += 1
        self._decide(process, error, outbox)

    def on_exited(self, key: EngineKey, status: int, *, outbox: SupervisionOutbox) -> None:
        process = self._processes[key]
        expected = process.state in _EXPECTED
        process.apply(Fact.EXITED)
        del self._processes[key]
        self._ends["expected" if expected else "unexpected"] += 1
        outbox.report_end(EngineEnd(key, process.pid, status, expected))

    def on_stop_asked(
        self, keys: Iterable[EngineKey] | None, *, now: float, outbox: SupervisionOutbox
    ) -> None:
        """Stop these engines, or (None) all of them and start no more. Those that are gone do not matter."""
        if keys is None:
            self.is_closing = True
            keys = list(self._processes)
        for key in keys:
            process = self._processes.get(key)
            if process is None:
                continue
            before = process.state
            if process.apply(Fact.STOP_ASKED) is ProcessState.STOPPING and before is ProcessState.RUNNING:
                process.deadline = now + self._stop_grace_s
                outbox.terminate(key)

    # ------------------------------------------------------------ time

    def next_deadline(self) -> float | None:
        return min((p.deadline for p in self._processes.values() if p.deadline is not None), default=None)

    def on_tick(self, *, now: float, outbox: SupervisionOutbox) -> None:
        for process in self._processes.values():
            if process.deadline is not None and process.deadline <= now:
                process.apply(Fact.GRACE_OVER)
                process.deadline = now + KILL_INTERVAL_S
                outbox.kill(process.key)

    # ------------------------------------------------------------ looking

    def statistics(self) -> dict[str, int]:
        """Processes by state, and ends so far by kind."""
        states = Counter(process.state.value for process in self._processes.values())
        return {**states, **{f"ended {kind}": count for kind, count in self._ends.items()}}

    def check(self) -> None:
        for key, process in self._processes.items():
            assert process.key == key
            assert process.state is not ProcessState.GONE
            assert (process.pid == 0) == (process.state in {ProcessState.LAUNCHING, ProcessState.DOOMED})
            assert (process.deadline is not None) == (process.state in _EXPECTED)
            if self.is_closing:
                assert process.state not in {ProcessState.LAUNCHING, ProcessState.RUNNING}
        for launch in self._launches.values():
            assert launch.pending
            for key in launch.pending:
                assert self._processes[key].pid == 0

    def _decide(self, process: EngineProcess, error: str, outbox: SupervisionOutbox) -> None:
        """This process has started, or failed to with an error: its request may be complete."""
        if process.request is None:
            return
        launch = self._launches[process.request]
        launch.pending.discard(process.key)
        if error:
            launch.errors[error] = None
        else:
            launch.processes.append(ProcessInfo(process.key, process.pid, process.wanted))
        if not launch.pending:
            del self._launches[process.request]
            outbox.report_launch(process.request, launch.processes, "; ".join(launch.errors))


# ---------------------------------------------------------------- everything on one host


class HouseholdOutbox(Protocol):
    def end_supervisor(self, reason: str) -> None:
        """Tell the supervisor to stop all engines and to leave."""

    def terminate_engines(self) -> None: ...

    def terminate_controller(self) -> None: ...

    def kill_all(self) -> None:
        """Kill whatever is left."""


class Household:
    """All processes of one host, seen by their parent. Once it is ending it ends."""

    def __init__(self, *, stop_grace_s: float = STOP_GRACE_S) -> None:
        self._stop_grace_s = stop_grace_s
        self._has_controller = False
        self._has_supervisor = False
        self._engines: set[EngineKey] = set()
        self._terminate_at: float | None = None
        self._kill_at: float | None = None
        self.reason = ""  # why it is ending; empty = it is not
        self.has_failed = False

    def __repr__(self) -> str:
        state = f"ending because {self.reason}" if self.reason else "running"
        return f"<Household {state}, {self._describe()}>"

    @property
    def is_ending(self) -> bool:
        return bool(self.reason)

    @property
    def is_over(self) -> bool:
        """Everybody has left."""
        return not (self._has_controller or self._has_supervisor or self._engines)

    # ------------------------------------------------------------ facts

    def on_controller_started(self) -> None:
        self._has_controller = True

    def on_supervisor_started(self) -> None:
        self._has_supervisor = True

    def on_engine_started(self, key: EngineKey) -> None:
        self._engines.add(key)

    def on_engine_exited(self, key: EngineKey) -> None:
        self._engines.discard(key)

    def on_controller_exited(self, cause: str, *, clean: bool, now: float, outbox: HouseholdOutbox) -> None:
        self._has_controller = False
        self._terminate_at = None
        self.on_end_asked(f"the controller has ended: {cause}", failed=not clean, now=now, outbox=outbox)

    def on_supervisor_left(self, *, orderly: bool, now: float, outbox: HouseholdOutbox) -> None:
        """It is gone; `orderly` if it said that it would go because its engines have."""
        self._has_supervisor = False
        if not self.is_ending and not orderly:
            self.on_end_asked("the supervisor has died", failed=True, now=now, outbox=outbox)
            return
        if self._engines:
            outbox.terminate_engines()
        if not self.is_ending:
            # The cluster was told to stop. Its controller knows and goes when it has said everything.
            self.reason = "all engines were told to stop"
            self._terminate_at = now + CONTROLLER_GRACE_S if self._has_controller else None
            self._kill_at = now + CONTROLLER_GRACE_S + self._stop_grace_s

    def on_end_asked(self, reason: str, *, failed: bool = False, now: float, outbox: HouseholdOutbox) -> None:
        """Bring everything to an end. Asking again changes nothing."""
        if self.is_ending:
            return
        self.reason = reason
        self.has_failed = failed
        self._kill_at = now + self._stop_grace_s + MARGIN_S
        if self._has_supervisor:
            outbox.end_supervisor(reason)
        elif self._engines:
            outbox.terminate_engines()
        if self._has_controller:
            outbox.terminate_controller()

    # ------------------------------------------------------------ time

    def next_deadline(self) -> float | None:
        deadlines = (self._terminate_at, self._kill_at)
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def on_tick(self, *, now: float, outbox: HouseholdOutbox) -> None:
        if self._terminate_at is not None and self._terminate_at <= now:
            self._terminate_at = None
            outbox.terminate_controller()
        if self._kill_at is not None and self._kill_at <= now:
            self._kill_at = now + KILL_INTERVAL_S
            outbox.kill_all()

    # ------------------------------------------------------------ looking

    def statistics(self) -> dict[str, int]:
        return {
            "controllers": int(self._has_controller),
            "supervisors": int(self._has_supervisor),
            "engines": len(self._engines),
        }

    def check(self) -> None:
        assert (self._kill_at is not None) == self.is_ending
        assert self._terminate_at is None or (self.is_ending and self._has_controller)

    def _describe(self) -> str:
        return ", ".join(f"{count} {what}" for what, count in self.statistics().items())
