"""What a test module has left behind: processes, threads, 0MQ contexts, files, shared memory.

Several runs may share a machine, so nothing is blamed by its name alone: a process is ours if it descends
from this one or was started with this run's private runtime directory (its environment, or a file that it
holds open, says so). A module answers for what began while it ran. A fixture of a wider scope that starts a
cluster answers for that itself, with `Ground.as_it_was`.
"""

from __future__ import annotations

import gc
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

GRACE_S = 5.0
"""For processes and threads that have been told to end and are on their way."""

SHARED_MEMORY = Path("/dev/shm")
NAME = "enginery"


@dataclass(frozen=True)
class Before:
    """What was there at the beginning."""

    processes: frozenset[psutil.Process]
    threads: frozenset[threading.Thread]
    contexts: int
    entries: frozenset[Path]
    shared_memory: frozenset[Path]


class Ground:
    """One test run's share of the machine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._began = psutil.Process().create_time()

    @contextmanager
    def as_it_was(self, who: str) -> Iterator[None]:
        """Fail the test at hand if something is left behind inside; it is taken away."""
        before = self.look()
        yield
        left = self.leftovers(before)
        if left:
            self.clear(before)
            pytest.fail(f"{who} has left behind:\n  " + "\n  ".join(left), pytrace=False)

    def look(self) -> Before:
        return Before(
            processes=frozenset(self.processes()),
            threads=frozenset(threading.enumerate()),
            contexts=count_zmq_threads(),
            entries=frozenset(self.directory.iterdir()),
            shared_memory=frozenset(shared_memory_files()),
        )

    def leftovers(self, before: Before, *, grace_s: float = GRACE_S) -> list[str]:
        """A line for each thing that came since `before` and stayed; waits `grace_s` at most for its end."""
        gc.collect()
        deadline = time.monotonic() + grace_s
        fresh = [process for process in self.processes() if process not in before.processes]
        _, stayed = psutil.wait_procs(fresh, timeout=grace_s)
        found = [f"process {process.pid}: {describe(process)}" for process in stayed]
        for thread in threading.enumerate():
            if thread not in before.threads and thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
                if thread.is_alive():
                    found.append(f"thread {thread.name!r}")
        if count_zmq_threads() > before.contexts:
            found.append("threads of 0MQ: a Context was not terminated")
        for entry in sorted(set(self.directory.iterdir()) - before.entries):
            found += [f"file {path}" for path in (entry, *sorted(entry.rglob("*")))]
        found += [f"shared memory {path}" for path in sorted(self._shared_memory(before))]
        return found

    def clear(self, before: Before) -> None:
        """Take away what is left, so that the next module is not blamed for it."""
        stayed = [process for process in self.processes() if process not in before.processes]
        for process in stayed:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(stayed, timeout=GRACE_S)
        for path in set(self.directory.iterdir()) - before.entries:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        for path in self._shared_memory(before):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _shared_memory(self, before: Before) -> set[Path]:
        """Files and directories that came since `before` and that nobody else holds.

        Another run's clusters come and go: what was being made or removed at the first look is held, or gone,
        at the second.
        """
        fresh = shared_memory_files() - before.shared_memory
        unheld = {path for path in fresh if not held_by_others(path)}
        return {path for path in unheld & shared_memory_files() if not held_by_others(path)}

    def processes(self) -> set[psutil.Process]:
        """All processes of this run, daemons included, this one not."""
        own = psutil.Process()
        descendants = set(own.children(recursive=True))
        strangers = {
            process
            for process in psutil.process_iter()
            if process != own and process not in descendants and self._is_ours(process)
        }
        return {process for process in descendants if not is_housekeeping(process)} | strangers

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.uids().real != os.getuid() or process.create_time() < self._began:
                return False
            if process.status() == psutil.STATUS_ZOMBIE:
                return False  # somebody else's child, dead already
            if process.environ().get("ENGINERY_RUNTIME_DIR") == str(self.directory):
                return True
            # A process that has renamed itself may have written over its environment.
            if not any(NAME in word for word in process.cmdline()):
                return False
            return any(path.startswith(f"{self.directory}/") for path in open_paths(process))
        except psutil.Error:
            return False


def is_housekeeping(process: psutil.Process) -> bool:
    """Python's own resource tracker, which stays until its parent ends."""
    try:
        return any("multiprocessing.resource_tracker" in word for word in process.cmdline())
    except psutil.Error:
        return False


def open_paths(process: psutil.Process) -> Iterator[str]:
    """Files that a process holds open or mapped."""
    yield from (opened.path for opened in process.open_files())
    if hasattr(process, "memory_maps"):
        yield from (mapped.path for mapped in process.memory_maps())


def describe(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return "gone by now"


def count_zmq_threads() -> int:
    """0MQ's own threads in this process: they name themselves where the system allows it."""
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        return 0
    count = 0
    for comm in tasks.glob("*/comm"):
        try:
            count += comm.read_text().startswith("ZMQbg")
        except OSError:  # it has ended since the listing
            continue
    return count


def shared_memory_files() -> set[Path]:
    """This user's files and directories in shared memory that carry the package's name."""
    if not SHARED_MEMORY.is_dir():
        return set()
    found = set()
    for path in SHARED_MEMORY.iterdir():
        try:
            if NAME in path.name and path.stat().st_uid == os.getuid():
                found.add(path)
        except OSError:  # removed since the listing, or closed to us
            continue
    return found


def held_by_others(path: Path) -> bool:
    """Whether another process has the file (for a directory: a file in it) open or mapped: another run's."""
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            if any(opened == str(path) or opened.startswith(f"{path}/") for opened in open_paths(process)):
                return True
        except psutil.Error:
            continue
    return False
