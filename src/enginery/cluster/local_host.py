"""The host process of a cluster on this machine, as the process that started it sees it.

Starting is ordered for speed: the interpreter of the host is on its way before this side has imported what it
needs to write the spec, which then goes in through standard input. (So it is in nobody's command line either,
which names what the process is and nothing else.)

Who started a host owns it: it ends with this interpreter at the latest. Three things see to that, for three
kinds of end: `stop`, the interpreter's exit handler, and the host itself, which watches its owner's process.
A forked child owns nothing of its parent's.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from enginery.cluster.processes import kill_families, wait_for_end, wait_readable
from enginery.cluster.upkeep import HOST_LOG, last_lines, sweep
from enginery.errors import LaunchError
from enginery.transport.addresses import ClusterDirectory, ClusterLock

if TYPE_CHECKING:
    from enginery.protocol.specs import HostSpec

END_GRACE_S = 12.0
"""For the orderly end of a host: its engines have 5 s of it to react, then they are killed."""
KILL_GRACE_S = 5.0

_owned: set[LocalHost] = set()
_detached: set[LocalHost] = set()
_owned_lock = threading.Lock()
_hooked = False


class LocalHost:
    """A host process that runs, or ran, as a child of this process."""

    def __init__(
        self,
        directory: ClusterDirectory,
        process: subprocess.Popen[bytes],
        *,
        ready: int,
        ready_fd: int,
        keep_directory: bool,
    ) -> None:
        self.directory = directory
        self.keep_directory = keep_directory
        self.started_in = os.getpid()
        self.ready_fd = ready_fd
        """The number, in the host, of the descriptor on which it says that it is ready."""
        self._process = process
        self._ready = ready

    @classmethod
    def launch(
        cls,
        directory: ClusterDirectory,
        lock: ClusterLock,
        *,
        environment: Mapping[str, str],
        cwd: str | os.PathLike[str] | None = None,
        keep_directory: bool = False,
    ) -> LocalHost:
        """Start the interpreter of a host; `begin` tells it what to do.

        It inherits the lock. It has a process session of its own: Ctrl-C in a terminal is for the user's
        code, not for the cluster. Raises LaunchError.
        """
        log = os.open(directory.logs / HOST_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        ready, ready_end = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "enginery", "host", directory.name, "--spec", "-"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(ready_end, lock.fileno()),
                env=environment,
                cwd=cwd,
                start_new_session=True,
            )
        except BaseException as error:
            os.close(ready)
            if isinstance(error, OSError):
                raise LaunchError(f"the cluster {directory.name!r}", str(error)) from None
            raise
        finally:
            os.close(ready_end)
            os.close(log)
        host = cls(directory, process, ready=ready, ready_fd=ready_end, keep_directory=keep_directory)
        _own(host)
        return host

    def __repr__(self) -> str:
        state = "running" if self.is_running() else "ended"
        return f"<LocalHost {self.directory.name!r} process {self.pid}, {state}>"

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_running(self) -> bool:
        return self._is_ours() and self._process.poll() is None

    def begin(self, spec: HostSpec) -> None:
        """Hand the spec over."""
        assert self._process.stdin is not None
        # A host that has ended already is reported by `wait_ready`, with what it said.
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(spec.to_json().encode() + b"\n")

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until the controller is bound and its connection files are there.

        Raises LaunchError, with the last lines of the logs, if that fails or takes longer than `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        line = b""
        while not line.endswith(b"\n"):
            if not wait_readable(self._ready, deadline - time.monotonic()):
                raise self._failure(f"it did not answer within {timeout_s:g} s")
            piece = os.read(self._ready, 4096)
            if not piece:
                raise self._failure(self._how_it_ended())
            line += piece
        self._close_pipes()
        error = json.loads(line).get("error", "")
        if error:
            reason, _, output = error.partition("\n")
            raise self._failure(reason, output=output)

    def wait_end(self, timeout_s: float) -> bool:
        """Wait for the end of the process; False if it is still there after `timeout_s`."""
        if not self._is_ours():
            return True
        # `Popen.wait` with a time-out polls, and would notice late.
        if self._process.poll() is None and not wait_for_end(self.pid, timeout_s):
            return False
        self._process.wait()
        self._disown()
        return True

    def terminate(self) -> None:
        """Ask the host to end everything in order."""
        if self.is_running():
            self._process.terminate()

    def end(self, *, grace_s: float = END_GRACE_S) -> None:
        """End the host and everything that it started, in the end by force; returns when nothing is left."""
        if not self._is_ours():
            return
        self.terminate()
        if not self.wait_end(grace_s):
            kill_families([self.pid], KILL_GRACE_S)
            self.wait_end(KILL_GRACE_S)
        sweep(self.directory, keep_directory=self.keep_directory)

    def detach(self) -> None:
        """Let the host outlive this process."""
        if self.is_running():
            self._process.send_signal(signal.SIGUSR1)  # it comes before the end of its sender does
        self._disown()
        with _owned_lock:
            _detached.add(self)

    def _disown(self) -> None:
        with _owned_lock:
            _owned.discard(self)
        self._close_pipes()

    def _close_pipes(self) -> None:
        if self._ready >= 0:
            os.close(self._ready)
            self._ready = -1
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _is_ours(self) -> bool:
        return self.started_in == os.getpid()

    def _how_it_ended(self) -> str:
        if not self.wait_end(KILL_GRACE_S):
            return "its host closed the line to this process"
        code = self._process.returncode
        if code < 0:
            return f"its host was killed by {signal.Signals(-code).name}"
        return f"its host exited with code {code}"

    def _failure(self, reason: str, *, output: str = "") -> LaunchError:
        what = f"the cluster {self.directory.name!r}"
        return LaunchError(what, reason, output=output or last_lines(self.directory.logs))


# ---------------------------------------------------------------- ownership


def _own(host: LocalHost) -> None:
    global _hooked
    with _owned_lock:
        _owned.add(host)
        if not _hooked:
            atexit.register(_end_all)
            os.register_at_fork(after_in_child=_forget_all)
            _hooked = True


def _end_all() -> None:
    """At the interpreter's exit. All are asked first, so that they end side by side."""
    hosts = tuple(_owned)
    for host in hosts:
        host.terminate()
    for host in hosts:
        host.end()
    for host in _detached:
        host._process.returncode = 0  # or Popen would complain that it is still running


def _forget_all() -> None:
    # In a forked child, where nobody else runs yet; the parent's lock may have been held by another thread.
    global _owned_lock
    _owned_lock = threading.Lock()
    for host in _owned | _detached:
        host._process.returncode = 0  # not this process's child
    _owned.clear()
    _detached.clear()
