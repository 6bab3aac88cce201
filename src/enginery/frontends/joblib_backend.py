"""joblib's `Parallel`, and with it scikit-learn, on the engines of a cluster.

A batch of joblib's goes to whichever engine is free as one task. Functions travel as they do with joblib's
own processes, data that they name included: what is written for those gives the same results here. Arrays in
it leave the pickle out of band, so large ones go through shared memory. `Parallel` inside a task runs in that
task alone: all engines are at work already.

Source: joblib's `ParallelBackendBase`, ipyparallel's `register_joblib_backend`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from joblib.parallel import (
    AutoBatchingMixin,
    ParallelBackendBase,
    SequentialBackend,
    register_parallel_backend,
)

from enginery.client.client import Client
from enginery.client.results import AsyncResult
from enginery.client.views.balanced import LoadBalancedView
from enginery.cluster.cluster import Cluster
from enginery.errors import ClientClosed, ClusterNotFound
from enginery.objects.carried import Carried, call

NAMES = ("enginery", "ipyparallel")
"""Under these `register_joblib_backend()` makes it known, unless it is given another."""


class EngineryBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """joblib's side of a balanced view.

    Without a view it is one of the cluster ``default``, or of one that is started for this process.
    """

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(self, view: LoadBalancedView | None = None, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._view = view
        self._lock = threading.Lock()
        self._open: set[AsyncResult] = set()

    def __repr__(self) -> str:
        return f"<EngineryBackend over {self._view!r}, {len(self._open)} batches under way>"

    @property
    def view(self) -> LoadBalancedView:
        if self._view is None:
            self._view = default_view()
        return self._view

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """As many as asked for and there are engines; negative numbers count from the number of engines."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        engines = max(len(self.view), 1)
        if n_jobs is None:
            return engines
        return min(n_jobs, engines) if n_jobs > 0 else max(engines + 1 + n_jobs, 1)

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None) -> AsyncResult:
        result = self.view.apply_async(call, Carried(func))
        with self._lock:
            self._open.add(result)
        result.add_done_callback(self._on_done)
        if callback is not None:
            result.add_done_callback(callback)
        return result

    def retrieve_result_callback(self, out: AsyncResult) -> Any:
        return out.get(0)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Take back what has not started, and stop what runs."""
        with self._lock:
            unfinished = list(self._open)
        for result in unfinished:
            result.cancel()

    def terminate(self) -> None:
        self.abort_everything()

    def get_nested_backend(self) -> tuple[ParallelBackendBase, None]:
        """`Parallel` inside a task runs there, one call after the other."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None

    def _on_done(self, result: Any) -> None:
        with self._lock:
            self._open.discard(result)


_default_lock = threading.Lock()
_default: LoadBalancedView | None = None


def default_view() -> LoadBalancedView:
    """The view that is meant by who names none; made once, and again after its client was closed."""
    global _default
    with _default_lock:
        if _default is None or not _is_open(_default):
            _default = _default_client().load_balanced_view()
        return _default


def _default_client() -> Client:
    try:
        client = Client()
    except ClusterNotFound:
        cluster = Cluster()  # it ends with this process
        return cluster.start_and_connect_sync()
    client.wait_for_engines(1, timeout=10)
    return client


def _is_open(view: LoadBalancedView) -> bool:
    try:
        _ = view.client.session
    except ClientClosed:
        return False
    return True


def register_joblib_backend(name: str | None = None, make_default: bool = False) -> None:
    """Make enginery known to joblib as a backend, by default under its own name and ipyparallel's.

    It uses the cluster ``default``, or starts one for this process. With `make_default` it is what `Parallel`
    uses without being told. Raises ImportError where joblib is not installed.

    >>> enginery.register_joblib_backend()                              # doctest: +SKIP
    >>> with joblib.parallel_config("enginery"):                        # doctest: +SKIP
    ...     GridSearchCV(model, grid).fit(x, y)
    """
    names = NAMES if name is None else (name,)
    for each in names:
        register_parallel_backend(each, EngineryBackend, make_default=make_default and each == names[0])


def register_view(view: LoadBalancedView, name: str, make_default: bool) -> None:
    """The same for one view: its engines, its flags."""

    def backend(**keywords: Any) -> EngineryBackend:
        return EngineryBackend(view, **keywords)

    register_parallel_backend(name, backend, make_default=make_default)
