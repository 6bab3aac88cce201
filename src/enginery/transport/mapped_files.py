"""Plain files, read without copying them."""

from __future__ import annotations

import mmap
import threading
import weakref
from pathlib import Path


class MappedFiles:
    """Parts of files that only grow. What was read stays readable, whatever becomes of its file.

    A mapping keeps a descriptor, so all that is read of one file shares one. Any thread may read.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mapped: weakref.WeakValueDictionary[Path, mmap.mmap] = weakref.WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<MappedFiles: {len(self._mapped)}>"

    def read(self, path: Path, offset: int, size_bytes: int) -> memoryview:
        """A part of a file. Raises OSError; EOFError if the file is shorter."""
        if not size_bytes:
            return memoryview(b"")
        end = offset + size_bytes
        with self._lock:
            mapping = self._mapped.get(path)
            if mapping is None or len(mapping) < end:
                with open(path, "rb") as file:
                    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                self._mapped[path] = mapping
        if len(mapping) < end:
            raise EOFError(f"{path} has {len(mapping)} bytes and not {end}")
        return memoryview(mapping)[offset:end]
