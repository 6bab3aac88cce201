"""Clusters: starting, scaling and stopping them."""

from enginery import registry

__getattr__ = registry.lend(__name__, ("Cluster", "ClusterManager", "clean_cluster_files"))
