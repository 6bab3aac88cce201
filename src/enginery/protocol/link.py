"""One connection's bookkeeping, the same on both ends: what goes out next, and what may come in.

0MQ keeps order and loses nothing while a connection lives, and says nothing when it silently resumes in
mid-stream on a new one. So every message carries its epoch (the hello it belongs to) and its
number:

* a number already seen, or an older epoch, is dropped (`Verdict.STALE`);
* a number too high means that messages were lost (`Verdict.GAP`): the receiver asks for a new hello, and
  after it each side says again what the other has not acknowledged. So does a receipt for more than was sent.

Two lanes go out. Records and small blobs (functions) wait in the small lane. Pieces of larger blobs, and
records that need them, wait in the bulk lane, which never has more than `window_bytes` under way: the
receiver's running totals of bytes, of frames and of headers, come back with every message. So a short task
overtakes a gigabyte. The small lane never waits; `has_room` tells whether the peer takes what is sent, and
whoever has more to say than the peer has asked for waits for it, so that nobody's memory grows with a slow
peer. Records that are *in order* (calls to one engine, whose namespace
lives on from call to call) never overtake each other: while one of them waits in the bulk lane, those that
follow join it there.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from typing import Any

from enginery.ids import BlobId
from enginery.protocol.codec import Buffer, Unsendable, encode_within_limit
from enginery.protocol.messages import FRAME_LIMIT, INLINE_LIMIT, Envelope, PutBlob, Record

BULK_WINDOW_BYTES = 16 << 20
ROOM_BYTES = 8 << 20
"""Of headers that wait or are under way: above this, what can wait does."""
FLOOD_BYTES = 64 << 20
"""Above this the peer has asked for more than it takes, and there is no end in sight."""
HEADER_BYTES = 1 << 19
"""Estimated bytes of records in one message; a record is far smaller than what is left to the frame limit."""
RECORD_BYTES = 96
"""What a record without a payload is assumed to weigh."""

Message = tuple[bytes, list[Buffer]]
_Entry = tuple[Record, Buffer | None, int, bool]


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
        "_header_acknowledged",
        "_header_received",
        "_header_reported",
        "_header_sent",
        "_number",
        "_ordered_in_bulk",
        "_received",
        "_reported",
        "_sent",
        "_small",
        "_small_bytes",
        "epoch",
        "room_bytes",
        "window_bytes",
    )

    def __init__(
        self, epoch: int = 0, *, window_bytes: int = BULK_WINDOW_BYTES, room_bytes: int = ROOM_BYTES
    ) -> None:
        self.window_bytes = window_bytes
        self.room_bytes = room_bytes
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
        self._header_sent = self._header_acknowledged = 0
        self._header_received = self._header_reported = 0
        self._small: deque[_Entry] = deque()
        self._small_bytes = 0
        self._bulk: deque[_Entry] = deque()
        self._ordered_in_bulk = 0

    # ------------------------------------------------------------ in

    def on_message(
        self, envelope: Envelope[Any], frames: Sequence[Buffer], *, header_bytes: int = 0
    ) -> Verdict:
        """Judge a message; only a fresh one may be acted on."""
        if envelope.epoch != self.epoch or envelope.number < self._expected:
            return Verdict.STALE
        if envelope.number > self._expected:
            return Verdict.GAP
        if envelope.bulk_received > self._sent or envelope.header_received > self._header_sent:
            return Verdict.GAP  # nobody has received more than was sent
        self._expected += 1
        self._acknowledged = envelope.bulk_received
        self._header_acknowledged = envelope.header_received
        self._header_received += header_bytes
        for frame in frames:
            self._received += len(frame)
        return Verdict.FRESH

    # ------------------------------------------------------------ out

    def put(self, record: Record, size_bytes: int = RECORD_BYTES, *, in_order: bool = False) -> None:
        if in_order and self._ordered_in_bulk:
            self.put_after_bulk(record, size_bytes, in_order=True)
        else:
            self._add_small(record, None, size_bytes)

    def put_blob(self, pieces: Sequence[tuple[PutBlob, Buffer]]) -> bool:
        """Queue a blob. True if it went to the bulk lane, where records that name it must follow it."""
        if len(pieces) == 1 and pieces[0][0].size_bytes <= INLINE_LIMIT:
            record, frame = pieces[0]
            self._add_small(record, frame, RECORD_BYTES + len(frame))
            return False
        self._bulk.extend((record, frame, len(frame), False) for record, frame in pieces)
        return True

    def take_back_blob(self, blob: BlobId) -> None:
        """What still waits of a blob is not to be sent."""
        self._bulk = deque(
            entry for entry in self._bulk if not (type(entry[0]) is PutBlob and entry[0].blob == blob)
        )

    def put_after_bulk(
        self, record: Record, size_bytes: int = RECORD_BYTES, *, in_order: bool = False
    ) -> None:
        """Queue a record that names blobs put before it."""
        if self._bulk:
            self._bulk.append((record, None, size_bytes, in_order))
            self._ordered_in_bulk += in_order
        else:
            self._add_small(record, None, size_bytes)

    def _add_small(self, record: Record, frame: Buffer | None, size_bytes: int) -> None:
        self._small.append((record, frame, size_bytes, False))
        self._small_bytes += size_bytes

    @property
    def has_room(self) -> bool:
        """Whether the peer takes what it is sent, so that more may be put than it has to be told."""
        return self._small_bytes + self._header_sent - self._header_acknowledged < self.room_bytes

    @property
    def is_flooded(self) -> bool:
        """Whether the peer has had far too much put here that it does not take."""
        return self._small_bytes + self._header_sent - self._header_acknowledged > FLOOD_BYTES

    @property
    def has_bulk_room(self) -> bool:
        """Whether nothing waits in the bulk lane for room in its window."""
        return not self._bulk or self._bulk_ready()

    @property
    def has_output(self) -> bool:
        """Whether `next_message` would return one."""
        return bool(self._small) or self._bulk_ready() or self._report_due()

    @property
    def waiting_count(self) -> int:
        """Records and pieces of blobs in both lanes."""
        return len(self._small) + len(self._bulk)

    @property
    def is_drained(self) -> bool:
        """Whether nothing waits, the bulk lane included."""
        return not self._small and not self._bulk

    def next_message(self) -> Message | None:
        """The next message to send, or None when nothing can go out now.

        Raises Unsendable for a record that cannot be sent at all. It waits no longer: the next message is
        what comes after it, and its owner has to do without.
        """
        entries, small_count = self._choose()
        if not entries and not self._report_due():
            return None
        try:
            while (header := self._encode(entries)) is None:
                del entries[len(entries) // 2 :]  # the sizes were estimates, or one cannot be sent
        except Unsendable:
            self._take_out(1, small_count)
            raise
        self._take_out(len(entries), small_count)
        frames = [entry[1] for entry in entries if entry[1] is not None]
        for frame in frames:
            self._sent += len(frame)
        self._number += 1
        self._header_sent += len(header)
        self._reported = self._received
        self._header_reported = self._header_received
        return header, frames

    def _encode(self, entries: Sequence[_Entry]) -> bytes | None:
        records = [entry[0] for entry in entries]
        return encode_within_limit(self.epoch, self._number, self._received, records, self._header_received)

    def _take_out(self, count: int, small_count: int) -> None:
        """The first of what `_choose` has chosen wait no longer."""
        for _ in range(min(small_count, count)):
            self._small_bytes -= self._small.popleft()[2]
        for _ in range(count - small_count):
            self._ordered_in_bulk -= self._bulk.popleft()[3]

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
            _, frame, weight, _ = entry
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
        return (
            self._received - self._reported >= self.window_bytes // 4
            or self._header_received - self._header_reported >= self.room_bytes // 4
        )
