"""What tasks display: one thing in several MIME types, packed when it is displayed, as it is then.

The values of most types are text or bytes. Whatever else there is (JSON above all) must be plain data:
displays are shown and kept by programs that have none of the user's classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from enginery.errors import TooLarge

CONTENT_LIMIT_BYTES = 64 << 20

_UNFIT = (TypeError, ValueError, OverflowError, RecursionError)


class Bundle(NamedTuple):
    """What a display consists of."""

    data: dict[str, Any]  # by MIME type
    metadata: dict[str, Any]  # likewise
    transient: dict[str, Any]  # not to be kept: `display_id`


def pack_display(
    data: Mapping[str, Any],
    metadata: Mapping[str, Any] | None = None,
    transient: Mapping[str, Any] | None = None,
) -> bytes:
    """The content of a display.

    Raises TypeError that names the MIME type whose value is no plain data, TooLarge above 64 MiB.
    """
    bundle = Bundle(*(_clean(part or {}) for part in (data, metadata, transient)))
    try:
        content = msgspec.msgpack.encode(bundle)
    except _UNFIT:
        for part in bundle:
            for name, value in part.items():
                _check(name, value)
        raise
    if len(content) > CONTENT_LIMIT_BYTES:
        what = f"what is displayed as {', '.join(bundle.data)}"
        raise TooLarge(what, size_bytes=len(content), limit_bytes=CONTENT_LIMIT_BYTES)
    return content


def unpack_display(content: bytes) -> Bundle:
    """What `pack_display` has packed; raises ValueError for anything else."""
    try:
        return msgspec.msgpack.decode(content, type=Bundle)
    except msgspec.MsgspecError as error:
        raise ValueError(f"this is no display: {error}") from error


def _clean(part: Any) -> dict[str, Any]:
    if not isinstance(part, Mapping):
        raise TypeError(f"a display is a dictionary of values by MIME type, not {part!r}")
    for name in part:
        if not isinstance(name, str):
            raise TypeError(f"a display has texts as its keys, not {name!r}")
    return {_clean_text(name): _clean_text(value) for name, value in part.items()}


def _clean_text(value: Any) -> Any:
    """Text without lone surrogates, which UTF-8 cannot say; all else as it is."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _check(name: str, value: Any) -> None:
    try:
        msgspec.msgpack.encode(value)
    except _UNFIT as reason:
        raise TypeError(f"what is displayed as {name!r} cannot be sent: {reason}") from reason
