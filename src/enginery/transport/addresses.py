"""Where clusters live: one private directory each, under the user's runtime directory."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
import warnings
from pathlib import Path
from types import TracebackType
from typing import Self

from enginery.errors import ClusterAlreadyRunning, LaunchError
from enginery.transport.same_host import new_host_proof

RUNTIME_VARIABLE = "ENGINERY_RUNTIME_DIR"
DEFAULT_NAME = "default"
PROOF_FILE = "proof"
SOCKET_PATH_LIMIT = 107
"""Bytes in the path of a unix socket."""
_IPC_NAME = "controller.ipc"
_LANE_NAME = "lane.ipc"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_cluster_name(name: str) -> str:
    """Return the name; raises ValueError with the rule if it is none."""
    if not _NAME.fullmatch(name) or name.endswith(".json"):
        raise ValueError(
            f"{name!r} cannot name a cluster: names are up to 64 letters, digits, '.', '_' and '-', "
            "begin with a letter or digit, and do not end in '.json'"
        )
    return name


def name_from(*, profile: str = "", cluster_id: str = "") -> str:
    """The name for what ipyparallel knew as a profile and a cluster id: ``PROFILE-ID``, or what is given.

    Raises ValueError as `check_cluster_name` does.

    >>> name_from(), name_from(profile="mpi"), name_from(profile="mpi", cluster_id="night")
    ('default', 'mpi', 'mpi-night')
    """
    parts = [part for part in (profile if profile != DEFAULT_NAME else "", cluster_id) if part]
    return check_cluster_name("-".join(parts) or DEFAULT_NAME)


def runtime_directory(*, create: bool = True) -> Path:
    """The directory of all clusters of this user; ``ENGINERY_RUNTIME_DIR`` overrides the system's place.

    Raises LaunchError if it is not this user's own.
    """
    given = os.environ.get(RUNTIME_VARIABLE)
    if given:
        path = Path(given).absolute()
    else:
        import platformdirs

        with warnings.catch_warnings():
            # Without XDG_RUNTIME_DIR it takes a directory under /tmp and warns; who owns it is checked below.
            warnings.simplefilter("ignore")
            path = Path(platformdirs.user_runtime_dir("enginery", appauthor=False))
    if create:
        _make_private(path.parent)
        _make_private(path)
    if path.exists():
        _check_runtime(path)
    return path


class ClusterLock:
    """Held by the one controller of a name; freed by the system however that ends."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._path = path

    def __repr__(self) -> str:
        return f"<ClusterLock {self._path}{' released' if self._descriptor < 0 else ''}>"

    def fileno(self) -> int:
        """The descriptor: a process that inherits it shares the lock."""
        return self._descriptor

    def release(self) -> None:
        """Free the name. Repeating it does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class ClusterDirectory:
    """The directory of one cluster and what lies in it. Making this object touches nothing."""

    def __init__(self, name: str, *, runtime: Path | None = None) -> None:
        self.name = check_cluster_name(name)
        self.path = (runtime or runtime_directory(create=False)) / name
        self._short: Path | None = None

    def __repr__(self) -> str:
        return f"<ClusterDirectory {self.path}>"

    def connection_file(self, role: str) -> Path:
        """The connection file of a role: ``client``, ``engine`` or ``host``."""
        return self.path / f"{role}.json"

    @property
    def proof_file(self) -> Path:
        return self.path / PROOF_FILE

    @property
    def cluster_file(self) -> Path:
        """What another process of the user needs to act as the one that has started the cluster."""
        return self.path / "cluster.json"

    @property
    def resume_file(self) -> Path:
        """Where the next controller finds how this one was reached."""
        return self.path / "resume.json"

    @property
    def lock_file(self) -> Path:
        return self.path / "lock"

    @property
    def history_file(self) -> Path:
        return self.path / "history.sqlite"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def status_page(self, engine_key: str) -> Path:
        """The mapped page of one engine process."""
        return self.path / "engines" / engine_key

    def create(self) -> Self:
        """Make the directory, with mode 0700, if it is not there."""
        runtime = self.path.parent
        _make_private(runtime.parent)
        _make_private(runtime)
        _check_runtime(runtime)
        for path in (self.path, self.logs, self.path / "engines"):
            _make_private(path)
            _check_ours(path, refused=0o077)
        return self

    def lock(self) -> ClusterLock:
        """Take the name; raises ClusterAlreadyRunning if another process holds it.

        To be taken before anything else in the directory is touched: a second bind would steal the ipc
        socket.
        """
        import fcntl

        while True:
            descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_same_file(descriptor, self.lock_file):
                    return ClusterLock(descriptor, self.lock_file)
            except BlockingIOError:
                os.close(descriptor)
                raise ClusterAlreadyRunning(self.name) from None
            except BaseException:
                os.close(descriptor)
                raise
            # The directory was removed, with the lock file, between our two calls: this lock is nobody's.
            os.close(descriptor)
            self.create()

    def write_proof(self, proof: str = "") -> str:
        """Put a proof of this host into the directory, a new one if none is given, and return its text."""
        proof = proof or new_host_proof()
        descriptor = os.open(self.proof_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(proof)
        return proof

    def ipc_path(self) -> Path:
        """The controller's socket: here, or in a short private directory if this path is too long for one."""
        path = self.path / _IPC_NAME
        if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
            return path
        if self._short is None:
            parent = tempfile.gettempdir()
            if len(os.fsencode(parent)) > SOCKET_PATH_LIMIT - len(f"/enginery-xxxxxxxx/{_IPC_NAME}"):
                parent = "/tmp"
            self._short = Path(tempfile.mkdtemp(prefix="enginery-", dir=parent))  # mode 0700
        return self._short / path.name

    def use_ipc_path(self, path: str) -> None:
        """The controller's socket was here, as `ipc_path` has said to another one."""
        parent = Path(path).parent
        if parent != self.path and parent.is_dir():
            self._short = parent

    def lane_path(self) -> Path:
        """The controller's other socket, for the lane; it lies beside the first and has a shorter name."""
        return self.ipc_path().with_name(_LANE_NAME)

    def withdraw(self, *, keep_pages: bool = False) -> None:
        """Remove what only a running cluster has; history and logs stay. The lock is still to be held.

        `keep_pages`: what engines had begun may still have to be known.
        """
        connection_files = map(self.connection_file, ("client", "engine", "host"))
        for path in (*connection_files, self.proof_file, self.cluster_file):
            path.unlink(missing_ok=True)
        for name in (_IPC_NAME, _LANE_NAME):
            (self.path / name).unlink(missing_ok=True)
        if not keep_pages:
            shutil.rmtree(self.path / "engines", ignore_errors=True)
        if self._short is not None:
            shutil.rmtree(self._short, ignore_errors=True)
            self._short = None

    def remove(self) -> None:
        """Remove the directory and all that is in it. The lock is still to be held, if it was taken."""
        self.withdraw()
        # The connection files are gone already, so nobody is misled by what cannot be removed.
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.path)


def _make_private(path: Path) -> None:
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700, parents=True)


def _check_runtime(path: Path) -> None:
    # Whoever may rename what lies in the parent could put another directory in this one's place.
    _check_ours(path.parent, refused=0o002, parent=True)
    _check_ours(path, refused=0o022)


def _check_ours(path: Path, *, refused: int, parent: bool = False) -> None:
    """Refuse a directory in which others could do what the bits `refused` allow."""
    if not hasattr(os, "getuid"):
        return
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.getuid() and not (parent and status.st_uid == 0):
        reason = f"{path} belongs to another user; set {RUNTIME_VARIABLE} to a directory of your own"
        raise LaunchError("the cluster", reason)
    if mode & refused and not (parent and mode & stat.S_ISVTX):
        reason = f"{path} is open to others (mode {mode:04o}); close it with:  chmod 700 {path}"
        raise LaunchError("the cluster", reason)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
