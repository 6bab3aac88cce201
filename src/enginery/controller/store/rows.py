"""What a history store answers with: a task, and one life of an engine."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from enginery.ids import BlobId, ClientId, EngineId, EngineKey, HostKey, TaskId, task_client, task_number
from enginery.protocol.history import Published, TaskAccepted
from enginery.protocol.messages import Kind, Status


class TaskRow(msgspec.Struct, kw_only=True):
    """What is known of one task. Times are seconds since the epoch, 0 = never."""

    task: TaskId
    first: TaskId  # of the tasks of one call, as its user knows it
    kind: Kind
    name: str
    label: str
    status: Status | None = None  # None = has not ended
    engine: EngineId  # where it ran; before its end the engine it is addressed to
    engine_key: str = ""  # the life of that engine
    direct: bool = False  # addressed to an engine
    submitted: float
    started: float = 0.0
    completed: float = 0.0
    delivered: bool = False  # its client has acknowledged the result
    payload_bytes: int = 0  # kept of an ended task, see `without_payloads`; 0 while it is owed
    buffer_bytes: int = 0  # of its result's large buffers, as far as they are kept
    owed: bool = False  # it is kept whatever the limits say
    detail: str = ""
    stdout: str = ""
    stderr: str = ""
    blobs: tuple[BlobId, ...] = ()  # of the result
    published: Published = msgspec.field(default_factory=Published)  # displays too
    call: TaskAccepted | None = None  # None = dropped, or not asked for
    payload: bytes | None = None  # None = has not ended, dropped, or not asked for

    @property
    def client(self) -> ClientId:
        return task_client(self.task)

    @property
    def number(self) -> int:
        return task_number(self.task)

    def without_payloads(self) -> TaskRow:
        """A copy that lacks all that a task's payloads are."""
        return msgspec.structs.replace(
            self, stdout="", stderr="", blobs=(), published=Published(), call=None, payload=None
        )


class EngineRow(msgspec.Struct, kw_only=True):
    """One life of an engine. Times are seconds since the epoch, 0 = never."""

    key: EngineKey
    engine: EngineId
    host: str = ""
    pid: int = 0
    joined: float = 0.0
    left: float = 0.0
    cause: str = ""
    secret: bytes = b""
    host_key: HostKey = HostKey("")


class Place(NamedTuple):
    """Where an unfinished task was last known to be: in this life of an engine, or (no key) in none."""

    task: TaskId
    engine_key: EngineKey
    attempt: int
    retries_left: int
