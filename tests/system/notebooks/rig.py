"""A notebook with a real kernel, run cell by cell; what a front-end would show is what tests look at."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from tests.system.shared import until

CELL_S = 50
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Notebook:
    """Cells run one after the other; each gives its outputs, updated displays in their last state."""

    def __init__(self, client: NotebookClient) -> None:
        self._client = client

    def run(self, source: str) -> Outputs:
        """Run a cell; its errors are outputs like others."""
        cell = nbformat.v4.new_code_cell(source)
        cells = self._client.nb.cells
        cells.append(cell)
        self._client.execute_cell(cell, len(cells) - 1)
        return Outputs(cell.outputs)

    def run_interrupted(self, source: str, begun: Path) -> Outputs:
        """Run a cell, and interrupt the kernel when the file `begun` is there."""

        def interrupt() -> None:
            until(begun.exists)
            os.kill(self._client.km.provisioner.pid, signal.SIGINT)  # as Jupyter does

        interrupter = threading.Thread(target=interrupt)
        interrupter.start()
        try:
            return self.run(source)
        finally:
            interrupter.join()


class Outputs:
    """What a cell shows."""

    def __init__(self, outputs: list[Any]) -> None:
        self.all = outputs

    def text(self, stream: str = "stdout") -> str:
        """What was written to a stream."""
        return "".join(one.text for one in self.all if one.output_type == "stream" and one.name == stream)

    @property
    def value(self) -> str:
        """The text of the cell's value; empty if it has none."""
        return "".join(one.data["text/plain"] for one in self.all if one.output_type == "execute_result")

    @property
    def displays(self) -> list[dict[str, Any]]:
        """By MIME type, in order."""
        return [one.data for one in self.all if one.output_type == "display_data"]

    @property
    def error(self) -> str:
        """The traceback without colours; empty if the cell has not failed."""
        found = ["\n".join(one.traceback) for one in self.all if one.output_type == "error"]
        return _COLOURS.sub("", "".join(found))


@contextmanager
def notebook(directory: Path) -> Iterator[Notebook]:
    """A new notebook in this directory, its kernel running; the kernel is shut down at the end."""
    client = NotebookClient(
        nbformat.v4.new_notebook(),
        timeout=CELL_S,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(directory)}},
    )
    with client.setup_kernel():
        yield Notebook(client)
