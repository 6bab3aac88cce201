"""Which blobs the controller holds, for whom, and which engine knows them already.

A blob is a list of frames, passed on as it came and never joined here, or lies in a *segment* of shared
memory that its source has written. It may have *copies*, in segments of other hosts. It is held while an
unfinished task or an undelivered result names it. Content-addressed ones (`keep`) stay afterwards, least
recently used first out, within `kept_limit_bytes`; the others go with their last holder. `EndedBlobs` is the
last of these: it holds what ended tasks had, so that their results and calls can be asked for.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Container, Hashable, Iterable

from enginery.ids import BlobId, EngineId, TaskId, content_id
from enginery.protocol.codec import Buffer
from enginery.protocol.eviction import oldest_beyond
from enginery.protocol.link import cut_blob
from enginery.protocol.messages import PutBlob, ShareBlob

KEPT_LIMIT_BYTES = 256 << 20
UNNAMED_FACTOR = 8
"""Kept blobs that no record has named yet may be so many times more than those that one has."""
ENDED_LIMIT_BYTES = 64 << 20
ENDED_LIMIT_TASKS = 10_000

Pieces = list[tuple[PutBlob, Buffer]]


class _Blob:
    __slots__ = (
        "arrived_bytes", "copies", "holders", "is_named", "keep", "known_to", "pieces", "segment",
        "size_bytes", "source",
    )  # fmt: skip

    def __init__(self, size_bytes: int, keep: bool, source: Hashable, segment: str = "") -> None:
        self.source = source
        self.segment = segment
        self.size_bytes = size_bytes
        self.keep = keep
        self.arrived_bytes = 0
        self.pieces: Pieces = []
        self.holders = 0
        self.is_named = False  # by a record; until then the record is on its way, and it must stay
        self.copies: dict[Hashable, str] = {}  # segments of other hosts, by these
        self.known_to: set[EngineId] = set()


class BlobTable:
    """All blobs in the controller."""

    def __init__(self, *, kept_limit_bytes: int = KEPT_LIMIT_BYTES) -> None:
        self._kept_limit_bytes = kept_limit_bytes
        self._blobs: dict[BlobId, _Blob] = {}
        self._idle: OrderedDict[BlobId, None] = OrderedDict()  # complete, nobody holds them
        self._idle_bytes = 0
        self._known: dict[EngineId, set[BlobId]] = {}  # and of each blob `known_to`, the other way round
        self.total_bytes = 0
        self._dropped: list[BlobId] = []  # that the store knows and are gone since the last `take_dropped`
        self._settled: list[BlobId] = []  # complete ones that the store may have to know
        self.placed: set[BlobId] = set()
        """Those of which the store knows where they are."""
        self._unnamed: Counter[Hashable] = Counter()  # bytes that no record has named yet, by their sources
        self._segments: dict[str, BlobId] = {}
        self._freed: dict[Hashable, list[str]] = {}  # segments that nobody needs any more, by their writers

    def __len__(self) -> int:
        return len(self._blobs)

    def __contains__(self, blob_id: BlobId) -> bool:
        """Whether it is here, as far as it has come."""
        return blob_id in self._blobs

    def __repr__(self) -> str:
        return f"<BlobTable of {len(self)} blobs, {self.total_bytes} bytes, {len(self._idle)} idle>"

    def on_piece(self, record: PutBlob, frame: Buffer, source: Hashable) -> bool:
        """A piece has arrived from a peer. They come in order; one from the start begins the blob anew.

        Returns whether the blob is complete now and was not before. A kept blob must be what its id says,
        because others will be given it under that id.
        """
        blob = self._blobs.get(record.blob)
        if blob is not None and _is_whole(blob):
            return False  # already here: sent again after a new hello
        if blob is None or record.offset == 0:
            blob = self._begin(record.blob, _Blob(record.size_bytes, record.keep, source))
        if record.offset != blob.arrived_bytes or record.size_bytes != blob.size_bytes:
            return False  # the rest of something that was begun anew
        blob.pieces.append((record, frame))
        self._arrive(blob, len(frame))
        if blob.arrived_bytes < blob.size_bytes:
            return False
        if blob.keep and content_id(piece for _, piece in blob.pieces) != record.blob:
            self._forget(record.blob)
            return False
        self._settle(record.blob, blob)
        return True

    def on_shared(self, record: ShareBlob, source: Hashable) -> bool:
        """A whole blob lies in a segment of this peer's. Returns whether it was not here before."""
        blob = self._blobs.get(record.blob)
        if blob is not None and _is_whole(blob):
            if blob.segment != record.segment:
                self._free(source, record.segment)
            return False
        if record.segment in self._segments:
            return False  # a defect of its writer, or worse: one segment holds one blob
        blob = self._begin(record.blob, _Blob(record.size_bytes, record.keep, source, record.segment))
        self._arrive(blob, record.size_bytes)
        self._segments[record.segment] = record.blob
        self._settle(record.blob, blob)
        return True

    def on_restored(self, blob_id: BlobId, data: Buffer) -> None:
        """A whole blob comes from elsewhere than a peer, and whoever names it is to hold it at once."""
        blob = self._begin(blob_id, _Blob(memoryview(data).nbytes, False, None))
        blob.pieces = cut_blob(blob_id, data, keep=False)
        self._arrive(blob, blob.size_bytes)

    def on_kept(self, blob_id: BlobId, data: bytes) -> None:
        """A kept blob comes from the history: it may be named again."""
        blob = _Blob(len(data), True, None)
        blob.is_named = True
        blob.pieces = cut_blob(blob_id, data, keep=True)
        self._begin(blob_id, blob)
        self._arrive(blob, blob.size_bytes)
        self._settle(blob_id, blob)

    def hold_lost(self, blobs: Iterable[BlobId]) -> None:
        """Hold these for a task of a former life. Those that are not here count as lost."""
        for blob_id in blobs:
            if blob_id not in self._blobs:
                self._begin(blob_id, _Blob(1, False, None))
        self.hold(blobs)

    def _begin(self, blob_id: BlobId, blob: _Blob) -> _Blob:
        """It comes, perhaps anew: who holds it goes on doing so."""
        before = self._blobs.get(blob_id)
        if before is not None:
            self._arrive(before, -before.arrived_bytes)
            blob.holders, blob.copies, blob.known_to = before.holders, before.copies, before.known_to
        self._blobs[blob_id] = blob
        return blob

    def on_declined(self, record: ShareBlob, source: Hashable) -> None:
        """What a peer has shared is not what it says: it can have it back."""
        self._free(source, record.segment)

    def take_settled(self, ended: EndedBlobs) -> list[BlobId]:
        """Blobs that have come since this was asked last, and that others need than tasks that have ended."""
        needed = []
        unnamed = []
        for blob_id in self._settled:
            blob = self._blobs.get(blob_id)
            if blob is None or blob_id in self.placed or not _is_whole(blob):
                continue
            if not blob.is_named:
                unnamed.append(blob_id)
            elif blob.holders > ended.users(blob_id):
                needed.append(blob_id)
        self._settled = unnamed
        return needed

    def _settle(self, blob_id: BlobId, blob: _Blob) -> None:
        if not blob.keep or blob.segment:
            self._settled.append(blob_id)
        # One that is not kept waits for the record that names it, as long as its sender is there.
        if blob.keep and not blob.holders:
            self._idle[blob_id] = None
            self._idle_bytes += blob.size_bytes
            self._shrink()

    def on_source_gone(self, source: Hashable) -> None:
        """A peer has left: what it had sent in part, or for a call that never came, is of no use."""
        for blob_id in self._unclaimed(source):
            self._forget(blob_id)
        for blob in self._blobs.values():
            if blob.source == source:  # its calls do not come any more
                self._name(blob)
        self._shrink()

    def on_source_returned(self, source: Hashable) -> None:
        """A peer has said hello: what no record of its has named yet it says again, if it still means it.

        Its segments are its own again: it names them, or uses them for something else.
        """
        for blob_id in self._unclaimed(source):
            self._forget(blob_id, and_free=False)

    def on_lost(self, blob_id: BlobId) -> None:
        """Its segment is there no more, or cannot be read: it is missing now, whoever holds it."""
        blob = self._blobs[blob_id]
        del self._segments[blob.segment]
        self._free(blob.source, blob.segment)
        self._arrive(blob, -blob.arrived_bytes)
        blob.segment = ""
        if blob_id in self._idle:
            self._forget(blob_id)

    def _unclaimed(self, source: Hashable) -> list[BlobId]:
        return [
            blob_id
            for blob_id, blob in self._blobs.items()
            if blob.source == source and not blob.holders and not (blob.keep and _is_whole(blob))
        ]

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

    def unkept_bytes(self, blobs: Iterable[BlobId]) -> int:
        """Of those of them that go with their last holder."""
        return sum(self._blobs[blob].size_bytes for blob in blobs if not self._blobs[blob].keep)

    def hold(self, blobs: Iterable[BlobId]) -> None:
        for blob_id in blobs:
            blob = self._blobs[blob_id]
            blob.holders += 1
            self._name(blob)
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
        """Its frames; none if it lies in a segment."""
        return self._blobs[blob].pieces

    def shared(self, blob_id: BlobId) -> ShareBlob | None:
        """How to name it to a peer of this host; None if it came as frames."""
        blob = self._blobs[blob_id]
        return ShareBlob(blob_id, blob.size_bytes, blob.keep, blob.segment) if blob.segment else None

    @property
    def needed_segments(self) -> Container[str]:
        """Those in which blobs lie."""
        return self._segments

    def segments_of(self, pool: str) -> set[str]:
        """The segments of a pool that are needed."""
        return {segment for segment in self._segments if segment.startswith(f"{pool}/")}

    @property
    def has_freed(self) -> bool:
        return bool(self._freed)

    def take_freed(self) -> dict[Hashable, list[str]]:
        """Segments that nobody will be given any more, by their writers, since this was asked last."""
        freed, self._freed = self._freed, {}
        return freed

    def data(self, blob: BlobId) -> bytes:
        """The whole blob, joined; for small ones that the store keeps."""
        return b"".join(bytes(frame) for _, frame in self._blobs[blob].pieces)

    def take_dropped(self) -> list[BlobId]:
        """Blobs that are gone since this was asked last: the store may forget them too."""
        dropped, self._dropped = self._dropped, []
        return dropped

    # ------------------------------------------------------------ copies on other hosts

    def on_copied(self, blob_id: BlobId, host: Hashable, segment: str) -> None:
        """A blob that is here has been copied into a segment of that host, which gets it back in time."""
        self._blobs[blob_id].copies[host] = segment

    def copied(self, blob_id: BlobId, segment: str) -> ShareBlob:
        """How to name a copy of it to an engine of that host."""
        blob = self._blobs[blob_id]
        return ShareBlob(blob_id, blob.size_bytes, blob.keep, segment)

    def copy_at(self, blob_id: BlobId, host: Hashable) -> str:
        """The segment of that host that a blob has been copied into; empty if there is none."""
        return self._blobs[blob_id].copies.get(host, "")

    def copies_at(self, host: Hashable) -> set[str]:
        """The segments of that host that are needed."""
        return {blob.copies[host] for blob in self._blobs.values() if host in blob.copies}

    def on_host_gone(self, host: Hashable) -> None:
        """Its segments went with it."""
        for blob in self._blobs.values():
            blob.copies.pop(host, None)

    def is_for_many(self, blob_id: BlobId) -> bool:
        """Whether several tasks need it, or may."""
        blob = self._blobs[blob_id]
        return blob.keep or blob.holders > 1

    # ------------------------------------------------------------ what engines know

    def on_engine_hello(self, engine: EngineId) -> None:
        """What it knows is unknown again: it may be another process, or may have lost what was under way."""
        self.on_engine_gone(engine)
        self._known[engine] = set()

    def on_engine_gone(self, engine: EngineId) -> None:
        for blob in self._known.pop(engine, ()):
            self._blobs[blob].known_to.discard(engine)

    def on_forgotten(self, engine: EngineId, blobs: Iterable[BlobId]) -> None:
        known = self._known[engine]
        for blob in known.intersection(blobs):
            known.discard(blob)
            self._blobs[blob].known_to.discard(engine)

    def on_engine_freed(self, engine: EngineId) -> None:
        """It has forgotten all kept blobs."""
        if engine in self._known:
            self.on_forgotten(engine, [blob for blob in self._known[engine] if self._blobs[blob].keep])

    def knows(self, engine: EngineId, blob: BlobId) -> bool:
        """Whether this engine has been sent it."""
        return blob in self._known[engine]

    def to_send(self, engine: EngineId, blobs: Iterable[BlobId]) -> list[BlobId]:
        """Those that this engine has not been sent yet; from now on it counts as knowing them."""
        known = self._known[engine]
        wanted = [blob for blob in blobs if blob not in known]
        known.update(wanted)
        for blob in wanted:
            self._blobs[blob].known_to.add(engine)
        return wanted

    def to_drop(self, engine: EngineId, blobs: Iterable[BlobId]) -> list[BlobId]:
        """Those that were sent to it for one task only; from now on it counts as not knowing them."""
        known = self._known.get(engine)
        if known is None:
            return []
        gone = [blob for blob in blobs if blob in known and not self._blobs[blob].keep]
        self.on_forgotten(engine, gone)
        return gone

    def free(self) -> None:
        """Forget the kept blobs that nothing holds."""
        for blob in list(self._idle):
            self._forget(blob)

    def unnamed_bytes(self, source: Hashable) -> int:
        """What has come from a peer, and no record of its has named yet."""
        return self._unnamed[source]

    # ------------------------------------------------------------ inside

    def _arrive(self, blob: _Blob, size_bytes: int) -> None:
        blob.arrived_bytes += size_bytes
        self.total_bytes += size_bytes
        if not blob.is_named:
            self._count_unnamed(blob.source, size_bytes)

    def _name(self, blob: _Blob) -> None:
        if not blob.is_named:
            blob.is_named = True
            self._count_unnamed(blob.source, -blob.arrived_bytes)

    def _count_unnamed(self, source: Hashable, size_bytes: int) -> None:
        self._unnamed[source] += size_bytes
        if not self._unnamed[source]:
            del self._unnamed[source]

    def _forget(self, blob_id: BlobId, *, and_free: bool = True) -> None:
        blob = self._blobs.pop(blob_id)
        self._arrive(blob, -blob.arrived_bytes)
        if blob.segment:
            del self._segments[blob.segment]
            if and_free:
                self._free(blob.source, blob.segment)
        for host, segment in blob.copies.items():
            self._free(host, segment)
        if blob_id in self._idle:
            del self._idle[blob_id]
            self._idle_bytes -= blob.size_bytes
        if blob.keep or blob_id in self.placed:
            self.placed.discard(blob_id)
            self._dropped.append(blob_id)
        for engine in blob.known_to:
            self._known[engine].discard(blob_id)

    def _free(self, source: Hashable, segment: str) -> None:
        self._freed.setdefault(source, []).append(segment)

    def _shrink(self) -> None:
        excess_bytes = self._idle_bytes - self._kept_limit_bytes
        if excess_bytes <= 0:
            return
        # A call may need several that are together above the limit: what nobody has named yet is safe until
        # it has come, within reason.
        unnamed_bytes = self._kept_limit_bytes * (UNNAMED_FACTOR - 1)
        for blob_id in oldest_beyond(
            self._idle,
            excess_bytes,
            size_of=lambda blob_id: self._blobs[blob_id].size_bytes,
            is_safe=lambda blob_id, excess: excess <= unnamed_bytes and not self._blobs[blob_id].is_named,
        ):
            self._forget(blob_id)

    def check(self) -> None:
        assert self.total_bytes == sum(blob.arrived_bytes for blob in self._blobs.values())
        assert self._idle_bytes == sum(self._blobs[blob].size_bytes for blob in self._idle)
        evictable = [blob for blob in list(self._idle)[:-1] if self._blobs[blob].is_named]
        assert self._idle_bytes <= self._kept_limit_bytes or not evictable
        for blob_id, blob in self._blobs.items():
            idle = blob_id in self._idle
            assert idle <= (not blob.holders), blob_id
            assert not (blob.segment and blob.pieces), blob_id
            assert all(blob_id in self._known[engine] for engine in blob.known_to), blob_id
        for engine, known in self._known.items():
            assert all(engine in self._blobs[blob_id].known_to for blob_id in known), engine
        unnamed: Counter[Hashable] = Counter()
        for blob in self._blobs.values():
            unnamed[blob.source] += 0 if blob.is_named else blob.arrived_bytes
        assert self._unnamed == +unnamed
        in_segments = {blob.segment: blob_id for blob_id, blob in self._blobs.items() if blob.segment}
        assert self._segments == in_segments


