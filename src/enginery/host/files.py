"""The files of a host: what is needed before anybody starts, and what must be gone at the end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

import msgspec

from enginery.errors import ClusterAlreadyRunning, ClusterNotFound, ConnectionFileError
from enginery.ids import EngineId, EngineKey
from enginery.protocol.specs import HostSpec
from enginery.transport import sharing
from enginery.transport.addresses import ClusterDirectory
from enginery.transport.channel import NO_FILE
from enginery.transport.connection_file import load
from enginery.transport.keys import ClusterKeys

KEYS_FILE = "keys.json"
_TAIL_BYTES = 4096
_HANDED_DOWN_BELOW = 256
"""Descriptors that a process inherits have small numbers."""


def prepare(spec: HostSpec) -> int:
    """Make the directories, and hold the name and make the keys if a controller is to be started.

    Returns the descriptor that holds the name, or -1. Raises ClusterAlreadyRunning, and
    LaunchError if others could write there.
    """
    if spec.controller is None:
        for path in (Path(spec.directory), spec.path("logs"), spec.path("engines")):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return NO_FILE
    descriptor = _hold_name(cluster_directory(spec).create())
    if not (spec.controller.restore and spec.path(KEYS_FILE).exists()):
        write_keys(spec.path(KEYS_FILE))
    return descriptor


def cluster_directory(spec: HostSpec) -> ClusterDirectory:
    path = Path(spec.directory)
    return ClusterDirectory(path.name, runtime=path.parent)


def _hold_name(directory: ClusterDirectory) -> int:
    """The lock of the cluster's directory: handed down by whoever started this process, or taken now."""
    descriptor = _find_open(directory.lock_file)
    if descriptor == NO_FILE:
        directory.lock()
        return _find_open(directory.lock_file)
    try:
        # This changes nothing if it is held already, as it should be.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ClusterAlreadyRunning(directory.name) from None
    os.set_inheritable(descriptor, False)
    return descriptor


def _find_open(path: Path) -> int:
    """Which of our descriptors is that of this file; -1 if none is."""
    with contextlib.suppress(FileNotFoundError):
        wanted = path.stat()
        for descriptor in range(3, _HANDED_DOWN_BELOW):
            try:
                if os.path.samestat(os.fstat(descriptor), wanted):
                    return descriptor
            except OSError:  # not open
                continue
    return NO_FILE


def write_keys(path: Path) -> None:
    """New keys for a cluster, in a file of mode 0600."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(ClusterKeys.generate()))


def read_keys(directory: str | os.PathLike[str]) -> ClusterKeys:
    """The keys that the host has made for its controller."""
    return msgspec.json.decode((Path(directory) / KEYS_FILE).read_bytes(), type=ClusterKeys)


def connection_file(spec: HostSpec) -> Path:
    """Where this host's supervisor finds its controller."""
    return Path(spec.connection_file) if spec.connection_file else spec.path("host.json")


def engine_log(spec: HostSpec, key: EngineKey, wanted: EngineId) -> Path:
    """An engine that gets the id of an earlier one goes on with its log."""
    return spec.path("logs") / f"engine-{wanted if wanted >= 0 else key}.log"


def open_log(path: Path) -> int:
    """A descriptor that appends to a log of mode 0600."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def append_to_log(path: Path, data: bytes) -> None:
    """Write something behind what a log has; raises OSError."""
    descriptor = open_log(path)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def last_lines(path: Path, count: int = 10) -> str:
    """The end of a log, or nothing."""
    try:
        with open(path, "rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - _TAIL_BYTES, 0))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-count:])


def clean_up(spec: HostSpec, *, has_failed: bool = False) -> None:
    """Remove what only a running host has, or with `keep_directory` False its whole directory.

    To be called when all processes of the host have ended, and while the name is held. A host that has
    joined a cluster leaves everything that belongs to the controller. Of a named cluster that `has_failed`,
    all is left that another controller needs to go on with it.
    """
    if spec.controller is None:
        if not spec.keep_directory and not spec.path("host.json").exists():
            shutil.rmtree(spec.directory, ignore_errors=True)
        return
    directory = cluster_directory(spec)
    _remove_short_socket(directory)
    sharing.remove(directory.path)  # of a controller that was killed
    can_be_restored = has_failed and directory.resume_file.exists()
    if not can_be_restored:
        spec.path(KEYS_FILE).unlink(missing_ok=True)
        directory.resume_file.unlink(missing_ok=True)
    if spec.keep_directory:
        directory.withdraw(keep_pages=can_be_restored)
        directory.lock_file.unlink(missing_ok=True)
    else:
        directory.remove()


def _remove_short_socket(directory: ClusterDirectory) -> None:
    """A controller that was killed has left the private directory of its socket, if the path was too long."""
    try:
        ipc = load(directory.connection_file("host")).ipc
    except (ClusterNotFound, ConnectionFileError):
        return
    parent = Path(ipc.removeprefix("ipc://")).parent
    if ipc and parent != directory.path and parent.name.startswith("enginery-"):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(parent)
