"""The tutorial in JupyterLab, as a newcomer sees it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.lab import browse, serve, what_is_missing

MISSING = what_is_missing()
if MISSING and os.environ.get("ENGINERY_TEST_REQUIRE") != "browser":
    pytest.skip(f"needs {MISSING}; see `scripts/test browser`", allow_module_level=True)

NOTEBOOK = Path(__file__).parents[2] / "examples" / "tutorial" / "first_steps.ipynb"
END_S = 120


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The notebook, all its cells having run."""
    directory = tmp_path_factory.mktemp("lab")
    shutil.copy(NOTEBOOK, directory)
    assert not MISSING, f"{MISSING} is missing"
    with serve(directory) as address, browse(address, NOTEBOOK.name) as page:
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.get_by_text("estimates is 3.").wait_for(timeout=END_S * 1000)
        yield page


@pytest.fixture
def shoot(page: Any, request: pytest.FixtureRequest) -> Iterator[None]:
    """Takes a picture of each test's part of the page, for people: ENGINERY_SCREENSHOTS says where to."""
    yield
    directory = os.environ.get("ENGINERY_SCREENSHOTS")
    if directory:
        Path(directory).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{directory}/{request.node.name}.png")


def outputs(page: Any, cell: str) -> Any:
    """The outputs of the cell whose source has this text, scrolled to."""
    found = page.locator(".jp-CodeCell").filter(has_text=cell).first
    found.scroll_into_view_if_needed()
    return found.locator(".jp-OutputArea-output")


def texts(page: Any, cell: str) -> list[str]:
    found: list[str] = outputs(page, cell).all_inner_texts()
    return found


@pytest.mark.usefixtures("shoot")
def test_no_cell_has_failed(page: Any) -> None:
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0


@pytest.mark.usefixtures("shoot")
def test_alike_outputs_are_folded(page: Any) -> None:
    assert [text.strip() for text in texts(page, "engine_seed")] == ["[stdout:0-3] ready"]


@pytest.mark.usefixtures("shoot")
def test_the_bar_is_one_line_and_full(page: Any) -> None:
    shown = texts(page, "progress=True")
    assert shown[0].count("60/60") == 1
    assert "0/60 " not in shown[0].replace("60/60", "")
    assert shown[-1].startswith("3.14")


@pytest.mark.usefixtures("shoot")
def test_the_figure(page: Any) -> None:
    assert outputs(page, "axes.hist").locator("img").count() == 1


@pytest.mark.usefixtures("shoot")
def test_figures_of_engines_are_shown_once_and_say_whose_they_are(page: Any) -> None:
    assert outputs(page, "darts of one engine").locator("img").count() == 2
    said = "".join(texts(page, "darts of one engine"))
    assert [said.count(f"[output:{engine}]") for engine in range(4)] == [1, 1, 0, 0]
