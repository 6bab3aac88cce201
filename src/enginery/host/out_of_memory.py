"""Whether memory had run out when a process was killed: the kernel's word where it can be read, else a guess.

The kernel says it in its log, for who may read that, and counts it for each control group. Where neither
speaks, how much a process had at most is all there is to go by.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from enginery.transport.channel import NO_FILE

NEAR_LIMIT = 0.7
"""Of the memory there is: who was killed with more than that has probably been killed for it."""
_CHUNK_BYTES = 1 << 16


class MemoryEvidence:
    """What the kernel says, from now on. `explain` is asked once for each process that was killed."""

    def __init__(
        self,
        *,
        groups: Path = Path("/sys/fs/cgroup"),
        membership: Path = Path("/proc/self/cgroup"),
        kernel_log: Path = Path("/dev/kmsg"),
    ) -> None:
        self._group = _find_group(groups, membership)
        self._kills = self._count()
        self._log_fd = NO_FILE
        with contextlib.suppress(OSError):
            self._log_fd = os.open(kernel_log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._log_fd, 0, os.SEEK_END)
        self._said: dict[int, None] = {}  # processes that the log says were killed for memory

    def __repr__(self) -> str:
        return f"<MemoryEvidence of {self._group or 'no control group'}>"

    def explain(self, pid: int, peak_bytes: int) -> str:
        """Why a process may have been killed, for people; empty if nothing speaks for want of memory."""
        self._read_log()
        before, self._kills = self._kills, self._count()
        limit_bytes = self._limit_bytes()
        used = f"it had used up to {_show(peak_bytes)} of {_show(limit_bytes)}"
        if pid in self._said:
            del self._said[pid]
            return f"the kernel killed it because memory ran out; {used}"
        if self._kills > before:
            return f"the kernel killed it, or a process beside it, because memory ran out; {used}"
        if peak_bytes >= NEAR_LIMIT * limit_bytes:
            return f"probably because memory ran out; {used}"
        return ""

    def close(self) -> None:
        """Repeating it does nothing."""
        if self._log_fd != NO_FILE:
            os.close(self._log_fd)
            self._log_fd = NO_FILE

    def _count(self) -> int:
        """How many processes of our control group were killed because memory ran out."""
        if self._group is None:
            return 0
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError, ValueError):
                words = dict(line.split() for line in (self._group / name).read_text().splitlines())
                return int(words.get("oom_kill", 0))
        return 0

    def _limit_bytes(self) -> int:
        """What there is for this group, or for all."""
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if self._group is not None:
            for name in ("memory.max", "memory.limit_in_bytes"):
                with contextlib.suppress(OSError, ValueError):
                    return min(int((self._group / name).read_text()), total)
        return total

    def _read_log(self) -> None:
        if self._log_fd == NO_FILE:
            return
        with contextlib.suppress(OSError):  # nothing more, or something was overwritten
            while record := os.read(self._log_fd, _CHUNK_BYTES):  # one record each
                _, found, rest = record.decode("utf-8", "replace").partition("Killed process ")
                number = rest.split(" ", 1)[0].rstrip(",")
                if found and number.isdecimal():
                    self._said[int(number)] = None


def _find_group(groups: Path, membership: Path) -> Path | None:
    """Our control group's directory, of either version, as far as it can be seen from here."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            base = groups / "memory"
        elif number == "0":
            base = groups
        else:
            continue
        for place in (base / path.lstrip("/"), base):  # a container may see its own group as the root
            if any((place / name).exists() for name in ("memory.events", "memory.oom_control")):
                return place
    return None


def _show(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"
