"""A cluster as any process of its user may know it: its settings, whether it runs, its engines, its file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from enginery.cluster import cluster_file as cluster_files
from enginery.cluster.engine_sets import EngineSet, EngineSets
from enginery.cluster.former_keywords import name_of
from enginery.cluster.found_host import FoundHost
from enginery.cluster.local_host import LocalHost
from enginery.cluster.settings import Settings
from enginery.errors import ClusterNotFound
from enginery.ids import EngineId
from enginery.transport.addresses import DEFAULT_NAME, ClusterDirectory

if TYPE_CHECKING:
    from enginery.transport.connection_file import ConnectionInfo


@dataclass(frozen=True)
class RunningController:
    """The controller of a cluster that runs."""

    pid: int
    directory: str
    addresses: list[str]


class KnownCluster(Settings):
    """Base of `Cluster`: everything that starts and stops nothing."""

    def __init__(self, short: Mapping[str, Any], former: Mapping[str, Any]) -> None:
        super().__init__(short, former)
        self.engines = EngineSets()
        """What this object, or whoever wrote its cluster file, has started, in sets by their ids."""
        self._host: LocalHost | FoundHost | None = None
        self._is_let_go = False  # it outlives this object

    @property
    def directory(self) -> ClusterDirectory:
        """Where the cluster lives."""
        return self._host.directory if self._host is not None else ClusterDirectory(self.name)

    @property
    def connection_file(self) -> str:
        """The file that lets other processes of this user in: ``Client(path)``."""
        return str(self.directory.connection_file("client"))

    @property
    def controller(self) -> RunningController | None:
        """The controller's process while it runs, else None."""
        if not self.is_running():
            return None
        info = self._info()
        return RunningController(info.controller_pid, info.directory, list(info.tcp))

    @property
    def engine_set(self) -> EngineSet | None:
        """The first set of engines, None if there is none."""
        return next(iter(self.engines.values()), None)

    @property
    def has_run(self) -> bool:
        """Whether it was running at some time, as far as this object knows."""
        return self._host is not None

    def is_running(self) -> bool:
        """Tell whether the cluster that this object has started, or was loaded for, is still there."""
        return self._host is not None and self._host.is_running()

    # ------------------------------------------------------------ let go, and found again

    def detach(self) -> None:
        """Let the cluster outlive this process, and a ``with`` that it was entered by.

        Any process of this user gets at it with `attach`. Raises ClusterNotFound if it does not run.
        """
        self._require_running()
        if isinstance(self._host, LocalHost):
            self._host.detach()
        self.detached = self._is_let_go = True
        self.update_cluster_file()

    @classmethod
    def attach(cls, name: str, **keywords: Any) -> Self:
        """The running cluster of that name, whoever has started it: to use it, to scale it, to stop it.

        `keywords` are the constructor's. Raises ClusterNotFound if none runs.
        """
        try:
            cluster = cls.from_file(ClusterDirectory(name).cluster_file, **keywords)
        except ClusterNotFound:
            raise ClusterNotFound(name) from None
        cluster._require_running()
        cluster._is_let_go = True
        return cluster

    # ------------------------------------------------------------ as a dictionary, as a file

    def to_dict(self) -> dict[str, Any]:
        """What another process of this user needs to act on this cluster; `from_dict` reads it."""
        controller = self.controller
        return {
            "cluster": self._kept_settings(),
            "controller": None if controller is None else asdict(controller),
            "engines": {set_id: list(found.engines) for set_id, found in self.engines.items()},
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], **keywords: Any) -> Self:
        """The cluster that `to_dict` has described; keywords are the constructor's and come first."""
        cluster = cls(**{**content["cluster"], **keywords})
        for set_id, engines in content.get("engines", {}).items():
            cluster.engines.add(set_id, map(EngineId, engines), have_answered=True)
        if content.get("controller"):
            path = Path(content["controller"]["directory"])
            cluster._host = FoundHost(ClusterDirectory(path.name, runtime=path.parent))
        return cluster

    @classmethod
    def from_file(
        cls,
        cluster_file: str | os.PathLike[str] | None = None,
        *,
        profile: str | None = None,
        profile_dir: str | None = None,
        cluster_id: str = "",
        **keywords: Any,
    ) -> Self:
        """The cluster of a cluster file: of this path, else of the name that profile and id make.

        Raises ClusterNotFound (a FileNotFoundError), ConnectionFileError for a file of no use.
        """
        if cluster_file is None:
            named = {"profile": profile, "profile_dir": profile_dir, "cluster_id": cluster_id}
            cluster_file = ClusterDirectory(name_of(named) or DEFAULT_NAME).cluster_file
        return cls.from_dict(cluster_files.read(cluster_file), **keywords)

    def write_cluster_file(self) -> None:
        """Write the cluster file, of mode 0600; nothing if `cluster_file` is empty."""
        if self.cluster_file:
            cluster_files.write(Path(self.cluster_file), self.to_dict())

    def update_cluster_file(self) -> None:
        """Write the cluster file anew, or remove it if the cluster does not run."""
        if self.is_running():
            self.write_cluster_file()
        else:
            self.remove_cluster_file()

    def remove_cluster_file(self) -> None:
        """Remove the cluster file, if there is one."""
        if self.cluster_file:
            Path(self.cluster_file).unlink(missing_ok=True)

    # ------------------------------------------------------------ inside

    def _require_running(self) -> None:
        if not self.is_running():
            raise ClusterNotFound(self.name)

    def _info(self) -> ConnectionInfo:
        from enginery.transport.connection_file import load

        self._require_running()
        return load(self.connection_file)
