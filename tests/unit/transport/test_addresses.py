"""Cluster directories: names, rights, lock, path lengths."""

import os
import stat
from pathlib import Path

import pytest

from enginery.errors import ClusterAlreadyRunning, LaunchError
from enginery.transport.addresses import (
    RUNTIME_VARIABLE,
    SOCKET_PATH_LIMIT,
    ClusterDirectory,
    check_cluster_name,
    runtime_directory,
)


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "runtime"
    monkeypatch.setenv(RUNTIME_VARIABLE, str(path))
    return path


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("name", ["default", "a", "Night.run_2-b", "x" * 64])
def test_names(name: str) -> None:
    assert check_cluster_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "-n", "a/b", "a b", "ä", "x" * 65, "a.json", "a\n"])
def test_impossible_names(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a cluster"):
        check_cluster_name(name)


def test_the_runtime_directory_is_made_private(runtime: Path) -> None:
    old = os.umask(0)
    try:
        assert runtime_directory(create=False) == runtime
        assert not runtime.exists()
        assert runtime_directory() == runtime
    finally:
        os.umask(old)
    assert _mode(runtime) == 0o700


def test_without_the_variable_the_system_says_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(RUNTIME_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_directory(create=False).name == "enginery"


def test_a_runtime_directory_that_others_can_write_is_refused(runtime: Path) -> None:
    runtime.mkdir()
    runtime.chmod(0o770)
    with pytest.raises(LaunchError, match=r"is open to others \(mode 0770\).*chmod 700"):
        runtime_directory()


def test_a_cluster_directory_that_others_can_read_is_refused(runtime: Path) -> None:
    directory = ClusterDirectory("one")
    directory.create()
    directory.path.chmod(0o750)
    with pytest.raises(LaunchError, match=r"mode 0750"):
        directory.create()


def test_making_the_object_touches_nothing(runtime: Path) -> None:
    assert repr(ClusterDirectory("one")) == f"<ClusterDirectory {runtime / 'one'}>"
    assert not runtime.exists()


def test_create_makes_private_directories(runtime: Path) -> None:
    directory = ClusterDirectory("one").create().create()
    assert [_mode(path) for path in (directory.path, directory.logs)] == [0o700, 0o700]


def test_the_lock_is_exclusive_and_released(runtime: Path) -> None:
    directory = ClusterDirectory("one").create()
    with directory.lock() as lock:
        with pytest.raises(ClusterAlreadyRunning) as caught:
            ClusterDirectory("one").lock()
        assert caught.value.name == "one"
    lock.release()
    directory.lock().release()
    assert _mode(directory.lock_file) == 0o600


def test_a_lock_on_a_removed_file_is_not_the_lock(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    directory = ClusterDirectory("one").create()
    real, removed = fcntl.flock, []

    def flock(descriptor: int, operation: int) -> None:
        real(descriptor, operation)
        if not removed:
            removed.append(directory)
            directory.remove()

    monkeypatch.setattr(fcntl, "flock", flock)
    with directory.lock():
        assert os.path.exists(directory.lock_file)
        with pytest.raises(ClusterAlreadyRunning):
            directory.lock()


def test_the_socket_lies_in_the_directory_if_its_path_fits() -> None:
    runtime = Path("/tmp/never-made")
    directory = ClusterDirectory("one", runtime=runtime)
    assert directory.ipc_path() == directory.path / "controller.ipc"
    assert not runtime.exists()


def test_a_long_path_gets_a_short_private_directory_that_is_removed(tmp_path: Path) -> None:
    runtime = tmp_path / ("x" * 120)
    directory = ClusterDirectory("one", runtime=runtime).create()
    path = directory.ipc_path()
    assert len(os.fsencode(path)) <= SOCKET_PATH_LIMIT
    assert _mode(path.parent) == 0o700
    assert directory.ipc_path() == path
    directory.remove()
    assert not path.parent.exists()
    assert not directory.path.exists()


def test_withdraw_keeps_history_and_logs(runtime: Path) -> None:
    directory = ClusterDirectory("one").create()
    directory.write_proof()
    for role in ("client", "engine", "host"):
        directory.connection_file(role).touch()
    directory.status_page("k" * 16).touch()
    directory.history_file.touch()
    directory.withdraw()
    assert sorted(os.listdir(directory.path)) == ["history.sqlite", "logs"]
