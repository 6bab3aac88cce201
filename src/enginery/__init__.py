"""enginery: interactive parallel computing on engines that keep live Python namespaces.

    import enginery as ipp

    with ipp.Cluster(n=4) as rc:
        rc[:].apply_sync(lambda: 6 * 7)

This is the front door: names only. What a name needs is imported when it is touched for the first time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enginery import registry

if TYPE_CHECKING:
    from enginery.client.client import Client
    from enginery.client.results.async_result import AsyncResult
    from enginery.client.results.map_result import AsyncMapResult
    from enginery.client.views.balanced import LoadBalancedView
    from enginery.client.views.direct import DirectView
    from enginery.cluster.cluster import Cluster
    from enginery.errors import (
        AbortedTask,
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
        ImpossibleDependency,
        InvalidDependency,
        IPythonError,
        KernelError,
        LaunchError,
        NoEnginesRegistered,
        RemoteError,
        TaskAborted,
        TaskCancelled,
        TaskTimeout,
        TimeLimitExceeded,
        TooLarge,
        UnmetDependency,
    )

__version__ = "0.1.0"

__all__ = [
    "Client",
    "Cluster",
    "DirectView",
    "LoadBalancedView",
    "AsyncResult",
    "AsyncMapResult",
    "EngineryError",
    "ClusterNotFound",
    "ClusterAlreadyRunning",
    "ClusterNotResponding",
    "ConnectionFileError",
    "ClientClosed",
    "ForkedClientError",
    "LaunchError",
    "NoEnginesRegistered",
    "TooLarge",
    "RemoteError",
    "CompositeError",
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
    "AbortedTask",
    "KernelError",
    "IPythonError",
]

_ELSEWHERE = {
    "Client": "enginery.client.client",
    "Cluster": "enginery.cluster.cluster",
    "DirectView": "enginery.client.views.direct",
    "LoadBalancedView": "enginery.client.views.balanced",
    "AsyncResult": "enginery.client.results.async_result",
    "AsyncMapResult": "enginery.client.results.map_result",
}

registry.provide({name: _ELSEWHERE.get(name, "enginery.errors") for name in __all__})
registry.provide({"__version__": "enginery"})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = registry.find(name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"annotations", "TYPE_CHECKING", "Any"})
