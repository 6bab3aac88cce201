"""Targets as users write them, and as views keep them. Pure.

Normalised targets are an engine id, a tuple of them in the order that was asked for, or ``"all"``, which is
looked up at each call.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from enginery.errors import NoEnginesRegistered
from enginery.ids import EngineId

Targets: TypeAlias = EngineId | tuple[EngineId, ...] | Literal["all"]

_SHOWN = 16


def normalise(targets: Any, ids: Sequence[EngineId]) -> Targets:
    """Resolve negative ids, slices and ranges against `ids`, which are in ascending order.

    None is ``"all"``. Raises TypeError for what cannot name engines, IndexError for an engine that is not
    there, NoEnginesRegistered if there is none at all.

    >>> normalise(-1, (EngineId(0), EngineId(4))), normalise([0, -1], (EngineId(0), EngineId(4)))
    (4, (0, 4))
    """
    if targets is None or (isinstance(targets, str) and targets == "all"):
        return "all"
    if isinstance(targets, slice):
        _need_engines(ids)
        found = tuple(ids[targets])
        if not found:
            raise IndexError(f"{_slice_text(targets)} selects none of the engines {_list_text(ids)}")
        return found
    if isinstance(targets, (list, tuple, range)) or type(targets).__name__ == "ndarray":
        numbers = [_as_number(target) for target in targets]
        _need_engines(ids)
        if not numbers:
            raise IndexError("an empty list of engines cannot be a target")
        return tuple(_resolve(number, ids) for number in numbers)
    number = _as_number(targets)
    _need_engines(ids)
    return _resolve(number, ids)


def as_list(targets: Targets) -> int | list[int] | str:
    """Normalised targets as users see them."""
    return list(map(int, targets)) if isinstance(targets, tuple) else targets


def describe(targets: Targets | None) -> str:
    """Normalised targets in a view's repr, as the seed prints them.

    >>> describe((EngineId(0), EngineId(1))), describe(EngineId(3)), describe("all")
    ('[0,1]', '3', 'all')
    """
    return _list_text(targets).replace(", ", ",") if isinstance(targets, tuple) else str(targets)


def _resolve(number: int, ids: Sequence[EngineId]) -> EngineId:
    if number < 0:
        try:
            return ids[number]
        except IndexError:
            raise IndexError(
                f"there is no engine {number}: there are {len(ids)} engines, {_list_text(ids)}"
            ) from None
    if number not in ids:
        raise IndexError(f"there is no engine {number}; the engines are {_list_text(ids)}")
    return EngineId(number)


def _as_number(target: Any) -> int:
    if not isinstance(target, (bool, str)):
        try:
            return operator.index(target)
        except TypeError:
            pass
    raise TypeError(
        f"targets must be an engine id, a list of them, a slice or 'all', not {target!r} "
        f"({type(target).__name__})"
    )


def _need_engines(ids: Sequence[EngineId]) -> None:
    if not ids:
        raise NoEnginesRegistered()


def _list_text(ids: Sequence[EngineId]) -> str:
    if len(ids) <= _SHOWN:
        return str(list(ids))
    return f"[{', '.join(map(str, ids[: _SHOWN - 2]))}, ..., {ids[-1]}]"


def _slice_text(part: slice) -> str:
    step = "" if part.step is None else f":{part.step}"
    return f"[{'' if part.start is None else part.start}:{'' if part.stop is None else part.stop}{step}]"
