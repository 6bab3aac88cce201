"""Learning of another process's end: how nothing of a cluster outlives its owner.

A descriptor of the process (pidfd) becomes readable when it ends, whoever its parent is. PR_SET_PDEATHSIG
would fire when the creating thread ends, and the end of a pipe never comes if somebody forked with the pipe
open.
"""

from __future__ import annotations

import os
import select

from enginery.transport.channel import NO_FILE
from enginery.transport.same_host import is_same_process, process_start

_INTERVAL_S = 1.0


class EndWatch:
    """Tells when a process that need not be a child has ended.

    Poll `fileno`, where there is one, for reading; else look every `interval_s`. Pid 0 is nobody, who never
    ends.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._descriptor = NO_FILE
        self._start = 0
        self.interval_s: float | None = None
        if pid == 0:
            return
        if hasattr(os, "pidfd_open"):
            try:
                self._descriptor = os.pidfd_open(pid)
                return
            except ProcessLookupError:
                return
            except OSError:  # a kernel or a sandbox without it
                pass
        self._start = process_start(pid)
        self.interval_s = _INTERVAL_S

    def __repr__(self) -> str:
        return f"<EndWatch of process {self._pid}>"

    def fileno(self) -> int:
        return self._descriptor

    def has_ended(self) -> bool:
        if self._pid == 0:
            return False
        if self._descriptor == NO_FILE:
            return not is_same_process(self._pid, self._start)
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        if self._descriptor != NO_FILE:
            os.close(self._descriptor)
            self._descriptor = NO_FILE
