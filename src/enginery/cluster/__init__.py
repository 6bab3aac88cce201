"""Clusters: starting, scaling and stopping them."""
