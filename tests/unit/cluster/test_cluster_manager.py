"""`ClusterManager` as far as nothing runs."""

import doctest
from pathlib import Path

import pytest

from enginery.cluster import cluster_manager
from enginery.cluster.cluster_manager import ClusterManager, clean_cluster_files
from enginery.transport.addresses import RUNTIME_VARIABLE, ClusterDirectory


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    monkeypatch.setenv(RUNTIME_VARIABLE, str(path))
    return path


def test_clusters_are_made_found_and_forgotten() -> None:
    manager = ClusterManager()
    key, cluster = manager.new_cluster(n=1, name="night")
    assert (key, cluster.parent) == ("night", manager)
    assert manager.get_cluster("night") is cluster
    with pytest.raises(KeyError, match="there is a cluster 'night' already"):
        manager.new_cluster(name="night")
    assert manager.load_clusters() == {"night": cluster}  # it has not run yet, so it stays
    manager.remove_cluster("night")
    assert repr(manager) == "<ClusterManager of 0 clusters>"
    for call in (manager.get_cluster, manager.remove_cluster):
        with pytest.raises(KeyError, match="there is no cluster 'night' here; known: none"):
            call("night")


def test_default_clusters_of_profiles() -> None:
    manager = ClusterManager()
    assert list(manager.load_clusters(init_default_clusters=True)) == ["default"]
    manager.load_clusters(profiles=["mpi"], init_default_clusters=True)
    manager.load_clusters(profile_dir="/x/profile_gpu", init_default_clusters=True)
    assert list(manager.clusters) == ["default", "mpi", "gpu"]
    assert manager.clusters["gpu"].profile == "gpu"


def test_what_ended_clusters_have_left_is_removed(runtime: Path) -> None:
    for name in ("mpi", "mpi-a", "night"):
        ClusterDirectory(name).create()
    assert clean_cluster_files("profile_mpi") == ["mpi", "mpi-a"]
    assert [path.name for path in runtime.iterdir()] == ["night"]
    assert clean_cluster_files() == ["night"]
    assert list(runtime.iterdir()) == []


def test_the_examples_in_docstrings() -> None:
    assert doctest.testmod(cluster_manager).failed == 0
