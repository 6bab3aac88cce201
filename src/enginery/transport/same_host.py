"""Proofs about processes: that two share a machine, and that one is still the one it was.

Host names prove nothing (containers, clones), and neither does a process id alone (they are used again).
"""

from __future__ import annotations

import hmac
import os
import secrets
import sys
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def new_host_proof() -> str:
    """A random text to put into the proof file, with the name of the running kernel's life.

    The second half matters where the file lies on a disk that machines share.
    """
    return f"{secrets.token_hex(16)}.{_running_kernel()}"


def proves_same_host(proof_file: Path, proof: str) -> bool:
    """Tell whether this process and the one that wrote `proof_file` share files and kernel."""
    if not proof or proof.partition(".")[2] != _running_kernel():
        return False
    try:
        found = proof_file.read_text(encoding="ascii")
    except (OSError, ValueError):
        return False
    return hmac.compare_digest(found.encode(), proof.encode())


def process_start(pid: int) -> int:
    """When a process started, in a unit that only this machine knows; 0 if there is no such process.

    A process that has ended and was not waited for does not count.
    """
    if sys.platform == "linux":
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return 0
        # The name in the second field may hold anything, parentheses and spaces included.
        fields = text.rpartition(")")[2].split()
        return 0 if fields[0] in "ZX" else int(fields[19])
    import psutil

    try:
        process = psutil.Process(pid)
        return 0 if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time() * 100)
    except psutil.Error:
        return 0


def is_same_process(pid: int, start: int) -> bool:
    """Tell whether the process that had this id and start is still there."""
    return start != 0 and process_start(pid) == start


def own_process() -> tuple[int, int]:
    """The id and start of this process."""
    return os.getpid(), process_start(os.getpid())


def names_this_machine(proof: str) -> bool:
    """Whether the proof was made where process ids mean what they mean here: same kernel, same namespace.

    It needs no file, so it can still be told when the cluster has removed its own.
    """
    return bool(proof) and proof.partition(".")[2] == _running_kernel()


def _running_kernel() -> str:
    try:
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
        return f"{boot}.{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""
