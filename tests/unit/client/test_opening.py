"""Which cluster a client's arguments name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from enginery.client import client as module
from enginery.client import opening
from enginery.client.client import Client
from enginery.client.opening import find_connection, name_of
from enginery.errors import ConnectionFileError
from enginery.transport.channel import Role
from enginery.transport.connection_file import ConnectionInfo, save
from tests.unit.client.fake_session import FakeSession

INFO = ConnectionInfo(
    format=1,
    cluster="here",
    role=Role.CLIENT,
    tcp=("tcp://127.0.0.1:1",),
    ipc="",
    directory="/nowhere",
    host_proof="",
    controller_pid=0,
    controller_start=0,
    created=0.0,
    server_key="s" * 40,
    public_key="p" * 40,
    secret_key="x" * 40,
    token="t",
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save(INFO, tmp_path / "client.json")
    return tmp_path / "client.json"


@pytest.mark.parametrize(
    ("former", "name"),
    [
        ({}, None),
        ({"profile": "default"}, "default"),
        ({"profile": "mpi"}, "mpi"),
        ({"profile_dir": "/home/me/.ipython/profile_mpi"}, "mpi"),
        ({"cluster_id": "night"}, "night"),
        ({"profile": "mpi", "cluster_id": "night"}, "mpi-night"),
        ({"cluster_id": ""}, None),
        ({"url_file": "a.json", "profile": "mpi"}, Path("a.json")),
    ],
)
def test_former_keywords_name_clusters(former: dict[str, Any], name: object) -> None:
    assert name_of(former) == name


def test_ways_to_name_one_cluster(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = msgspec.json.decode(file.read_bytes())
    for named in (str(file), file, INFO, content):
        assert find_connection(named, {}).info == INFO
    assert find_connection(None, {"url_file": str(file)}) == (INFO, str(file))
    assert find_connection(content, {}).path == ""
    asked: list[object] = []

    def locate(named: object) -> Path:
        asked.append(named)
        return file

    monkeypatch.setattr(opening, "locate", locate)
    find_connection("here", {})
    find_connection(None, {"cluster_id": "night"})
    find_connection(None, {})
    assert asked == ["here", "night", None]


def test_what_names_no_cluster() -> None:
    with pytest.raises(ValueError, match=r"'tcp://1\.2\.3\.4:5' is a URL, which does not say enough"):
        Client("tcp://1.2.3.4:5")
    with pytest.raises(TypeError, match=r"a cluster is named by its name, the path .* not by 5"):
        Client(5)  # type: ignore[arg-type]
    for content in ({}, {"registration": "tcp://1.2.3.4:5", "key": "abc"}):
        with pytest.raises(ValueError, match="given as a dictionary is incomplete or damaged") as caught:
            Client(content)
        assert isinstance(caught.value, ConnectionFileError)


def test_an_incomplete_file_is_a_value_error(tmp_path: Path) -> None:
    path = tmp_path / "client.json"
    path.write_text('{"format": 1, "cluster": "here"}')
    path.chmod(0o600)
    with pytest.raises(ValueError, match="is incomplete or damaged"):
        Client(str(path))


@pytest.mark.parametrize("keyword", ["sshserver", "sshkey", "password", "paramiko"])
def test_tunnels_are_refused_with_what_to_do(keyword: str) -> None:
    with pytest.raises(ValueError, match=f"{keyword}= is not possible: a client makes no SSH tunnels"):
        Client("here", **{keyword: "x"})


def test_keywords_can_be_read_back(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = FakeSession()
    monkeypatch.setattr(module.Session, "open", lambda info, **keywords: session)
    cluster = object()
    rc = Client(
        url_file=file,
        profile="mpi",
        ipython_dir="/x",
        context=None,
        debug=True,
        sshserver=None,
        paramiko=False,
        timeout=None,
        cluster=cluster,
        packer="json",
    )
    assert rc.name == "here"
    assert rc.connection_file == str(file)
    assert (rc.profile, rc.debug, rc.cluster, rc.session) == ("mpi", True, cluster, session)
    assert (rc.curve_serverkey, rc.curve_publickey, rc.curve_secretkey) == ("s" * 40, "p" * 40, "x" * 40)
    assert rc.former_keywords["packer"] == "json"
    assert rc.former_keywords["ipython_dir"] == "/x"
    plain = Client.over(session)
    assert (plain.curve_serverkey, plain.profile, plain.debug) == (None, "default", False)
