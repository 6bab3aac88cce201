"""What a scripted task does, as its payload says it, and what must come back."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from enginery.ids import BlobId, EngineKey, TaskId
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import PutBlob


class Deed(msgspec.Struct, frozen=True):
    """The payload of a scripted task."""

    value: str = ""
    duration_s: float = 0.01
    raises: int = 0  # this many of its runs raise
    result_bytes: int = 0  # of a blob that travels with the result

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, payload: bytes) -> Deed:
        return msgspec.msgpack.decode(payload, type=cls)

    def answer(self, arguments: Iterable[Buffer] = ()) -> bytes:
        """The result's payload: the value, and a digest of the blobs that the task was given."""
        digest = hashlib.blake2b(digest_size=4)
        for argument in arguments:
            digest.update(argument)
        return f"{self.value}:{digest.hexdigest()}".encode()

    def blob(self) -> bytes:
        """What the result's blob holds."""
        return (self.value.encode() or b".") * (self.result_bytes // max(len(self.value.encode()), 1))


def function_blob(name: str) -> tuple[BlobId, bytes]:
    """A function of this name, content-addressed as real ones are."""
    data = f"def {name}(): ...".encode()
    return BlobId(hashlib.blake2b(data, digest_size=16).digest()), data


class Run(NamedTuple):
    """One time that an engine began a task."""

    at: float
    engine: EngineKey
    attempt: int


class RunLog:
    """Everything that engines began, for proofs that nothing ran twice. Shared by the engines of a test."""

    def __init__(self) -> None:
        self.runs: defaultdict[TaskId, list[Run]] = defaultdict(list)

    def __repr__(self) -> str:
        return f"<RunLog of {len(self.runs)} tasks>"

    def on_start(self, task: TaskId, run: Run) -> int:
        """Returns how often the task has begun, this time included."""
        self.runs[task].append(run)
        return len(self.runs[task])


class Assembly:
    """Puts the pieces of blobs together. Pieces come in order; one from the start begins the blob anew."""

    def __init__(self) -> None:
        self.complete: dict[BlobId, bytes] = {}
        self._parts: dict[BlobId, bytearray] = {}

    def __repr__(self) -> str:
        return f"<Assembly of {len(self.complete)} blobs and {len(self._parts)} parts>"

    def on_piece(self, piece: PutBlob, frame: Buffer) -> None:
        if piece.offset == 0:
            self._parts[piece.blob] = bytearray()
        part = self._parts.get(piece.blob)
        if part is None or len(part) != piece.offset:
            raise AssertionError(f"a piece at {piece.offset} of a blob that was not begun or has a hole")
        part += frame
        if len(part) == piece.size_bytes:
            self.complete[piece.blob] = bytes(self._parts.pop(piece.blob))

    def missing(self, blobs: Sequence[BlobId]) -> list[BlobId]:
        return [blob for blob in blobs if blob not in self.complete]

    def drop(self, blobs: Iterable[BlobId]) -> None:
        for blob in blobs:
            self.complete.pop(blob, None)

    def begin_epoch(self) -> None:
        """What came in part will come again from its start."""
        self._parts.clear()
