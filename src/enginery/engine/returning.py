"""The big buffers of results, from the end of their task until the controller has them safe.

They are copied when the task ends, because the next one may change an array of the namespace: into shared
memory where there is some, else into memory of this process, from where they travel as frames.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import NamedTuple

from enginery.core.workload import Attempt
from enginery.ids import BlobId
from enginery.objects.packing import Packed
from enginery.protocol.codec import Buffer
from enginery.protocol.link import Link, cut_blob
from enginery.protocol.messages import EngineResult, ShareBlob
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


class UnstoredResults:
    """What results hold that the controller does not have safe. Used by the engine's main thread."""

    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing
        self._blobs: dict[Attempt, list[ResultBlob]] = {}
        self.size_bytes = 0
        """Of this process's memory; for shared memory its pool has a bound of its own."""

    def __repr__(self) -> str:
        return f"<UnstoredResults, {self.size_bytes} bytes>"

    def keep(self, attempt: Attempt, packed: Packed) -> tuple[BlobId, ...]:
        """A task has ended with this: copy its buffers as they are now. Returns their names."""
        self.size_bytes += len(packed.inline)
        if not packed.buffers:
            return ()
        blobs = self._blobs[attempt] = copy_buffers(packed.buffers, self._sharing)
        self.size_bytes += _own_bytes(blobs)
        return tuple(blob.blob_id for blob in blobs)

    def on_stored(self, result: EngineResult) -> None:
        blobs = self._blobs.pop((result.task, result.attempt), [])
        self.size_bytes -= len(result.payload) + _own_bytes(blobs)

    def put(self, result: EngineResult, link: Link) -> None:
        """Queue the buffers of a result for the controller."""
        for blob in self._blobs[result.task, result.attempt]:
            blob.put(link)

    def safely_lent(self) -> list[str]:
        """Segments that the controller has, and may have freed."""
        unsafe = {blob.segment for blobs in self._blobs.values() for blob in blobs}
        return [name for name in self._sharing.lent() if name not in unsafe]


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


def _own_bytes(blobs: Sequence[ResultBlob]) -> int:
    return sum(len(blob.data) for blob in blobs)
