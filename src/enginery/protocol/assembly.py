"""Blobs put together again where they are used: in engines and clients.

A blob of one frame is that frame, uncopied. A larger one is copied once, piece by piece as the pieces come,
into a buffer of its size. Kept blobs (functions, constants) stay in a bounded cache; the others are handed
out once.
"""

from __future__ import annotations

from collections import OrderedDict

from enginery.ids import BlobId
from enginery.protocol.codec import Buffer
from enginery.protocol.eviction import oldest_beyond
from enginery.protocol.messages import PutBlob

CACHE_BYTES = 256 << 20


class _Partial:
    __slots__ = ("arrived_bytes", "buffer", "size_bytes")

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.arrived_bytes = 0
        self.buffer = bytearray(size_bytes)


class BlobCache:
    """The blobs that a process has received. Not thread-safe."""

    def __init__(self, *, cache_bytes: int = CACHE_BYTES) -> None:
        self._cache_bytes = cache_bytes
        self._partial: dict[BlobId, _Partial] = {}
        self._once: dict[BlobId, Buffer] = {}
        self._kept: OrderedDict[BlobId, Buffer] = OrderedDict()
        self._unused: set[BlobId] = set()  # kept ones that came for a task which is still on its way
        self._kept_bytes = 0

    def __repr__(self) -> str:
        return (
            f"<BlobCache of {len(self._kept)} kept blobs ({self._kept_bytes} bytes), "
            f"{len(self._once)} others, {len(self._partial)} partial>"
        )

    @property
    def total_bytes(self) -> int:
        """All that is here. May be asked by any thread."""
        others = sum(memoryview(data).nbytes for data in list(self._once.values()))
        return self._kept_bytes + others + sum(partial.size_bytes for partial in list(self._partial.values()))

    def forget_kept(self) -> None:
        """Let go of what is kept; who needs it has to be sent it again."""
        self._kept.clear()
        self._unused.clear()
        self._kept_bytes = 0

    def __contains__(self, blob: BlobId) -> bool:
        return blob in self._kept or blob in self._once

    def on_piece(self, record: PutBlob, frame: Buffer) -> None:
        """Take a piece; pieces come in order, and a piece from the start begins the blob anew."""
        if len(frame) == record.size_bytes:
            self.put(record.blob, frame, keep=record.keep)
            return
        partial = self._partial.get(record.blob)
        if record.offset == 0:
            partial = self._partial[record.blob] = _Partial(record.size_bytes)
        if (
            partial is None
            or record.offset != partial.arrived_bytes
            or partial.size_bytes != record.size_bytes
        ):
            return  # the rest of something that was begun anew
        partial.buffer[record.offset : record.offset + len(frame)] = frame
        partial.arrived_bytes += len(frame)
        if partial.arrived_bytes == partial.size_bytes:
            del self._partial[record.blob]
            self.put(record.blob, memoryview(partial.buffer).toreadonly(), keep=record.keep)

    def put(self, blob: BlobId, data: Buffer, *, keep: bool) -> None:
        """Take a whole blob."""
        if not keep:
            self._once[blob] = data
            return
        size_bytes = memoryview(data).nbytes
        if blob not in self._kept:
            self._kept_bytes += size_bytes
        self._kept[blob] = data
        self._unused.add(blob)
        if self._kept_bytes > self._cache_bytes:
            self._evict()

    def _evict(self) -> None:
        # A task may need several that are together above the limit: they stay until it has them.
        for blob in oldest_beyond(
            self._kept,
            self._kept_bytes - self._cache_bytes,
            size_of=lambda blob: memoryview(self._kept[blob]).nbytes,
            is_safe=lambda blob, _: blob in self._unused,
        ):
            self._kept_bytes -= memoryview(self._kept.pop(blob)).nbytes

    def get(self, blob: BlobId) -> Buffer | None:
        """The blob if it is here; it stays."""
        data = self._kept.get(blob)
        if data is not None:
            self._kept.move_to_end(blob)
            self._unused.discard(blob)
            return data
        return self._once.get(blob)

    def drop(self, blob: BlobId) -> None:
        """Forget a blob that was sent for one use; who has its data keeps it alive."""
        self._once.pop(blob, None)
        self._partial.pop(blob, None)

    def restart(self) -> None:
        """A new hello: what is still needed comes again, except what is kept."""
        self._partial.clear()
        self._once.clear()
