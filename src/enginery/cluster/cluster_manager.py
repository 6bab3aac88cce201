"""`ClusterManager`: the clusters of this user on this machine, as objects, under their names."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import Any

from enginery.cluster.cluster import Cluster
from enginery.cluster.control import end_cluster
from enginery.cluster.former_keywords import profile_of
from enginery.cluster.upkeep import sweep
from enginery.errors import ClusterNotFound, ConnectionFileError
from enginery.transport.addresses import DEFAULT_NAME, name_from
from enginery.transport.discovery import ClusterState, FoundCluster, find_clusters


class ClusterManager:
    """Find, make and forget clusters. The key of each is its name.

    >>> manager = ClusterManager()
    >>> key, cluster = manager.new_cluster(n=2, name="night")
    >>> key, manager.get_cluster("night") is cluster
    ('night', True)
    """

    def __init__(self) -> None:
        self.clusters: dict[str, Cluster] = {}

    def __repr__(self) -> str:
        return f"<ClusterManager of {len(self.clusters)} clusters>"

    def load_clusters(
        self,
        *,
        profile_dirs: Iterable[str | os.PathLike[str]] | None = None,
        profile_dir: str | os.PathLike[str] | None = None,
        profiles: Iterable[str] | None = None,
        profile: str | None = None,
        init_default_clusters: bool = False,
    ) -> dict[str, Cluster]:
        """Add all running clusters of this user that are not here; take out those that have ended.

        Profiles, by name or by directory, narrow it to clusters whose names begin with one of them. With
        `init_default_clusters` a cluster of each profile's name, or ``default``, is there even if it does not
        run. Returns `clusters`.
        """
        wanted = _profiles(profile_dirs, profile_dir, profiles, profile)
        for key, cluster in list(self.clusters.items()):
            if cluster.has_run and not cluster.is_running():
                del self.clusters[key]
        for found in find_clusters():
            is_new = found.state is ClusterState.RUNNING and found.name not in self.clusters
            if is_new and _is_wanted(found, wanted):
                self._load(found)
        if init_default_clusters:
            for one in [DEFAULT_NAME] if wanted is None else wanted:
                name = name_from(profile=one)
                self.clusters.setdefault(name, Cluster(name=name, profile=one))
        return self.clusters

    def new_cluster(self, **keywords: Any) -> tuple[str, Cluster]:
        """Make a `Cluster` with these keywords; return its key and itself. It is not started.

        Raises KeyError if there is one of its name.
        """
        cluster = Cluster(parent=self, **keywords)
        if cluster.name in self.clusters:
            raise KeyError(f"there is a cluster {cluster.name!r} already; take it with get_cluster()")
        self.clusters[cluster.name] = cluster
        return cluster.name, cluster

    def get_cluster(self, cluster_id: str) -> Cluster:
        """The cluster of this key; raises KeyError with those there are."""
        try:
            return self.clusters[cluster_id]
        except KeyError:
            raise KeyError(_unknown(cluster_id, self.clusters)) from None

    def remove_cluster(self, cluster_id: str) -> None:
        """Forget the cluster of this key; it goes on if it runs. Raises KeyError as `get_cluster` does."""
        self.get_cluster(cluster_id)
        del self.clusters[cluster_id]

    def _load(self, found: FoundCluster) -> None:
        try:
            cluster = Cluster.from_file(found.directory.cluster_file, parent=self)
        except (ClusterNotFound, ConnectionFileError):
            # It has ended meanwhile, or was started as a controller alone, which writes no such file.
            settings = {"name": found.name, "cluster_file": ""}
            controller = {"directory": str(found.directory.path)}
            cluster = Cluster.from_dict({"cluster": settings, "controller": controller}, parent=self)
        if cluster.is_running():
            self.clusters[found.name] = cluster


def clean_cluster_files(
    profile_dirs: Iterable[str | os.PathLike[str]] | str | None = None,
    *,
    log: logging.Logger | None = None,
    force: bool = False,
) -> list[str]:
    """Remove what clusters that have ended have left, history and logs included; return their names.

    `profile_dirs` narrows it as in `ClusterManager.load_clusters`. Raises ValueError if one of them runs,
    before anything is removed; with `force` it is stopped first.
    """
    if isinstance(profile_dirs, str):
        profile_dirs = [profile_dirs]
    wanted = _profiles(profile_dirs, None, None, None)
    found = [cluster for cluster in find_clusters() if _is_wanted(cluster, wanted)]
    running = [cluster.name for cluster in found if cluster.state is ClusterState.RUNNING]
    if running and not force:
        raise ValueError(
            f"these clusters run: {', '.join(running)}; stop them with:  enginery stop NAME   "
            "or have them stopped with force=True"
        )
    for cluster in found:
        if cluster.state is ClusterState.RUNNING:
            end_cluster(cluster.directory)
        sweep(cluster.directory, keep_directory=False)
        if log is not None:
            log.info("removed what the cluster %s has left", cluster.name)
    return [cluster.name for cluster in found]


def _profiles(
    directories: Iterable[str | os.PathLike[str]] | None,
    directory: str | os.PathLike[str] | None,
    names: Iterable[str] | None,
    name: str | None,
) -> list[str] | None:
    """The profiles that are meant, by the first of these that is given; None for all."""
    if directories is None and directory is not None:
        directories = [directory]
    if directories is not None:
        return [profile_of({"profile_dir": one}) for one in directories]
    if names is None and name is not None:
        names = [name]
    return None if names is None else list(names)


def _is_wanted(cluster: FoundCluster, profiles: list[str] | None) -> bool:
    """Whether a cluster can be of one of these profiles by its name, see `name_from`."""
    if profiles is None:
        return True
    return any(cluster.name == one or cluster.name.startswith(f"{one}-") for one in profiles)


def _unknown(key: str, known: Iterable[str]) -> str:
    return f"there is no cluster {key!r} here; known: {', '.join(known) or 'none'}"
