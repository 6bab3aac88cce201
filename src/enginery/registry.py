"""Names whose home is known by string only: the one place that imports by string.

The front door fills it and uses it to load rooms on first touch. A room that offers something on behalf of
a higher one (a method that lives with the notebooks, say) finds it here by name; every other import by
string is refused by the architecture's tests.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

_homes: dict[str, str] = {}


def provide(names: Mapping[str, str]) -> None:
    """Say where names live: ``{"Client": "enginery.client.client"}``; nothing is imported yet.

    A home is a module, which has the name as its attribute, or ``module:attribute``. Raises ValueError if a
    name already has another home.
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
    module, _, attribute = home.partition(":")
    return getattr(importlib.import_module(module), attribute or name)


def names() -> Iterator[str]:
    """All names, in the order in which they were provided."""
    return iter(_homes)
