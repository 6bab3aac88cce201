"""Functions that have been built on the engine, the most recently used ones.

Bounded in number and in bytes: a function may have arrays in its defaults or its closure, which lie in its
blob. One whose arrays may be changed is another function than the one whose arrays may not.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

from enginery.engine.user_code import call
from enginery.ids import BlobId
from enginery.objects.functions import BuiltFunction, build
from enginery.protocol.codec import Buffer

FUNCTIONS_KEPT = 1024
KEPT_BYTES = 256 << 20

Key = tuple[BlobId, bool]


class _Kept(NamedTuple):
    built: BuiltFunction
    data: Buffer

    @property
    def size_bytes(self) -> int:
        return memoryview(self.data).nbytes


class FunctionTable:
    """Used by the thread that runs tasks; any thread may ask for its size."""

    def __init__(self, namespace: dict[str, Any], *, kept_bytes: int = KEPT_BYTES) -> None:
        self._namespace = namespace
        self._kept_bytes = kept_bytes
        self._functions: OrderedDict[Key, _Kept] = OrderedDict()
        self.total_bytes = 0

    def __len__(self) -> int:
        return len(self._functions)

    def __repr__(self) -> str:
        return f"<FunctionTable of {len(self)}, {self.total_bytes} bytes>"

    def data(self, function: BlobId) -> Buffer | None:
        """The blob of a function that is here: a task that waits holds on to it."""
        kept = self._functions.get((function, False)) or self._functions.get((function, True))
        return None if kept is None else kept.data

    def get(self, function: BlobId, data: Buffer | None, *, writeable: bool) -> BuiltFunction:
        """The function, built of its blob the first time; raises LookupError if neither is here."""
        key = function, writeable
        kept = self._functions.get(key)
        if kept is not None:
            self._functions.move_to_end(key)
            return kept.built
        if data is None:
            raise LookupError("the function of this task is not on the engine")
        kept = self._functions[key] = _Kept(call(build, (data, self._namespace)), data)
        self.total_bytes += kept.size_bytes
        while len(self) > FUNCTIONS_KEPT or (self.total_bytes > self._kept_bytes and len(self) > 1):
            _, gone = self._functions.popitem(last=False)
            self.total_bytes -= gone.size_bytes
        return kept.built

    def clear(self) -> None:
        self._functions.clear()
        self.total_bytes = 0
