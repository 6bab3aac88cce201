"""A process's part in the shared memory of its cluster: what it writes for others and reads of theirs.

The controller makes the cluster's directory and puts its host's proof into it; a peer that finds the same
proof there shares memory with it. Where there is none (another host, a container with a shared memory of its
own, macOS, ``shared_memory_limit=0``), buffers travel as frames. Hosts that have no memory in common with
their controller make a directory of their own: what they are sent, their engines read there.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import resource
import threading
import weakref
from collections.abc import Iterable
from pathlib import Path

from enginery.ids import HostKey
from enginery.transport import shared_memory as shm
from enginery.transport.shared_memory import (
    Draft,
    PoolStatistics,
    Segment,
    SegmentGone,
    SegmentPool,
    SharedDirectory,
)

PREFIX = "enginery-"
PROOF_FILE = ".proof"
LEAST_BYTES = 1 << 18
"""Smaller buffers travel as frames: two system calls more would cost more than their copies."""
DEFAULT_SHARE = 0.5
"""Of the shared memory's file system, if no limit is given; for each writer."""
DESCRIPTORS_SHARE = 4
"""A quarter of the descriptors that a process may have is for what it reads, a quarter for what it writes."""

log = logging.getLogger("enginery.sharing")


def shared_path(cluster: Path, *, root: Path = shm.ROOT) -> Path:
    """Where the shared memory of the cluster with this directory is."""
    digest = hashlib.blake2b(os.fsencode(cluster), digest_size=6).hexdigest()
    return root / f"{PREFIX}{os.getuid()}-{digest}"


def begin(cluster: Path, proof: str, *, root: Path = shm.ROOT) -> SharedDirectory | None:
    """Make the shared directory of a cluster that starts, and remove what clusters that have ended left.

    None where there can be none.
    """
    return _begin_at(shared_path(cluster, root=root), proof)


def begin_for_host(host: HostKey, *, root: Path = shm.ROOT) -> SharedDirectory | None:
    """The same for a host that shares no memory with its controller; its key is the proof."""
    return _begin_at(root / f"{PREFIX}{os.getuid()}-{host}", host)


def _begin_at(path: Path, proof: str) -> SharedDirectory | None:
    root = path.parent
    if not root.is_dir():
        return None
    if _is_proven(path, proof):  # of a controller that was killed, and is started again
        try:
            if (fd := shm.lock_abandoned(path)) >= 0:
                return SharedDirectory(path, fd)
        except OSError as error:
            log.warning("%s cannot be taken over: %s", path, error)
    shm.sweep(root, f"{PREFIX}{os.getuid()}-*")
    try:
        directory = SharedDirectory.make(path)
        (path / PROOF_FILE).write_text(proof, encoding="ascii")
    except OSError as error:
        log.warning("%s cannot be used, and buffers travel through sockets: %s", path, error)
        return None
    return directory


def is_shared(path: str, proof: str) -> bool:
    """Whether the shared directory of that path is the prover's, and on this host."""
    return bool(path) and _is_proven(Path(path), proof)


def remove(cluster: Path, *, root: Path = shm.ROOT) -> None:
    """Remove the shared memory of a cluster whose controller has ended, if there is any left."""
    shm.remove(shared_path(cluster, root=root))


