"""The tutorial runs to its end, and comes to what is right."""

from __future__ import annotations

import pytest

from examples.tutorial.run import NOTEBOOK, check, execute, outputs_of


@pytest.mark.timeout(180)
def test_the_tutorial() -> None:
    check(execute(NOTEBOOK))


def test_a_tutorial_without_outputs_is_noticed() -> None:
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert outputs_of(notebook) == []  # none are kept in the repository
    with pytest.raises(AssertionError, match="there should be 3 figures"):
        check(notebook)
