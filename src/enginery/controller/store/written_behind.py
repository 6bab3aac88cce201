"""Large buffers of a store whose facts are taken in the controller's loop, which waits for no disk.

A thread writes and removes, in the order in which it was told. What it has not written yet is read from
memory; what is let go of before is never written. How much may wait is for the store to bound: `has_room`.

The thread begins with the first buffer and ends with `remove_all`.
"""

from __future__ import annotations

import functools
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Sequence

from enginery.controller.store.buffers import BufferFiles, KeptBuffers
from enginery.ids import BlobId
from enginery.protocol.codec import Buffer

WAITING_BYTES = 64 << 20
CLOSE_TIMEOUT_S = 30.0

log = logging.getLogger("enginery.controller.store")


class WrittenBehind:
    """What `BufferFiles` does, soon. Told by one thread at a time; any thread reads."""

    def __init__(self, files: BufferFiles, *, limit_bytes: int = WAITING_BYTES) -> None:
        self._files = files
        self._limit_bytes = limit_bytes
        self._steps: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # around what waits
        self._waiting: dict[BlobId, Sequence[Buffer]] = {}
        self._thread: threading.Thread | None = None
        # Counted by whoever hands over, and by the thread: the difference needs no lock.
        self._given_bytes = 0
        self._done_bytes = 0

    def __repr__(self) -> str:
        return f"<WrittenBehind: {len(self._waiting)} wait for {self._files!r}>"

    @property
    def has_room(self) -> bool:
        return self._given_bytes - self._done_bytes < self._limit_bytes

    def write(self, buffers: KeptBuffers) -> None:
        """Have these written. One that cannot be is missing when it is asked for."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="history-buffers", daemon=True)
            self._thread.start()
        size_bytes = sum(memoryview(piece).nbytes for _, pieces in buffers for piece in pieces)
        self._given_bytes += size_bytes
        with self._lock:
            self._waiting.update(buffers)
        self._steps.put(functools.partial(self._write, buffers, size_bytes))

    def remove(self, blobs: Iterable[BlobId]) -> None:
        """Let go of these; those that are not there are ignored."""
        gone = list(blobs)
        if not gone or self._thread is None:
            return
        with self._lock:
            for blob in gone:
                self._waiting.pop(blob, None)
        self._steps.put(functools.partial(self._files.remove, gone))

    def read(self, blob: BlobId) -> memoryview | None:
        """One that was handed over; None if it is not there."""
        with self._lock:
            pieces = self._waiting.get(blob)
        return self._files.read(blob) if pieces is None else memoryview(b"".join(pieces))

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was said is done; False if `timeout_s` passed before."""
        if self._thread is None:
            return True
        done = threading.Event()
        self._steps.put(done.set)
        return done.wait(timeout_s)

    def remove_all(self) -> None:
        """End the thread, let go of all of them, and of their directory."""
        with self._lock:
            self._waiting.clear()
        if self._thread is not None:
            self._steps.put(None)
            self._thread.join(CLOSE_TIMEOUT_S)
            if self._thread.is_alive():
                log.error("%r: nothing for %.0f s; its thread is left behind", self, CLOSE_TIMEOUT_S)
        self._files.remove_all()

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        while (step := self._steps.get()) is not None:
            try:
                step()
            except Exception:  # a defect, reported in full: nobody else could do what comes next
                log.exception("a step of %r failed", self)

    def _write(self, buffers: KeptBuffers, size_bytes: int) -> None:
        with self._lock:  # those that nobody has let go of, or handed over anew
            wanted = [(blob, pieces) for blob, pieces in buffers if self._waiting.get(blob) is pieces]
        try:
            self._files.write(wanted)
        except OSError as error:
            log.error("results that nobody takes cannot be kept in %r: %s", self._files, error)
        finally:
            self._done_bytes += size_bytes
            with self._lock:
                for blob, pieces in wanted:
                    if self._waiting.get(blob) is pieces:
                        del self._waiting[blob]
