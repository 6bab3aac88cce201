"""Kept blobs in shared memory: copied once, however many calls name them.

The call that needs a blob first has it copied; those that come meanwhile wait for that copy instead of having
another one made. Where the copy lies is known until the writer hears that the segment is free.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from enginery.ids import BlobId

Item = TypeVar("Item")


class Copied(Protocol):
    """A blob, as far as this is concerned."""

    @property
    def blob_id(self) -> BlobId: ...
    @property
    def keep(self) -> bool: ...


AnyBlob = TypeVar("AnyBlob", bound=Copied)


class KeptCopies(Generic[Item]):
    """Items are whatever the caller keeps of a call."""

    def __init__(self) -> None:
        self.segments: dict[BlobId, str] = {}
        self._followers: dict[BlobId, list[Item]] = {}  # of each kept blob that is being copied
        self._open: dict[int, int] = {}  # by identity: copies that an item waits for, its own being one

    def __repr__(self) -> str:
        return f"<KeptCopies: {len(self.segments)} there, {len(self._followers)} under way>"

    def begin(self, item: Item, blobs: Iterable[AnyBlob]) -> list[AnyBlob]:
        """An item waits for these. Returns what is to be copied for it: all that nobody is copying."""
        own: list[AnyBlob] = []
        awaited = 0
        for blob in blobs:
            followers = self._followers.get(blob.blob_id) if blob.keep else None
            if followers is not None:
                followers.append(item)
                awaited += 1
                continue
            if blob.keep:
                self._followers[blob.blob_id] = []
            own.append(blob)
        self._open[id(item)] = awaited + bool(own)
        return own

    def is_followed(self, blob: BlobId) -> bool:
        """Whether the copy of a blob is waited for by others than the one that it is made for."""
        return bool(self._followers.get(blob))

    def end(self, item: Item, blobs: Sequence[Copied]) -> list[Item]:
        """What was copied for an item is there. Returns the items that wait for nothing any more."""
        waiting = [item]
        for blob in blobs:
            if blob.keep:
                waiting += self._followers.pop(blob.blob_id, ())
        ready = []
        for each in waiting:
            left = self._open.pop(id(each), 1) - 1  # it may have been forgotten meanwhile
            if left > 0:
                self._open[id(each)] = left
            else:
                ready.append(each)
        return ready

    def on_freed(self, segments: Collection[str]) -> None:
        """Nobody will be given these any more."""
        if self.segments:
            gone = frozenset(segments)
            self.segments = {blob: name for blob, name in self.segments.items() if name not in gone}

    def forget(self, blobs: Iterable[BlobId]) -> list[str]:
        """These are to be copied anew if they are needed. Returns where they were."""
        return [self.segments.pop(blob) for blob in blobs if blob in self.segments]

    def restart(self, told: Iterable[BlobId]) -> None:
        """Nothing is waited for any more; of those that the controller was told of, it decides."""
        self._followers.clear()
        self._open.clear()
        self.forget(told)
