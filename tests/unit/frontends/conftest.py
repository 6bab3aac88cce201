"""One shell for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ipython_shell import interactive_shell
from tests.unit.frontends.site import Site


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    with interactive_shell(tmp_path) as shell:
        site = Site(shell, capsys)
        with site.rc:
            yield site
