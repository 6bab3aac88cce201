"""How the parent of all processes starts one: the contract, and fresh interpreters as one way to keep it.

The other way is to fork a warm process, see `zygote`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from enginery.errors import LaunchError
from enginery.host.files import open_log
from enginery.protocol.specs import ControllerSpec, EngineSpec
from enginery.transport.channel import NO_FILE

CONTROLLER_LOG = "controller.log"


class ProcessStarter(Protocol):
    """Starts processes; the caller reaps them. All raise LaunchError, and give the id of the process."""

    @property
    def forks(self) -> bool:
        """Whether its processes begin as copies of the caller. Engines may then be started before there is a
        controller to dial, and wait at the gate; and the supervisor is a process of its own."""
        ...

    def start_controller(self, spec: ControllerSpec) -> int: ...

    def start_supervisor(self, run: Callable[[], int]) -> int:
        """Run the supervisor beside the caller: as a process of its own, or (0) in this one."""
        ...

    def start_engine(self, spec: EngineSpec, output: Ends, gate: Gate | None = None) -> int:
        """Start an engine with these for standard output and errors; it dials when the gate is open."""
        ...

    def on_reaped(self, pid: int, status: int) -> None:
        """The caller has taken this process's status."""
        ...

    def close(self) -> None:
        """All processes have been reaped."""
        ...


class Gate:
    """Holds forked processes until their parent opens it, or ends."""

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe()

    def __repr__(self) -> str:
        return f"<Gate {'open' if self.is_open else 'shut'}>"

    @property
    def is_open(self) -> bool:
        return self._write_fd == NO_FILE

    def open(self) -> None:
        """Repeating it does nothing."""
        for descriptor in {self._read_fd, self._write_fd} - {NO_FILE}:
            os.close(descriptor)
        self._read_fd = self._write_fd = NO_FILE

    def let_go(self) -> None:
        """In a forked child: leave it to the parent, or we would hold it shut ourselves."""
        if self._write_fd != NO_FILE:
            os.close(self._write_fd)
            self._write_fd = NO_FILE

    def pass_through(self) -> None:
        """In a forked child, after `let_go`: wait until it is open. Signals end the wait, as anything."""
        if self._read_fd != NO_FILE:
            os.read(self._read_fd, 1)
            self.open()


Ends = tuple[int, int]
"""Descriptors of the same ends of two pipes: for standard output, and for errors."""


class OutputPipes:
    """What an engine writes its standard output and errors to, and its supervisor reads."""

    def __init__(self) -> None:
        """Raises OSError if there are no descriptors left."""
        stdout = os.pipe()
        try:
            stderr = os.pipe()
        except OSError:
            for descriptor in stdout:
                os.close(descriptor)
            raise
        self._reading: list[int] = [stdout[0], stderr[0]]
        self.writing: Ends = stdout[1], stderr[1]

    def __repr__(self) -> str:
        return f"<OutputPipes to {self.writing}>"

    def take_reading(self) -> list[int]:
        """The ends for the supervisor, which are the caller's now."""
        reading, self._reading = self._reading, []
        return reading

    def let_go(self) -> None:
        """In a forked child: leave reading to the supervisor. Repeating it does nothing."""
        for descriptor in self.take_reading():
            os.close(descriptor)

    def close_writing(self) -> None:
        """The engine has its copies."""
        for descriptor in self.writing:
            os.close(descriptor)


class SpawnStarter:
    """Starts fresh interpreters: for systems where fork is unsafe, and for MPI.

    The supervisor is a thread of this process. Nothing here forks user code, so that is allowed.
    """

    def __init__(self, program: Sequence[str], logs: Path) -> None:
        self._program = tuple(program)
        self._logs = logs
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._supervisor: threading.Thread | None = None

    @property
    def forks(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<SpawnStarter of {' '.join(self._program)}, {len(self._processes)} processes>"

    def start_controller(self, spec: ControllerSpec) -> int:
        descriptors = () if spec.ready_fd < 0 else (spec.ready_fd,)
        log = open_log(self._logs / CONTROLLER_LOG)
        try:
            return self._spawn("controller", spec, (log, log), keep=descriptors)
        finally:
            os.close(log)

    def start_engine(self, spec: EngineSpec, output: Ends, gate: Gate | None = None) -> int:
        # A session of its own: the terminal's Ctrl-C is for the client, not for engines.
        return self._spawn("engine", spec, output, new_session=True)

    def start_supervisor(self, run: Callable[[], int]) -> int:
        self._supervisor = threading.Thread(target=run, name="enginery-supervisor", daemon=True)
        self._supervisor.start()
        return 0

    def on_reaped(self, pid: int, status: int) -> None:
        process = self._processes.pop(pid, None)
        if process is not None:
            # It is told, because it cannot ask any more.
            process.returncode = status

    def close(self) -> None:
        if self._supervisor is not None:
            self._supervisor.join(timeout=5.0)

    def _spawn(
        self,
        role: str,
        spec: ControllerSpec | EngineSpec,
        output: Ends,
        *,
        keep: Sequence[int] = (),
        new_session: bool = False,
    ) -> int:
        try:
            process = subprocess.Popen(
                [*self._program, role, spec.cluster, "--spec", "-"],
                stdin=subprocess.PIPE,
                stdout=output[0],
                stderr=output[1],
                pass_fds=keep,
                start_new_session=new_session,
            )
        except OSError as error:
            raise LaunchError(f"the {role}", f"{self._program[0]}: {error.strerror}") from error
        assert process.stdin is not None
        # A spec is far smaller than a pipe's buffer. Who has died before reading it is reaped like any other.
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(spec.to_json().encode() + b"\n")
        self._processes[process.pid] = process
        return process.pid
