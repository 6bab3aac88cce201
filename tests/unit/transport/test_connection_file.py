"""Connection files, and finding clusters by them."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from enginery.errors import ClusterNotFound, ConnectionFileError
from enginery.transport.addresses import RUNTIME_VARIABLE, ClusterDirectory
from enginery.transport.channel import Role
from enginery.transport.connection_file import ConnectionInfo, is_stale, load, publish, save
from enginery.transport.discovery import ClusterState, find_clusters, locate
from enginery.transport.keys import ClusterKeys
from enginery.transport.same_host import is_same_process, own_process, process_start, proves_same_host

TCP = ("tcp://127.0.0.1:5000",)


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(RUNTIME_VARIABLE, str(tmp_path / "runtime"))
    return tmp_path / "runtime"


@pytest.fixture(scope="module")
def keys() -> ClusterKeys:
    return ClusterKeys.generate()


def _publish(keys: ClusterKeys, name: str = "one") -> ClusterDirectory:
    directory = ClusterDirectory(name).create()
    publish(directory, keys, tcp=TCP, ipc=f"ipc://{directory.ipc_path()}")
    return directory


def _client_file(directory: ClusterDirectory) -> Path:
    return directory.connection_file("client")


def _end_controller(directory: ClusterDirectory) -> None:
    """Make the file name a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pid = process.pid
    path = _client_file(directory)
    save(msgspec.structs.replace(load(path), controller_pid=pid), path)


@pytest.mark.parametrize("role", list(Role))
def test_what_is_published_is_read_back(keys: ClusterKeys, role: Role) -> None:
    directory = _publish(keys)
    path = directory.connection_file(role.value)
    info = load(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert info.credentials() == keys.credentials(role)
    assert (info.cluster, info.role, info.tcp) == ("one", role, TCP)
    assert info.is_same_host()
    assert not is_stale(info)


def test_nothing_but_the_files_is_left(keys: ClusterKeys) -> None:
    directory = _publish(keys)
    publish(directory, keys, tcp=TCP)
    assert sorted(os.listdir(directory.path)) == [
        "client.json", "engine.json", "engines", "host.json", "logs", "proof",
    ]  # fmt: skip


def test_a_failed_save_leaves_the_old_file_and_no_other(
    keys: ClusterKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = _publish(keys)
    info = load(_client_file(directory))
    before = sorted(os.listdir(directory.path))

    def no_space(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(OSError, match="No space"):
        save(info, _client_file(directory))
    assert load(_client_file(directory)) == info
    assert sorted(os.listdir(directory.path)) == before


def test_secrets_are_not_shown(keys: ClusterKeys) -> None:
    info = load(_client_file(_publish(keys)))
    assert repr(info) == f"<ConnectionInfo client of 'one' at {TCP[0]}, {info.ipc}>"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_open_to_others_is_refused(keys: ClusterKeys, mode: int) -> None:
    path = _client_file(_publish(keys))
    path.chmod(mode)
    with pytest.raises(ConnectionFileError, match=f"can be read by others .mode 0{mode:o}.*chmod 600 {path}"):
        load(path)


@pytest.mark.parametrize("cut", [0, 1, 100, -3])
def test_an_incomplete_file_is_refused(keys: ClusterKeys, cut: int) -> None:
    path = _client_file(_publish(keys))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ConnectionFileError, match="is incomplete or damaged"):
        load(path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"format": 99}, "written by a newer enginery .format 99"),
        ({"format": "x"}, "incomplete or damaged"),
        ({"tcp": []}, "has no address or no whole key"),
        ({"server_key": "short"}, "has no address or no whole key"),
        ({"role": "king"}, "incomplete or damaged"),
    ],
)
def test_wrong_content_is_refused(keys: ClusterKeys, change: dict[str, Any], text: str) -> None:
    path = _client_file(_publish(keys))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConnectionFileError, match=text):
        load(path)


