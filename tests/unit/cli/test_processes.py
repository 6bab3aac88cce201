"""The short way in for processes of a cluster."""

import io
import os
import sys

import pytest

from enginery.cli import processes
from enginery.ids import EngineKey
from enginery.observe.logs import take_down_logging
from enginery.protocol.specs import EngineSpec

SPEC = EngineSpec(cluster="x", connection_file="/nowhere", key=EngineKey("0" * 16))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[EngineSpec]:
    seen: list[EngineSpec] = []

    def take(spec: EngineSpec) -> int:
        seen.append(spec)
        return 7

    monkeypatch.setattr(processes, "_become_engine", take)
    monkeypatch.setattr(processes, "set_up_logging", take_down_logging)
    return seen


def test_a_spec_on_the_command_line(seen: list[EngineSpec]) -> None:
    assert processes.run(["engine", "x", "--spec", SPEC.to_json()]) == 7
    assert seen == [SPEC]


def test_a_spec_from_standard_input(seen: list[EngineSpec], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(SPEC.to_json() + "\nmore"))
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    assert processes.run(["engine", "x", "--spec", "-"]) == 7
    assert seen == [SPEC]


@pytest.mark.parametrize("arguments", [["start", "--spec", "{}"], ["engine", "--spec"], ["engine", "x"]])
def test_anything_else(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="--spec goes with one of host, controller, engine and has a value"):
        processes.run(arguments)
