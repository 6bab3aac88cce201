"""A call on its way from a client to the controller, with the buffers that travel apart from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from enginery.ids import BlobId
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import Call, TaskOptions

Promise = TypeVar("Promise")


class Blob(NamedTuple):
    """A buffer that travels apart from the record that names it."""

    blob_id: BlobId
    data: Buffer
    keep: bool
    segment: str = ""  # of shared memory, where it has been copied

    @property
    def size_bytes(self) -> int:
        return memoryview(self.data).nbytes


class Submission(Generic[Promise]):
    """One call: as many tasks as engines it names, one if balanced."""

    __slots__ = (
        "accepted",
        "asked_for",
        "blobs",
        "call",
        "copied",
        "copying",
        "has_left",
        "open",
        "options",
        "promises",
        "sent",
        "size_bytes",
        "submitter",
    )

    def __init__(
        self,
        options: TaskOptions,
        call: Call,
        blobs: Sequence[Blob],
        promises: Sequence[Promise],
        size_bytes: int,
        submitter: int = 0,
    ) -> None:
        self.options = options
        self.call = call
        self.blobs: Sequence[Blob] = blobs
        self.promises = promises
        self.size_bytes = size_bytes
        self.submitter = submitter  # who made it, if anybody may ask for what is his; else 0
        self.open = len(promises)  # tasks that have not ended
        self.sent = False  # or about to be: it counts against the credit
        self.has_left = False  # at some time, on some connection
        self.copying = False  # but its buffers, or those of a call before it, are being copied
        self.copied = False  # as far as there was room
        self.accepted = False
        self.asked_for = False  # the controller waits for it, and others with it: it comes in any case

    @property
    def numbers(self) -> range:
        """Of its tasks."""
        return range(self.call.number, self.call.number + len(self.promises))


class Copies(NamedTuple):
    """Buffers of one call that are to be copied into shared memory."""

    call: Any
    blobs: list[Blob]

    @property
    def size_bytes(self) -> int:
        return sum(blob.size_bytes for blob in self.blobs)
