"""ipyparallel's path to the decorators. They live in `enginery.client.functional`."""

from enginery.client.functional import ParallelFunction, RemoteFunction, parallel, remote

__all__ = ["ParallelFunction", "RemoteFunction", "parallel", "remote"]
