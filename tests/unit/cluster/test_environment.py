"""What a host inherits: environment, ways to find modules, how it starts processes."""

import os
import sys
from pathlib import Path

import pytest

from enginery.cluster.environment import START_METHOD_VARIABLES, choose_start_method, host_environment


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", *START_METHOD_VARIABLES):
        monkeypatch.delenv(name, raising=False)


def python_path() -> list[str]:
    return host_environment()["PYTHONPATH"].split(os.pathsep)


def test_the_environment_is_inherited_and_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINERY_TEST_A", "a")
    monkeypatch.setenv("ENGINERY_TEST_B", "b")
    environment = host_environment({"ENGINERY_TEST_B": "changed", "ENGINERY_TEST_C": "new"})
    wanted = {"ENGINERY_TEST_A": "a", "ENGINERY_TEST_B": "changed", "ENGINERY_TEST_C": "new"}
    assert wanted.items() <= environment.items()
    assert os.environ["ENGINERY_TEST_B"] == "b"


def test_what_was_added_to_the_path_is_handed_on_in_its_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    monkeypatch.setattr(sys, "path", [str(first), *sys.path, str(second)])
    path = python_path()
    assert path[0] == str(first)
    assert path[-1] == str(second)


def test_what_every_interpreter_has_is_not() -> None:
    assert not [entry for entry in python_path() if "site-packages" in entry or "lib-dynload" in entry]
    assert os.path.dirname(os.__file__) not in python_path()


def test_the_current_directory_of_an_interactive_session(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert python_path()[0] == os.getcwd()


def test_the_users_own_pythonpath_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert python_path()[0] == str(tmp_path)
    assert host_environment({"PYTHONPATH": "given"})["PYTHONPATH"].split(os.pathsep)[0] == "given"


def test_the_package_itself_can_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    import enginery

    root = str(Path(enginery.__file__).resolve().parents[1])
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != root])
    assert root in python_path() or "site-packages" in root


def test_the_start_method_of_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert choose_start_method(None) == "fork"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert choose_start_method(None) == "spawn"


def test_a_given_start_method_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINERY_TEST_START_METHOD", "spawn")
    assert choose_start_method(None) == "spawn"
    monkeypatch.setenv("ENGINERY_START_METHOD", "fork")
    assert choose_start_method(None) == "fork"
    assert choose_start_method("spawn") == "spawn"


def test_an_unknown_start_method_is_named_with_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="start_method is 'thread'; it can be 'fork' or 'spawn'"):
        choose_start_method("thread")
    monkeypatch.setenv("ENGINERY_START_METHOD", "forks")
    with pytest.raises(ValueError, match="ENGINERY_START_METHOD is 'forks'"):
        choose_start_method(None)
