"""What is typed behind a magic: targets, leading options of a line, settings."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pytest
from IPython.core.error import UsageError

from enginery.frontends.options import SETTINGS, Settings, default_settings, read_targets, split_line


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("all", "all"),
        (" 3 ", 3),
        ("-1", -1),
        ("0,2", [0, 2]),
        ("[0,-1]", [0, -1]),
        ("[1]", [1]),
        ("1,", [1]),
        ("::2", slice(None, None, 2)),
        ("1:3", slice(1, 3)),
        ("[-2:]", slice(-2, None)),
    ],
)
def test_targets(text: str, targets: Any) -> None:
    assert read_targets(text) == targets


@pytest.mark.parametrize("text", ["", "some", "0;1", "1:2:3:4", "0,x", "__import__('os')", "[]x"])
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(UsageError, match="targets are an engine's id, ids with commas"):
        read_targets(text)


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("a = 5", ("", "a = 5")),
        ("", ("", "")),
        ("--targets 0 %connect_info", ("--targets 0", "%connect_info")),
        ("--targets=0,1  --no-stream x--block", ("--targets=0,1 --no-stream", "x--block")),
        ("--noblock", ("--noblock", "")),
        ("--targets", ("--targets", "")),
        ("--blocking", ("", "--blocking")),
        ("-a", ("", "-a")),
        ("--a - b", ("", "--a - b")),
    ],
)
def test_the_leading_options_of_a_line(line: str, parts: tuple[str, str]) -> None:
    found = split_line(line, SETTINGS)
    assert (" ".join(found[0].split()), found[1]) == parts


def test_settings_are_changed_by_what_was_said() -> None:
    settings = Settings(verbose=True)
    said = Namespace(block=False, stream=None, progress_after_s=0.0, targets=None)
    assert settings.changed_by(said) == Settings(block=False, verbose=True, progress_after_s=0.0)


@pytest.mark.parametrize("name", ["ENGINERY_NONINTERACTIVE", "IPP_NONINTERACTIVE"])
@pytest.mark.parametrize("value", ["1", "yes"])
def test_nobody_looks(name: str, value: str) -> None:
    settings = default_settings({name: value})
    assert (settings.stream, settings.progress_after_s) == (False, -1)


@pytest.mark.parametrize("environment", [{}, {"IPP_NONINTERACTIVE": "0", "ENGINERY_NONINTERACTIVE": ""}])
def test_somebody_looks(environment: dict[str, str]) -> None:
    settings = default_settings(environment)
    assert (settings.stream, settings.progress_after_s) == (True, 2)
