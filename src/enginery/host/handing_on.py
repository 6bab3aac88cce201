"""Blobs that this host is sent once, for all of its engines: written into shared memory as their pieces come.

The supervisor also explains deaths, so it writes a piece (a MiB at most) and looks around; nothing here takes
longer. Which blobs come, and when nobody needs them any more, is the controller's to say.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from enginery.errors import EngineryError
from enginery.host.files import connection_file
from enginery.ids import BlobId, HostKey
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import BlobDeclined, PutBlob, ShareBlob
from enginery.protocol.specs import HostSpec
from enginery.transport import sharing
from enginery.transport.connection_file import load
from enginery.transport.shared_memory import Draft, SharedDirectory
from enginery.transport.sharing import Sharing

log = logging.getLogger("enginery.host")


def begin_sharing(spec: HostSpec, host_key: HostKey) -> SharedDirectory | None:
    """Shared memory for this host and its engines, if they have none in common with the controller."""
    if spec.controller is not None:
        return None
    try:
        info = load(connection_file(spec))
    except (EngineryError, OSError):
        return None  # the supervisor will say so
    if info.shared_limit_bytes == 0 or sharing.is_shared(info.shared, info.host_proof):
        return None
    return sharing.begin_for_host(host_key)


class HandingOn:
    """What a supervisor was sent, and in which segments it is. Without a part in shared memory: nothing."""

    def __init__(self, pool: Sharing) -> None:
        self._pool = pool
        self._drafts: dict[BlobId, Draft] = {}

    def __repr__(self) -> str:
        return f"<HandingOn, {len(self._drafts)} blobs under way, {self._pool!r}>"

    @property
    def pool(self) -> str:
        """Its name, for the hello; empty if nothing can be handed on."""
        return self._pool.name

    def begin_anew(self) -> list[str]:
        """For the hello: what was under way comes from its beginning. Returns the segments that are lent."""
        self.on_dropped(list(self._drafts))
        return self._pool.lent()

    def on_piece(self, record: PutBlob, frame: Buffer) -> ShareBlob | BlobDeclined | None:
        """A piece of a blob; pieces come in order. Returns what is to be said of the blob, if anything."""
        if record.offset == 0:
            self.on_dropped((record.blob,))
            draft = self._pool.draft(record.size_bytes)
            if draft is None:
                return BlobDeclined(record.blob)
            self._drafts[record.blob] = draft
        draft = self._drafts.get(record.blob)
        if draft is None or (record.offset, record.size_bytes) != (draft.written_bytes, draft.size_bytes):
            return None  # the rest of one that was declined, or is not needed any more
        try:
            draft.add(memoryview(frame))
        except OSError as error:
            log.info("a blob of %d bytes is declined: %s", draft.size_bytes, error)
            self.on_dropped((record.blob,))
            return BlobDeclined(record.blob)
        if draft.written_bytes < draft.size_bytes:
            return None
        del self._drafts[record.blob]
        segment = draft.lend()
        if segment is None:
            return BlobDeclined(record.blob)
        return ShareBlob(record.blob, segment.size_bytes, record.keep, segment.name)

    def on_dropped(self, blobs: Iterable[BlobId]) -> None:
        """No more of these will come."""
        for blob in blobs:
            draft = self._drafts.pop(blob, None)
            if draft is not None:
                draft.give_up()

    def on_freed(self, segments: Iterable[str]) -> None:
        """No further engine will be told of these."""
        self._pool.release(segments)

    def close(self) -> None:
        """Give up what is under way. Repeating it does nothing."""
        self.on_dropped(list(self._drafts))
        self._pool.close()
