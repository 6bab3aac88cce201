"""Errors of engines, as IPython shows them: the engines' own tracebacks, not the inside of `get`.

IPython asks an error for its traceback, but not a group of errors, which it leaves to Python; and it takes an
engine's SyntaxError for one of the cell that was typed here. So it is told to show all RemoteErrors alike.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from enginery.errors import RemoteError


def show_remote_errors(shell: Any) -> None:
    """Have the shell show errors of engines; a handler that somebody else has set stays."""
    if not shell.custom_exceptions:
        shell.set_custom_exc((RemoteError,), _show)


def _show(
    shell: Any,
    kind: type[BaseException],
    error: RemoteError,
    traceback: TracebackType | None,
    tb_offset: int | None = None,
) -> list[str]:
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, traceback
    lines = error._render_traceback_()
    shell._showtraceback(kind, error, lines)
    return lines
