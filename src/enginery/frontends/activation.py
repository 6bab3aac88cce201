"""Which view ``%px`` means: registers the magics with the shell that runs here."""

from __future__ import annotations

from typing import Any

from IPython.core.getipython import get_ipython

from enginery.client.client import Client
from enginery.client.views.direct import DirectView
from enginery.frontends.magics import ParallelMagics
from enginery.frontends.tracebacks import show_remote_errors

_OURS = "enginery."


def activate_magics(view: DirectView, suffix: str = "") -> ParallelMagics | None:
    """Have ``%px<suffix>`` and its like mean this view; None where no shell runs."""
    shell: Any = get_ipython()
    if shell is None:
        return None
    if not f"px{suffix}".isidentifier():
        raise ValueError(f"a suffix is the end of a magic's name, like '_gpu' in %px_gpu, not {suffix!r}")
    former = find_magics(shell, suffix)
    if former is not None:
        former.retire()
    magics = ParallelMagics(shell, view, suffix)
    shell.register_magics(magics)
    show_remote_errors(shell)
    return magics


def offer_magics(client: Client) -> None:
    """Have ``%px`` mean all engines of this client, unless it means others already.

    Not inside of engines, whose shells nobody types into: they would keep the client of a task for ever.
    """
    shell: Any = get_ipython()
    if shell is None or type(shell).__module__.startswith(_OURS):
        return
    if shell.find_line_magic("px") is not None:
        former = find_magics(shell, "")
        if former is None or not former.is_of_closed_client:
            return
    client.activate()


def find_magics(shell: Any, suffix: str) -> ParallelMagics | None:
    """The magics that are registered with this suffix, if they are ours."""
    owner = getattr(shell.find_line_magic(f"px{suffix}"), "__self__", None)
    return owner if isinstance(owner, ParallelMagics) else None
