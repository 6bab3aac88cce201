"""enginery: interactive parallel computing on engines that keep live Python namespaces.

    import enginery as ipp

    with ipp.Cluster(n=4) as rc:
        rc[:].apply_sync(lambda: 6 * 7)

This is the front door: names only. What a name needs is imported when it is touched for the first time.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from enginery import registry

if TYPE_CHECKING:
    from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION

    from enginery.client.client import Client
    from enginery.client.dependencies import Dependency
    from enginery.client.executor import ViewExecutor
    from enginery.client.functional import (
        ParallelFunction,
        RemoteFunction,
        parallel,
        remote,
    )
    from enginery.client.own_cluster import get_client
    from enginery.client.results.async_result import AsyncResult
    from enginery.client.results.hub_result import AsyncHubResult
    from enginery.client.results.map_result import AsyncMapResult
    from enginery.client.views.balanced import LoadBalancedView
    from enginery.client.views.broadcast import BroadcastView
    from enginery.client.views.direct import DirectView
    from enginery.cluster.cluster import Cluster
    from enginery.cluster.cluster_manager import ClusterManager
    from enginery.engine.attaching import bind_kernel
    from enginery.engine.publishing import report
    from enginery.errors import (
        AbortedTask,
        AlreadyDisplayedError,
        ClientClosed,
        ClusterAlreadyRunning,
        ClusterNotFound,
        ClusterNotResponding,
        CompositeError,
        ConnectionFileError,
        DependencyTimeout,
        EngineError,
        EngineLost,
        EngineryError,
        ForkedClientError,
        HistoryError,
        ImpossibleDependency,
        InvalidDependency,
        IPythonError,
        KernelError,
        LauncherError,
        LaunchError,
        NestedTooDeep,
        NoEnginesRegistered,
        NoSuchEngine,
        NotRunning,
        ProcessStateError,
        PurgeRefused,
        QueryRefused,
        ReentrantUseError,
        RemoteError,
        ResultDropped,
        TaskAborted,
        TaskCancelled,
        TaskRejectError,
        TaskTimeout,
        TimeLimitExceeded,
        TimeoutError,  # noqa: A004
        TooLarge,
        UnknownStatus,
        UnknownTask,
        UnmetDependency,
    )
    from enginery.former_name import install_as_ipyparallel
    from enginery.frontends.joblib_backend import register_joblib_backend
    from enginery.objects.canning import (
        can,
        can_map,
        interactive,
        uncan,
        uncan_map,
    )
    from enginery.objects.dependent import depend, dependent, require
    from enginery.objects.libraries import use_cloudpickle, use_dill, use_pickle
    from enginery.objects.lowlevel import (
        deserialize_object,
        pack_apply_message,
        serialize_object,
        unpack_apply_message,
    )
    from enginery.objects.plain_failures import collect_exceptions, unwrap_exception, wrap_exception
    from enginery.objects.prepickled import PrePickled
    from enginery.objects.reference import Reference
    from enginery.objects.serializers import register_serializer

__version__ = "0.1.0"
version_info = (0, 1, 0)

__all__ = [
    "Client",
    "Cluster",
    "ClusterManager",
    "DirectView",
    "LoadBalancedView",
    "BroadcastView",
    "ViewExecutor",
    "AsyncResult",
    "AsyncMapResult",
    "AsyncHubResult",
    "RemoteFunction",
    "ParallelFunction",
    "remote",
    "parallel",
    "Dependency",
    "bind_kernel",
    "get_client",
    "depend",
    "dependent",
    "require",
    "Reference",
    "PrePickled",
    "interactive",
    "can",
    "uncan",
    "can_map",
    "uncan_map",
    "register_serializer",
    "report",
    "serialize_object",
    "deserialize_object",
    "pack_apply_message",
    "unpack_apply_message",
    "use_cloudpickle",
    "use_dill",
    "use_pickle",
    "wrap_exception",
    "unwrap_exception",
    "collect_exceptions",
    "register_joblib_backend",
    "install_as_ipyparallel",
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "EngineryError",
    "ClusterNotFound",
    "ClusterAlreadyRunning",
    "ClusterNotResponding",
    "ConnectionFileError",
    "ClientClosed",
    "ForkedClientError",
    "ReentrantUseError",
    "LaunchError",
    "HistoryError",
    "NestedTooDeep",
    "NoEnginesRegistered",
    "NoSuchEngine",
    "QueryRefused",
    "PurgeRefused",
    "TooLarge",
    "RemoteError",
    "CompositeError",
    "AlreadyDisplayedError",
    "EngineError",
    "EngineLost",
    "TaskAborted",
    "TaskCancelled",
    "TaskTimeout",
    "TimeLimitExceeded",
    "UnmetDependency",
    "ImpossibleDependency",
    "InvalidDependency",
    "DependencyTimeout",
    "UnknownTask",
    "ResultDropped",
    "TaskRejectError",
    "AbortedTask",
    "KernelError",
    "IPythonError",
    "LauncherError",
    "ProcessStateError",
    "NotRunning",
    "UnknownStatus",
    "TimeoutError",
]

_ELSEWHERE = {
    "Client": "enginery.client.client",
    "bind_kernel": "enginery.engine.attaching",
    "get_client": "enginery.client.own_cluster",
    "Cluster": "enginery.cluster.cluster",
    "ClusterManager": "enginery.cluster.cluster_manager",
    "DirectView": "enginery.client.views.direct",
    "LoadBalancedView": "enginery.client.views.balanced",
    "BroadcastView": "enginery.client.views.broadcast",
    "ViewExecutor": "enginery.client.executor",
    "AsyncResult": "enginery.client.results.async_result",
    "AsyncMapResult": "enginery.client.results.map_result",
    "AsyncHubResult": "enginery.client.results.hub_result",
    "RemoteFunction": "enginery.client.functional",
    "ParallelFunction": "enginery.client.functional",
    "remote": "enginery.client.functional",
    "parallel": "enginery.client.functional",
    "Dependency": "enginery.client.dependencies",
    "depend": "enginery.objects.dependent",
    "dependent": "enginery.objects.dependent",
    "require": "enginery.objects.dependent",
    "Reference": "enginery.objects.reference",
    "PrePickled": "enginery.objects.prepickled",
    "interactive": "enginery.objects.canning",
    "can": "enginery.objects.canning",
    "uncan": "enginery.objects.canning",
    "can_map": "enginery.objects.canning",
    "uncan_map": "enginery.objects.canning",
    "register_serializer": "enginery.objects.serializers",
    "report": "enginery.engine.publishing",
    "serialize_object": "enginery.objects.lowlevel",
    "deserialize_object": "enginery.objects.lowlevel",
    "pack_apply_message": "enginery.objects.lowlevel",
    "unpack_apply_message": "enginery.objects.lowlevel",
    "use_cloudpickle": "enginery.objects.libraries",
    "use_dill": "enginery.objects.libraries",
    "use_pickle": "enginery.objects.libraries",
    "wrap_exception": "enginery.objects.plain_failures",
    "unwrap_exception": "enginery.objects.plain_failures",
    "collect_exceptions": "enginery.objects.plain_failures",
    "register_joblib_backend": "enginery.frontends.joblib_backend",
    "install_as_ipyparallel": "enginery.former_name",
    "ALL_COMPLETED": "concurrent.futures",
    "FIRST_COMPLETED": "concurrent.futures",
    "FIRST_EXCEPTION": "concurrent.futures",
}

_MODULES = ("client", "cluster", "controller", "error", "serialize", "util")
"""Modules that ipyparallel has as its attributes."""

registry.provide({name: _ELSEWHERE.get(name, "enginery.errors") for name in __all__})
registry.provide({name: f"enginery.{name}:" for name in _MODULES})
registry.provide({"__version__": "enginery", "clean_cluster_files": "enginery.cluster.cluster_manager"})
registry.provide(
    {
        "activate_magics": "enginery.frontends.activation",
        "offer_magics": "enginery.frontends.activation",
        "ParallelMagics": "enginery.frontends.magics",
        "become_dask": "enginery.frontends.dask_cluster",
        "stop_dask": "enginery.frontends.dask_cluster",
        "register_view_with_joblib": "enginery.frontends.joblib_backend:register_view",
        "open_screen": "enginery.frontends.faces.screens",
        "bundle_of": "enginery.frontends.faces.notebook",
        "LiveCard": "enginery.frontends.faces.live",
    }
)

if os.environ.get("ENGINERY_AS_IPYPARALLEL"):
    from enginery.former_name import answer_to_former_name

    answer_to_former_name()
    del answer_to_former_name


def __getattr__(name: str) -> Any:
    if name not in __all__ and name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = registry.find(name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES} - {"annotations", "os", "TYPE_CHECKING", "Any"})
