"""What there is to see of a cluster: through a client of it that is open, else what it knows by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enginery.client.snapshots import ClusterSnapshot, EngineSnapshot

if TYPE_CHECKING:
    from enginery.client.client import Client
    from enginery.cluster.known_cluster import KnownCluster


def snapshot_of(cluster: KnownCluster, client: Client | None, *, may_wait: bool) -> ClusterSnapshot:
    """`client` is an open one; without one nobody is asked."""
    name = repr(cluster.name)
    if not cluster.is_running():
        return ClusterSnapshot("Cluster", name, "not running")
    if client is not None:
        return client._snapshot(may_wait=may_wait)._replace(kind="Cluster", name=name)
    started = [engine for engine_set in cluster.engines.values() for engine in engine_set.engines]
    engines = tuple(EngineSnapshot(int(engine)) for engine in sorted(started))
    return ClusterSnapshot("Cluster", name, engines=engines, note="no client of it is open here")
