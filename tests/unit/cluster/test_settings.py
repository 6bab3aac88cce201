"""The keywords of `Cluster`, its own and ipyparallel's: what they mean, and what they read back."""

import doctest
import logging
from pathlib import Path
from typing import Any

import pytest

from enginery.cluster import former_keywords
from enginery.cluster.cluster import Cluster
from enginery.cluster.settings import SCHEMES
from enginery.protocol.specs import HistoryLimits
from enginery.transport import addresses
from enginery.transport.addresses import ClusterDirectory


class LocalEngineSetLauncher:
    """Stands for ipyparallel's class of this name."""


def test_what_was_not_given() -> None:
    cluster = Cluster()
    names = ("host", "port", "location", "scheme", "hwm", "db", "durability", "detached", "shutdown_atexit")
    assert [getattr(cluster, name) for name in names] == [
        "127.0.0.1", 0, "", "leastload", None, "sqlite", "fast", False, True
    ]  # fmt: skip
    former = ("profile", "controller_args", "delay", "load_profile", "log_level", "config", "parent")
    assert [getattr(cluster, name) for name in former] == ["default", [], 1.0, True, "INFO", None, None]
    assert cluster.log is logging.getLogger("enginery.cluster")
    assert (cluster.engine_launcher_class, cluster.controller_launcher_class) == ("local", "local")
    assert cluster.cluster_id == cluster.name
    assert (cluster.controller, cluster.engine_set, cluster.engines) == (None, None, {})


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"controller_ip": "*"}, {"host": "*", "controller_ip": "*"}),
        ({"controller_ip": ""}, {"host": "127.0.0.1"}),
        ({"controller_location": "box"}, {"location": "box", "controller_location": "box"}),
        ({"shutdown_atexit": False}, {"detached": True, "shutdown_atexit": False}),
        ({"cluster_id": ""}, {"name": "default", "cluster_id": ""}),
        ({"cluster_id": "night"}, {"name": "night", "cluster_id": "night"}),
        ({"cluster_id": "", "profile": "mpi"}, {"name": "mpi", "profile": "mpi"}),
        ({"cluster_id": "a", "profile_dir": "/x/profile_mpi"}, {"name": "mpi-a", "profile": "mpi"}),
        ({"name": "night", "profile": "mpi"}, {"name": "night", "profile": "mpi"}),
        ({"engines": "LOCAL"}, {"engine_launcher_class": "local"}),
        ({"engines": LocalEngineSetLauncher}, {"engine_launcher_class": "local"}),
        ({"controller": "ipyparallel.cluster.launcher.LocalControllerLauncher"}, {}),
        ({"delay": 3.0, "log_level": 10, "load_profile": False}, {"delay": 3.0, "log_level": 10}),
        (
            {"controller_args": ["--ip=*", "--scheme", "lru", "--hwm=1"]},
            {"host": "*", "scheme": "lru", "hwm": 1},
        ),
        ({"controller_args": ["--nodb", "--port=5"]}, {"db": "memory", "port": 5}),
        ({"scheme": "pure", "hwm": 0, "restart": False}, {"scheme": "pure", "hwm": 0}),
        ({"cluster_file": ""}, {"cluster_file": ""}),
    ],
)
def test_a_keyword_has_its_meaning(given: dict[str, Any], read: dict[str, Any]) -> None:
    cluster = Cluster(**given)
    assert {name: getattr(cluster, name) for name in read} == read


def test_a_profile_alone_names_nothing() -> None:
    one, two = Cluster(profile="mpi"), Cluster(profile="mpi")
    assert one.name != two.name


