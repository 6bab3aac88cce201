"""What has to go from a cache of blobs that is above its limit."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import islice

from enginery.ids import BlobId


def oldest_beyond(
    blobs: Collection[BlobId],
    excess_bytes: int,
    *,
    size_of: Callable[[BlobId], int],
    is_safe: Callable[[BlobId, int], bool],
) -> list[BlobId]:
    """The oldest of these, which come first, that have to go for so many bytes to be free.

    The newest stays whatever its size, and so do those that are safe at the excess there is left. No more are
    looked at than it takes.
    """
    gone: list[BlobId] = []
    for blob in islice(blobs, max(len(blobs) - 1, 0)):
        if excess_bytes <= 0:
            break
        if not is_safe(blob, excess_bytes):
            gone.append(blob)
            excess_bytes -= size_of(blob)
    return gone
