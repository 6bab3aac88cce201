"""Calls, made ready to be sent: options, payload, blobs.

What is in a payload, by kind; an engine's runner reads it and answers likewise. `pack` is
`enginery.objects.packing`.

========= ====================================== ==========================================================
kind      payload                                payload of the result
========= ====================================== ==========================================================
CALL      ``pack((args, kwargs))``               ``pack(value)``
MAP       ``pack(columns)``: a tuple of equally  ``pack((values, failures))``: `values` has None where a row
          long sequences, one per argument; the  failed, `failures` is a list of ``(row, inline, *buffers)``
          engine calls ``f(*row)`` for each row  of what `pack_failure` made
EXECUTE   ``pack((source, filename, silent,      ``pack(None)``; of a text that is not silent ``pack({…})`` of
          cell))``: `cell` names where the text  `execution_count`, `data` and `metadata`: what its last line
          comes from, see `cells`; may be empty  is worth, by MIME type
PUSH      ``pack({name: value})``                ``pack(None)``
PULL      ``pack((names, single))``: expressions ``pack(value)`` if single, else ``pack([value, …])``
========= ====================================== ==========================================================

ERROR and UNMET come with what `pack_failure` made. A task of kind MAP also ends with ERROR if a row failed,
and its payload has the same form as without a failure then. All further statuses come without a payload. An
engine says ABORTED of a text whose cell has failed there before it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from enginery.client.flags import Flags
from enginery.core.submissions import Blob
from enginery.ids import BlobId, EngineId
from enginery.objects.functions import FunctionCache
from enginery.objects.packing import Packed, pack, pack_call
from enginery.objects.prepickled import kept_id
from enginery.objects.serializers import accompanied
from enginery.protocol.codec import check_record
from enginery.protocol.messages import Kind, TaskOptions, clean_text

_OPTIONS_KEPT = 512
OPTIONS_LIMIT_BYTES = 1 << 19
"""Half of what fits into a record: calls go with them."""
_OPTIONS_NAMED = "what goes with each call (the tasks named in after and follow, targets, label)"
NAME_LIMIT = 200
"""Characters of a function's name that travel with a task."""


class PreparedCall(NamedTuple):
    """The arguments of `Session.submit`, but for promises and engines."""

    options: TaskOptions
    payload: bytes
    blobs: Sequence[Blob]


class CallMaker:
    """Makes the calls of one view.

    There is one `TaskOptions` object for each function, because the ledger puts consecutive calls of the same
    object into one record.
    """

    def __init__(
        self, functions: FunctionCache, flags: Flags, *, candidates: tuple[EngineId, ...] = ()
    ) -> None:
        self._functions = functions
        self._flags = flags
        self._candidates = candidates
        self._with_function: dict[tuple[Kind, BlobId, str], tuple[TaskOptions, tuple[Blob, ...]]] = {}
        self._without: dict[Kind, TaskOptions] = {}

    @property
    def flags(self) -> Flags:
        return self._flags

    def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> PreparedCall:
        """A call; raises TypeError or PicklingError that names what cannot be sent."""
        options, blobs = self.function(Kind.CALL, function)
        packed = pack_call(args, kwargs)
        return PreparedCall(
            options, packed.inline, (*blobs, *once(packed.buffers)) if packed.buffers else blobs
        )

    def function(self, kind: Kind, function: Callable[..., Any]) -> tuple[TaskOptions, tuple[Blob, ...]]:
        """Options of the tasks that run a function, and its blob."""
        blob_id, data, name = self._functions.pack(function)
        known = self._with_function.get((kind, blob_id, name))
        if known is None:
            if len(self._with_function) >= _OPTIONS_KEPT:
                self._with_function.clear()
            known = self._options(kind, blob_id, name), (Blob(blob_id, data, True),)
            self._with_function[kind, blob_id, name] = known
        return known

    def execute(self, source: str, filename: str, *, silent: bool = True, cell: str = "") -> PreparedCall:
        return self._plain(Kind.EXECUTE, "execute", pack((source, filename, silent, cell)))

    def push(self, values: Mapping[str, Any]) -> PreparedCall:
        """Raises TypeError or PicklingError that names what cannot be sent."""
        values = dict(values)
        try:
            packed = pack(values)
        except Exception:
            pack_call((), values)  # says which one
            raise
        return self._plain(Kind.PUSH, "push", packed)

    def pull(self, names: list[str], *, is_single: bool) -> PreparedCall:
        return self._plain(Kind.PULL, "pull", pack(accompanied((names, is_single))))

    def _plain(self, kind: Kind, name: str, packed: Packed) -> PreparedCall:
        options = self._without.get(kind)
        if options is None:
            options = self._without[kind] = self._options(kind, BlobId(b""), name)
        return PreparedCall(options, packed.inline, once(packed.buffers))

    def _options(self, kind: Kind, function: BlobId, name: str) -> TaskOptions:
        flags = self._flags
        options = TaskOptions(
            kind,
            function,
            clean_text(name[:NAME_LIMIT]),
            self._candidates,
            clean_text(flags.label),
            flags.priority,
            flags.retries,
            flags.retry_on,
            flags.after,
            flags.follow,
            -1.0 if flags.timeout is None else flags.timeout,
            flags.writeable,
            -1.0 if flags.time_limit is None else flags.time_limit,
        )
        check_record(options, _OPTIONS_NAMED, limit_bytes=OPTIONS_LIMIT_BYTES)
        return options


def once(buffers: Sequence[memoryview]) -> tuple[Blob, ...]:
    """Buffers as blobs under random ids, which no other task will name; those of a `PrePickled` are kept."""
    return tuple(map(_blob, buffers))


def _blob(buffer: memoryview) -> Blob:
    kept = kept_id(buffer)
    return Blob(BlobId(os.urandom(16)), buffer, False) if kept is None else Blob(kept, buffer, True)


def pack_columns(columns: tuple[Sequence[Any], ...], start: int) -> Packed:
    """Pack a chunk of a map, whose first item is number `start`.

    Raises TypeError or PicklingError that names the item which cannot be sent.
    """
    try:
        return pack(columns)
    except Exception as error:
        for number, column in enumerate(columns):
            for row, value in enumerate(column):
                try:
                    pack(value)
                except Exception as reason:  # noqa: BLE001 - whatever it is, this is the item
                    where = f" of sequence {number}" if len(columns) > 1 else ""
                    text = (
                        f"item {start + row}{where}, of type {_full_name(type(value))}, cannot be sent: "
                        f"{type(reason).__name__}: {reason}"
                    )
                    kind = type(reason) if type(reason).__name__ == "PicklingError" else TypeError
                    raise kind(text) from error
        raise


def _full_name(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
