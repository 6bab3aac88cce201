"""Names whose home is known by string only: the one place that imports by string.

The front door fills it and uses it to load rooms on first touch. A room that offers something on behalf of
a higher one (a method that lives with the notebooks, say) finds it here by name; every other import by
string is refused by the architecture's tests.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Collection, Iterator, Mapping
from types import ModuleType
from typing import Any

_homes: dict[str, str] = {}


def provide(names: Mapping[str, str]) -> None:
    """Say where names live: ``{"Client": "enginery.client.client"}``; nothing is imported yet.

    A home is a module, which has the name as its attribute, or ``module:attribute``, or ``module:`` for the
    module itself. Raises ValueError if a name already has another home.
    """
    for name, home in names.items():
        if _homes.setdefault(name, home) != home:
            raise ValueError(f"the name {name!r} lives in {_homes[name]} already, not in {home}")


def find(name: str) -> Any:
    """Import the home of a name and return what it names; raises LookupError if nobody has provided it."""
    try:
        home = _homes[name]
    except KeyError:
        raise LookupError(f"nothing is registered under the name {name!r}") from None
    module_name, colon, attribute = home.partition(":")
    module = importlib.import_module(module_name)
    return module if colon and not attribute else getattr(module, attribute or name)


def lend(module: str, names: Collection[str]) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a module that only passes on names whose homes it must not import.

    >>> find_late = lend("enginery.old.path", ["dumps"])
    >>> find_late("loads")
    Traceback (most recent call last):
    AttributeError: module 'enginery.old.path' has no attribute 'loads'
    """

    def find_late(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return find(name)

    return find_late


def find_module(name: str) -> ModuleType | None:
    """Import a module of this package by its full name; None if there is no such one."""
    if importlib.util.find_spec(name) is None:
        return None
    return importlib.import_module(name)


def names() -> Iterator[str]:
    """All names, in the order in which they were provided."""
    return iter(_homes)
