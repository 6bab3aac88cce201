"""The logging set-up of the processes of a cluster."""

import io
import logging
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from enginery.observe.logs import LEVEL_VARIABLE, set_up_logging, take_down_logging

log = logging.getLogger("enginery.controller")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(LEVEL_VARIABLE, raising=False)
    yield
    take_down_logging()


def test_a_line_has_utc_time_level_name_and_process(tmp_path: Path) -> None:
    path = tmp_path / "controller.log"
    set_up_logging(path=path)
    log.info("bound to %s", "somewhere")
    log.debug("not this")
    (line,) = path.read_text().splitlines()
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(time + r" INFO    enginery\.controller\[\d+\]: bound to somewhere", line)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_a_path_it_goes_to_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    set_up_logging()
    log.warning("look")
    assert stream.getvalue().endswith(": look\n")


def test_setting_it_up_again_replaces_it(tmp_path: Path) -> None:
    set_up_logging(path=tmp_path / "first")
    set_up_logging(path=tmp_path / "second", level="DEBUG")
    log.debug("here")
    assert (tmp_path / "first").read_text() == ""
    assert (tmp_path / "second").read_text().count("here") == 1


def test_the_level_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEVEL_VARIABLE, "warning")
    set_up_logging(path=tmp_path / "log")
    assert log.getEffectiveLevel() == logging.WARNING


def test_an_unknown_level() -> None:
    with pytest.raises(ValueError, match="'LOUD' is not a log level; use one of DEBUG, INFO"):
        set_up_logging(level="LOUD")


def test_taken_down_it_leaves_the_users_logging_alone(tmp_path: Path) -> None:
    set_up_logging(path=tmp_path / "log")
    take_down_logging()
    assert logging.getLogger("enginery").handlers == []
    assert logging.getLogger("enginery").propagate
