"""Blobs that have come, as frames or by name in shared memory, and the work that tasks make with them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from enginery.core.workload import Attempt
from enginery.engine.runner import Work
from enginery.ids import BlobId
from enginery.protocol.assembly import BlobCache
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import BlobsMissing, PutBlob, Run, ShareBlob
from enginery.transport.shared_memory import SegmentGone
from enginery.transport.sharing import Sharing

log = logging.getLogger("enginery.engine")


class Arrival(NamedTuple):
    """A task that has come: with its work, or with what it lacks."""

    attempt: Attempt
    work: Work | None
    missing: BlobsMissing | None


class ArrivedBlobs:
    """Those of one engine. Used by its main thread; others may ask for `total_bytes`."""

    def __init__(self, sharing: Sharing) -> None:
        self._cache = BlobCache()
        self._sharing = sharing
        self._unreadable: set[BlobId] = set()  # shared by name, and not to be mapped here

    def __repr__(self) -> str:
        return f"<ArrivedBlobs, {self.total_bytes} bytes>"

    @property
    def total_bytes(self) -> int:
        return self._cache.total_bytes

    def on_piece(self, record: PutBlob, frame: Buffer) -> None:
        self._cache.on_piece(record, frame)

    def on_shared(self, record: ShareBlob) -> None:
        try:
            data = self._sharing.read(record.segment, record.size_bytes)
        except (SegmentGone, OSError) as error:
            log.warning("a shared buffer cannot be mapped; from now on they come as frames: %s", error)
            self._unreadable.add(record.blob)
        else:
            self._cache.put(record.blob, data, keep=record.keep)

    def on_dropped(self, blobs: Iterable[BlobId]) -> None:
        """No further task will name these."""
        blobs = list(blobs)
        self._unreadable.difference_update(blobs)
        for blob in blobs:
            self._cache.drop(blob)

    def restart(self) -> None:
        """A hello was answered: what was under way comes again."""
        self._cache.restart()
        self._unreadable.clear()

    def forget_kept(self) -> None:
        """Let go of what would come again if a task named it."""
        self._cache.forget_kept()

    def arrivals(self, record: Run, function_data: Callable[[BlobId], Buffer | None]) -> Iterator[Arrival]:
        """The tasks of a record; `function_data` finds functions that have been built."""
        options = record.options
        function: Buffer | None = None
        missing: list[BlobId] = []
        if options.function:
            function = self._cache.get(options.function)
            if function is None:
                function = function_data(options.function)
            if function is None:
                missing = [options.function]
        for call in record.calls:
            attempt = call.task, call.attempt
            buffers = [self._cache.get(blob) for blob in call.blobs]
            absent = [
                *missing,
                *(blob for blob, data in zip(call.blobs, buffers, strict=True) if data is None),
            ]
            if absent:
                is_unreadable = not self._unreadable.isdisjoint(absent)
                yield Arrival(attempt, None, BlobsMissing(*attempt, absent, is_unreadable))
            else:
                there = [data for data in buffers if data is not None]
                yield Arrival(attempt, Work(options, call, function, there), None)
