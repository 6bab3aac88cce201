"""The client that a task has of its own cluster."""

from __future__ import annotations

import os
import threading

from enginery.client.client import Client

FILE_VARIABLE = "ENGINERY_CONNECTION_FILE"
"""Set by engines, and found by what they start."""

_lock = threading.Lock()
_client: Client | None = None
_pid = 0


def get_client() -> Client:
    """Return a client of the cluster whose engine runs this task: the same one each time.

    Calls made with it are the running task's children: they are cancelled with it. While the task waits for
    results, in its own thread, its engine runs children of it, and children of those, and nothing else. So a
    task may map over its own cluster, and wait, even if every engine runs such a task. 20 tasks may wait in
    one engine, each inside the one before; the next wait raises NestedTooDeep.

    Programs that a task starts get an ordinary client. Raises RuntimeError where there is no engine.

    >>> def total(numbers):                                             # doctest: +SKIP
    ...     view = ipp.get_client().load_balanced_view()
    ...     return sum(view.map_sync(square, numbers))
    >>> rc[:].apply_sync(total, range(10))                              # doctest: +SKIP
    [285, 285]
    """
    global _client, _pid
    path = os.environ.get(FILE_VARIABLE)
    if not path:
        raise RuntimeError(
            "get_client() is for tasks: this process is no engine of a cluster, and none has started it. "
            "Connect with Client(), or use the client that Cluster() gives"
        )
    with _lock:
        if _client is None or _pid != os.getpid() or _client._session.closed:
            _client, _pid = Client(path), os.getpid()
            _client.session.nest()
        return _client
