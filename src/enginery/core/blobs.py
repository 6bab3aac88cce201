"""Which blobs the controller holds, for whom, and which engine knows them already.

A blob is a list of frames, passed on as it came and never joined here. It is held while an unfinished task or
an undelivered result names it. Content-addressed ones (`keep`) stay afterwards, least recently used first
out, within `kept_limit_bytes`; the others go with their last holder.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable

from enginery.ids import BlobId, EngineId, content_id
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import PutBlob

KEPT_LIMIT_BYTES = 256 << 20

Pieces = list[tuple[PutBlob, Buffer]]


class _Blob:
    __slots__ = ("arrived_bytes", "holders", "keep", "pieces", "size_bytes", "source")

    def __init__(self, size_bytes: int, keep: bool, source: Hashable) -> None:
        self.source = source
        self.size_bytes = size_bytes
        self.keep = keep
        self.arrived_bytes = 0
        self.pieces: Pieces = []
        self.holders = 0


class BlobTable:
    """All blobs in the controller."""

    def __init__(self, *, kept_limit_bytes: int = KEPT_LIMIT_BYTES) -> None:
        self._kept_limit_bytes = kept_limit_bytes
        self._blobs: dict[BlobId, _Blob] = {}
        self._idle: OrderedDict[BlobId, None] = OrderedDict()  # complete, nobody holds them
        self._idle_bytes = 0
        self._known: dict[EngineId, set[BlobId]] = {}
        self.total_bytes = 0
        self._dropped: list[BlobId] = []  # kept ones that are gone since the last `take_dropped`

    def __len__(self) -> int:
        return len(self._blobs)

    def __repr__(self) -> str:
        return f"<BlobTable of {len(self)} blobs, {self.total_bytes} bytes, {len(self._idle)} idle>"

    def on_piece(self, record: PutBlob, frame: Buffer, source: Hashable) -> bool:
        """A piece has arrived from a peer. They come in order; one from the start begins the blob anew.

        Returns whether the blob is complete now and was not before. A kept blob must be what its id says,
        because others will be given it under that id.
        """
        blob = self._blobs.get(record.blob)
        if blob is not None and blob.arrived_bytes == blob.size_bytes and blob.pieces:
            return False  # already here: sent again after a new hello
        if blob is None or record.offset == 0:
            holders = blob.holders if blob is not None else 0
            if blob is not None:
                self.total_bytes -= blob.arrived_bytes
            blob = self._blobs[record.blob] = _Blob(record.size_bytes, record.keep, source)
            blob.holders = holders
        if record.offset != blob.arrived_bytes or record.size_bytes != blob.size_bytes:
            return False  # the rest of something that was begun anew
        blob.pieces.append((record, frame))
        blob.arrived_bytes += len(frame)
        self.total_bytes += len(frame)
        if blob.arrived_bytes < blob.size_bytes:
            return False
        if blob.keep and content_id(piece for _, piece in blob.pieces) != record.blob:
            self._forget(record.blob)
            return False
        # One that is not kept waits for the record that names it, as long as its sender is there.
        if blob.keep and not blob.holders:
            self._idle[record.blob] = None
            self._idle_bytes += blob.size_bytes
            self._shrink()
        return True

    def on_source_gone(self, source: Hashable) -> None:
        """A peer has left: what it had sent in part, or for a call that never came, is of no use."""
        for blob_id in [
            blob_id
            for blob_id, blob in self._blobs.items()
            if blob.source == source
            and not blob.holders
            and not (blob.keep and blob.arrived_bytes == blob.size_bytes)
        ]:
            self._forget(blob_id)

    def drop_unheld(self, blobs: Iterable[BlobId]) -> None:
        """These came with something that was not news: forget those that nothing else needs."""
        for blob_id in blobs:
            blob = self._blobs.get(blob_id)
            if blob is not None and not blob.holders and not blob.keep:
                self._forget(blob_id)

    def missing(self, blobs: Iterable[BlobId]) -> list[BlobId]:
        """Those that are not here in full."""
        return [
            blob_id
            for blob_id in blobs
            if (blob := self._blobs.get(blob_id)) is None or blob.arrived_bytes < blob.size_bytes
        ]

    def size_bytes(self, blobs: Iterable[BlobId]) -> int:
        return sum(self._blobs[blob].size_bytes for blob in blobs)

    def hold(self, blobs: Iterable[BlobId]) -> None:
        for blob_id in blobs:
            blob = self._blobs[blob_id]
            blob.holders += 1
            if blob_id in self._idle:
                del self._idle[blob_id]
                self._idle_bytes -= blob.size_bytes

    def release(self, blobs: Iterable[BlobId]) -> None:
        """The inverse of one `hold`."""
        for blob_id in blobs:
            blob = self._blobs.get(blob_id)
            if blob is None or not blob.holders:
                continue
            blob.holders -= 1
            if not blob.holders:
                if blob.keep:
                    self._idle[blob_id] = None
                    self._idle_bytes += blob.size_bytes
                else:
                    self._forget(blob_id)
        self._shrink()

    def pieces(self, blob: BlobId) -> Pieces:
        return self._blobs[blob].pieces

    def data(self, blob: BlobId) -> bytes:
        """The whole blob, joined; for small ones that the store keeps."""
        return b"".join(bytes(frame) for _, frame in self._blobs[blob].pieces)

    def take_dropped(self) -> list[BlobId]:
        """Kept blobs that are gone since this was asked last: the store may forget them too."""
        dropped, self._dropped = self._dropped, []
        return dropped

    # ------------------------------------------------------------ what engines know

    def on_engine_hello(self, engine: EngineId) -> None:
        """What it knows is unknown again: it may be another process, or may have lost what was under way."""
        self._known[engine] = set()

    def on_engine_gone(self, engine: EngineId) -> None:
        self._known.pop(engine, None)

    def on_forgotten(self, engine: EngineId, blobs: Iterable[BlobId]) -> None:
        self._known[engine].difference_update(blobs)

    def to_send(self, engine: EngineId, blobs: Iterable[BlobId]) -> list[BlobId]:
        """Those that this engine has not been sent yet; from now on it counts as knowing them."""
        known = self._known[engine]
        wanted = [blob for blob in blobs if blob not in known]
        known.update(wanted)
        return wanted

    def to_drop(self, engine: EngineId, blobs: Iterable[BlobId]) -> list[BlobId]:
        """Those that were sent to it for one task only; from now on it counts as not knowing them."""
        known = self._known.get(engine)
        if known is None:
            return []
        gone = [
            blob_id
            for blob_id in blobs
            if blob_id in known and not ((blob := self._blobs.get(blob_id)) is not None and blob.keep)
        ]
        known.difference_update(gone)
        return gone

    # ------------------------------------------------------------ inside

    def _forget(self, blob_id: BlobId) -> None:
        blob = self._blobs.pop(blob_id)
        self.total_bytes -= blob.arrived_bytes
        if blob_id in self._idle:
            del self._idle[blob_id]
            self._idle_bytes -= blob.size_bytes
        if blob.keep:
            self._dropped.append(blob_id)
        for known in self._known.values():
            known.discard(blob_id)

    def _shrink(self) -> None:
        # The newest stays whatever its size: the call that needs it comes right behind it.
        while self._idle_bytes > self._kept_limit_bytes and len(self._idle) > 1:
            self._forget(next(iter(self._idle)))

    def check(self) -> None:
        assert self.total_bytes == sum(blob.arrived_bytes for blob in self._blobs.values())
        assert self._idle_bytes == sum(self._blobs[blob].size_bytes for blob in self._idle)
        assert self._idle_bytes <= self._kept_limit_bytes or len(self._idle) == 1
        for blob_id, blob in self._blobs.items():
            idle = blob_id in self._idle
            assert idle <= (not blob.holders), blob_id
