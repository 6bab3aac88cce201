"""Big buffers between processes of one host: written once into a file in memory, mapped by all readers.

Problem: a buffer that goes through sockets is copied at every hop, and the pages of a segment that is made
for one buffer cost more than the copy. `multiprocessing.shared_memory` unlinks what a reader still needs.

Choice: plain files in the shared-memory file system. A writer owns a *pool* of them and uses each again when
nobody reads it any more: copying into its pages runs at 19 GB/s, into fresh ones at 2.7. Space is reserved
before anything is written, so that a full file system is an error (ENOSPC) and never a SIGBUS. A reader maps
the file read-only.

Who still reads is counted by the kernel: a reader's mapping keeps an open file description with a shared
`flock`; the writer takes the exclusive one before it writes again. The lock goes with the last array, or with
the reader, `kill -9` included. Beyond that a segment stays *lent* until `release` is called: readers that are
yet to come are known to the controller alone.

A file's name ends with a generation, and changes (by renaming, under the exclusive lock) each time it is used
again: who comes too late finds no file of that name, and never another buffer's bytes.

Everything of one cluster on one host is in one directory, mode 0700, with one directory in it for each pool.
Each holds a file that its owner keeps locked, so that whoever finds it knows whether the owner lives. What a
writer has lent when he ends is left to the cluster: arguments outlive their client, results their engine.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import secrets
import shutil
import stat
import sys
import threading
import time
from collections.abc import Container
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path("/dev/shm")
SMALLEST_BYTES: Final = 1 << 18
"""Capacity of a segment at least."""
IDLE_LIMIT_BYTES: Final = 512 << 20
"""What a pool keeps of segments that nobody uses."""
SEGMENTS_LIMIT: Final = 10_000
INCOMPLETE_S: Final = 60.0
"""How long a directory may be without an owner's file: it is being made, or was being removed."""
_OWNER = ".owner"
_GONE = ".gone-"
_LOOKS = 16
"""Idle segments that are tried before another one is made: somebody may still read them all."""
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class SegmentGone(Exception):
    """There is no segment of this name: it was used again, or its cluster has ended."""


class Segment(NamedTuple):
    """A buffer in shared memory. `name` is relative to the cluster's directory."""

    name: str
    size_bytes: int


class PoolStatistics(NamedTuple):
    segments: int
    total_bytes: int
    lent: int
    lent_bytes: int


# ---------------------------------------------------------------- directories


