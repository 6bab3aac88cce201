"""`bind_kernel`: have front-ends of Jupyter attach to this engine. The kernel is imported when asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enginery.engine.kernel import Kernel

Open = Callable[[str, dict[str, int]], "Kernel"]

_open: Open | None = None
_pid = 0
_PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")


def bind_kernel(*, transport: str = "ipc", ip: str = "127.0.0.1", **ports: int) -> str:
    """Let Jupyter's front-ends attach to this engine; returns the path of the connection file.

    Their cells run in the engine's live namespace, in its main thread, between two tasks; what they print
    goes to the front-end, and interrupting one interrupts nothing else. The engine goes on serving its
    cluster, and ends with it. Repeating the call changes nothing.

    `transport` is ``"ipc"``, sockets in a private directory of the engine's host, or ``"tcp"``, for tunnels
    from elsewhere: on `ip`, with `shell_port`, `iopub_port`, `stdin_port`, `control_port` and `hb_port`,
    which are chosen if they are not given.

    Raises RuntimeError where no engine runs, ImportError if IPython or jupyter_client is not installed there,
    OSError if the sockets cannot be bound, ValueError for another transport, TypeError for other keywords.

    >>> rc[0].execute("import enginery; enginery.bind_kernel()")        # doctest: +SKIP

    and then, in a terminal on the same host, ``jupyter console --existing``. ipyparallel's function of this
    name does the same, on open ports, and takes the engine's streams over.
    """
    unknown = sorted(set(ports).difference(_PORTS))
    if unknown:
        known = ", ".join(_PORTS)
        raise TypeError(f"bind_kernel has no keyword {unknown[0]!r}; it has transport, ip and {known}")
    if transport not in ("ipc", "tcp"):
        raise ValueError(f"transport is 'ipc' or 'tcp', not {transport!r}")
    if _open is None or _pid != os.getpid():
        raise RuntimeError(
            "bind_kernel works on an engine only: rc[0].execute('import enginery; enginery.bind_kernel()')"
        )
    named = {name.removesuffix("_port"): port for name, port in ports.items()}
    return _open(ip if transport == "tcp" else "", named).file


def connect_info() -> str:
    """How to attach to this engine, as text."""
    if _open is None or _pid != os.getpid():
        raise RuntimeError("connect_info works on an engine only")
    kernel = _open("", {})
    content: dict[str, Any] = dict(kernel.info)
    content["key"] = content["key"].decode() if isinstance(content["key"], bytes) else content["key"]
    return (
        f"{json.dumps(content, indent=2)}\n\n"
        f"In a terminal on this engine's host:\n    jupyter console --existing {kernel.file}\n"
    )


def attach_through(opener: Open | None) -> None:
    """Let `bind_kernel` work in this process, or (None) no longer. `opener` returns the one kernel."""
    global _open, _pid
    _open, _pid = opener, os.getpid()
