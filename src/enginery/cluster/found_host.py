"""The host of a running cluster that somebody else has started, as far as a guest can see and end it."""

from __future__ import annotations

from enginery.cluster.processes import wait_for_end
from enginery.errors import ClusterNotFound, ConnectionFileError
from enginery.transport.addresses import ClusterDirectory
from enginery.transport.connection_file import ConnectionInfo, is_stale, load


class FoundHost:
    """What `LocalHost` is for the process that has started a cluster, for any other of the same user."""

    def __init__(self, directory: ClusterDirectory) -> None:
        self.directory = directory

    def __repr__(self) -> str:
        return f"<FoundHost {self.directory.name!r}, {'running' if self.is_running() else 'ended'}>"

    @property
    def pid(self) -> int:
        """The process id of the controller; 0 if it has ended."""
        info = self._info()
        return 0 if info is None else info.controller_pid

    def is_running(self) -> bool:
        return self._info() is not None

    def wait_end(self, timeout_s: float) -> bool:
        """Wait for the end of the controller; False if it is still there after `timeout_s`."""
        pid = self.pid
        return not pid or wait_for_end(pid, timeout_s)

    def end(self) -> None:
        """End the cluster; returns when its processes and files are gone."""
        from enginery.cluster.control import end_cluster

        end_cluster(self.directory)

    def _info(self) -> ConnectionInfo | None:
        try:
            info = load(self.directory.connection_file("client"))
        except (ClusterNotFound, ConnectionFileError):
            return None
        return None if is_stale(info) else info