class SharedDirectory:
    """A directory in shared memory whose owner keeps it locked."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self._lock_fd = lock_fd

    def __repr__(self) -> str:
        return f"<SharedDirectory {self.path}>"

    @classmethod
    def make(cls, path: Path) -> SharedDirectory:
        """Make the directory and lock it; raises OSError if it is there or the file system is not."""
        path.mkdir(mode=0o700)
        try:
            return cls(path, _lock_new(path / _OWNER))
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise

    def read(self, name: str, size_bytes: int) -> memoryview:
        """Map a segment of one of the pools in it, see `map_segment`."""
        return map_segment(self.path, Segment(name, size_bytes))

    def clear_pool(self, owner: str, *, spare: Container[str]) -> bool:
        """Remove the segments of a pool in it but those named, if its owner is gone, see `clear_pool`."""
        return clear_pool(self.path, owner, spare=spare)

    def close(self) -> None:
        """Remove it with all that is in it; who has mapped something keeps that."""
        if self._lock_fd >= 0:
            remove(self.path)
            self.abandon()

    def abandon(self) -> None:
        """Leave it to others, who can see that it has no owner."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def is_private(path: Path) -> bool:
    """Whether this is a directory of this user alone."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def remove(path: Path) -> None:
    """Remove a shared directory with all that is in it; who has mapped something keeps that.

    It gets another name first: who is about to make a file in it finds no such directory, and nothing stays.
    """
    gone = path.with_name(f"{path.name}{_GONE}{secrets.token_hex(4)}")
    try:
        path.rename(gone)
    except FileNotFoundError:
        return
    shutil.rmtree(gone, ignore_errors=True)


def is_abandoned(directory: Path) -> bool:
    """Whether the owner of a shared directory is gone, by the kernel's word."""
    try:
        fd = lock_abandoned(directory)
    except FileNotFoundError:
        return _is_incomplete(directory)
    except OSError:
        return False
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def lock_abandoned(directory: Path) -> int:
    """Lock a directory whose owner is gone; -1 if he is not. Raises OSError."""
    fd = os.open(directory / _OWNER, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    if _try_lock(fd):
        return fd
    os.close(fd)
    return -1


def _is_incomplete(directory: Path) -> bool:
    """Whether it has been without an owner's file for so long that nobody is at it any more."""
    try:
        return directory.lstat().st_ctime < time.time() - INCOMPLETE_S
    except FileNotFoundError:
        return False


def sweep(root: Path, pattern: str = "*") -> list[Path]:
    """Remove the directories of this user under `root` whose owners are gone; returns them."""
    removed = []
    for path in root.glob(pattern):
        if is_private(path) and is_abandoned(path):
            remove(path)
            removed.append(path)
    return removed


# ---------------------------------------------------------------- writing


class _Pooled:
    __slots__ = ("_mapping", "capacity_bytes", "fd", "generation", "number")

    def __init__(self, number: int, fd: int, capacity_bytes: int) -> None:
        self.number = number
        self.fd = fd
        self.capacity_bytes = capacity_bytes
        self.generation = 0
        self._mapping: mmap.mmap | None = None

    def fill(self, data: memoryview) -> None:
        """Write the bytes, without the GIL; raises OSError."""
        numpy = sys.modules.get("numpy")
        if numpy is None or not self.generation:
            _write_all(self.fd, data)  # into fresh pages it is faster, too
            return
        # Three times as fast as `pwrite`, once the pages are mapped; all of them are reserved.
        if self._mapping is None:
            self._mapping = mmap.mmap(self.fd, self.capacity_bytes)
        target = numpy.frombuffer(self._mapping, "u1", data.nbytes)
        numpy.copyto(target, numpy.frombuffer(data, "u1"))

    def close(self) -> None:
        self._mapping = None  # what an interrupted copy has of it may live a moment longer
        os.close(self.fd)

    @property
    def file(self) -> str:
        return f"{self.number}.{self.generation}"


class SegmentPool:
    """One process's segments. Any thread may write; nothing is locked while bytes are copied.

    `limit_bytes` and `limit_segments` bound all its segments together; each may cost two descriptors. In a
    forked child it is of no use: make another one.
    """

    def __init__(
        self, directory: SharedDirectory, *, limit_bytes: int, limit_segments: int = SEGMENTS_LIMIT
    ) -> None:
        self._directory = directory
        self._limit_bytes = limit_bytes
        self._limit_segments = limit_segments
        self._lock = threading.Lock()
        self._lent: dict[str, _Pooled] = {}
        self._idle: list[_Pooled] = []  # released, oldest first; somebody may still read them
        self._total_bytes = 0
        self._next = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"<SegmentPool {self._directory.path.name}: {self.statistics()}>"

    @classmethod
    def open(
        cls, cluster: Path, owner: str, *, limit_bytes: int, limit_segments: int = SEGMENTS_LIMIT
    ) -> SegmentPool:
        """A pool of `owner` in the cluster's directory; raises OSError if there can be none."""
        directory = SharedDirectory.make(cluster / owner)
        return cls(directory, limit_bytes=limit_bytes, limit_segments=limit_segments)

    def statistics(self) -> PoolStatistics:
        with self._lock:
            lent = list(self._lent.values())
            return PoolStatistics(
                len(lent) + len(self._idle),
                self._total_bytes,
                len(lent),
                sum(pooled.capacity_bytes for pooled in lent),
            )

    def lent(self) -> list[str]:
        """The names of the segments that are not released."""
        with self._lock:
            return list(self._lent)

    def is_lent(self, name: str) -> bool:
        """Whether this is the name of a segment that is not released."""
        return name in self._lent

    def write(self, data: memoryview) -> Segment | None:
        """Copy a contiguous buffer into a segment and lend it. None if there is no room for it.

        Raises OSError if the file system fails.
        """
        data = data.cast("B")
        pooled = self._take(data.nbytes, round_up(data.nbytes))
        if pooled is None:
            return None
        try:
            pooled.fill(data)
            fcntl.flock(pooled.fd, fcntl.LOCK_UN)
        except BaseException as error:  # Ctrl-C too: what is half written is nobody's
            self._discard(pooled)
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                return None
            raise
        return self._lend(pooled, data.nbytes)

    def draft(self, size_bytes: int) -> Draft | None:
        """Begin a segment that is to be written piece by piece. None if there is no room for it.

        Raises OSError if the file system fails.
        """
        pages_bytes = -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        pooled = self._take(size_bytes, pages_bytes, reserve=False)
        return None if pooled is None else Draft(self, pooled, size_bytes)

    def release(self, name: str) -> None:
        """No further reader will come to this segment; those that have it mapped keep it."""
        with self._lock:
            pooled = self._lent.pop(name, None)
            if pooled is not None:
                self._idle.append(pooled)
                self._trim(IDLE_LIMIT_BYTES)

    def trim(self, keep_bytes: int = 0) -> None:
        """Give idle segments back to the system, the oldest first, until so much is left of them."""
        with self._lock:
            self._trim(keep_bytes)

    def close(self) -> None:
        """Leave what is lent to whoever looks after the cluster, and remove the rest. May be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._trim(0)
            for pooled in self._lent.values():
                pooled.close()
            if self._lent:
                self._directory.abandon()
            else:
                self._directory.close()
            self._lent.clear()
            self._total_bytes = 0

    # ------------------------------------------------------------ inside

    def _lend(self, pooled: _Pooled, size_bytes: int) -> Segment | None:
        """It is written, and may be read."""
        name = f"{self._directory.path.name}/{pooled.file}"
        with self._lock:
            if self._closed:
                self._remove(pooled)
                return None
            self._lent[name] = pooled
        return Segment(name, size_bytes)

    def _discard(self, pooled: _Pooled) -> None:
        with self._lock:
            self._remove(pooled)

    def _take(self, size_bytes: int, capacity_bytes: int, *, reserve: bool = True) -> _Pooled | None:
        """A segment of that size at least, exclusively locked, under a name that nobody knows.

        If none is there that can be used again, one of that capacity is made. Its space is reserved, or only
        looked for: reserving means clearing it, which takes as long as writing.
        """
        with self._lock:
            if self._closed:
                return None
            fitting = [
                pooled
                for pooled in self._idle
                if size_bytes <= pooled.capacity_bytes <= 2 * size_bytes + SMALLEST_BYTES
            ]
            for pooled in sorted(fitting, key=lambda pooled: pooled.capacity_bytes)[:_LOOKS]:
                self._idle.remove(pooled)
                if not _try_lock(pooled.fd):
                    self._idle.append(pooled)  # others are looked at before it the next time
                elif self._rename(pooled):
                    return pooled
                else:
                    self._remove(pooled)
            if self._total_bytes + capacity_bytes > self._limit_bytes:
                self._trim(max(0, self._limit_bytes - capacity_bytes - self._lent_bytes()))
                if self._total_bytes + capacity_bytes > self._limit_bytes:
                    return None
            if len(self._lent) + len(self._idle) >= self._limit_segments:
                if not self._idle:
                    return None
                self._remove(self._idle.pop(0))
            return self._make(capacity_bytes, reserve=reserve)

    def _make(self, capacity_bytes: int, *, reserve: bool) -> _Pooled | None:
        number = self._next
        self._next += 1
        path = self._directory.path / f"{number}.0"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno in _NO_ROOM or error.errno == errno.ENOENT:
                return None
            raise
        try:
            if reserve:  # before it is written: later nobody is left with half a buffer
                os.posix_fallocate(fd, 0, capacity_bytes)
            else:
                found = os.fstatvfs(fd)
                if found.f_bavail * found.f_frsize < capacity_bytes:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.ftruncate(fd, capacity_bytes)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            path.unlink(missing_ok=True)
            if error.errno in _NO_ROOM:
                return None
            raise
        self._total_bytes += capacity_bytes
        return _Pooled(number, fd, capacity_bytes)

    def _rename(self, pooled: _Pooled) -> bool:
        """Under a name that no reader has been told; False if somebody has removed it."""
        old = self._directory.path / pooled.file
        pooled.generation += 1
        try:
            old.rename(self._directory.path / pooled.file)
        except FileNotFoundError:
            return False
        return True

    def _trim(self, keep_bytes: int) -> None:
        idle_bytes = sum(pooled.capacity_bytes for pooled in self._idle)
        while self._idle and idle_bytes > keep_bytes:
            pooled = self._idle.pop(0)
            idle_bytes -= pooled.capacity_bytes
            self._remove(pooled)

    def _remove(self, pooled: _Pooled) -> None:
        pooled.close()
        self._total_bytes -= pooled.capacity_bytes
        (self._directory.path / pooled.file).unlink(missing_ok=True)

    def _lent_bytes(self) -> int:
        return sum(pooled.capacity_bytes for pooled in self._lent.values())


class Draft:
    """A segment that is written piece by piece, and then lent. One thread at a time.

    A page that is not there yet is an error to who writes it, as it is with `SegmentPool.write`: pieces are
    written, never mapped. When all are written all of its pages are there.
    """

    def __init__(self, pool: SegmentPool, pooled: _Pooled, size_bytes: int) -> None:
        self._pool = pool
        self._pooled: _Pooled | None = pooled
        self._written_bytes = 0
        self.size_bytes = size_bytes

    def __repr__(self) -> str:
        return f"<Draft of {self.size_bytes} bytes, {self._written_bytes} written>"

    @property
    def written_bytes(self) -> int:
        return self._written_bytes

    def add(self, piece: memoryview) -> None:
        """Write the next piece; raises OSError if there is no room for it after all."""
        assert self._pooled is not None, "it is lent, or was given up"
        assert self._written_bytes + piece.nbytes <= self.size_bytes, "more than was said"
        _write_all(self._pooled.fd, piece, self._written_bytes)
        self._written_bytes += piece.nbytes

    def lend(self) -> Segment | None:
        """All pieces are there: others may read it. None if the pool was closed meanwhile."""
        assert self._written_bytes == self.size_bytes, "some of it is missing"
        pooled, self._pooled = self._pooled, None
        assert pooled is not None, "it is lent, or was given up"
        fcntl.flock(pooled.fd, fcntl.LOCK_UN)
        return self._pool._lend(pooled, self.size_bytes)

    def give_up(self) -> None:
        """The rest will not come. Repeating it, or doing it after `lend`, does nothing."""
        pooled, self._pooled = self._pooled, None
        if pooled is not None:
            self._pool._discard(pooled)


def round_up(size_bytes: int) -> int:
    """Capacity of a segment for so many bytes: steps of an eighth, so that sizes that differ little share.

    >>> round_up(1), round_up(1_000_000), round_up(1 << 20)
    (262144, 1048576, 1048576)
    """
    if size_bytes <= SMALLEST_BYTES:
        return SMALLEST_BYTES
    step = max(SMALLEST_BYTES // 8, 1 << (size_bytes - 1).bit_length() - 4)
    return -(-size_bytes // step) * step


# ---------------------------------------------------------------- reading


class Mapping(mmap.mmap):
    """A segment's bytes, which stay as they are until the last view of them is gone."""

    file: Path
    """Where the segment is as long as this lives, unless it was removed."""

    def as_private(self) -> memoryview | None:
        """The same bytes, copied on write; None if the segment was removed, or cannot be mapped again.

        It counts as a reader of its own: pages that nobody has written to are still the segment's.
        """
        try:
            fd = os.open(self.file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            if not _try_lock(fd, fcntl.LOCK_SH) or not _is_still(self.file, fd):
                return None
            return memoryview(_map(fd, len(self), self.file, is_private=True))
        except OSError:
            return None
        finally:
            os.close(fd)


def map_segment(cluster: Path, segment: Segment) -> memoryview:
    """Map a segment, read-only.

    Raises SegmentGone if its name is not there any more, OSError for want of descriptors or address space.
    """
    path = cluster / _checked(segment.name)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise SegmentGone(segment.name) from None
    try:
        # While its writer holds the lock it is being used again; and it may have been, in between.
        if not _try_lock(fd, fcntl.LOCK_SH) or not _is_still(path, fd):
            raise SegmentGone(segment.name)
        if os.fstat(fd).st_size < segment.size_bytes:
            raise SegmentGone(segment.name)
        return memoryview(_map(fd, segment.size_bytes, path)).toreadonly()
    finally:
        os.close(fd)


def _map(fd: int, size_bytes: int, file: Path, *, is_private: bool = False) -> Mapping:
    """The mapping duplicates the descriptor, and so keeps the lock until its last view is gone."""
    if is_private:
        mapping = Mapping(fd, size_bytes, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    else:
        mapping = Mapping(fd, size_bytes, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    mapping.file = file
    return mapping


def _checked(name: str) -> str:
    owner, _, file = name.partition("/")
    if not owner or not file or "/" in file or owner.startswith(".") or file.startswith("."):
        raise SegmentGone(name)  # names come from other processes
    return name


def _is_still(path: Path, fd: int) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    opened = os.fstat(fd)
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)


# ---------------------------------------------------------------- what is left behind


def clear_pool(cluster: Path, owner: str, *, spare: Container[str]) -> bool:
    """Remove the segments of a pool but those named, if its owner is gone; False if he is not.

    Who has mapped one keeps it. The pool itself goes with its last segment.
    """
    pool = cluster / owner
    if not pool.exists():
        return True
    if not is_abandoned(pool):
        return False
    names = [f"{owner}/{path.name}" for path in pool.iterdir() if path.name != _OWNER]
    kept = [name for name in names if name in spare]
    for name in set(names).difference(kept):
        (cluster / name).unlink(missing_ok=True)
    if not kept:
        remove(pool)
    return True


# ---------------------------------------------------------------- system calls


def _try_lock(fd: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_new(path: Path) -> int:
    """Make a file that is locked from the first moment in which it has its name."""
    draft = path.with_name(f"{path.name}-new")
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        draft.rename(path)
    except OSError:
        os.close(fd)
        raise
    return fd


def _write_all(fd: int, data: memoryview, begin: int = 0) -> None:
    offset = 0
    while offset < data.nbytes:  # one call writes 2 GiB at most
        offset += os.pwrite(fd, data[offset:], begin + offset)
