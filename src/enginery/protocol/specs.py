"""What a process of a cluster is told when it starts: frozen records, JSON on a command line where it is
spawned.

Rooms of rank 4 never import each other; these values, and entry functions handed in by the caller, are all
that they share.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from enginery.ids import NO_ENGINE, EngineId, EngineKey, HostKey


class Spec(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of the start records."""

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()


class HistoryLimits(Spec, frozen=True, kw_only=True):
    """How much of ended tasks is remembered; None is the store's own limit, for ages none at all."""

    records: int | None = None
    payload_bytes: int | None = None
    record_age_s: float | None = None
    payload_age_s: float | None = None


class ControllerSpec(Spec, frozen=True, kw_only=True):
    """A controller. Its directory holds the keys that it serves with and gets the connection files."""

    cluster: str
    directory: str
    host: str = "127.0.0.1"  # address to bind; loopback unless asked for
    port: int = 0  # 0 = any free one
    location: str = ""  # the address or name under which others reach this machine; empty = those it has
    database: str = "sqlite"  # or "memory"
    durability: str = "fast"  # or "strict"
    history_limits: HistoryLimits = HistoryLimits()
    scheme: str = "leastload"  # how engines are chosen, see `core/placement.py`
    hwm: int | None = None  # tasks in an engine at a time; 0 = no bound, None = a window of time
    shared_memory_limit: int | None = None  # bytes for each process; 0 = none is used, None = a part of it
    cancel_grace_s: float = 5.0  # how long engines may take to end a task; negative = for ever
    ready_fd: int = -1  # where to say that the sockets are bound; -1 = nowhere
    owner_pid: int = 0  # end when this process is gone; 0 = nobody owns it
    restore: bool = False  # go on where the controller has ended that served this directory before
    restarts: bool = False  # whoever started it starts it again if it dies, and so with its engines


class EngineSpec(Spec, frozen=True, kw_only=True):
    """One engine process."""

    cluster: str
    connection_file: str  # engine.json of the cluster
    key: EngineKey
    wanted: EngineId = NO_ENGINE
    host_key: HostKey = HostKey("")  # of the supervisor that watches it; empty = nobody does
    host_shared: str = ""  # path of its host's own shared memory; empty = there is none
    status_page: str = ""  # path; empty = none is kept
    log: str = ""  # path; its standard output and errors are pipes then, which a supervisor reads
    parent_pid: int = 0  # end when this process is gone
    run_startup: bool = False  # IPython's startup files run in the namespace before the first task,
    startup_code: str = ""  # then this; a failure ends the engine
    startup_script: str = ""  # path of a file that runs likewise, after the code


STARTUP_FAILED = 78
"""Exit code of an engine whose startup code or script has failed."""
CONTROL_FAILED = 79
"""Exit code of an engine whose control thread has failed."""


class HostSpec(Spec, frozen=True, kw_only=True):
    """A host: a supervisor and the engines it starts, with a controller where the cluster begins."""

    cluster: str
    directory: str  # of the cluster, or of this host alone if it joins one
    engines: int
    controller: ControllerSpec | None = None
    connection_file: str = ""  # host.json of the cluster to join; empty = that of `directory`
    start_method: str = "fork"  # or "spawn"
    owner_pid: int = 0  # end everything when this process is gone; 0 = nobody owns it
    ready_fd: int = -1  # gets one JSON line (`Ready`) when the controller is bound
    restart_controller: bool = False  # start the controller again if it dies
    keep_directory: bool = False  # named clusters keep history and logs
    run_startup: bool = False  # each engine runs IPython's startup files before its first task,
    startup_code: str = ""  # this,
    startup_script: str = ""  # and this file

    def path(self, name: str) -> Path:
        return Path(self.directory) / name


class Ready(Spec, frozen=True, kw_only=True):
    """The line on `ready_fd`."""

    error: str = ""  # empty = bound, the connection files are there
