"""The engine's namespace: a real ``__main__``, live from the start.

Functions that travel by value have it as their globals, source text runs in it, and what tasks leave in it
stays until they change it (seed, "Closures" and "Data movement via DirectView").
"""

from __future__ import annotations

import builtins
import linecache
import sys
from collections import deque
from collections.abc import Container
from types import ModuleType
from typing import Any

Namespace = dict[str, Any]

SHELL_NAMES = frozenset({"In", "Out", "get_ipython", "exit", "quit", "open"})
"""Names that a shell has put there, if there is one; they survive `clear`."""
SOURCES_KEPT = 1000
"""Executed texts whose lines tracebacks can show."""
_sources: deque[str] = deque()


def make_main() -> Namespace:
    """A fresh ``__main__`` module in this process; returns its dictionary."""
    module = ModuleType("__main__", "The namespace of an engine.")
    namespace = module.__dict__
    namespace["__builtins__"] = builtins
    sys.modules["__main__"] = module
    return namespace


def clear(namespace: Namespace, *, spare: Container[str] = ()) -> list[Any]:
    """Take out all names but those of a shell and of Python; returns their values.

    The caller holds the last references: what goes with them may run code of the user's.
    """
    removed = []
    for name in list(namespace):
        if name not in SHELL_NAMES and not _is_dunder(name) and name not in spare:
            removed.append(namespace.pop(name, None))  # the main thread may have been faster
    return removed


def _is_dunder(name: object) -> bool:  # what ``globals()[1] = …`` leaves is no text
    return isinstance(name, str) and name.startswith("__") and name.endswith("__")


def keep_source(text: str, filename: str) -> None:
    """Have tracebacks show the lines of an executed text."""
    # Entries with None as their time are never checked against a file, and never dropped by `checkcache`.
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    _sources.append(filename)
    if len(_sources) > SOURCES_KEPT:
        linecache.cache.pop(_sources.popleft(), None)


def evaluate(expression: str, namespace: Namespace) -> Any:
    """The value of a name or an expression, as `pull` and `view[key]` ask for it."""
    if expression in namespace:
        return namespace[expression]
    return eval(compile(expression, "<pull>", "eval", dont_inherit=True), namespace)
