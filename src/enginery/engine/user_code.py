"""The doors to code of the user's: all of it runs behind one of these, and only there it can be interrupted.

Problem: an interrupt is an exception that is raised between two steps of the main thread, wherever that is.
In the engine's own code it would leave things half done, or come up in the next task. A flag that is set
before a call of user code and taken back behind it leaves gaps at both ends, and says nothing of the engine's
code that user code calls, as `print` does.

Choice: a signal handler is given the frame that it interrupts. The main thread is *inside* if a door is among
the callers of that frame and the frame is not one of the engine's own. What a door calls returns to it, and
it to its caller, without another step of the engine's in between; so an interrupt either comes out of the
door, as an error of the user's would, or is not raised at all. Doors cost less than 0.1 µs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from types import FrameType
from typing import Any, Final, TypeVar

Value = TypeVar("Value")
_NOTHING: Final[Mapping[str, Any]] = {}


def call(
    function: Callable[..., Value], args: Iterable[Any] = (), kwargs: Mapping[str, Any] = _NOTHING
) -> Value:
    """Call something that is, or leads to, code of the user's."""
    return function(*args, **kwargs)


class Skipped(BaseException):
    """Ends a loop over rows before one that is not to run."""


def call_for_rows(
    function: Callable[..., Any],
    rows: Iterable[tuple[Any, ...]],
    values: list[Any],
    skips: Set[int],
    *,
    is_single: bool,
) -> None:
    """Call a function for each row and append what it returns; what it raises ends that.

    `skips` are places in `values` whose rows are not to run; they may become more meanwhile.
    """
    if is_single:
        for (item,) in rows:
            if skips and len(values) in skips:
                raise Skipped
            values.append(function(item))
    else:
        for row in rows:
            if skips and len(values) in skips:
                raise Skipped
            values.append(function(*row))


_DOORS: Final = frozenset({call.__code__, call_for_rows.__code__})
_ENGINE = "enginery.engine."
_NEVER: Final = frozenset(
    f"enginery.engine.{name}" for name in ("output", "past_python", "streams", "threads")
)
"""Modules that user code calls, and what they call must not be interrupted either."""
_never: set[Any] = set()


def uninterrupted(function: Callable[..., Value]) -> Callable[..., Value]:
    """Have a function of the engine's that user code may call be spared, with all that it calls."""
    _never.add(function.__code__)
    return function


def is_inside(frame: FrameType | None) -> bool:
    """Whether what is interrupted in this frame is code of the user's."""
    if frame is None or (_module(frame).startswith(_ENGINE) and frame.f_code not in _DOORS):
        return False
    while frame is not None:
        if frame.f_code in _DOORS:
            return True
        if frame.f_code in _never or _module(frame) in _NEVER:
            return False
        frame = frame.f_back
    return False


def is_in_idle_loop(frame: FrameType | None) -> bool:
    """Whether an event loop is between two callbacks, or waits for the next; one of asyncio's."""
    module = "" if frame is None else _module(frame)
    return module in {"selectors", "asyncio"} or module.startswith("asyncio.")


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
