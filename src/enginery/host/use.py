"""What the engines of this host use of it, by the system's word: also of those that hold the GIL."""

from __future__ import annotations

import os
from collections.abc import Iterable

from enginery.host.processes import available_cores
from enginery.protocol.messages import HostUse, ProcessInfo, ProcessUse


def host_use(order: int, processes: Iterable[ProcessInfo]) -> HostUse:
    """The answer to `ReportUse`; a process that has ended meanwhile is left out."""
    import psutil  # not before somebody asks: every supervisor would pay for it

    uses = []
    for process in processes:
        try:
            seen = psutil.Process(process.pid)
            with seen.oneshot():
                times = seen.cpu_times()
                use = ProcessUse(process.key, int(seen.memory_info().rss), times.user + times.system)
        except psutil.Error:
            continue
        uses.append(use)
    available = int(psutil.virtual_memory().available)
    return HostUse(order, uses, available_cores(), os.getloadavg()[0], available)
