"""What a host writes before it starts, and removes after it has ended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from enginery.errors import ClusterAlreadyRunning
from enginery.host.files import (
    clean_up,
    cluster_directory,
    engine_log,
    last_lines,
    open_log,
    prepare,
    read_keys,
)
from enginery.ids import NO_ENGINE, EngineId, EngineKey
from enginery.protocol.specs import ControllerSpec, HostSpec
from enginery.transport.channel import NO_FILE, Role
from enginery.transport.connection_file import publish


def host_spec(directory: Path, *, keep: bool = False, controller: bool = True) -> HostSpec:
    path = str(directory)
    return HostSpec(
        cluster="c",
        directory=path,
        engines=1,
        controller=ControllerSpec(cluster="c", directory=path) if controller else None,
        keep_directory=keep,
    )


def occupy(spec: HostSpec) -> Path:
    """Leave what a controller leaves that was killed; returns the path of its socket."""
    directory = cluster_directory(spec)
    socket = directory.ipc_path()
    publish(directory, read_keys(spec.directory), tcp=("tcp://127.0.0.1:1",), ipc=f"ipc://{socket}")
    socket.touch()
    spec.path("engines").joinpath("0123456789abcdef").touch()
    spec.path("history.sqlite").touch()
    os.close(open_log(spec.path("logs") / "host.log"))
    return socket


def test_nothing_is_left(tmp_path: Path) -> None:
    spec = host_spec(tmp_path / "c")
    descriptor = prepare(spec)
    occupy(spec)
    clean_up(spec)
    os.close(descriptor)
    assert list(tmp_path.iterdir()) == []


def test_a_named_cluster_keeps_history_and_logs(tmp_path: Path) -> None:
    spec = host_spec(tmp_path / "c", keep=True)
    descriptor = prepare(spec)
    occupy(spec)
    clean_up(spec)
    os.close(descriptor)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["history.sqlite", "logs"]


def test_the_short_socket_of_a_long_path_goes_too(tmp_path: Path) -> None:
    spec = host_spec(tmp_path / ("x" * 100) / "c")
    descriptor = prepare(spec)
    socket = occupy(spec)
    assert socket.parent != Path(spec.directory)
    clean_up(spec)
    os.close(descriptor)
    assert not socket.parent.exists()
    assert not Path(spec.directory).exists()


def test_keys_are_private_and_new_each_time(tmp_path: Path) -> None:
    spec = host_spec(tmp_path / "c")
    descriptor = prepare(spec)
    keys = read_keys(spec.directory)
    assert spec.path("keys.json").stat().st_mode & 0o777 == 0o600
    assert {role.value for role in Role} == set(keys.roles)
    os.close(descriptor)
    os.close(prepare(spec))
    assert read_keys(spec.directory) != keys


def test_a_name_is_held_once(tmp_path: Path) -> None:
    spec = host_spec(tmp_path / "c")
    descriptor = prepare(spec)
    # Handed down in the same process, the lock is found and not taken again.
    assert prepare(spec) == descriptor
    assert not os.get_inheritable(descriptor)
    pid = os.fork()
    if pid == 0:
        os.close(descriptor)
        try:
            prepare(spec)
        except ClusterAlreadyRunning:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    os.close(descriptor)


def test_who_joins_holds_nothing_and_leaves_what_is_not_his(tmp_path: Path) -> None:
    own = host_spec(tmp_path / "guest", controller=False)
    assert prepare(own) == NO_FILE
    clean_up(own)
    assert not (tmp_path / "guest").exists()
    spec = host_spec(tmp_path / "c")
    descriptor = prepare(spec)
    occupy(spec)
    clean_up(host_spec(tmp_path / "c", controller=False))
    assert spec.path("host.json").exists()
    os.close(descriptor)


@pytest.mark.parametrize(
    ("wanted", "name"), [(EngineId(4), "engine-4.log"), (NO_ENGINE, "engine-0123456789abcdef.log")]
)
def test_names_of_logs(tmp_path: Path, wanted: EngineId, name: str) -> None:
    path = engine_log(host_spec(tmp_path), EngineKey("0123456789abcdef"), wanted)
    assert path == tmp_path / "logs" / name


def test_last_lines(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "nothing.log") == ""
    descriptor = open_log(tmp_path / "a.log")
    os.write(descriptor, b"".join(b"line %d\n" % number for number in range(2000)))
    os.close(descriptor)
    assert last_lines(tmp_path / "a.log", 2) == "line 1998\nline 1999"
