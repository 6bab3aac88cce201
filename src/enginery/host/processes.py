"""What the operating system knows about processes: parents, ends, signals, titles."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from enginery.transport.channel import NO_FILE
from enginery.transport.end_watch import EndWatch

SIGNAL_NAMES = {entry.value: entry.name for entry in signal.Signals}

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl() -> Callable[[int, int], int] | None:
    if sys.platform != "linux":
        return None
    import ctypes

    function: Callable[..., int] = ctypes.CDLL(None).prctl
    return lambda option, value: function(option, ctypes.c_ulong(value), 0, 0, 0)


_call_prctl = _prctl()


def adopt_orphans() -> None:
    """Become the parent of all descendants that lose theirs, where the system can do that."""
    if _call_prctl is not None:
        _call_prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent_pid: int) -> None:
    """In a forked child: be killed when the parent ends, however that happens."""
    if _call_prctl is not None:
        _call_prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have ended before that call, and then nobody will tell.
    if os.getppid() != parent_pid:
        os._exit(1)


def count_threads() -> int:
    """All threads of this process, those that Python does not know of too; 1 where that cannot be seen."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 1


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def reap() -> Iterator[tuple[int, int, int]]:
    """The children that have ended: their ids, statuses as `explain_exit` takes them, and bytes at most."""
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        peak_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        yield pid, os.waitstatus_to_exitcode(status), peak_bytes


def signal_process(pid: int, signum: int, *, group: bool = False) -> None:
    """Signal a process, or with `group` all that is left of the group it leads.

    It may be gone, and the number may be one that this system has no signal for: both change nothing.
    """
    if group:
        # A child that was killed before it could make its group has none.
        with contextlib.suppress(OSError):
            os.killpg(pid, signum)
    with contextlib.suppress(OSError):
        os.kill(pid, signum)


def children() -> list[int]:
    """The processes whose parent this one is, adopted ones included."""
    own = str(os.getpid())
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended since the listing
            continue
        if fields[1] == own:
            found.append(int(entry.parent.name))
    return found


def kill_children(*, timeout_s: float) -> int:
    """Kill and reap all children, and theirs, which come to us if we adopt orphans; return how many."""
    deadline = time.monotonic() + timeout_s
    killed: set[int] = set()
    while True:
        for _ in reap():
            pass
        left = children()
        if not left or time.monotonic() >= deadline:
            return len(killed)
        for pid in left:
            killed.add(pid)
            signal_process(pid, signal.SIGKILL)
        wait_for_ends(left, timeout_s=max(deadline - time.monotonic(), 0.0))


def wait_for_ends(pids: Iterable[int], *, timeout_s: float) -> bool:
    """Wait until all these processes, children or not, have ended; False if some have not."""
    deadline = time.monotonic() + timeout_s
    for pid in pids:
        watch = EndWatch(pid)
        try:
            while not watch.has_ended():
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return False
                poll = select.poll()
                if watch.fileno() != NO_FILE:
                    poll.register(watch.fileno(), select.POLLIN)
                poll.poll(min(left_s, watch.interval_s or left_s) * 1000)
        finally:
            watch.close()
    return True


class SignalSource:
    """Signals as something to poll: the handlers do nothing, `receive` says which have come."""

    def __init__(self, signums: Iterable[int]) -> None:
        self.signums = tuple(signums)
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        self._before = {signum: signal.signal(signum, _do_nothing) for signum in self.signums}

    def __repr__(self) -> str:
        return f"<SignalSource of {', '.join(SIGNAL_NAMES[signum] for signum in self.signums)}>"

    def fileno(self) -> int:
        return self._read.fileno()

    def receive(self) -> set[int]:
        try:
            return set(self._read.recv(4096))
        except BlockingIOError:
            return set()

    def close(self) -> None:
        """Put the handlers back that were there before."""
        if self._read.fileno() == NO_FILE:
            return
        signal.set_wakeup_fd(-1)
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._read.close()
        self._write.close()


def _do_nothing(signum: int, frame: object) -> None:
    """Only Python's own handler writes to the wake-up descriptor."""


def set_title(text: str) -> None:
    """Say in the list of processes what this one is."""
    import setproctitle

    setproctitle.setproctitle(text)
