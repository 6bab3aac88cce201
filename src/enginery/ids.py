"""Identities, as distinct types.

A task id is one 64-bit integer: the client's 31-bit random id above a 32-bit running number. It is
unique without anybody handing numbers out, sorts by submission within a client, and is a small key in
every table and in the store. Users see it as text, ``"3fa9c01b-17"``.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from hashlib import blake2b
from typing import NewType

ClientId = NewType("ClientId", int)
"""Chosen at random by the client, 31 bits; the controller refuses one that somebody else holds."""

TaskId = NewType("TaskId", int)
"""``client_id << 32 | number``."""

EngineId = NewType("EngineId", int)
"""Small integer, 0, 1, 2, …: what users index a client with. Assigned by the controller."""

EngineKey = NewType("EngineKey", str)
"""One incarnation of an engine process: 16 hex digits, made by whoever starts the process."""

HostKey = NewType("HostKey", str)
"""One supervisor process: 16 hex digits."""

BlobId = NewType("BlobId", bytes)
"""16 bytes: a content hash (functions, constants) or a random number (buffers sent once)."""


def content_id(pieces: Iterable[bytes | bytearray | memoryview]) -> BlobId:
    """The id of a kept blob: a hash of its bytes, in pieces of any size."""
    digest = blake2b(digest_size=16)
    for piece in pieces:
        digest.update(piece)
    return BlobId(digest.digest())


NO_ENGINE = EngineId(-1)
NO_TASK = TaskId(0)

_NUMBER_BITS = 32
_NUMBER_MASK = (1 << _NUMBER_BITS) - 1
_TASK_ID = re.compile(r"[0-7][0-9a-fA-F]{7}-[0-9]{1,10}")


def new_client_id() -> ClientId:
    return ClientId(1 + secrets.randbelow((1 << 31) - 1))  # 0 is the cluster itself


def new_key() -> str:
    """A fresh 16-digit key for an `EngineKey` or a `HostKey`."""
    return secrets.token_hex(8)


def make_task_id(client: ClientId, number: int) -> TaskId:
    return TaskId(client << _NUMBER_BITS | number)


def task_client(task_id: TaskId) -> ClientId:
    return ClientId(task_id >> _NUMBER_BITS)


def task_number(task_id: TaskId) -> int:
    return task_id & _NUMBER_MASK


def client_pool(client: ClientId) -> str:
    """What a client's pool of shared memory is called: nobody can pass for the owner of another's."""
    return f"client-{client:08x}"


def engine_pool(key: EngineKey) -> str:
    """What an engine's pool of shared memory is called."""
    return f"engine-{key}"


def host_pool(key: HostKey) -> str:
    """What a supervisor's pool of shared memory is called."""
    return f"host-{key}"


def format_task_id(task_id: TaskId) -> str:
    """The id as users see it.

    >>> format_task_id(make_task_id(ClientId(0x3fa9c01b), 17))
    '3fa9c01b-17'
    """
    return f"{task_id >> _NUMBER_BITS:08x}-{task_id & _NUMBER_MASK}"


def is_task_id(text: str) -> bool:
    """Whether this is a task id as users see it.

    >>> is_task_id("3fa9c01b-17"), is_task_id("night run")
    (True, False)
    """
    return bool(_TASK_ID.fullmatch(text))


def parse_task_id(text: str) -> TaskId:
    """The inverse of `format_task_id`; raises ValueError on anything else."""
    client, _, number = text.partition("-")
    # A larger number is another client's, and a larger client none at all.
    if _TASK_ID.fullmatch(text) and int(number) <= _NUMBER_MASK:
        return make_task_id(ClientId(int(client, 16)), int(number))
    raise ValueError(f"{text!r} is not a task id; task ids look like '3fa9c01b-17'")
