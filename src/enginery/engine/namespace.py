"""The engine's namespace: a real ``__main__``, live from the start.

Functions that travel by value have it as their globals, source text runs in it, and what tasks leave in it
stays until they change it (seed, "Closures" and "Data movement via DirectView").
"""

from __future__ import annotations

import builtins
import linecache
import sys
from collections import deque
from types import CodeType, ModuleType
from typing import Any

Namespace = dict[str, Any]

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


def compile_source(text: str, filename: str, mode: str = "exec") -> CodeType:
    """Compile source text so that tracebacks show its lines."""
    # Entries with None as their time are never checked against a file, and never dropped by `checkcache`.
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    _sources.append(filename)
    if len(_sources) > SOURCES_KEPT:
        linecache.cache.pop(_sources.popleft(), None)
    return compile(text, filename, mode)


def evaluate(expression: str, namespace: Namespace) -> Any:
    """The value of a name or an expression, as `pull` and `view[key]` ask for it."""
    if expression in namespace:
        return namespace[expression]
    return eval(compile(expression, "<pull>", "eval"), namespace)
