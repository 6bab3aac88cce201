"""Source lines that travel with functions, so that a remote traceback shows the line that failed.

A notebook cell has no file, and a script's file need not exist where the engine runs. The lines of a function
are cheap to cut out (the client's `linecache` has the text already) and are put into the engine's `linecache`
when the function is built there.
"""

from __future__ import annotations

import linecache
from types import CodeType
from typing import TypeAlias

Source: TypeAlias = tuple[str, int, str]
"""File name, number of the first line, text."""

_FILES_LIMIT = 1000
_TEXT_LIMIT_CHARS = 200_000

_registered: dict[str, None] = {}


def source_of(code: CodeType) -> Source | None:
    """The source lines of a code object with all code nested in it, or None if nobody has them."""
    lines = linecache.getlines(code.co_filename)
    first = code.co_firstlineno
    if not lines or first < 1:
        return None
    text = "".join(lines[first - 1 : _last_line(code)])
    return (code.co_filename, first, text) if 0 < len(text) <= _TEXT_LIMIT_CHARS else None


def _last_line(code: CodeType) -> int:
    last = max((line for _, _, line in code.co_lines() if line is not None), default=code.co_firstlineno)
    return max([last, *(_last_line(const) for const in code.co_consts if isinstance(const, CodeType))])


def register_source(source: Source) -> None:
    """Let `linecache`, and so every traceback, find these lines. What it finds already stays as it is."""
    name, first, text = source
    ours = text.splitlines(keepends=True)
    last = first - 1 + len(ours)
    known = linecache.getlines(name)
    if known[first - 1 : last] == ours:
        return
    # Several functions of one file come one by one: keep the lines that came with the others.
    lines = list(known) if name in _registered else []
    lines += ["\n"] * (last - len(lines))
    lines[first - 1 : last] = ours
    # Without a modification time an entry is never compared with a file of that name on this machine.
    linecache.cache[name] = (sum(map(len, lines)), None, lines, name)
    _registered.pop(name, None)
    _registered[name] = None
    if len(_registered) > _FILES_LIMIT:
        oldest = next(iter(_registered))
        del _registered[oldest]
        linecache.cache.pop(oldest, None)
