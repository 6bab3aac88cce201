"""Execute the tutorial without a browser, and check what it comes to: `python run.py [NOTEBOOK]`."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent / "first_steps.ipynb"
CELL_S = 120
TOLERANCE = 0.005
"""Five standard deviations of the mean of 60 estimates with 50,000 darts each."""


def execute(path: Path) -> Any:
    """Run all cells; raises nbclient's CellExecutionError at the first error."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=CELL_S, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    return notebook


def outputs_of(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def check(notebook: Any) -> float:
    """The mean that the notebook has found. Raises AssertionError if it cannot be right."""
    outputs = outputs_of(notebook)
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(figures) == 3, f"there should be 3 figures, and there are {len(figures)}"
    last = "".join(output.text for output in notebook.cells[-1].outputs)
    found = re.search(r"is (\d\.\d+)", last)
    assert found, f"the last cell has not said what the mean is: {last!r}"
    mean = float(found[1])
    assert abs(mean - math.pi) < TOLERANCE, f"{mean} is not π"
    return mean


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else NOTEBOOK
    print(f"{path.name}: the mean is {check(execute(path)):.4f}")
