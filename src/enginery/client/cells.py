"""The cell of IPython in which texts are executed, by a name that goes with them to the engines.

When a text that is not silent fails, an engine does not begin with what was queued from the same cell (see
`engine.runner`), as in a notebook nothing of "run all cells" runs behind the one that failed. What the cell
sends after it has heard of the failure is a decision of its own, and so has another name.
"""

from __future__ import annotations

import threading
from typing import Any

from enginery.client.ipython import current_shell
from enginery.client.results.outcome import Outcome
from enginery.ids import ClientId


class Cells:
    """Names the cell that runs now, for one client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0  # IPython's number of the cell
        self._failures = 0  # that were heard of in it

    def __repr__(self) -> str:
        return f"<Cells: In[{self._count}], {self._failures} failures>"

    def name(self, client: ClientId) -> str:
        """The name of the present cell; empty outside of IPython, where nothing is aborted."""
        shell = current_shell()
        if shell is None:
            return ""
        with self._lock:
            count = shell.execution_count
            if count != self._count:
                self._count, self._failures = count, 0
            return f"{client:08x}-{count}-{self._failures}"

    def watch(self, outcomes: Any, name: str) -> None:
        """Hear of these texts' failures, for as long as the cell has this name."""
        if name:
            watch = _Watch(self, name)
            for outcome in outcomes:
                outcome.tell_also(watch)

    def on_failed(self, name: str) -> None:
        """A text that was sent under this name has failed."""
        with self._lock:
            if name.endswith(f"-{self._count}-{self._failures}"):
                self._failures += 1


class _Watch:
    """Told of the end of texts; it keeps nothing of them."""

    def __init__(self, cells: Cells, name: str) -> None:
        self._cells = cells
        self._name = name

    def on_outcome(self, outcome: Outcome, /) -> None:
        if outcome.has_failed:
            self._cells.on_failed(self._name)

    def on_moved(self, outcome: Outcome, /) -> None:
        """Nothing has failed yet."""
