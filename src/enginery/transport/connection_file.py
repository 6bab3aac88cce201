"""The connection file: all that a peer of one role needs to find its controller and to be let in.

A cluster's directory holds one per role, `client.json`, `engine.json` and `host.json`, of mode 0600. Whoever
can read one can act in its role, so a file that others may read is refused.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from enginery.errors import ClusterNotFound, ConnectionFileError
from enginery.transport.addresses import PROOF_FILE, ClusterDirectory
from enginery.transport.channel import Role
from enginery.transport.keys import ClusterKeys, RoleCredentials
from enginery.transport.same_host import is_same_process, names_this_machine, own_process, proves_same_host

FORMAT = 1
_SIZE_LIMIT = 1 << 20


class ConnectionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a connection file."""

    format: int
    cluster: str
    role: Role
    tcp: tuple[str, ...]
    ipc: str  # empty: there is none
    lane: str = ""  # path of its socket; empty: there is none
    directory: str  # of the cluster, on the controller's host
    shared: str = ""  # directory of its shared memory there; empty: there is none
    shared_limit_bytes: int | None = None  # for each process; None: a part of the file system
    host_proof: str
    controller_pid: int
    controller_start: int
    created: float  # seconds since the epoch
    restarts: bool = False  # the controller is started again if it dies
    server_key: str
    public_key: str
    secret_key: str
    token: str

    def __repr__(self) -> str:
        where = ", ".join(
            (*self.tcp, *([self.ipc] if self.ipc else []), *([f"unix://{self.lane}"] if self.lane else []))
        )
        return f"<ConnectionInfo {self.role.value} of {self.cluster!r} at {where}>"

    def credentials(self) -> RoleCredentials:
        return RoleCredentials(self.role, self.server_key, self.public_key, self.secret_key, self.token)

    def is_same_host(self) -> bool:
        """Tell whether this process runs where the controller does, by the proof file."""
        return proves_same_host(Path(self.directory) / PROOF_FILE, self.host_proof)


def is_stale(info: ConnectionInfo) -> bool:
    """Tell whether the controller of this file is known to have ended. False where this cannot be known."""
    if not names_this_machine(info.host_proof):
        return False
    return not is_same_process(info.controller_pid, info.controller_start)


def describe(
    directory: ClusterDirectory,
    keys: ClusterKeys,
    role: Role,
    *,
    tcp: tuple[str, ...],
    ipc: str,
    lane: str = "",
    host_proof: str,
    shared: str = "",
    shared_limit_bytes: int | None = None,
    restarts: bool = False,
) -> ConnectionInfo:
    """What a peer of `role` is to know of the controller that runs in this process."""
    pid, start = own_process()
    credentials = keys.credentials(role)
    return ConnectionInfo(
        format=FORMAT,
        cluster=directory.name,
        role=role,
        tcp=tcp,
        ipc=ipc,
        lane=lane,
        directory=str(directory.path),
        shared=shared,
        shared_limit_bytes=shared_limit_bytes,
        host_proof=host_proof,
        controller_pid=pid,
        controller_start=start,
        created=time.time(),
        restarts=restarts,
        server_key=credentials.server_key,
        public_key=credentials.public_key,
        secret_key=credentials.secret_key,
        token=credentials.token,
    )


def publish(
    directory: ClusterDirectory,
    keys: ClusterKeys,
    *,
    tcp: tuple[str, ...],
    ipc: str = "",
    lane: str = "",
    host_proof: str = "",
    shared: str = "",
    shared_limit_bytes: int | None = None,
    restarts: bool = False,
) -> Mapping[Role, Path]:
    """Write the connection files of the controller that runs in this process, and a proof if there is none.

    The client's file comes last: who finds it can rely on the others.
    """
    host_proof = host_proof or directory.write_proof()
    paths = {}
    for role in (Role.HOST, Role.ENGINE, Role.CLIENT):
        paths[role] = directory.connection_file(role.value)
        info = describe(
            directory,
            keys,
            role,
            tcp=tcp,
            ipc=ipc,
            lane=lane,
            host_proof=host_proof,
            shared=shared,
            shared_limit_bytes=shared_limit_bytes,
            restarts=restarts,
        )
        save(info, paths[role])
    return paths


class Resumption(msgspec.Struct, frozen=True, kw_only=True):
    """How a controller was reached: the next one on the same directory is to be reached likewise."""

    port: int = 0
    ipc: str = ""  # path
    host_proof: str = ""


def load_resumption(directory: ClusterDirectory) -> Resumption:
    """What the controller before has left; nothing if it has ended in order, or never was."""
    try:
        return msgspec.json.decode(directory.resume_file.read_bytes(), type=Resumption)
    except (OSError, msgspec.DecodeError):
        return Resumption()


def save(info: ConnectionInfo | Resumption, path: Path) -> None:
    """Write the file of mode 0600; readers see the whole of it or nothing."""
    data = msgspec.json.format(msgspec.json.encode(info), indent=2)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def load(path: str | os.PathLike[str]) -> ConnectionInfo:
    """Read a connection file.

    Raises ClusterNotFound if there is none, ConnectionFileError if it is open to others, damaged, or of a
    newer version.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            _refuse_open_to_others(name, os.fstat(file.fileno()))
            data = file.read(_SIZE_LIMIT)
    except FileNotFoundError:
        raise ClusterNotFound(path=name) from None
    except OSError as error:
        if isinstance(error, ConnectionFileError):
            raise
        raise ConnectionFileError(name, f"cannot be read: {error.strerror}") from None
    return _decode(name, data)


def from_dictionary(content: Mapping[str, Any]) -> ConnectionInfo:
    """The content of a connection file that somebody has read already; raises ConnectionFileError."""
    try:
        return _checked("given as a dictionary", msgspec.convert(dict(content), ConnectionInfo))
    except msgspec.ValidationError as error:
        raise ConnectionFileError(
            "given as a dictionary", f"is incomplete or damaged ({error}); give the whole of a client.json"
        ) from None


class _AnyVersion(msgspec.Struct):
    format: int


def _decode(name: str, data: bytes) -> ConnectionInfo:
    try:
        version = msgspec.json.decode(data, type=_AnyVersion).format
        if version <= FORMAT:
            return _checked(name, msgspec.json.decode(data, type=ConnectionInfo))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConnectionFileError(
            name, f"is incomplete or damaged ({error}); copy it again, or start the cluster again"
        ) from None
    raise ConnectionFileError(
        name,
        f"was written by a newer enginery (format {version}, this one reads {FORMAT}); upgrade enginery here",
    )


def _checked(name: str, info: ConnectionInfo) -> ConnectionInfo:
    keys = (info.server_key, info.public_key, info.secret_key)
    if not info.tcp or any(len(key) != 40 for key in keys):
        raise ConnectionFileError(
            name, "is damaged: it has no address or no whole key; copy it again, or start the cluster again"
        )
    return info


def _refuse_open_to_others(name: str, status: os.stat_result) -> None:
    if not hasattr(os, "getuid"):
        return  # Windows: the user's own directories are closed to others there
    if not stat.S_ISREG(status.st_mode):
        raise ConnectionFileError(name, "is not a regular file")
    if status.st_uid != os.getuid():
        raise ConnectionFileError(
            name, "belongs to another user; ask for a copy, and make it yours with mode 0600"
        )
    if status.st_mode & 0o077:
        raise ConnectionFileError(
            name,
            f"can be read by others (mode {stat.S_IMODE(status.st_mode):04o}) and holds keys; "
            f"close it with:  chmod 600 {name}",
        )
