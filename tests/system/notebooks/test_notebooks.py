"""In a notebook with a real kernel: output, errors, displays, figures, progress, interrupts, the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.notebooks.rig import Notebook, notebook

START = """
import enginery as ipp
cluster = ipp.Cluster(n=2)
rc = cluster.start_and_connect_sync(activate=True)
view = rc[:]
"""


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """A notebook whose cluster is never stopped: it ends with the kernel."""
    with notebook(tmp_path_factory.mktemp("book")) as book:
        assert book.run(START).error == ""
        yield book


def test_values_come_back_while_the_kernels_loop_runs(book: Notebook) -> None:
    book.run("import asyncio; assert asyncio.get_running_loop().is_running()")
    assert book.run("view.apply_sync(lambda: 6 * 7)").value == "[42, 42]"
    assert book.run("rc.load_balanced_view().map_sync(abs, range(-3, 0))").value == "[3, 2, 1]"


def test_results_can_be_awaited(book: Notebook) -> None:
    assert book.run("await view.apply_async(lambda: 7)").value == "[7, 7]"
    shown = book.run("[x async for x in rc.load_balanced_view().map_async(abs, [-1, 2])]")
    assert (shown.value, shown.error) == ("[1, 2]", "")


def test_callbacks_may_block(book: Notebook) -> None:
    shown = book.run("""
import concurrent.futures
done = concurrent.futures.Future()
first = rc[0].apply_async(lambda: 1)
first.add_done_callback(lambda _: done.set_result(first.get() + 1))
done.result(20)
""")
    assert (shown.value, shown.error) == ("2", "")


def test_output_of_cells_on_engines(book: Notebook) -> None:
    shown = book.run("%px print('hello')")
    assert "hello" in shown.text()
    assert shown.error == ""
    assert "to stderr" in book.run("%%px\nimport sys\nprint('to stderr', file=sys.stderr)").text("stderr")


def test_values_of_cells_on_engines(book: Notebook) -> None:
    shown = book.run("%%px\n6 * 7")
    said = shown.text() + "".join(display.get("text/plain", "") for display in shown.displays)
    assert said.count("42") in (1, 2)  # folded, or one for each engine
    assert "Out[" in said


def test_errors_show_the_lines_of_the_cell(book: Notebook) -> None:
    book.run("def failing(x):\n    return 1 / x  # the culprit")
    shown = book.run("rc[0].apply_sync(failing, 0)")
    assert "# the culprit" in shown.error
    assert "ZeroDivisionError" in shown.error


def test_figures_of_engines(book: Notebook) -> None:
    shown = book.run("""%%px --targets 0
%matplotlib inline
import matplotlib.pyplot as plt
plt.figure(figsize=(1, 1))
plt.plot([1, 2])
plt.show()
""")
    assert shown.error == ""
    assert ["image/png" in display for display in shown.displays].count(True) == 1


def test_bars_of_maps(book: Notebook) -> None:
    shown = book.run("rc.load_balanced_view().map_sync(abs, range(100), progress=True)[:2]")
    assert (shown.value, shown.error) == ("[0, 1]", "")
    assert "100/100" in str(shown.all)


def test_an_interrupt_reaches_engines_and_keeps_their_names(book: Notebook, tmp_path: Path) -> None:
    book.run("%px kept = 5")
    begun = tmp_path / "begun"
    shown = book.run_interrupted(
        f"%%px\nimport time, pathlib\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(600)", begun
    )
    assert "KeyboardInterrupt" in shown.error + shown.text("stderr")
    assert book.run("view['kept']").value == "[5, 5]"