def test_attributes_may_be_set_by_their_old_names() -> None:
    cluster = Cluster()
    cluster.controller_ip = "*"
    assert cluster.host == "*"


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (
            {"engines": "local", "engine_launcher_class": "local"},
            TypeError,
            "engines= is the short form of eng",
        ),
        ({"controller": "local", "controller_launcher_class": "mpi"}, TypeError, "give one of them"),
        ({"name": "a", "cluster_id": "b"}, TypeError, "not name='a' and cluster_id='b'"),
        ({"host": "*", "controller_ip": "*"}, TypeError, "host= is the short form of controller_ip="),
        ({"detached": True, "shutdown_atexit": True}, TypeError, "detached= is the short form"),
        ({"host": "*", "controller_args": ["--ip=*"]}, TypeError, "an option for what host= says too"),
        ({"engines": "slurm"}, ValueError, "engines='slurm' is not possible: processes are started on this"),
        ({"controller": "mpi"}, ValueError, "controller='mpi' is not possible"),
        ({"controller_args": ["--ssh=x"]}, ValueError, "'--ssh=x', which means nothing here; known: --ip, "),
        ({"controller_args": ["--hwm"]}, ValueError, "ends with '--hwm', which needs a value"),
        ({"controller_args": ["--port=x"]}, ValueError, "--port needs a whole number, not 'x'"),
        ({"port": 70000}, ValueError, "port must be at most 65535, and is 70000"),
        ({"port": -5}, ValueError, "port cannot be negative, and -5 is"),
        ({"payload_limit": -1}, ValueError, "payload_limit cannot be negative, and -1 is"),
        ({"record_age": "long"}, TypeError, "record_age must be a number or None, not 'long'"),
        ({"scheme": "fastest"}, ValueError, "scheme='fastest' is not possible; use one of 'leastload'"),
        ({"hwm": -1}, ValueError, "hwm, the number of tasks in an engine, cannot be negative"),
        ({"restart": True, "db": "memory"}, ValueError, "restart=True goes on with the history"),
        ({"hwm": 1.5}, TypeError, "must be an int or None, not 1.5"),
        ({"shared_memory_limit": -1}, ValueError, "shared_memory_limit cannot be negative, and -1 is"),
        ({"shared_memory_limit": 1e9}, TypeError, "shared_memory_limit must be an int or None"),
        ({"profile": "a/b", "cluster_id": ""}, ValueError, "'a/b' cannot name a cluster"),
        ({"engine": "local"}, TypeError, "unexpected keyword argument 'engine'"),
    ],
)
def test_what_cannot_be_meant(given: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Cluster(**given)


def test_as_a_dictionary_and_back() -> None:
    cluster = Cluster(n=3, name="night", hwm=1, profile="mpi", location="box")
    content = cluster.to_dict()
    assert (content["controller"], content["engines"]) == (None, {})
    again = Cluster.from_dict(content, hwm=2)
    assert (again.n, again.name, again.hwm, again.profile, again.location) == (3, "night", 2, "mpi", "box")
    assert not again.is_running()


def test_the_limits_of_the_history_reach_the_controller(tmp_path: Path) -> None:
    cluster = Cluster(n=1, record_limit=10, payload_limit=1 << 20, record_age=60.5, payload_age=5)
    limits = cluster.controller_spec(ClusterDirectory("night", runtime=tmp_path)).history_limits
    assert limits == HistoryLimits(records=10, payload_bytes=1 << 20, record_age_s=60.5, payload_age_s=5)
    assert Cluster.from_dict(cluster.to_dict()).payload_limit == 1 << 20


@pytest.mark.parametrize("limit", [None, 0, 1 << 30])
def test_the_limit_of_shared_memory_reaches_the_controller(tmp_path: Path, limit: int | None) -> None:
    cluster = Cluster.from_dict(Cluster(n=1, shared_memory_limit=limit).to_dict())
    spec = cluster.controller_spec(ClusterDirectory("night", runtime=tmp_path))
    assert spec.shared_memory_limit == limit


def test_files_of_no_use(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    with pytest.raises(FileNotFoundError):
        Cluster.from_file(path)
    for text in ("", "[]", '{"format": 9}'):
        path.write_text(text)
        with pytest.raises(OSError, match=r"cluster\.json (cannot be read as|is no) "):
            Cluster.from_file(path)


def test_the_schemes_are_those_of_the_core() -> None:
    from enginery.core import placement

    assert set(SCHEMES) == set(placement.SCHEMES)


def test_the_examples_in_docstrings() -> None:
    assert doctest.testmod(former_keywords).failed == 0
    assert doctest.testmod(addresses).failed == 0
