"""One connection's bookkeeping, the same on both ends: what goes out next, and what may come in.

0MQ keeps order and loses nothing while a connection lives, and says nothing when it silently resumes in
mid-stream on a new one. So every message carries its epoch (the hello it belongs to) and its
number:

* a number already seen, or an older epoch, is dropped (`Verdict.STALE`);
* a number too high means that messages were lost (`Verdict.GAP`): the receiver asks for a new hello, and
  after it each side says again what the other has not acknowledged.

Two lanes go out. Records and small blobs (functions) wait in the small lane. Pieces of larger blobs, and
records that need them, wait in the bulk lane, which never has more than `window_bytes` under way: the
receiver's running total of bulk bytes comes back with every message. So a short task overtakes a gigabyte,
and nobody's memory grows with a slow peer.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from typing import Any

from enginery.errors import TooLarge
from enginery.ids import BlobId
from enginery.protocol.codec import Buffer, encode
from enginery.protocol.messages import FRAME_LIMIT, INLINE_LIMIT, MESSAGE_LIMIT, Envelope, PutBlob, Record

BULK_WINDOW_BYTES = 16 << 20
HEADER_BYTES = 1 << 19
"""Estimated bytes of records in one message; a record is far smaller than what is left to the frame limit."""
RECORD_BYTES = 96
"""What a record without a payload is assumed to weigh."""

Message = tuple[bytes, list[Buffer]]
_Entry = tuple[Record, Buffer | None, int]


class Verdict(enum.Enum):
    FRESH = "fresh"
    STALE = "stale"
    GAP = "gap"


def cut_blob(blob: BlobId, data: Buffer, *, keep: bool) -> list[tuple[PutBlob, Buffer]]:
    """The pieces of one contiguous buffer, none larger than a frame may be. Nothing is copied."""
    view = memoryview(data).cast("B") if memoryview(data).nbytes else memoryview(b"")
    size = view.nbytes
    if size <= FRAME_LIMIT:
        return [(PutBlob(blob, size, 0, keep), data if isinstance(data, bytes) else view)]
    return [
        (PutBlob(blob, size, offset, keep), view[offset : offset + FRAME_LIMIT])
        for offset in range(0, size, FRAME_LIMIT)
    ]


class Link:
    """Both directions of one connection, from one hello to the next."""

    __slots__ = (
        "_acknowledged",
        "_bulk",
        "_expected",
        "_number",
        "_received",
        "_reported",
        "_sent",
        "_small",
        "epoch",
        "window_bytes",
    )

    def __init__(self, epoch: int = 0, *, window_bytes: int = BULK_WINDOW_BYTES) -> None:
        self.window_bytes = window_bytes
        self.restart(epoch)

    def __repr__(self) -> str:
        return (
            f"<Link epoch {self.epoch}, {self._number} out, {self._expected} in, "
            f"{len(self._small)} records and {len(self._bulk)} pieces waiting>"
        )

    def restart(self, epoch: int) -> None:
        """Begin again after a hello. What waited is forgotten: its owner says it again."""
        self.epoch = epoch
        self._number = 0  # of the next message out
        self._expected = 0  # number of the next message in
        self._sent = self._acknowledged = 0  # bulk bytes out
        self._received = self._reported = 0  # bulk bytes in
        self._small: deque[_Entry] = deque()
        self._bulk: deque[_Entry] = deque()

    # ------------------------------------------------------------ in

    def on_message(self, envelope: Envelope[Any], frames: Sequence[Buffer]) -> Verdict:
        """Judge a message; only a fresh one may be acted on."""
        if envelope.epoch != self.epoch or envelope.number < self._expected:
            return Verdict.STALE
        if envelope.number > self._expected:
            return Verdict.GAP
        self._expected += 1
        self._acknowledged = envelope.bulk_received
        for frame in frames:
            self._received += len(frame)
        return Verdict.FRESH

    # ------------------------------------------------------------ out

    def put(self, record: Record, size_bytes: int = RECORD_BYTES) -> None:
        self._small.append((record, None, size_bytes))

    def put_blob(self, pieces: Sequence[tuple[PutBlob, Buffer]]) -> bool:
        """Queue a blob. True if it went to the bulk lane, where records that name it must follow it."""
        if len(pieces) == 1 and pieces[0][0].size_bytes <= INLINE_LIMIT:
            record, frame = pieces[0]
            self._small.append((record, frame, RECORD_BYTES + len(frame)))
            return False
        self._bulk.extend((record, frame, len(frame)) for record, frame in pieces)
        return True

    def put_after_bulk(self, record: Record, size_bytes: int = RECORD_BYTES) -> None:
        """Queue a record that names blobs put before it."""
        (self._bulk if self._bulk else self._small).append((record, None, size_bytes))

    @property
    def has_output(self) -> bool:
        """Whether `next_message` would return one."""
        return bool(self._small) or self._bulk_ready() or self._report_due()

    @property
    def is_drained(self) -> bool:
        """Whether nothing waits, the bulk lane included."""
        return not self._small and not self._bulk

    def next_message(self) -> Message | None:
        """The next message to send, or None when nothing can go out now.

        Raises UnicodeEncodeError or TooLarge for a record that cannot be sent at all; it stays where it is.
        """
        entries, small_count = self._choose()
        if not entries and not self._report_due():
            return None
        while True:
            header = encode(self.epoch, self._number, self._received, [entry[0] for entry in entries])
            if len(header) <= MESSAGE_LIMIT:
                break
            if len(entries) == 1:
                raise TooLarge("a record", size_bytes=len(header), limit_bytes=MESSAGE_LIMIT)
            del entries[len(entries) // 2 :]  # the sizes were estimates
        for _ in range(min(small_count, len(entries))):
            self._small.popleft()
        for _ in range(len(entries) - small_count):
            self._bulk.popleft()
        frames = [entry[1] for entry in entries if entry[1] is not None]
        for frame in frames:
            self._sent += len(frame)
        self._number += 1
        self._reported = self._received
        return header, frames

    def _choose(self) -> tuple[list[_Entry], int]:
        """What goes next, as far as the windows go, and how many of it wait in the small lane."""
        entries: list[_Entry] = []
        size = 0
        for entry in self._small:
            if size >= HEADER_BYTES:
                return entries, len(entries)
            entries.append(entry)
            size += entry[2]
        small_count = len(entries)
        frame_bytes = 0
        under_way = self._sent - self._acknowledged
        for entry in self._bulk:
            _, frame, weight = entry
            if size >= HEADER_BYTES or frame_bytes >= FRAME_LIMIT:
                break
            if frame is None:
                size += weight
            else:
                if under_way + frame_bytes >= self.window_bytes:
                    break
                size += RECORD_BYTES
                frame_bytes += weight
            entries.append(entry)
        return entries, small_count

    def _bulk_ready(self) -> bool:
        return bool(self._bulk) and (
            self._bulk[0][1] is None or self._sent - self._acknowledged < self.window_bytes
        )

    def _report_due(self) -> bool:
        return self._received - self._reported >= self.window_bytes // 4
