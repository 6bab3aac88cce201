"""The warm process: everything imported once, then forked into controller, supervisor and engines.

A fresh interpreter with all that an engine needs takes 150 ms and 25 MB; a fork takes a few ms and 3 MB.
For a fork to be safe the process has one thread and no 0MQ Context, always, and that is checked before each
one: numerical libraries start threads when they are imported, so none is imported here.

A child does not go on inside the parent's loop. `fork` raises `ForkedChild` in it, which unwinds the
parent's frames up to `run_host`; from there the child runs what it is for and ends as every interpreter
does, `atexit` included.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from enginery.errors import LaunchError
from enginery.host.entries import Entries
from enginery.host.files import open_log
from enginery.host.processes import count_threads, die_with_parent, set_title
from enginery.host.starters import CONTROLLER_LOG, Ends, Gate
from enginery.protocol.specs import ControllerSpec, EngineSpec
from enginery.transport.sockets import raise_descriptor_limit

_WARM = ("cloudpickle", "enginery.transport.dialling", "setproctitle", "traceback")
_THREAD_VARIABLES = ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_HELD = {signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGTERM}
HOST_LOG = "host.log"


class ForkedChild(BaseException):
    """Leaves the parent's loop in a forked child; `run_host` turns it into what the child is for."""

    def __init__(self, become: Callable[[], int], *, keeps_name: bool) -> None:
        super().__init__()
        self.become = become
        self.keeps_name = keeps_name  # it goes on holding the cluster's name


class ForkStarter:
    """Starts processes by forking this one."""

    def __init__(self, entries: Entries, *, cluster: str, logs: Path) -> None:
        self._entries = entries
        self._cluster = cluster
        self._logs = logs
        self._pid = os.getpid()
        _warm_up()

    @property
    def forks(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<ForkStarter of {self._cluster}>"

    def start_controller(self, spec: ControllerSpec) -> int:
        entry = self._entries.controller

        def become() -> int:
            redirect_output(self._logs / CONTROLLER_LOG)
            _settle(title=f"enginery: controller {spec.cluster}")
            # The parent alone decides that it ends, also if the terminal's Ctrl-C reaches all of us.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            return _release(lambda: entry(spec))

        return self._fork("the controller", become)

    def start_supervisor(self, run: Callable[[], int]) -> int:
        def become() -> int:
            redirect_output(self._logs / HOST_LOG)
            _settle(title=f"enginery: host {self._cluster} (supervisor)")
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(signum, signal.SIG_IGN)
            raise_descriptor_limit()  # it has two pipes of each engine
            return _release(run)

        return self._fork("the supervisor", become, outlives_parent=True)

    def start_engine(self, spec: EngineSpec, output: Ends, gate: Gate | None = None) -> int:
        entry = self._entries.engine

        def become() -> int:
            # A session of its own: the terminal's Ctrl-C is for the client, and the group can be killed.
            os.setsid()
            _redirect(output)
            _settle(title=f"enginery: engine {spec.cluster}")

            def enter() -> int:
                if gate is not None:
                    gate.pass_through()
                return entry(spec)

            return _release(enter)

        return self._fork("an engine", become)

    def on_reaped(self, pid: int, status: int) -> None:
        """Nothing is kept of it."""

    def close(self) -> None:
        """There is nothing to end."""

    def _fork(self, what: str, become: Callable[[], int], *, outlives_parent: bool = False) -> int:
        """Fork; a child that outlives its parent, for a moment, does so to clean up after it."""
        threads = count_threads()
        if threads != 1:
            raise LaunchError(
                what,
                f"the host has {threads} threads, and a fork would copy their locks without them; find the "
                'import that starts one, or use start_method="spawn"',
            )
        gc.freeze()
        # What comes now must not be taken for the parent's by handlers that the child still shares with it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
        try:
            pid = os.fork()
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            raise LaunchError(what, f"the system cannot fork: {error.strerror}") from error
        if pid == 0:
            if not outlives_parent:
                die_with_parent(self._pid)
            raise ForkedChild(become, keeps_name=outlives_parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid


def _warm_up() -> None:
    """Import what all children need. What is imported here costs none of them anything."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    for name in _WARM:
        importlib.import_module(name)
    for name, value in before.items():
        # The user's own values, or none, are what engines find when they import such a library.
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    gc.collect()
    gc.disable()  # a collection in the parent would touch pages that are shared


def _settle(*, title: str) -> None:
    """Make a forked child a process of its own: signals, title, random numbers."""
    for signum in (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    set_title(title)
    gc.enable()
    numeric = sys.modules.get("numpy")
    if numeric is not None and "numpy.random" in sys.modules:
        numeric.random.seed()  # all children would draw the same numbers


def _release(run: Callable[[], int]) -> int:
    """Take signals from here on, and run."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
    return run()


def redirect_output(log: Path) -> None:
    """Standard input from nowhere, output and errors into a log."""
    descriptor = open_log(log)
    _redirect((descriptor, descriptor))


def _redirect(output: Ends) -> None:
    """Standard input from nowhere, output and errors there; closes these descriptors."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for descriptor, place in zip((nothing, *output), (0, 1, 2), strict=True):
        os.dup2(descriptor, place)
    for descriptor in {nothing, *output}:
        os.close(descriptor)
    if sys.stdout is not None:
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
