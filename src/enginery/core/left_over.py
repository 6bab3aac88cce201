"""What a controller that has ended has left in the history, for the next one to go on with."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from enginery.ids import BlobId, ClientId, EngineId, EngineKey, HostKey, TaskId
from enginery.protocol.codec import Buffer
from enginery.protocol.history import BlobKept, BlobPlaced, TaskAccepted
from enginery.protocol.messages import EngineInfo, Ranges


class FormerTask(NamedTuple):
    """A task that has not ended, and where it was."""

    call: TaskAccepted
    engine_key: EngineKey = EngineKey("")  # of the engine that had it; empty = none, or not known
    attempt: int = 1
    retries_left: int | None = None  # None = all


class FormerEngine(NamedTuple):
    """An engine that had not left."""

    info: EngineInfo
    secret: bytes
    host_key: HostKey


class Undelivered(NamedTuple):
    """A result that its client may not have."""

    task: TaskId
    size_bytes: int
    blobs: tuple[BlobId, ...]


class FormerClient(NamedTuple):
    """A client that had not left."""

    client: ClientId
    secret: bytes
    accepted: Ranges  # the numbers of its tasks
    undelivered: list[Undelivered]


class LeftOver(NamedTuple):
    """All of it. Tasks are in the order in which they came."""

    tasks: list[FormerTask] = []  # noqa: RUF012 - never changed
    engines: list[FormerEngine] = []  # noqa: RUF012
    clients: list[FormerClient] = []  # noqa: RUF012
    blobs: list[BlobKept] = []  # noqa: RUF012
    places: list[BlobPlaced] = []  # noqa: RUF012 - of further blobs
    read_buffer: Callable[[BlobId], Buffer | None] = lambda _: None
    """Of a blob that is among the history's buffers."""
    gone_engines: list[tuple[EngineId, str]] = []  # noqa: RUF012 - ids that were given, and the cause
    gone_clients: list[ClientId] = []  # noqa: RUF012
    ended: dict[EngineKey, list[TaskId] | None] = {}  # noqa: RUF012
    """Of the engines those that are dead, and what they had begun; None = that cannot be read."""
