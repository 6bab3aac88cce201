"""The directory before a start and after an end; names."""

from pathlib import Path

import pytest

from enginery.cluster.names import is_given, make_up_name
from enginery.cluster.upkeep import LOG_KEPT_BYTES, LOG_LIMIT_BYTES, last_lines, prepare, sweep
from enginery.transport.addresses import ClusterDirectory


@pytest.fixture
def directory(tmp_path: Path) -> ClusterDirectory:
    tmp_path.chmod(0o700)
    return ClusterDirectory("mine", runtime=tmp_path / "run").create()


def fill(directory: ClusterDirectory) -> None:
    for name in ("client.json", "engine.json", "host.json", "keys.json", "proof", "history.sqlite"):
        (directory.path / name).write_text("x")
    (directory.path / "engines" / "0123456789abcdef").write_text("x")
    (directory.logs / "host.log").write_text("it began\n")


def names_in(directory: ClusterDirectory) -> set[str]:
    return {str(path.relative_to(directory.path)) for path in directory.path.rglob("*")}


def test_sweeping_takes_all_of_it(directory: ClusterDirectory) -> None:
    fill(directory)
    sweep(directory, keep_directory=False)
    assert not directory.path.exists()
    sweep(directory, keep_directory=False)


def test_sweeping_keeps_history_and_logs(directory: ClusterDirectory) -> None:
    fill(directory)
    sweep(directory, keep_directory=True)
    assert names_in(directory) == {"history.sqlite", "logs", "logs/host.log"}


def test_a_cluster_that_lives_is_left_alone(directory: ClusterDirectory) -> None:
    fill(directory)
    before = names_in(directory)
    with directory.lock():
        sweep(directory, keep_directory=False)
        assert names_in(directory) == before | {"lock"}


def test_preparing_clears_what_an_unclean_end_has_left(directory: ClusterDirectory) -> None:
    fill(directory)
    with directory.lock():
        prepare(directory)
    assert names_in(directory) == {"engines", "history.sqlite", "lock", "logs", "logs/host.log"}
    assert (directory.logs / "host.log").read_text() == "it began\n"


def test_preparing_cuts_long_logs_at_a_line(directory: ClusterDirectory) -> None:
    line = b"0123456789abcdef\n"
    path = directory.logs / "controller.log"
    path.write_bytes(line * (LOG_LIMIT_BYTES // len(line) + 1))
    prepare(directory)
    data = path.read_bytes()
    assert LOG_KEPT_BYTES - len(line) <= len(data) < LOG_KEPT_BYTES
    assert data.startswith(line)
    assert data.endswith(line)
    assert len(data) % len(line) == 0


def test_last_lines_of_one_log(directory: ClusterDirectory) -> None:
    (directory.logs / "host.log").write_text("one\ntwo\nthree\n")
    (directory.logs / "controller.log").write_text("")
    assert last_lines(directory.logs, 2) == "two\nthree"


def test_last_lines_of_several_logs_are_named(directory: ClusterDirectory) -> None:
    (directory.logs / "host.log").write_text("started\n")
    (directory.logs / "controller.log").write_bytes(b"bad \xff byte\n")
    assert last_lines(directory.logs) == "controller.log:\nbad \ufffd byte\nhost.log:\nstarted"


def test_last_lines_of_nothing(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "gone") == ""


def test_names_that_are_made_up_are_nobodys() -> None:
    name = make_up_name()
    assert name != make_up_name()
    assert not is_given(name)
    assert not is_given("default")
    assert is_given("night-run")
    assert is_given("cluster-of-mine")
