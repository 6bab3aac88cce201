"""`Cluster` as far as nothing runs: what it takes, refuses and says of itself."""

import os
from pathlib import Path

import pytest

from enginery.cluster.cluster import Cluster
from enginery.cluster.faces import SUFFIX
from enginery.errors import ClusterNotFound
from enginery.host.processes import available_cores


def test_making_one_touches_nothing(runtime_directory: Path) -> None:
    before = set(runtime_directory.iterdir())
    cluster = Cluster(n=3, name="quiet")
    assert cluster.n == 3
    assert cluster.cluster_id == cluster.name == "quiet"
    assert cluster.engines == {}
    assert not cluster.is_running()
    assert repr(cluster) == "<Cluster 'quiet': not running>"
    assert cluster.connection_file == str(runtime_directory / "quiet" / "client.json")
    assert set(runtime_directory.iterdir()) == before


def test_each_has_a_name_of_its_own() -> None:
    assert Cluster().name != Cluster().name


@pytest.mark.parametrize(
    ("keywords", "error", "text"),
    [
        ({"n": -1}, ValueError, "cannot be negative, and -1 is"),
        ({"n": 2.0}, TypeError, "must be an int or None, not 2.0"),
        ({"n": True}, TypeError, "must be an int or None, not True"),
        ({"name": "no/slash"}, ValueError, "'no/slash' cannot name a cluster"),
        ({"db": "mongodb"}, ValueError, "db='mongodb' is not possible; use one of 'sqlite', 'memory'"),
        ({"durability": "none"}, ValueError, "use one of 'fast', 'strict'"),
        ({"start_method": "thread"}, ValueError, "it can be 'fork' or 'spawn'"),
    ],
)
def test_what_cannot_be_meant(keywords: dict[str, object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Cluster(**keywords)  # type: ignore[arg-type]


def test_one_that_does_not_run_has_no_clients_and_takes_no_engines() -> None:
    cluster = Cluster(name="idle")
    for call in (cluster.connect_client_sync, cluster.start_engines_sync, cluster.stop_engines_sync):
        with pytest.raises(ClusterNotFound, match="no cluster named 'idle' is running"):
            call()


def test_stopping_one_that_does_not_run_does_nothing() -> None:
    cluster = Cluster()
    cluster.stop_cluster_sync()
    cluster.stop_controller_sync()
    assert cluster.wait_sync(0.0)


def test_an_unknown_set_of_engines() -> None:
    with pytest.raises(KeyError, match="there is no set of engines 'set-7'; known: none"):
        Cluster().stop_engines_sync("set-7")


def test_every_method_has_both_faces() -> None:
    blocking = {name.removesuffix(SUFFIX) for name in vars(Cluster) if name.endswith(SUFFIX)}
    assert blocking >= {"start_cluster", "start_and_connect", "connect_client", "stop_cluster"}
    for name in blocking:
        face = getattr(Cluster, name)
        assert face.__name__ == name
        assert face.__doc__ is not None


def test_cores_are_those_of_this_process() -> None:
    assert available_cores() == len(os.sched_getaffinity(0))
