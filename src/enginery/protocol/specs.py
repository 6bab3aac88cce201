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


class ControllerSpec(Spec, frozen=True, kw_only=True):
    """A controller. Its directory holds the keys that it serves with and gets the connection files."""

    cluster: str
    directory: str
    host: str = "127.0.0.1"  # address to bind; loopback unless asked for
    port: int = 0  # 0 = any free one
    database: str = "sqlite"  # or "memory"
    durability: str = "fast"  # or "strict"
    ready_fd: int = -1  # where to say that the sockets are bound; -1 = nowhere
    owner_pid: int = 0  # end when this process is gone; 0 = nobody owns it


class EngineSpec(Spec, frozen=True, kw_only=True):
    """One engine process."""

    cluster: str
    connection_file: str  # engine.json of the cluster
    key: EngineKey
    wanted: EngineId = NO_ENGINE
    host_key: HostKey = HostKey("")  # of the supervisor that watches it; empty = nobody does
    status_page: str = ""  # path; empty = none is kept
    parent_pid: int = 0  # end when this process is gone


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
    keep_directory: bool = False  # named clusters keep history and logs

    def path(self, name: str) -> Path:
        return Path(self.directory) / name


class Ready(Spec, frozen=True, kw_only=True):
    """The line on `ready_fd`."""

    error: str = ""  # empty = bound, the connection files are there