def _is_whole(blob: _Blob) -> bool:
    return blob.arrived_bytes == blob.size_bytes and (bool(blob.pieces) or bool(blob.segment))


class EndedBlobs:
    """The blobs of calls and results of the tasks that have ended last, within both limits."""

    def __init__(
        self,
        table: BlobTable,
        *,
        limit_bytes: int = ENDED_LIMIT_BYTES,
        limit_tasks: int = ENDED_LIMIT_TASKS,
    ) -> None:
        self._table = table
        self._limit_bytes = limit_bytes
        self._limit_tasks = limit_tasks
        self._blobs: dict[TaskId, tuple[BlobId, ...]] = {}  # the task that ended first comes first
        self._users: dict[BlobId, int] = {}  # tasks that name it: a call to many engines is many tasks
        self.total_bytes = 0

    def __len__(self) -> int:
        return len(self._blobs)

    def __repr__(self) -> str:
        return f"<EndedBlobs of {len(self)} tasks, {self.total_bytes} bytes>"

    def users(self, blob: BlobId) -> int:
        """How often it is held here."""
        return self._users.get(blob, 0)

    def on_ended(self, task: TaskId, blobs: tuple[BlobId, ...]) -> None:
        """A task has ended whose call and result name these."""
        self._table.hold(blobs)
        self._blobs[task] = blobs
        for blob in blobs:
            users = self._users.get(blob, 0)
            self._users[blob] = users + 1
            if not users:
                self.total_bytes += self._table.size_bytes((blob,))
        while self.total_bytes > self._limit_bytes or len(self._blobs) > self._limit_tasks:
            self.forget((next(iter(self._blobs)),))

    def forget(self, tasks: Iterable[TaskId]) -> None:
        """Let go of what these had."""
        for task in tasks:
            blobs = self._blobs.pop(task, ())
            for blob in blobs:
                self._users[blob] -= 1
                if not self._users[blob]:
                    del self._users[blob]
                    self.total_bytes -= self._table.size_bytes((blob,))
            self._table.release(blobs)

    def clear(self) -> None:
        self.forget(list(self._blobs))

    def check(self) -> None:
        assert self._users.keys() == {blob for blobs in self._blobs.values() for blob in blobs}
        assert self.total_bytes == self._table.size_bytes(self._users)
        assert self.total_bytes <= self._limit_bytes
        assert len(self._blobs) <= self._limit_tasks
