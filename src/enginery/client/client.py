"""Client: what a user holds of a cluster. Views come from it, and it looks after what they share.

It owns the session, one view per class, targets and flags, the history of ids, and the feeders of its maps;
what it does about engines, results and the controller's memory is done by the files beside it. All methods
may be called from any thread; after `close`, and in a forked child, calls raise a sentence.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from enginery import registry
from enginery.client.asking import Asker
from enginery.client.contract import TaskSession
from enginery.client.engine_waits import EngineWaits
from enginery.client.flags import Flags
from enginery.client.glance import DisplayedClient, Glance
from enginery.client.histories import HISTORY_LIMIT
from enginery.client.ipython import current_shell
from enginery.client.leaving import LINGER_S
from enginery.client.numbers import check_whole, read_seconds
from enginery.client.opening import find_connection, profile_of
from enginery.client.orders import EngineOrders, signal_number
from enginery.client.results.async_result import AsyncResult
from enginery.client.results.bars import ProgressBar
from enginery.client.session import Session
from enginery.client.set_up import SetUpMethods
from enginery.client.sources import Feeders
from enginery.client.task_methods import TaskMethods
from enginery.client.views.balanced import LoadBalancedView, normalise_candidates
from enginery.client.views.broadcast import BroadcastView
from enginery.client.views.direct import DirectView
from enginery.client.views.targets import normalise
from enginery.client.views.view import View
from enginery.errors import ClientClosed, ForkedClientError, NoSuchEngine
from enginery.ids import EngineId
from enginery.protocol.messages import EngineInfo, EngineLeft
from enginery.transport.connection_file import ConnectionInfo

if TYPE_CHECKING:
    from enginery.client.executor import ViewExecutor

OF_CLUSTER = "cluster"
"""In the place of a grace: that of the cluster."""
_FEEDER_S = 2.0
_BALANCED_ONLY = ("after", "follow", "timeout")
_ViewType = TypeVar("_ViewType", bound=View)


class Client(TaskMethods, SetUpMethods, DisplayedClient):
    """Connect to a running cluster.

    `connection_info` is a cluster's name, the path of a connection file (it has a path separator or ends in
    ``.json``), the content of one as a dictionary, or a `ConnectionInfo`. Without one it is the cluster
    ``default``, else the only one that runs. `timeout` is how many seconds the controller may take to answer;
    `history_limit` how many ids the client remembers; `cancel_grace` how many seconds an engine may take to
    end a task that this client cancels, before it is replaced: what the cluster was started with unless
    given, None for ever.

    The other keywords are ipyparallel's. `url_file` is a path; `profile` or `profile_dir`, and `cluster_id`,
    make a name. `ipython_dir`, `context` and `debug` are kept and change nothing, like whatever else is given
    (`former_keywords`). Tunnels (`sshserver` and its like) are refused.

    A client that is closed leaves the cluster. So does one that nobody refers to any more: neither to it, nor
    to a view of it, nor to a result of its calls.

    Raises ClusterNotFound with the command to type, ConnectionFileError for a file of no use,
    ClusterNotResponding; TypeError and ValueError for what names no cluster.

    >>> with Client() as rc:                                            # doctest: +SKIP
    ...     rc[:].apply_sync(os.getpid)
    [4711, 4712]
    """

    block: bool
    """Whether new views wait for values; False."""
    cluster: Any
    """The `Cluster` that made this client, if one did."""
    debug: bool
    """Kept; changes nothing."""
    profile: str
    """The profile that was named to find the cluster, else ``"default"``."""
    former_keywords: Mapping[str, Any]
    """ipyparallel's keywords, as they were given."""
    _connected_by: ConnectionInfo | None = None

    def __init__(
        self,
        connection_info: str | os.PathLike[str] | Mapping[str, Any] | ConnectionInfo | None = None,
        *,
        url_file: str | os.PathLike[str] | None = None,
        profile: str | None = None,
        profile_dir: str | os.PathLike[str] | None = None,
        cluster_id: str | None = None,
        timeout: float | None = 10,
        cluster: Any = None,
        history_limit: int = HISTORY_LIMIT,
        cancel_grace: float | str | None = OF_CLUSTER,
        debug: bool = False,
        **former_keywords: Any,
    ) -> None:
        former = {
            **former_keywords,
            "url_file": url_file,
            "profile": profile,
            "profile_dir": profile_dir,
            "cluster_id": cluster_id,
        }
        check_whole("history_limit", history_limit, smallest=1)  # before there is anything to close
        grace_s = read_grace(cancel_grace)
        info, path = find_connection(connection_info, former)
        session = Session.open(
            info, version=registry.find("__version__"), timeout_s=-1.0 if timeout is None else float(timeout)
        )
        self._set_up(session, name=info.cluster, connection_file=path, history_limit=history_limit)
        session.cancel_grace_s = grace_s
        self._connected_by = info
        self.cluster = cluster
        self.debug = bool(debug)
        self.profile = profile_of(former)
        self.former_keywords = former
        if current_shell() is not None:
            registry.find("offer_magics")(self)

    @classmethod
    def over(
        cls,
        session: TaskSession,
        *,
        name: str = "",
        connection_file: str = "",
        history_limit: int = HISTORY_LIMIT,
    ) -> Self:
        """A client over a session that is already open."""
        check_whole("history_limit", history_limit, smallest=1)
        client = cls.__new__(cls)
        client._set_up(session, name=name, connection_file=connection_file, history_limit=history_limit)
        return client

    def _set_up(self, session: TaskSession, *, name: str, connection_file: str, history_limit: int) -> None:
        self._session = session
        self._pid = os.getpid()
        self.name = name
        self.block = self.debug = False
        self.cluster = None
        self.profile = profile_of({})
        self.former_keywords = {}
        self._connection_file = connection_file
        self.feeders = Feeders()
        self._views: weakref.WeakValueDictionary[Any, View] = weakref.WeakValueDictionary()
        self._views_lock = threading.Lock()
        self._engine_ids: tuple[EngineId, ...] = ()
        self._engine_waits = EngineWaits()
        self._glance = Glance()

        def find_session() -> TaskSession:
            return _session_of(reference)

        reference = weakref.ref(self)
        asker = Asker(find_session, name)
        self._orders = EngineOrders(find_session, asker)
        self._set_up_tasks(find_session, asker, history_limit=history_limit)
        listener = _EngineListener(self)
        session.add_engine_listener(listener)
        session.add_end_listener(listener.on_end)
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

    def look_at_engines(self, joined: Sequence[EngineInfo] = (), left: Sequence[EngineLeft] = ()) -> None:
        """Engines have come or gone."""
        self._engine_ids = tuple(sorted(self._session.engines()))
        self._engine_waits.on_changed(len(self._engine_ids), joined, left)

    def wait_for_engines(
        self,
        n: int | None = None,
        *,
        timeout: float | None = -1,
        block: bool = True,
        interactive: bool | None = None,
        widget: bool | None = None,
    ) -> Future[None] | None:
        """Wait until `n` engines are there; by default as many as the client's cluster was made with.

        Raises TimeoutError after `timeout` seconds, EngineError if an engine dies meanwhile, ClientClosed if
        the connection ends. `interactive` shows a bar, `widget` one for notebooks. With `block=False` returns
        a Future at once, which ends in the same ways but for the time-out.
        """
        if n is None:
            n = getattr(self.cluster, "n", None)
            if n is None:
                raise TypeError("wait_for_engines needs a number: this client did not start its cluster")
        wanted = check_whole("n", n)
        session = self.session
        wait = self._engine_waits.begin(wanted)
        self.look_at_engines()
        if not block:
            wait.future.add_done_callback(self._keep)
            return wait.future
        bar = ProgressBar(wait.standing, widget=widget) if interactive else None

        def is_over() -> bool:
            if bar is not None:
                bar.move()
            return wait.is_over

        try:
            if session.wait_until(is_over, timeout):
                error = wait.error()
                if error is not None:
                    raise error
                return None
        finally:
            self._engine_waits.end(wait)
            if bar is not None:
                bar.close()
        self._check_open()
        raise TimeoutError(
            f"{len(self._engine_ids)} of {wanted} engines are there after {timeout:g} s; look with:  "
            f"enginery status {self.name}".rstrip()
        )

    def end_engine_waits(self, reason: str) -> None:
        """The session is over: nobody will come."""
        self._engine_waits.close(reason)

    def _keep(self, future: Future[None]) -> None:
        """Do nothing: who holds a future that will call this holds the client."""

    # ------------------------------------------------------------ views

    def __getitem__(self, key: Any) -> DirectView:
        if key is None or isinstance(key, str):
            raise TypeError(f"a client is indexed with engine ids, lists of them and slices, not {key!r}")
        return self.direct_view(key)

    def direct_view(self, targets: Any = "all", **flags: Any) -> DirectView:
        """A view of the engines named: an id, a list, a slice, or ``"all"``, which is looked up at each call.

        Flags are those of `View.set_flags`. The same targets and flags give the same object. Raises
        TypeError, IndexError, NoEnginesRegistered; KeyError for an unknown flag.
        """
        return self._view(DirectView, self._targets(targets), flags)

    def load_balanced_view(self, targets: Any = None, **flags: Any) -> LoadBalancedView:
        """A view whose calls go to whichever engine is free: one of `targets`, or of all.

        Flags and errors are those of `direct_view`; `after`, `follow` and `timeout` are flags too.
        """
        candidates = None if targets is None else normalise_candidates(targets, self.engine_ids)
        return self._view(LoadBalancedView, candidates, flags)

    def broadcast_view(
        self, targets: Any = "all", is_coalescing: bool = False, **flags: Any
    ) -> BroadcastView:
        """A `direct_view` by another name, of the engines that are there now.

        `is_coalescing` is kept and changes nothing: results always come in batches, in the order of targets.
        """
        found = self._targets(slice(None) if targets is None or isinstance(targets, str) else targets)
        view = self._view(BroadcastView, found, flags, bool(is_coalescing))
        view.is_coalescing = bool(is_coalescing)
        return view

    def view(self, targets: Any = "all", balanced: bool = False, **flags: Any) -> View:
        """A view of either kind: load-balanced over the targets, or of all of them.

        >>> rc.view([0, 1], balanced=True)                              # doctest: +SKIP
        <LoadBalancedView [0, 1]>
        """
        return self.load_balanced_view(targets, **flags) if balanced else self.direct_view(targets, **flags)

    def executor(self, targets: Any = None) -> ViewExecutor:
        """A `concurrent.futures` executor over a load-balanced view."""
        from enginery.client.executor import ViewExecutor

        return ViewExecutor(self.load_balanced_view(targets))

    def activate(self, targets: Any = "all", suffix: str = "") -> DirectView:
        """Have ``%px`` in IPython mean these engines, or another magic with a `suffix`: ``%px_gpu``.

        Returns the view, which blocks and is nobody else's; without IPython that is all. The first client
        that is made in IPython does this by itself.

        >>> rc.activate([0, 1], "_few")                                 # doctest: +SKIP
        <DirectView [0,1]>
        """
        view = self._make_view(DirectView, self._targets(targets), Flags(block=True))
        return view.activate(suffix)

    def _targets(self, targets: Any) -> Any:
        try:
            return normalise(targets, self.engine_ids)
        except IndexError as error:
            raise NoSuchEngine(str(error)) from None

    def _view(self, kind: type[_ViewType], targets: Any, given: dict[str, Any], *more: Any) -> _ViewType:
        # A view with flags of its own is its own object; the plain one may be changed by whoever holds it.
        flags = Flags(**{"block": bool(self.block), **kind.read_flags(given)})
        key = (kind, targets, flags, *more)
        with self._views_lock:
            view = self._views.get(key)
            if view is None:
                view = self._views[key] = self._make_view(kind, targets, flags)
        assert isinstance(view, kind)
        return view

    def _make_view(self, kind: type[_ViewType], targets: Any, flags: Flags) -> _ViewType:
        return kind(self, targets, flags)

    # ------------------------------------------------------------ calls

    def apply(
        self,
        f: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        block: bool | None = None,
        track: bool = False,
        targets: Any = None,
        balanced: bool | None = None,
        after: Any = None,
        follow: Any = None,
        timeout: float | None = None,
        **flags: Any,
    ) -> Any:
        """Call ``f(*args, **kwargs)``: on one free engine, or where `targets` says.

        `targets` is an engine id (one bare value), a list of them or ``"all"`` (a list of values); None is
        whichever engine is free, and so is one of `targets` with `balanced=True`. `after`, `follow` and
        `timeout`, in seconds, are dependencies of balanced calls; ValueError for others. Further flags are
        those of `View.set_flags`. Returns the value if `block`, else an AsyncResult.

        >>> rc.apply(pow, (2, 10), targets=0, block=True)               # doctest: +SKIP
        1024
        """
        if not isinstance(args, (tuple, list)):
            raise TypeError(f"args must be a tuple or a list, not {args!r} ({type(args).__name__})")
        if kwargs is not None and not isinstance(kwargs, Mapping):
            raise TypeError(f"kwargs must be a dictionary, not {kwargs!r} ({type(kwargs).__name__})")
        flags["track"] = track
        dependencies = {
            name: value
            for name, value in zip(_BALANCED_ONLY, (after, follow, timeout), strict=True)
            if value is not None
        }
        if targets is None and balanced is None:
            balanced = True
        if not balanced and dependencies:
            raise ValueError(
                f"{min(dependencies)}= needs a call that is balanced: leave out targets, or add balanced=True"
            )
        view = self.view("all" if targets is None else targets, balanced=bool(balanced))
        return view.apply_with(
            f, args, kwargs, block=self.block if block is None else block, **flags, **dependencies
        )

    def send_apply_message(
        self, f: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **keywords: Any
    ) -> AsyncResult:
        """`apply` that never waits; its keywords but for `block`."""
        if "block" in keywords:
            raise TypeError("send_apply_message has no keyword 'block': it never waits")
        result: AsyncResult = self.apply(f, args, kwargs, block=False, **keywords)
        return result

    # ------------------------------------------------------------ orders to engines

    def clear(self, targets: Any = None, block: bool | None = None) -> Future[None] | None:
        """Empty the namespaces of engines, whatever they run; all of them by default.

        Returns a Future unless it blocks.
        """
        engines = self._engines(targets)
        if self.block if block is None else block:
            self._orders.clear(engines)
            return None
        return self._orders.clear_later(engines)

    def interrupt(self, targets: Any = None, block: bool | None = None) -> Future[None] | None:
        """Raise KeyboardInterrupt in whatever engines run now, a cell or a task; all of them by default.

        Engines that are busy are reached, and those that run nothing are not disturbed. Namespaces stay. A
        task that was interrupted is not tried again. Returns when the engines have said that they have done
        it, or a Future unless it blocks; code that holds on to the interpreter (`AsyncResult.cancel` replaces
        its engine) gets the interrupt when it lets go.

        >>> rc.interrupt([0, 2])                                        # doctest: +SKIP
        """
        engines = self._engines(targets)
        if self.block if block is None else block:
            self._orders.interrupt(engines)
            return None
        return self._orders.interrupt_later(engines)

    def send_signal(
        self, sig: int | str, targets: Any = None, block: bool | None = None
    ) -> Future[None] | None:
        """Send a signal to engines, by name or number; to all of them by default.

        Returns a Future unless it blocks. Raises ValueError for what is no signal.
        """
        signum, engines = signal_number(sig), self._engines(targets)
        if self.block if block is None else block:
            self._orders.send_signal(engines, signum)
            return None
        return self._orders.send_signal_later(engines, signum)

    def shutdown(
        self, targets: Any = "all", restart: bool = False, hub: bool = False, block: bool | None = None
    ) -> Future[None] | None:
        """End engines; with `hub=True` the whole cluster, its controller included, and this client with it.

        With `restart` others are started in their places, under the same ids. With `block` it is waited for
        until the engines have gone, or are back. Raises EngineryError with the controller's reason if it
        refuses, ClusterNotResponding if it does not answer. Returns a Future for `restart` without `block`.
        """
        if restart and hub:
            raise ValueError("restart=True is for engines: a cluster that has ended is started by its owner")
        if hub:
            self._orders.shut_down()
            self.close()
            return None
        engines, wait = self._engines(targets), bool(self.block if block is None else block)
        if not restart:
            self._orders.stop(engines, wait=wait)
            return None
        if wait:
            self._orders.restart(engines)
            return None
        return self._orders.restart_later(engines)

    def _engines(self, targets: Any) -> list[EngineId]:
        return self._list(self._targets(targets))

    def _list(self, targets: Any) -> list[EngineId]:
        if isinstance(targets, str):
            return list(self.engine_ids)
        return list(targets) if isinstance(targets, tuple) else [targets]

    # ------------------------------------------------------------ as a dask cluster

    def become_dask(
        self,
        targets: Any = "all",
        port: int = 0,
        nanny: bool = False,
        scheduler_args: Mapping[str, Any] | None = None,
        **worker_args: Any,
    ) -> Any:
        """Start a dask worker in each of these engines and return a `distributed.Client` of theirs.

        The scheduler runs in this process, on `port` (0 = any free one); `scheduler_args` go to dask's
        `LocalCluster`, `worker_args` to its workers, or with `nanny` to a process of theirs beside each
        engine. Each worker has one thread, unless `nthreads` says more; its engine has it as `dask_worker`.
        Engines go on serving tasks. Repeated for further engines, it adds their workers. Raises ImportError
        where `distributed` is not installed.

        >>> dask = rc.become_dask()                                     # doctest: +SKIP
        >>> dask.submit(sum, [1, 2]).result()                           # doctest: +SKIP
        3
        """
        become = registry.find("become_dask")
        engines = self._engines(targets)
        return become(
            self, engines, port=port, nanny=nanny, scheduler_args=scheduler_args, worker_args=worker_args
        )

    def stop_dask(self, targets: Any = "all") -> None:
        """End the dask workers of these engines; with the last of them the scheduler and its client end."""
        registry.find("stop_dask")(self, self._engines(targets))

    become_distributed = become_dask
    stop_distributed = stop_dask

    # ------------------------------------------------------------ the connection, the end

    @property
    def session(self) -> TaskSession:
        """The connection; raises ClientClosed or ForkedClientError if it is of no use here."""
        if self._pid != os.getpid():
            raise ForkedClientError(self._pid, os.getpid())
        if self._session.closed:
            raise ClientClosed(self._session.end_reason)
        return self._session

    @property
    def connection_file(self) -> str:
        """The file to hand to others who want to connect; empty if this client was not made from one."""
        return self._connection_file

    @property
    def curve_serverkey(self) -> str | None:
        """The controller's public key; None if this client was not made from a connection file."""
        return None if self._connected_by is None else self._connected_by.server_key

    @property
    def curve_publickey(self) -> str | None:
        """The public key that clients of this cluster show."""
        return None if self._connected_by is None else self._connected_by.public_key

    @property
    def curve_secretkey(self) -> str | None:
        """The secret key to it."""
        return None if self._connected_by is None else self._connected_by.secret_key

    def spin(self) -> None:
        """Do nothing: what comes in is taken in without it."""

    def spin_thread(self, interval: float = 1) -> None:
        """Do nothing, as `spin`."""

    def stop_spin_thread(self) -> None:
        """Do nothing, as `spin`."""

    def close(self, linger: float | None = None) -> None:
        """Leave the cluster; tasks that were sent go on. Repeating it does nothing.

        `linger` bounds, in seconds, the wait for what has not left this process: 30 by default, and less when
        nothing moves for a second. What is lost then is logged.
        """
        if self._pid != os.getpid():
            return  # the connection is the parent's
        self._session.close(LINGER_S if linger is None else linger)
        self.feeders.close(_FEEDER_S)

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
            client.look_at_engines(joined, left)

    def on_end(self, reason: str) -> None:
        client = self._client()
        if client is not None:
            client.end_engine_waits(reason)


def _session_of(reference: weakref.ref[Client]) -> TaskSession:
    client = reference()
    if client is None:
        raise ClientClosed()
    return client.session


def read_grace(value: float | str | None) -> float | None:
    """Seconds for `TaskSession.cancel_grace_s`; raises TypeError or ValueError for what can be none."""
    if value == OF_CLUSTER:
        return None
    seconds = None if value is None else read_seconds("cancel_grace", value)
    return -1.0 if seconds is None else seconds
