"""Flags: what a view asks of all its calls, and what may be asked of a single one.

`Flags` is the table. Views, decorators, maps and single calls read names, defaults, parsing and who has a
flag out of it: to add one is to add a line (and the attribute to its view, for readers and type checkers).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, NamedTuple

from enginery.client.dependencies import read_dependency, show_dependency
from enginery.client.numbers import check_whole, read_priority, read_seconds
from enginery.protocol.messages import Dependency

LABEL_LIMIT = 10_000
"""Characters of a label."""
ON_INTERRUPT = ("cancel", "keep")
"""What becomes of a blocking call's tasks on Ctrl-C."""
_RETRIES_LIMIT = 1 << 31


def read_label(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a label is a text, not {value!r} ({type(value).__name__})")
    if len(value) > LABEL_LIMIT:
        raise ValueError(f"a label has at most {LABEL_LIMIT} characters, not {len(value)}")
    return value


def read_retries(value: Any) -> int:
    return check_whole("retries", value, below=_RETRIES_LIMIT)


def read_on_interrupt(value: Any) -> str:
    if value not in ON_INTERRUPT:
        raise ValueError(f"on_interrupt is {' or '.join(map(repr, ON_INTERRUPT))}, not {value!r}")
    return str(value)


def read_error_names(value: Any) -> tuple[str, ...]:
    """Exception classes, as an engine names them in what it reports of a failure."""
    members = value if isinstance(value, (tuple, list, set, frozenset)) else (value,)
    return tuple(sorted(map(_error_name, members)))


def _error_name(member: Any) -> str:
    if isinstance(member, type) and issubclass(member, BaseException):
        return f"{member.__module__}.{member.__qualname__}"
    if isinstance(member, str) and "." in member:
        return member
    raise TypeError(
        f"retry_on takes an exception class or several, not {member!r}; () means to retry only after an "
        "engine's death"
    )


# ---------------------------------------------------------------- the table


class _Rule(NamedTuple):
    """How a flag is read from what a user gives, and shown again."""

    read: Callable[[Any], Any]
    default: Any
    show: Callable[[Any], Any] | None
    balanced_only: bool


def _flag(
    read: Callable[[Any], Any],
    default: Any = None,
    *,
    show: Callable[[Any], Any] | None = None,
    balanced_only: bool = False,
) -> Any:
    return field(default=default, metadata={"rule": _Rule(read, default, show, balanced_only)})


# ruff: noqa: RUF009 - the table's lines are calls that make fields


@dataclass(frozen=True)
class Flags:
    """What a view asks of its calls, as it keeps it: read, checked, hashable."""

    block: bool = _flag(bool, False)
    track: bool = _flag(bool, False)
    label: str = _flag(read_label, "")
    priority: int = _flag(read_priority, 0)
    retries: int = _flag(read_retries, 0)
    retry_on: tuple[str, ...] | None = _flag(read_error_names)
    after: Dependency | None = _flag(read_dependency, show=show_dependency, balanced_only=True)
    follow: Dependency | None = _flag(read_dependency, show=show_dependency, balanced_only=True)
    timeout: float | None = _flag(partial(read_seconds, "timeout"), balanced_only=True)
    time_limit: float | None = _flag(partial(read_seconds, "time_limit"))
    writeable: bool = _flag(bool, False)
    on_interrupt: str = _flag(read_on_interrupt, "cancel")

    def show(self, name: str) -> Any:
        """A flag as its view's attribute."""
        show, value = _RULES[name].show, getattr(self, name)
        return value if show is None else show(value)


_RULES: Mapping[str, _Rule] = {each.name: each.metadata["rule"] for each in fields(Flags)}


def flag_names(*, is_balanced: bool) -> list[str]:
    """The flags that a view has."""
    return [name for name, rule in _RULES.items() if is_balanced or not rule.balanced_only]


def read_flags(given: Mapping[str, Any], *, is_balanced: bool) -> dict[str, Any]:
    """Flags as a user gives them, checked; those that are None are left out.

    Raises KeyError for what is no flag of such a view; TypeError, ValueError for what a flag cannot be.
    """
    known = flag_names(is_balanced=is_balanced)
    unknown = set(given).difference(known)
    if unknown:
        name = min(unknown)
        kind = "a LoadBalancedView" if is_balanced else "a DirectView"
        where = f"no flag of {kind}" if name not in _RULES else "a flag of load-balanced views only"
        raise KeyError(f"{name!r} is {where}; the flags of {kind} are {', '.join(known)}")
    return {name: _RULES[name].read(value) for name, value in given.items() if value is not None}


def default_of(name: str) -> Any:
    """What a flag is if nobody asks for anything."""
    return _RULES[name].default
