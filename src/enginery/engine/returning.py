"""The big buffers of results, from the end of their task until the controller has them safe.

They are copied when the task ends, because the next one may change an array of the namespace: into shared
memory where there is some, else into memory of this process, from where they travel as frames.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import NamedTuple

from enginery.ids import BlobId
from enginery.protocol.codec import Buffer
from enginery.protocol.link import Link, cut_blob
from enginery.protocol.messages import ShareBlob
from enginery.transport.sharing import Sharing


class ResultBlob(NamedTuple):
    """One buffer of a result: its bytes, or the segment that they are in."""

    blob_id: BlobId
    size_bytes: int
    data: Buffer = b""
    segment: str = ""

    def put(self, link: Link) -> None:
        """Queue it for the controller."""
        if self.segment:
            link.put(ShareBlob(self.blob_id, self.size_bytes, False, self.segment))
        else:
            link.put_blob(cut_blob(self.blob_id, self.data, keep=False))


def copy_buffers(buffers: Sequence[memoryview], sharing: Sharing) -> list[ResultBlob]:
    """The buffers of a result as they are now."""
    blobs = []
    for buffer in buffers:
        blob_id = BlobId(secrets.token_bytes(16))
        segment = sharing.write(buffer)
        if segment is None:
            blobs.append(ResultBlob(blob_id, buffer.nbytes, bytes(buffer)))
        else:
            blobs.append(ResultBlob(blob_id, buffer.nbytes, segment=segment.name))
    return blobs


def held_bytes(blobs: Sequence[ResultBlob]) -> int:
    """What these take of this process's memory; for shared memory its pool has a bound of its own."""
    return sum(len(blob.data) for blob in blobs)
