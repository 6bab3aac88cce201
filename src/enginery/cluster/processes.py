"""Processes by their ids: waiting for their end, and ending them by force."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterable


def wait_readable(descriptor: int, timeout_s: float) -> bool:
    """Wait until a descriptor can be read, or its other end is closed; False after `timeout_s`."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, timeout_s) * 1000))


def wait_for_end(pid: int, timeout_s: float) -> bool:
    """Wait until a process has ended, somebody else's child too; False if it is there after `timeout_s`."""
    if hasattr(os, "pidfd_open"):
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            return wait_readable(descriptor, timeout_s)
        finally:
            os.close(descriptor)
    import psutil

    try:
        psutil.Process(pid).wait(max(0.0, timeout_s))
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


def kill_families(pids: Iterable[int], timeout_s: float) -> None:
    """Kill processes and all that they started: engines have process sessions of their own."""
    import psutil

    members = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            head = psutil.Process(pid)
            members += [head, *head.children(recursive=True)]
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    deadline = time.monotonic() + timeout_s
    for member in members:
        wait_for_end(member.pid, deadline - time.monotonic())


def parent_that_is(role: str, name: str, pid: int) -> int:
    """The id of the parent of a process, if its command line says that it is `role` `name`; else 0."""
    import psutil

    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(pid).parent()
        if parent is not None and f"{role} {name}" in " ".join(parent.cmdline()):
            return int(parent.pid)
    return 0
