"""Which engine processes a host has, how they are made to end, and what their end means.

Theory
======

An engine is *launching* from the moment it is ordered, *running* when its process is known, *stopping* when
it was told to end, and *killed* when it did not end within the grace. One that is to stop before it is
known to run is *doomed*: it is stopped as soon as it runs. Its end is *expected* if it was told to. An
engine that is gone is forgotten.

`TRANSITIONS` is the whole machine; a pair that is not in it is a defect of the caller and raises `KeyError`
before anything has changed. Which engines are started again (a later part) is to be decided in
`Supervision.on_exited`.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, Protocol

from enginery.ids import EngineId, EngineKey
from enginery.protocol.messages import ProcessInfo
from enginery.protocol.specs import CONTROL_FAILED, STARTUP_FAILED

STOP_GRACE_S = 5.0
"""From the polite signal to the one that cannot be refused."""
KILL_INTERVAL_S = 1.0
"""What was killed and has not been seen to end is killed again after this."""


# ---------------------------------------------------------------- what an end means

_FAULTS: Final = {
    "SIGSEGV": "segmentation fault (SIGSEGV)",
    "SIGBUS": "bus error (SIGBUS)",
    "SIGABRT": "aborted (SIGABRT)",
    "SIGFPE": "arithmetic fault (SIGFPE)",
    "SIGILL": "illegal instruction (SIGILL)",
    "SIGXCPU": "its limit of processor time was reached (SIGXCPU)",
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
    if status == STARTUP_FAILED:
        return f"its startup code failed (exit code {status})"
    if status == CONTROL_FAILED:
        return f"its control thread failed, its log says why (exit code {status})"
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
    peak_bytes: int = 0  # the most memory that it had


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
        self._most = 0  # processes at once, so far
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

    @property
    def most_reports(self) -> int:
        """How many reports a controller may lack that was away: without one no engine is started."""
        return 2 * self._most  # that it was started, and that it has ended

    def processes(self) -> list[ProcessInfo]:
        """Those that are known to run, in the order in which they were ordered."""
        return [
            ProcessInfo(process.key, process.pid, process.wanted)
            for process in self._processes.values()
            if process.pid
        ]

    def wanted(self, key: EngineKey) -> EngineId:
        """The id that an engine is to have; NO_ENGINE = any."""
        return self._processes[key].wanted

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
        self._most = max(self._most, len(self._processes))
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

    def on_exited(
        self, key: EngineKey, status: int, *, peak_bytes: int = 0, outbox: SupervisionOutbox
    ) -> None:
        process = self._processes[key]
        expected = process.state in _EXPECTED
        process.apply(Fact.EXITED)
        del self._processes[key]
        self._ends["expected" if expected else "unexpected"] += 1
        outbox.report_end(EngineEnd(key, process.pid, status, expected, peak_bytes))

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
