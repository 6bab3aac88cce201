"""Removing what clusters have left: ``enginery clean``."""

from __future__ import annotations

from collections.abc import Sequence

from enginery.cli.listing import find_named
from enginery.cluster.names import is_given
from enginery.cluster.upkeep import sweep
from enginery.transport.discovery import ClusterState, find_clusters


def clean_clusters(names: Sequence[str], *, force: bool) -> tuple[list[str], list[str]]:
    """Remove the directories of these clusters, or (none named) of all, history and logs included.

    Returns the names of those that were removed, and of those that run and were left alone; with `force` they
    are stopped and removed. Raises ClusterNotFound, before anything is removed.
    """
    from enginery.cluster.control import end_cluster

    found = [find_named(name) for name in names] if names else find_clusters()
    removed, running = [], []
    for cluster in found:
        if cluster.state is ClusterState.RUNNING:
            if not force:
                running.append(cluster.name)
                continue
            end_cluster(cluster.directory)
        sweep(cluster.directory, keep_directory=False)
        removed.append(cluster.name)
    return removed, running


def clean_stale() -> list[str]:
    """Tidy up after clusters whose controllers were killed; those with a name keep history and logs."""
    stale = [cluster for cluster in find_clusters() if cluster.state is ClusterState.STALE]
    for cluster in stale:
        sweep(cluster.directory, keep_directory=is_given(cluster.name))
    return [cluster.name for cluster in stale]
