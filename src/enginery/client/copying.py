"""Copies of big buffers into shared memory, behind the caller's back.

An asynchronous call returns at once, whatever it sends: a thread of its own, made with the first big buffer,
copies. Small copies are made by the caller, who would wait longer for the thread.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from enginery.core.submissions import Copies
from enginery.ids import BlobId
from enginery.transport.sharing import Sharing

AT_ONCE_BYTES = 4 << 20
"""What a caller copies himself: less than a millisecond."""
JOIN_S = 5.0

log = logging.getLogger("enginery.client")


def copy(sharing: Sharing, copies: Copies) -> dict[BlobId, str]:
    """Where the buffers are now; those for which there was no room are missing."""
    segments = {}
    for blob in copies.blobs:
        segment = sharing.write(memoryview(blob.data))
        if segment is not None:
            segments[blob.blob_id] = segment.name
    return segments


class Copier:
    """The thread that copies. `on_copied` is called from it, for each call that was put."""

    def __init__(self, sharing: Sharing, on_copied: Callable[[Copies, dict[BlobId, str]], None]) -> None:
        self._sharing = sharing
        self._on_copied = on_copied
        self._queue: queue.SimpleQueue[Copies | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._put_count = self._copied_count = 0  # each counted by one thread

    @property
    def is_busy(self) -> bool:
        return self._put_count > self._copied_count

    def put(self, copies: Copies) -> None:
        """Have these copied; returns at once. One caller at a time."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="enginery-client-copier", daemon=True)
            self._thread.start()
        self._put_count += 1
        self._queue.put(copies)

    def end(self) -> None:
        """Have the thread end after the copies that were put. May be called from any thread, and twice."""
        if self._thread is not None:
            self._queue.put(None)

    def join(self) -> None:
        """Wait for the thread that is told to end."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        while (copies := self._queue.get()) is not None:
            try:
                self._on_copied(copies, copy(self._sharing, copies))
            except Exception:  # calls behind it wait for this thread
                log.exception("a call with %d bytes of buffers is sent anew", copies.size_bytes)
            finally:
                self._copied_count += 1