class Sharing:
    """One process's access. Any thread may use it; nothing is locked while bytes are copied.

    `cluster` is the shared directory, None if this process has no part in it. The pool is made when the first
    buffer is written; who has no name for one only reads. A forked child goes on reading what it has, and
    writes nothing.
    """

    def __init__(self, cluster: Path | None, owner: str, *, limit_bytes: int) -> None:
        self._cluster = cluster
        self._owner = owner
        self._limit_bytes = limit_bytes
        self._pool: SegmentPool | None = None
        self._lock = threading.Lock()
        self._closed = cluster is None or not owner
        self._pid = os.getpid()
        self._mapped: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"<Sharing of {self._owner}: {self._pool or ('nothing' if self._closed else 'nothing yet')}>"

    @classmethod
    def join(cls, path: str, proof: str, owner: str, *, limit_bytes: int | None = None) -> Sharing:
        """Take part under the name `owner` if the shared directory of that path is the prover's."""
        cluster = Path(path) if is_shared(path, proof) else None
        if cluster is not None and limit_bytes is None:
            limit_bytes = default_limit_bytes(cluster)
        return cls(cluster if limit_bytes else None, owner, limit_bytes=limit_bytes or 0)

    @classmethod
    def read_only(cls, path: str, proof: str) -> Sharing:
        """Read what others write into the shared directory of that path, if it is the prover's."""
        return cls(Path(path) if is_shared(path, proof) else None, "", limit_bytes=0)

    @property
    def reads(self) -> bool:
        """Whether it can map what others have written."""
        return self._cluster is not None

    @property
    def name(self) -> str:
        """Of the pool, for the hello; empty if nothing is shared."""
        return "" if self._cluster is None else self._owner

    def write(self, data: memoryview) -> Segment | None:
        """Copy a contiguous buffer into shared memory. None: it is too small, or cannot be written there."""
        if self._closed or data.nbytes < LEAST_BYTES or not self._is_own():
            return None
        pool = self._pool or self._open_pool()
        try:
            return None if pool is None else pool.write(data)
        except OSError as error:
            log.warning("a buffer cannot be written to %s, and travels through sockets: %s", pool, error)
            return None

    def draft(self, size_bytes: int) -> Draft | None:
        """Begin a segment that is to be written piece by piece; None if there is no room."""
        if self._closed or not self._is_own():
            return None
        pool = self._pool or self._open_pool()
        try:
            return None if pool is None else pool.draft(size_bytes)
        except OSError as error:
            log.warning("a buffer cannot be written to %s, and travels through sockets: %s", pool, error)
            return None

    def read(self, name: str, size_bytes: int) -> memoryview:
        """Map a segment; raises SegmentGone, or OSError for want of descriptors or address space.

        A mapping keeps a descriptor. Beyond its share of them a process gets a copy in its own memory.
        """
        if self._cluster is None:
            raise SegmentGone(name)
        view = shm.map_segment(self._cluster, Segment(name, size_bytes))
        if len(self._mapped) < descriptors_share():
            assert isinstance(view.obj, mmap.mmap)
            self._mapped.add(view.obj)
            return view
        with view:
            return memoryview(bytes(view))

    def release(self, names: Iterable[str]) -> None:
        """No further reader will come to these segments of this process."""
        if self._pool is not None and self._is_own():
            for name in names:
                self._pool.release(name)

    def lent(self) -> list[str]:
        """Segments that are not released."""
        return [] if self._pool is None else self._pool.lent()

    def is_lent(self, name: str) -> bool:
        """Whether this is a segment of this process that is not released."""
        return self._pool is not None and self._pool.is_lent(name)

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(0, 0, 0, 0) if self._pool is None else self._pool.statistics()

    def trim(self) -> None:
        """Give idle segments back to the system."""
        if self._pool is not None and self._is_own():
            self._pool.trim()

    def close(self) -> None:
        """Write no more. What is lent is left to the controller's host. May be called twice."""
        if not self._is_own():
            return
        with self._lock:
            self._closed = True
            if self._pool is not None:
                self._pool.close()

    def _open_pool(self) -> SegmentPool | None:
        with self._lock:
            if self._closed or self._cluster is None:
                return None
            if self._pool is None:
                try:
                    self._pool = SegmentPool.open(
                        self._cluster,
                        self._owner,
                        limit_bytes=self._limit_bytes,
                        limit_segments=descriptors_share() // 2,
                    )
                except OSError as error:
                    log.warning("no segments can be made in %s: %s", self._cluster, error)
                    self._closed = True
            return self._pool

    def _is_own(self) -> bool:
        """Whether this is the process that takes part, and not a child that was forked from it."""
        return os.getpid() == self._pid


def descriptors_share() -> int:
    """How many descriptors may go into what is read, or into what is written."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return shm.SEGMENTS_LIMIT if soft == resource.RLIM_INFINITY else soft // DESCRIPTORS_SHARE


def default_limit_bytes(cluster: Path) -> int:
    """Half of the shared memory's file system."""
    found = os.statvfs(cluster)
    return int(found.f_blocks * found.f_frsize * DEFAULT_SHARE)


def _is_proven(cluster: Path, proof: str) -> bool:
    if not proof or not shm.is_private(cluster):
        return False
    try:
        return (cluster / PROOF_FILE).read_text(encoding="ascii") == proof
    except (OSError, ValueError):
        return False
