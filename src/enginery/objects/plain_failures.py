"""Exceptions as plain dictionaries and back: ipyparallel's low level, for those who send messages themselves.

Results of tasks travel as `failures`, which keep the original type; nothing here is on their way.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from enginery.errors import CompositeError, RemoteError

Results = TypeVar("Results", bound="Iterable[Any] | Mapping[Any, Any]")


def wrap_exception(engine_info: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Describe the exception that is being handled.

    Returns a dictionary with ``status``, ``ename``, ``evalue``, ``traceback`` (lines) and ``engine_info``.
    Raises RuntimeError outside an ``except`` block.

    >>> try:
    ...     1 / 0
    ... except ZeroDivisionError:
    ...     wrap_exception()["ename"]
    'ZeroDivisionError'
    """
    error = sys.exc_info()[1]
    if error is None:
        raise RuntimeError(
            "wrap_exception() describes the exception that is being handled, and there is none"
        )
    return {
        "status": "error",
        "ename": type(error).__name__,
        "evalue": str(error),
        "traceback": "".join(traceback.format_exception(error)).splitlines(),
        "engine_info": dict(engine_info or {}),
    }


def unwrap_exception(content: Mapping[str, Any]) -> RemoteError:
    """Make the RemoteError that a dictionary of `wrap_exception` describes; KeyError if it describes none."""
    lines = content["traceback"]
    text = lines if isinstance(lines, str) else "\n".join(lines)
    return RemoteError(content["ename"], content["evalue"], text, content.get("engine_info"))


def collect_exceptions(results: Results, method: str = "unspecified") -> Results:
    """Return results as they are if no RemoteError is among them, else raise a CompositeError of those.

    `results` is a collection, or a dictionary of which the values are looked at; `method` is what was called,
    for the text.
    """
    values = results.values() if isinstance(results, Mapping) else results
    errors: list[Exception] = []
    for value in values:
        if isinstance(value, CompositeError):
            errors.extend(value.exceptions)
        elif isinstance(value, RemoteError):
            errors.append(value)
    if errors:
        raise CompositeError(f"{len(errors)} of the calls of {method!r} have failed", errors)
    return results
