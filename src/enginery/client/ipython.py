"""IPython's shell, where this process runs in one. Nothing is imported for the question."""

from __future__ import annotations

import sys
from typing import Any


def current_shell() -> Any | None:
    """The shell that runs in this process; None if there is none."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def shows_html() -> bool:
    """Whether what is displayed here goes to something that shows more than text, a notebook mostly."""
    shell = current_shell()
    if shell is None or shell.display_formatter.active_types == ["text/plain"]:
        return False
    # A bare shell is neither of the two: it makes HTML and prints the text.
    return type(shell.display_pub) is not sys.modules["IPython.core.displaypub"].DisplayPublisher
