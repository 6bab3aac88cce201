"""What a scripted task does, as its payload says it, and what must come back."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from enginery.ids import BlobId, EngineId, EngineKey, TaskId, content_id
from enginery.protocol.codec import Buffer


class Deed(msgspec.Struct, frozen=True):
    """The payload of a scripted task."""

    value: str = ""
    duration_s: float = 0.01
    raises: int = 0  # this many of its runs raise
    result_bytes: int = 0  # of a blob that travels with the result
    unmet: tuple[EngineId, ...] = ()  # engines that refuse it
    manner: str = (
        ""  # of a cancel: "" = it ends, "deaf" = it keeps the whole engine busy, "stubborn" = it goes on
    )
    cleanup_s: float = 0.0  # how long it takes to end

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
    return content_id([data]), data


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
