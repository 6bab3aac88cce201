"""Systems, and one session of one system: every session runs in a fresh process of its own.

A system is a file in `workloads/` that makes a `System` and decorates one function per workload. Rounds are
interleaved by `__main__`: each round runs one session of every system, so a figure and the one it is divided
by were taken within the same minute, with no other system's processes or threads around.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
MARK = "ENGINERY_BENCHMARK_SESSION"

MODULES = (
    "ours",
    "raw_zmq",
    "raw_python",
    "process_pool",
    "loky_peer",
    "mpi_peer",
    "ipyparallel_peer",
    "dask_peer",
    "ray_peer",
)
"""Files in `workloads/`, in the order of the tables."""


@dataclass(frozen=True)
class Sample:
    """One figure from one round. The note says what a reader must know to compare it.

    A workload over several sizes adds its curve, size in bytes -> figure, and has one of them as its value.
    """

    value: float
    note: str = ""
    curve: dict[int, float] = field(default_factory=dict)


Measured = float | Sample


@dataclass
class System:
    """Something that can do the workloads.

    `package` must be importable for the system to take part; `peer` marks those that are measured only on
    request.
    """

    name: str
    package: str = ""
    peer: bool = False
    session: Callable[[], AbstractContextManager[Any]] | None = None
    alone: dict[str, Callable[[], Measured]] = field(default_factory=dict)
    inside: dict[str, Callable[[Any], Measured]] = field(default_factory=dict)

    def measures(self, workload: str) -> Callable[[Callable[[Any], Measured]], Callable[[Any], Measured]]:
        """Register a function that is given the open session."""

        def register(function: Callable[[Any], Measured]) -> Callable[[Any], Measured]:
            self.inside[workload] = function
            return function

        return register

    def measures_alone(self, workload: str) -> Callable[[Callable[[], Measured]], Callable[[], Measured]]:
        """Register a function that needs no session: start-up, import."""

        def register(function: Callable[[], Measured]) -> Callable[[], Measured]:
            self.alone[workload] = function
            return function

        return register

    @property
    def workloads(self) -> set[str]:
        return self.alone.keys() | self.inside.keys()

    def is_there(self) -> bool:
        return not self.package or importlib.util.find_spec(self.package) is not None


def find_systems() -> dict[str, System]:
    """All systems by name."""
    systems: dict[str, System] = {}
    for name in MODULES:
        module = importlib.import_module(f"benchmarks.workloads.{name}")
        systems.update((system.name, system) for system in module.SYSTEMS)
    return systems


# ---------------------------------------------------------------- in the session's process


def run_session(system: System, workloads: Sequence[str]) -> dict[str, Any]:
    """Run some workloads, those without a session first; a failure is recorded and ends no other."""
    found: dict[str, Any] = {}
    for name in workloads:
        if name in system.alone:
            found[name] = _attempt(system.alone[name])
    inside = [name for name in workloads if name in system.inside]
    if inside and system.session is not None:
        with ExitStack() as stack:
            try:
                session = stack.enter_context(system.session())
            except Exception:  # noqa: BLE001 - whatever a peer raises is its figure: none
                failure = {"error": traceback.format_exc()}
                return found | dict.fromkeys(inside, failure)
            for name in inside:
                function = system.inside[name]
                found[name] = _attempt(lambda function=function: function(session))  # type: ignore[misc]
    return found


def _attempt(function: Callable[[], Measured]) -> dict[str, Any]:
    try:
        measured = function()
    except Exception:  # noqa: BLE001 - as above
        return {"error": traceback.format_exc()}
    sample = measured if isinstance(measured, Sample) else Sample(measured)
    return {"value": sample.value, "note": sample.note} | ({"curve": sample.curve} if sample.curve else {})


# ---------------------------------------------------------------- in the harness's process


def measure_session(system: str, workloads: Sequence[str], *, timeout_s: float) -> dict[str, Any]:
    """Run a session in a process of its own; nothing of it is left afterwards."""
    with private_directories() as environment:
        answer = Path(environment["TMPDIR"]) / "answer.json"
        order = json.dumps({"system": system, "workloads": list(workloads), "answer": str(answer)})
        failure = ""
        try:
            subprocess.run(
                [sys.executable, "-m", "benchmarks.session", order],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                timeout=timeout_s,
                check=True,
            )
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
            failure = str(error)
        finally:
            end_processes(environment[MARK])
        found: dict[str, Any] = json.loads(answer.read_text()) if answer.exists() else {}
        return {name: found.get(name) or {"error": failure or "no answer"} for name in workloads}


@contextmanager
def private_directories() -> Iterator[dict[str, str]]:
    """An environment in which no system meets, or leaves, files of the user."""
    directory = tempfile.mkdtemp(prefix="eb-")
    try:
        yield os.environ | {
            MARK: directory,
            "TMPDIR": directory,
            "ENGINERY_RUNTIME_DIR": f"{directory}/r",
            "IPYTHONDIR": f"{directory}/ipython",
        }
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def end_processes(mark: str) -> None:
    """Kill what a session has left: everything that carries its mark in the environment."""
    left = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                process.kill()
                left.append(process)
        except psutil.Error:
            continue
    psutil.wait_procs(left, timeout=5)


# ---------------------------------------------------------------- for the systems' files


def time_calls(call: Callable[[], object], *, warm_up: int = 50, calls: int = 300) -> float:
    """The median duration of a call."""
    for _ in range(warm_up):
        call()
    durations = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        durations.append(time.perf_counter() - began)
    return sorted(durations)[calls // 2]


def time_import(statement: str, *, times: int = 5) -> float:
    """The median wall time of a fresh interpreter that runs one statement."""
    durations = []
    for _ in range(times):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        durations.append(time.perf_counter() - began)
    return sorted(durations)[times // 2]


def private_megabytes() -> list[float]:
    """Memory that no other process shares, of each process below this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            found.append(process.memory_full_info().uss / 1e6)
        except psutil.NoSuchProcess:
            continue
    return found
