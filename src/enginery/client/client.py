"""Client: what a user holds of a cluster. Views come from it, and it looks after what they share.

It owns the session, one view per class, targets and flags, the history of ids, and the feeders of its maps.
All methods may be called from any thread; after `close`, and in a forked child, calls raise a sentence.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from enginery import registry
from enginery.client.calls import Flags
from enginery.client.contract import TaskSession
from enginery.client.results.async_result import AsyncResult
from enginery.client.results.map_result import AsyncMapResult
from enginery.client.session import Session
from enginery.client.sources import Feeders
from enginery.client.views.balanced import LoadBalancedView, normalise_candidates
from enginery.client.views.direct import DirectView
from enginery.client.views.targets import normalise
from enginery.client.views.view import HISTORY_LIMIT, View, check_whole
from enginery.errors import ClientClosed, ClusterNotResponding, EngineryError, ForkedClientError
from enginery.ids import EngineId, TaskId, format_task_id, parse_task_id
from enginery.protocol.messages import Answer, EngineInfo, EngineLeft, Record, ShutDown, StopEngines
from enginery.transport.connection_file import ConnectionInfo, load
from enginery.transport.discovery import locate

ANSWER_S = 10.0
"""How long the controller may take to answer an order."""
LINGER_S = 1.0
_FEEDER_S = 2.0
_ViewType = TypeVar("_ViewType", bound=View)


class Client:
    """Connect to a running cluster.

    `connection_info` is a cluster's name, the path of a connection file (it has a path separator or ends in
    ``.json``), or a `ConnectionInfo`. Without one it is the cluster ``default``, else the only one that runs.
    `timeout` is how many seconds the controller may take to answer.

    Raises ClusterNotFound with the command to type, ConnectionFileError for a file of no use,
    ClusterNotResponding.

    >>> with Client() as rc:                                            # doctest: +SKIP
    ...     rc[:].apply_sync(os.getpid)
    [4711, 4712]
    """

    block: bool
    """Whether new views wait for values; False."""
    cluster: Any
    """The `Cluster` that made this client, if one did."""
    history_limit: int = HISTORY_LIMIT

    def __init__(
        self,
        connection_info: str | os.PathLike[str] | ConnectionInfo | None = None,
        *,
        timeout: float | None = 10,
        cluster: Any = None,
    ) -> None:
        path = ""
        if not isinstance(connection_info, ConnectionInfo):
            path = str(locate(connection_info))
            connection_info = load(path)
        timeout_s = -1.0 if timeout is None else float(timeout)
        self._set_up(
            Session.open(connection_info, version=registry.find("__version__"), timeout_s=timeout_s), path
        )
        self.cluster = cluster
        self.name = connection_info.cluster

    @classmethod
    def over(cls, session: TaskSession, *, name: str = "", connection_file: str = "") -> Self:
        """A client over a session that is already open."""
        client = cls.__new__(cls)
        client._set_up(session, connection_file)
        client.name = name
        return client

    def _set_up(self, session: TaskSession, connection_file: str) -> None:
        self._session = session
        self._pid = os.getpid()
        self.name = ""
        self.block = False
        self.cluster = None
        self._connection_file = connection_file
        self.feeders = Feeders()
        self._views: weakref.WeakValueDictionary[Any, View] = weakref.WeakValueDictionary()
        self._views_lock = threading.Lock()
        self._history: deque[tuple[TaskId, int]] = deque(maxlen=self.history_limit)
        self._waiting_futures: list[tuple[int, Future[None]]] = []
        self._engine_ids: tuple[EngineId, ...] = ()
        session.add_engine_listener(_EngineListener(self))
        self.look_at_engines()

    def __repr__(self) -> str:
        name = f" of {self.name!r}" if self.name else ""
        state = "closed" if self._session.closed else f"{len(self._engine_ids)} engines"
        return f"<Client{name}: {state}>"

    # ------------------------------------------------------------ engines

    @property
    def ids(self) -> list[int]:
        """The ids of the engines that are there now, ascending."""
        return list(map(int, self.engine_ids))

    @property
    def engine_ids(self) -> tuple[EngineId, ...]:
        """The same, as views keep them."""
        self._check_open()
        return self._engine_ids

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[DirectView]:
        """Iterate over views of single engines."""
        return iter([self.direct_view(engine) for engine in self.ids])

    def look_at_engines(self) -> None:
        """Engines have come or gone."""
        self._engine_ids = tuple(sorted(self._session.engines()))
        count = len(self._engine_ids)
        for waiting in list(self._waiting_futures):
            wanted, future = waiting
            if count >= wanted and waiting in self._waiting_futures:
                self._waiting_futures.remove(waiting)
                if future.set_running_or_notify_cancel():
                    future.set_result(None)

    def wait_for_engines(
        self, n: int | None = None, *, timeout: float | None = -1, block: bool = True
    ) -> Future[None] | None:
        """Wait until `n` engines are there; by default as many as the client's cluster was made with.

        Raises TimeoutError after `timeout` seconds, ClientClosed if the connection ends. With `block=False`
        returns a Future at once.
        """
        if n is None:
            n = getattr(self.cluster, "n", None)
            if n is None:
                raise TypeError("wait_for_engines needs a number: this client did not start its cluster")
        wanted = check_whole("n", n)
        if not block:
            future: Future[None] = Future()
            self._waiting_futures.append((wanted, future))
            self.look_at_engines()
            return future
        if not self.session.wait_until(lambda: len(self._engine_ids) >= wanted, timeout):
            self._check_open()
            raise TimeoutError(
                f"{len(self._engine_ids)} of {wanted} engines are there after {timeout:g} s; look with:  "
                f"enginery status {self.name}".rstrip()
            )
        return None

    # ------------------------------------------------------------ views

    def __getitem__(self, key: Any) -> DirectView:
        if key is None or isinstance(key, str):
            raise TypeError(f"a client is indexed with engine ids, lists of them and slices, not {key!r}")
        return self.direct_view(key)

    def direct_view(self, targets: Any = "all", **flags: Any) -> DirectView:
        """A view of the engines named: an id, a list, a slice, or ``"all"``, which is looked up at each call.

        Flags: `block`, `track`, `label`, `priority`, `retries`. Raises TypeError, IndexError,
        NoEnginesRegistered; KeyError for an unknown flag.
        """
        return self._view(DirectView, normalise(targets, self.engine_ids), flags)

    view = direct_view

    def load_balanced_view(self, targets: Any = None, **flags: Any) -> LoadBalancedView:
        """A view whose calls go to whichever engine is free: one of `targets`, or of all.

        Flags and errors are those of `direct_view`.
        """
        return self._view(LoadBalancedView, normalise_candidates(targets, self.engine_ids), flags)

    def _view(self, kind: type[_ViewType], targets: Any, flags: dict[str, Any]) -> _ViewType:
        # A view with flags of its own is its own object; the plain one may be changed by whoever holds it.
        key = (kind, targets, tuple(sorted(flags.items())))
        with self._views_lock:
            view = self._views.get(key)
            if view is None:
                view = self._views[key] = self._make_view(kind, targets, dict(flags))
        assert isinstance(view, kind)
        return view

    def _make_view(self, kind: type[_ViewType], targets: Any, flags: dict[str, Any]) -> _ViewType:
        block, track = flags.pop("block", None), bool(flags.pop("track", False))
        found = Flags(
            label=flags.pop("label", None) or "",
            priority=check_whole("priority", flags.pop("priority", 0)),
            retries=check_whole("retries", flags.pop("retries", 0)),
        )
        if flags:
            raise KeyError(
                f"{min(flags)!r} is no flag of a view; flags are block, track, label, priority, retries"
            )
        return kind(
            self, targets, block=self.block if block is None else bool(block), track=track, flags=found
        )

    # ------------------------------------------------------------ tasks

    @property
    def session(self) -> TaskSession:
        """The connection; raises ClientClosed or ForkedClientError if it is of no use here."""
        if self._pid != os.getpid():
            raise ForkedClientError(self._pid, os.getpid())
        if self._session.closed:
            raise ClientClosed(self._session.end_reason)
        return self._session

    @property
    def outstanding(self) -> set[str]:
        """The ids of the tasks of this client that have not ended."""
        return set(map(format_task_id, self._session.outstanding()))

    @property
    def history(self) -> list[str]:
        """The ids of the tasks that this client has sent, oldest first; the last 100,000 calls."""
        return [format_task_id(task) for task in self._task_history()]

    def remember(self, first: TaskId, count: int) -> None:
        """A view has sent `count` tasks from `first` on."""
        self._history.append((first, count))

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for tasks; False if that took longer than `timeout` seconds (None or negative: for ever).

        `jobs` is an AsyncResult, any Future, a task id, an index into `history`, or a collection of these;
        by default all that is outstanding.
        """
        futures, tasks = self._sort_out(jobs)
        if jobs is None:
            tasks = self._session.outstanding()
        for future in futures:
            if isinstance(future, AsyncResult):
                future.wait(0)  # a map over an iterator reads on when it is waited for

        def is_over() -> bool:
            return all(future.done() for future in futures) and (
                not tasks or tasks.isdisjoint(self._session.outstanding())
            )

        return is_over() or self.session.wait_until(is_over, timeout)

    def abort(self, jobs: Any = None) -> None:
        """Take tasks out of the queues that have not started.

        They fail with TaskAborted; tasks that run go on. `jobs` as for `wait`, by default all outstanding.
        """
        futures, tasks = self._sort_out(jobs)
        for future in futures:
            if not isinstance(future, AsyncResult):
                raise TypeError(f"{future!r} is not a task of this client")
            if isinstance(future, AsyncMapResult):
                if not future.done():
                    future.abort()  # it has items that were not sent yet
            else:
                tasks.update(future.task_ids)
        if jobs is None:
            tasks = self._session.outstanding()
        if tasks:
            self.session.abort(sorted(tasks))

    def _sort_out(self, jobs: Any) -> tuple[list[Future[Any]], set[TaskId]]:
        """Futures and task ids among what a user gives for tasks."""
        futures: list[Future[Any]] = []
        tasks: set[TaskId] = set()
        pending = [] if jobs is None else [jobs]
        while pending:
            job = pending.pop()
            if isinstance(job, Future):
                futures.append(job)
            elif isinstance(job, str):
                tasks.add(parse_task_id(job))
            elif isinstance(job, int) and not isinstance(job, bool):
                tasks.add(self._task_history()[job])
            elif isinstance(job, (list, tuple, set, frozenset)):
                pending.extend(job)
            else:
                raise TypeError(
                    "tasks are named by AsyncResults, task ids, indices into the history or lists of these, "
                    f"not by {job!r}"
                )
        return futures, tasks

    def _task_history(self) -> Sequence[TaskId]:
        return [TaskId(first + number) for first, count in list(self._history) for number in range(count)]

    # ------------------------------------------------------------ the cluster, the end

    @property
    def connection_file(self) -> str:
        """The file to hand to others who want to connect; empty if this client was not made from one."""
        return self._connection_file

    def shutdown(
        self, targets: Any = "all", restart: bool = False, hub: bool = False, block: bool | None = None
    ) -> None:
        """End engines; with `hub=True` the whole cluster, its controller included, and this client with it.

        Raises EngineryError with the controller's reason if it refuses, ClusterNotResponding if it does not
        answer.
        """
        if restart:
            raise NotImplementedError("engines cannot be restarted yet; stop them and start others")
        if hub:
            self._order(ShutDown)
            self.close()
            return
        found = normalise(targets, self.engine_ids)
        engines = (
            found if isinstance(found, tuple) else self.engine_ids if isinstance(found, str) else (found,)
        )
        self._order(lambda number: StopEngines(number, list(engines)))
        if self.block if block is None else block:
            gone = set(engines)
            self.session.wait_until(lambda: gone.isdisjoint(self._engine_ids), ANSWER_S)

    def _order(self, make: Callable[[int], Record]) -> Answer:
        future = self.session.ask(make)
        if not self.session.wait_until(future.done, ANSWER_S):
            raise ClusterNotResponding(self.name, timeout_s=ANSWER_S)
        answer = future.result(timeout=0)
        assert isinstance(answer, Answer)
        if answer.error:
            raise EngineryError(answer.error)
        return answer

    def close(self, linger: float | None = None) -> None:
        """Leave the cluster; tasks that were sent go on. Repeating it does nothing.

        `linger` bounds, in seconds, the wait for what has not left this process.
        """
        if self._pid != os.getpid():
            return  # the connection is the parent's
        self._session.close(LINGER_S if linger is None else linger)
        self.feeders.close(_FEEDER_S)
        waiting, self._waiting_futures = self._waiting_futures, []
        for _, future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(ClientClosed(self._session.end_reason))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        _ = self.session


class _EngineListener:
    """Tells the client of engines that come and go, without keeping it alive."""

    def __init__(self, client: Client) -> None:
        self._client = weakref.ref(client)

    def __call__(self, joined: list[EngineInfo], left: list[EngineLeft]) -> None:
        client = self._client()
        if client is not None:
            client.look_at_engines()
