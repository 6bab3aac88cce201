"""Large buffers of results that only the history has, in files beside its tables.

A client that does not take its results would fill the controller's memory with them, and one that has left
could not be given them later. Files and not the tables: a buffer is written once and not twice, and its space
is free again soon.

A file is a run of buffers, each behind its id and its size, so that the files are all there is to know. One
that has passed `FILE_BYTES` gets no more; it goes with the last of its buffers. Not a file for each buffer:
every system call of a thread beside the controller's loop may cost it the interpreter's switch interval, and
with three for each buffer it wrote 50 MB a second.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import struct
import tempfile
import threading
import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from enginery.ids import BlobId
from enginery.protocol.codec import Buffer
from enginery.transport.mapped_files import MappedFiles

FILE_BYTES = 32 << 20
_HEAD = struct.Struct("<16sQ")
_BUFFERS_AT_ONCE = 512  # a system takes 1,024

_log = logging.getLogger("enginery.controller.store")

KeptBuffers = Sequence[tuple[BlobId, Sequence[Buffer]]]
"""Buffers by their ids, in pieces."""


class _Place(NamedTuple):
    file: int
    offset: int
    size_bytes: int


class BufferFiles:
    """The files of one store. A buffer may be read by any thread while one writes and removes.

    The directory is made with the first buffer; without one it is some temporary one, which goes with this.
    """

    def __init__(self, directory: Path | None = None, *, is_synced: bool = False) -> None:
        self._directory = directory
        self._is_synced = is_synced
        self._lock = threading.Lock()  # around what is known; the files are touched without it
        self._places: dict[BlobId, _Place] = {}
        self._counts: dict[int, int] = {}  # buffers that are wanted, by file
        self._mapped = MappedFiles()
        self._number = 1  # of the file that is written
        self._size_bytes = 0  # of it

    def __repr__(self) -> str:
        where = self._directory or "a directory that is not made yet"
        return f"<BufferFiles: {len(self._places)} in {where}>"

    has_room = True
    """Nothing waits here: see `written_behind`."""

    def flush(self, timeout_s: float) -> bool:
        """Nothing to wait for."""
        return True

    # ------------------------------------------------------------ the one that writes

    def write(self, buffers: KeptBuffers) -> None:
        """Write those that are not there. Raises OSError, and then has none of them."""
        new = [(blob, pieces) for blob, pieces in dict(buffers).items() if blob not in self._places]
        if not new:
            return
        if self._size_bytes >= FILE_BYTES:
            self._begin_file(self._number + 1)
        pieces: list[Buffer] = []
        places: dict[BlobId, _Place] = {}
        end = self._size_bytes
        for blob, own in new:
            size_bytes = sum(memoryview(piece).nbytes for piece in own)
            pieces += _HEAD.pack(blob, size_bytes), *own
            places[blob] = _Place(self._number, end + _HEAD.size, size_bytes)
            end += _HEAD.size + size_bytes
        self._append(pieces)
        with self._lock:
            self._size_bytes = end
            self._places.update(places)
            self._counts[self._number] = self._counts.get(self._number, 0) + len(places)

    def _append(self, pieces: Sequence[Buffer]) -> None:
        path = self._path(self._number)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            for start in range(0, len(pieces), _BUFFERS_AT_ONCE):
                _write_all(descriptor, pieces[start : start + _BUFFERS_AT_ONCE])
            if self._is_synced:
                os.fsync(descriptor)
        except BaseException:
            os.ftruncate(descriptor, self._size_bytes)
            raise
        finally:
            os.close(descriptor)

    def remove(self, blobs: Iterable[BlobId]) -> None:
        """Let go of these; those that are not there are ignored."""
        done: list[int] = []
        with self._lock:
            for blob in blobs:
                place = self._places.pop(blob, None)
                if place is not None:
                    self._counts[place.file] -= 1
                    if not self._counts[place.file]:
                        del self._counts[place.file]
                        done.append(place.file)
        for number in done:
            if number == self._number:
                self._begin_file(number + 1)
            try:
                self._path(number).unlink(missing_ok=True)
            except OSError as error:
                _log.error("a file of results that nobody needs any more stays behind: %s", error)

    def _begin_file(self, number: int) -> None:
        self._number, self._size_bytes = number, 0

    def open(self, wanted: Collection[BlobId]) -> None:
        """Take over what a former life has left of these, and remove all else."""
        if self._directory is None or not self._directory.is_dir():
            return
        unwanted: list[BlobId] = []
        for path in sorted(self._directory.iterdir()):
            number = int(path.name) if path.name.isdecimal() else 0
            found = dict(_buffers_in(path, number)) if number else {}
            self._places.update(found)
            self._counts[number] = len(found)
            self._number = max(self._number, number)
            unwanted += (blob for blob in found if blob not in wanted)
            if not found:
                del self._counts[number]
                with contextlib.suppress(OSError):
                    path.unlink()
        self._begin_file(self._number + 1)
        self.remove(unwanted)

    def remove_all(self) -> None:
        """Let go of all of them, and of their directory."""
        with self._lock:
            self._places.clear()
            self._counts.clear()
        self._begin_file(self._number + 1)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    # ------------------------------------------------------------ any thread

    def read(self, blob: BlobId) -> memoryview | None:
        """One that was written; None if it is not there. It outlives its file."""
        with self._lock:
            place = self._places.get(blob)
        if place is None:
            return None
        try:
            return self._mapped.read(self._path(place.file), place.offset, place.size_bytes)
        except (OSError, EOFError):
            return None  # it was removed meanwhile

    def _path(self, number: int) -> Path:
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="enginery-results-"))
            weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)
        return self._directory / f"{number:08d}"


def _write_all(descriptor: int, pieces: Sequence[Buffer]) -> None:
    left = [view for piece in pieces if (view := memoryview(piece).cast("B")).nbytes]
    while left:
        written = os.writev(descriptor, left)
        while left and written >= left[0].nbytes:
            written -= left.pop(0).nbytes
        if written:
            left[0] = left[0][written:]


def _buffers_in(path: Path, number: int) -> Iterator[tuple[BlobId, _Place]]:
    """Those that are whole."""
    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            blob, size_bytes = _HEAD.unpack(head)
            offset = file.tell()
            if offset + size_bytes > end:
                return  # its writer was killed
            yield BlobId(blob), _Place(number, offset, size_bytes)
            file.seek(size_bytes, os.SEEK_CUR)