def test_a_newer_format_may_have_other_fields(keys: ClusterKeys, tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    path.write_text('{"format": 2, "something": "else"}')
    path.chmod(0o600)
    with pytest.raises(ConnectionFileError, match="upgrade enginery here"):
        load(path)


def test_no_file_is_no_cluster(tmp_path: Path) -> None:
    with pytest.raises(ClusterNotFound) as caught:
        load(tmp_path / "none.json")
    assert caught.value.path == str(tmp_path / "none.json")


def test_a_directory_is_no_connection_file(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFileError, match="cannot be read"):
        load(tmp_path)


# ---------------------------------------------------------------- proofs


def test_the_host_proof_must_be_found_and_be_of_this_kernel(tmp_path: Path) -> None:
    directory = ClusterDirectory("one").create()
    proof = directory.write_proof()
    assert proves_same_host(directory.proof_file, proof)
    assert stat.S_IMODE(directory.proof_file.stat().st_mode) == 0o600
    for wrong in ("", "x" + proof, proof + "x", "." + proof.partition(".")[2]):
        assert not proves_same_host(directory.proof_file, wrong)
    other_kernel = proof.partition(".")[0] + ".another"
    directory.proof_file.write_text(other_kernel)
    assert not proves_same_host(directory.proof_file, other_kernel)
    assert not proves_same_host(tmp_path / "none", proof)


def test_a_process_is_known_by_its_start() -> None:
    pid, start = own_process()
    assert is_same_process(pid, start)
    assert not is_same_process(pid, start + 1)
    assert not is_same_process(pid, 0)


def test_a_dead_process_that_nobody_waited_for_is_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert process_start(process.pid) > 0
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process_start(process.pid) == 0
    assert process_start(process.pid) == 0


def test_a_controller_that_ended_makes_its_file_stale(keys: ClusterKeys) -> None:
    directory = _publish(keys)
    _end_controller(directory)
    info = load(_client_file(directory))
    assert is_stale(info)
    directory.withdraw()
    assert is_stale(info)  # a copy tells it still, when the cluster's own files are gone
    elsewhere = msgspec.structs.replace(info, host_proof=f"{'0' * 32}.another-kernel.1")
    assert not is_stale(elsewhere)  # its process ids mean nothing here: nobody can know


# ---------------------------------------------------------------- finding


def test_no_cluster_at_all() -> None:
    assert find_clusters() == []
    with pytest.raises(ClusterNotFound, match="enginery start -n 4"):
        locate()


def test_the_default_cluster_comes_first(keys: ClusterKeys) -> None:
    for name in ("another", "default"):
        _publish(keys, name)
    assert locate() == _client_file(ClusterDirectory("default"))


def test_the_only_running_cluster_is_taken(keys: ClusterKeys) -> None:
    directory = _publish(keys, "night")
    _end_controller(_publish(keys, "default"))
    _publish(keys, "stopped").withdraw()
    assert locate() == _client_file(directory)


def test_of_several_one_must_be_named(keys: ClusterKeys) -> None:
    for name in ("b", "a"):
        _publish(keys, name)
    with pytest.raises(ClusterNotFound, match="name one of them: 'a', 'b'") as caught:
        locate()
    assert caught.value.running == ("a", "b")
    assert locate("b") == _client_file(ClusterDirectory("b"))


def test_an_unknown_name_lists_what_runs(keys: ClusterKeys) -> None:
    _publish(keys, "a")
    with pytest.raises(ClusterNotFound, match=r"no cluster named 'b'.*'a'.*--name b"):
        locate("b")


def test_a_stale_cluster_is_named_as_stale(keys: ClusterKeys) -> None:
    directory = _publish(keys, "a")
    _end_controller(directory)
    for name in (None, "a"):
        with pytest.raises(ClusterNotFound) as caught:
            locate(name)
        notes = caught.value.__notes__
        assert len(notes) == 1
        assert notes[0].startswith(f"the connection file {_client_file(directory)} is stale: its controller")
    with pytest.raises(ConnectionFileError, match=r"is stale.*enginery start -n 4 --name a"):
        locate(str(_client_file(directory)))


def test_a_path_is_a_path(keys: ClusterKeys, tmp_path: Path) -> None:
    directory = _publish(keys, "a")
    copy = tmp_path / "elsewhere.json"
    save(load(_client_file(directory)), copy)
    assert locate(str(copy)) == copy
    assert locate(copy) == copy
    with pytest.raises(ClusterNotFound, match=r"there is no connection file .*/none; "):
        locate(str(tmp_path / "none"))
    with pytest.raises(ClusterNotFound, match=r"there is no connection file none\.json"):
        locate("none.json")
    with pytest.raises(ValueError, match="cannot name a cluster"):
        locate("a b")


def test_all_clusters_with_their_states(keys: ClusterKeys, runtime: Path) -> None:
    _publish(keys, "a")
    _end_controller(_publish(keys, "b"))
    _publish(keys, "c").withdraw()
    _client_file(_publish(keys, "d")).write_text("{")
    (runtime / "not ours").mkdir()
    (runtime / "file").touch()
    found = find_clusters()
    assert [(each.name, each.state) for each in found] == [
        ("a", ClusterState.RUNNING),
        ("b", ClusterState.STALE),
        ("c", ClusterState.STOPPED),
        ("d", ClusterState.UNREADABLE),
    ]
    assert [bool(each.detail) for each in found] == [False, True, False, True]


def test_the_role_is_part_of_the_content(keys: ClusterKeys) -> None:
    info = load(_publish(keys).connection_file("host"))
    assert isinstance(info, ConnectionInfo)
    assert info.role is Role.HOST
