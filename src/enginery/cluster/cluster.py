"""`Cluster`: a controller and engines on this machine, for the process that starts them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from enginery import registry
from enginery.client.displayed import Displayed
from enginery.client.numbers import read_seconds
from enginery.cluster.environment import choose_start_method, host_environment
from enginery.cluster.faces import awaited, run_in_thread
from enginery.cluster.former_keywords import FormerKeywords
from enginery.cluster.known_cluster import KnownCluster
from enginery.cluster.local_host import LocalHost
from enginery.cluster.names import is_given
from enginery.cluster.settings import check_count, check_limit, one_of
from enginery.cluster.upkeep import last_lines, prepare, sweep
from enginery.errors import ClusterAlreadyRunning, EngineError, LaunchError
from enginery.host.processes import available_cores
from enginery.ids import EngineId, EngineKey
from enginery.transport.addresses import ClusterDirectory, ClusterLock

if TYPE_CHECKING:
    from enginery.client.client import Client
    from enginery.client.contract import TaskSession
    from enginery.client.snapshots import ClusterSnapshot
    from enginery.protocol.messages import EngineInfo
    from enginery.protocol.specs import ControllerSpec, HostSpec
    from enginery.transport.connection_file import ConnectionInfo

DURABILITIES = ("fast", "strict")
CANCEL_GRACE_S = 5.0
START_TIMEOUT_S = 30.0
"""From the start of the host's interpreter to a controller that is bound."""
STOP_REQUEST_TIMEOUT_S = 1.5
JOIN_S = 10.0
"""How long engines that were just started are waited for before they can be told something."""
HEAR_S = 2.0
"""How long the clients of a cluster are waited for until they know of engines that came or went."""
WAIT_STEP_S = 0.5
"""How long a cancelled `wait` may hold on to its thread."""
_LOOK_S = 1.0
"""How often a start that waits for engines looks whether the host is still there."""


class Cluster(KnownCluster, Displayed):
    """Start engines on this machine and use them.

    Every method has two faces: ``await cluster.start_cluster()`` and ``cluster.start_cluster_sync()``. As a
    context manager, with ``with`` or ``async with``, a cluster is entered when all engines have answered,
    gives the `Client`, and leaves nothing behind. Making the object starts nothing.

    `n` is the number of engines, as many as the cores this process may use if it is None. A `name` keeps the
    cluster's history and logs when it stops; without one it gets a name of its own that ends with it. `host`
    and `port` are where the controller listens, `location` the name or address under which other machines
    reach this one. `env` changes the environment of the engines, `cwd` their working directory; both are
    otherwise this process's. `startup` is code (a text) or a script (a path) that each engine runs before its
    first task, after the user's own startup files of IPython if `run_startup` is true. `scheme` and `hwm` say
    how balanced tasks are handed out: to which engine, and how many at a time (0 = no bound, None = as their
    duration asks for). `db` ("sqlite" or "memory") and `durability` ("fast" or "strict") say how the history
    is kept, `record_limit` (tasks), `payload_limit` (bytes of their
    calls, results and text), `record_age` and `payload_age` (seconds) for how much and how long; what tasks
    held goes before what is known of them. `shared_memory_limit` bounds, in bytes, the shared memory that
    each process may use for large arrays (0 = none, None = half of what the machine has); what finds no room
    travels through sockets. `cancel_grace` is how many seconds an engine may take to end a task that was
    cancelled, or is over its `time_limit`, before it is replaced by another under the same id; None for ever.
    `engine_timeout` is in seconds. With `restart` a controller that is killed is started again, with all its
    tasks; with `restore` this one goes on where that of a cluster of this name was killed before.

    A cluster ends with the process that started it, however that ends, unless it was `detached` at its start.
    The keywords of ipyparallel's class are taken too, see `docs/migrating.md`. Raises ValueError or TypeError
    for what cannot be meant.

    >>> with Cluster(n=2) as rc:  # doctest: +SKIP
    ...     rc[:].apply_sync(lambda: 6 * 7)
    [42, 42]
    """

    def __init__(  # noqa: PLR0913 - all but one are keywords
        self,
        n: int | None = None,
        *,
        name: str | None = None,
        host: str | None = None,
        port: int | None = None,
        location: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        start_method: str | None = None,
        startup: str | os.PathLike[str] | None = None,
        run_startup: bool = False,
        scheme: str | None = None,
        hwm: int | None = None,
        db: str | None = None,
        durability: str = "fast",
        record_limit: int | None = None,
        payload_limit: int | None = None,
        record_age: float | None = None,
        payload_age: float | None = None,
        shared_memory_limit: int | None = None,
        cancel_grace: float | None = CANCEL_GRACE_S,
        engine_timeout: float = 60.0,
        restart: bool = False,
        restore: bool = False,
        detached: bool | None = None,
        engines: object = None,
        controller: object = None,
        **former: Unpack[FormerKeywords],
    ) -> None:
        self.n = None if n is None else check_count("the number of engines", n)
        short = {
            "name": name,
            "host": host,
            "port": port,
            "location": location,
            "scheme": scheme,
            "hwm": hwm,
            "db": db,
            "detached": detached,
            "engines": engines,
            "controller": controller,
        }
        super().__init__(short, former)
        self.env = dict(env or {})
        self.cwd = cwd
        self.start_method = choose_start_method(start_method)
        self.startup = startup
        self.run_startup = bool(run_startup)
        self.durability = one_of("durability", durability, DURABILITIES)
        self.restart, self.restore = bool(restart), bool(restore)
        for keyword in ("restart", "restore"):
            if getattr(self, keyword) and self.db == "memory":
                raise ValueError(f"{keyword}=True goes on with the history, which db='memory' does not keep")
        self.record_limit = check_limit("record_limit", record_limit)
        self.payload_limit = check_limit("payload_limit", payload_limit)
        self.record_age = check_limit("record_age", record_age)
        self.payload_age = check_limit("payload_age", payload_age)
        self.shared_memory_limit = (
            None if shared_memory_limit is None else check_count("shared_memory_limit", shared_memory_limit)
        )
        self.cancel_grace = None if cancel_grace is None else read_seconds("cancel_grace", cancel_grace)
        self.engine_timeout = engine_timeout
        self._lock = threading.RLock()
        self._clients: list[Client] = []  # all that came from here and may be open

    def __repr__(self) -> str:
        engines = f", {self.engines.count} engines" if self.engines else ""
        return f"<Cluster {self.name!r}: {'running' if self.is_running() else 'not running'}{engines}>"

    def _snapshot(self, *, may_wait: bool) -> ClusterSnapshot:
        from enginery.cluster.snapshot import snapshot_of

        return snapshot_of(self, self._open_client(), may_wait=may_wait)

    def _live_session(self) -> TaskSession | None:
        client = self._open_client()
        return None if client is None else client._live_session()

    def _is_moving(self) -> bool:
        client = self._open_client()
        return client is not None and client._is_moving()

    def _open_client(self) -> Client | None:
        return next((client for client in reversed(self._clients) if _is_open(client)), None)

    # ------------------------------------------------------------ starting

    def start_controller_sync(self) -> None:
        """Start the cluster without engines.

        Raises ClusterAlreadyRunning (a RuntimeError) if the name is taken, LaunchError with the last lines of
        the logs.
        """
        with self._lock:
            self._start(0)

    def start_cluster_sync(self, n: int | None = None) -> Self:
        """Start the controller and `n` engines (as many as the constructor was told); return the cluster.

        Returns when the controller answers; engines may still be on their way, see `Client.wait_for_engines`.
        Raises as `start_controller` does.
        """
        with self._lock:
            self._start(self._count(n))
        return self

    def start_engines_sync(self, n: int | None = None, engine_set_id: str | None = None) -> str:
        """Add `n` engines to the running cluster; return the id of the set, a key of `engines`.

        Raises LaunchError if they cannot be started, ClusterNotFound if the cluster does not run, ValueError
        for the id of a set that there is.
        """
        from enginery.cluster import control

        with self._lock:
            set_id = self.engines.check_new(engine_set_id)
            self.engines.add(set_id, control.start_engines(self._info(), self._count(n)))
            self.update_cluster_file()
        return set_id

    def connect_client_sync(self, /, **keywords: Any) -> Client:
        """Return a new `Client` of this cluster; keywords are the client's. Raises ClusterNotFound."""
        from enginery.client.client import Client

        self._require_running()
        client = Client(self.connection_file, cluster=self, **keywords)
        self._clients = [known for known in self._clients if _is_open(known)]
        self._clients.append(client)
        return client

    def start_and_connect_sync(self, n: int | None = None, activate: bool = False) -> Client:
        """Start the cluster, wait until `n` engines have answered, and return a `Client`.

        With `activate`, ``%px`` in IPython means all of its engines. Stops the cluster again if that fails.
        Raises as `start_controller` does, EngineError if engines die while they start, and TimeoutError after
        `engine_timeout`.
        """
        with self._lock:
            count = self._count(n)
            self._start(count)
            try:
                client = self.connect_client_sync()
                try:
                    self._wait_for_engines(client, count)
                    if activate:
                        client.activate()
                except BaseException:
                    client.close()
                    raise
            except BaseException as error:
                self._explain(error)
                self.stop_cluster_sync()
                raise
        return client

    # ------------------------------------------------------------ engines

    def stop_engines_sync(self, engine_set_id: str | None = None) -> None:
        """Stop the engines of one set, or all, and wait until they have left.

        Raises KeyError for an unknown set.
        """
        from enginery.cluster import control

        with self._lock:
            engines = self._engines_of(engine_set_id)
            self._let_clients_hear_of_the_end(control.stop_engines(self._settled(), engines))
            self._forget(engine_set_id)

    def stop_engine_sync(self, engine_id: int) -> None:
        """Stop one engine and wait until it has left; one that has left already does not matter."""
        from enginery.cluster import control

        with self._lock:
            self._let_clients_hear_of_the_end(control.stop_engines(self._settled(), [EngineId(engine_id)]))
            self.engines.drop([EngineId(engine_id)])
            self.update_cluster_file()

    def restart_engines_sync(self, engine_set_id: str | None = None) -> None:
        """Put new processes, with fresh namespaces, in the places of one set's engines, or of all.

        They keep their ids; what the old ones had not finished fails with EngineError, or is retried. Returns
        when the new ones have answered. Raises KeyError for an unknown set, LaunchError if one cannot be
        restarted.
        """
        from enginery.cluster import control

        with self._lock:
            engines = self._engines_of(engine_set_id)
            self._let_clients_hear_of_the_start(control.restart_engines(self._settled(), engines))

    def restart_engine_sync(self, engine_id: int) -> None:
        """Restart one engine, see `restart_engines`; raises ValueError if there is no such one."""
        from enginery.cluster import control

        with self._lock:
            fresh = control.restart_engines(self._settled(), [EngineId(engine_id)])
            self._let_clients_hear_of_the_start(fresh)

    def signal_engines_sync(self, signum: int | str, engine_set_id: str | None = None) -> None:
        """Send a signal, by number or name, to the engines of one set, or to all.

        Raises ValueError for what is no signal and for engines that were started by nobody of this cluster,
        KeyError for an unknown set.
        """
        from enginery.client.orders import signal_number
        from enginery.cluster import control

        number, engines = signal_number(signum), self._engines_of(engine_set_id)
        control.signal_engines(self._settled(), number, engines)

    def signal_engine_sync(self, signum: int | str, engine_id: int) -> None:
        """Send a signal to one engine; raises as `signal_engines` does."""
        from enginery.client.orders import signal_number
        from enginery.cluster import control

        number = signal_number(signum)
        control.signal_engines(self._settled(), number, [EngineId(engine_id)])

    # ------------------------------------------------------------ stopping

    def stop_controller_sync(self) -> None:
        """End the controller; engines end with it. The same as `stop_cluster`."""
        self.stop_cluster_sync()

    def stop_cluster_sync(self) -> None:
        """End the cluster; returns when its processes and files are gone. Repeating it does nothing.

        Clients that this object has made are closed first. In a forked child nothing happens: the cluster is
        the parent's.
        """
        with self._lock:
            host = self._host
            try:
                self._close_clients()
            finally:
                if isinstance(host, LocalHost) and host.is_running():
                    self._ask_to_end()
                if host is not None:
                    host.end()
                    self.remove_cluster_file()
            self._host = None
            self.engines.clear()

    def wait_sync(self, timeout: float | None = None) -> bool:
        """Wait until the cluster has ended, by whatever cause; False if it runs after `timeout` seconds.

        None and negative numbers mean for ever.
        """
        host = self._host
        if host is None:
            return True
        while timeout is None or timeout < 0:
            if host.wait_end(3600.0):
                return True
        return host.wait_end(timeout)

    start_controller = awaited(start_controller_sync)
    start_cluster = awaited(start_cluster_sync)
    start_engines = awaited(start_engines_sync)
    connect_client = awaited(connect_client_sync)
    start_and_connect = awaited(start_and_connect_sync)
    stop_engines = awaited(stop_engines_sync)
    stop_engine = awaited(stop_engine_sync)
    restart_engines = awaited(restart_engines_sync)
    restart_engine = awaited(restart_engine_sync)
    signal_engines = awaited(signal_engines_sync)
    signal_engine = awaited(signal_engine_sync)
    stop_controller = awaited(stop_controller_sync)
    stop_cluster = awaited(stop_cluster_sync)

    async def wait(self, timeout: float | None = None) -> bool:
        """As `wait_sync`, to be awaited; it may be cancelled at any time."""
        import asyncio

        deadline = None if timeout is None or timeout < 0 else time.monotonic() + timeout
        while True:
            left_s = WAIT_STEP_S if deadline is None else min(WAIT_STEP_S, deadline - time.monotonic())
            if await asyncio.to_thread(self.wait_sync, max(left_s, 0.0)):
                return True
            if left_s <= 0:
                return False

    def __enter__(self) -> Client:
        return self.connect_client_sync() if self._is_let_go else self.start_and_connect_sync()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    async def __aenter__(self) -> Client:
        try:
            return await (self.connect_client() if self._is_let_go else self.start_and_connect())
        except BaseException:
            # Cancelled in the last moment, there is a client that nobody has, and the cluster runs.
            await self._leave_in_thread()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave_in_thread()

    # ------------------------------------------------------------ inside

    def _leave(self) -> None:
        (self._close_clients if self._is_let_go else self.stop_cluster_sync)()

    _leave_in_thread = awaited(_leave)

    def _close_clients(self) -> None:
        try:
            for client in self._clients:
                client.close()
        finally:
            self._clients.clear()

    def _start(self, engines: int) -> None:
        if self.is_running():
            raise ClusterAlreadyRunning(self.name)
        directory = self.directory.create()
        launching: Future[LocalHost] = Future()
        try:
            with directory.lock() as lock:
                prepare(directory, restore=self.restore)
                # Ctrl-C must not come between the start of a process and the moment we know of it.
                run_in_thread(lambda: self._launch(directory, lock), launching, name="launch")
                host = launching.result()
                host.begin(self._spec(directory, host, engines))
                _warm_up()
                host.wait_ready(START_TIMEOUT_S)
        except ClusterAlreadyRunning:
            raise
        except BaseException:
            if launching.cancel() or launching.exception() is not None:
                sweep(directory, keep_directory=is_given(self.name))
            else:
                launching.result().end()
            raise
        if self.n is None:
            self.n = engines
        if self.detached:
            host.detach()
        self._host = host
        if engines:
            self.engines.add(self.engines.new_id(), map(EngineId, range(engines)))
        self.update_cluster_file()

    def _launch(self, directory: ClusterDirectory, lock: ClusterLock) -> LocalHost:
        return LocalHost.launch(
            directory,
            lock,
            environment=host_environment(self.env),
            cwd=self.cwd,
            keep_directory=is_given(self.name),
        )

    def controller_spec(self, directory: ClusterDirectory, *, ready_fd: int = -1) -> ControllerSpec:
        """What a controller of this cluster is told at its start."""
        from enginery.protocol.specs import ControllerSpec, HistoryLimits

        return ControllerSpec(
            cluster=self.name,
            directory=str(directory.path),
            host=self.host,
            port=self.port,
            location=self.location,
            database=self.db,
            durability=self.durability,
            history_limits=HistoryLimits(
                records=self.record_limit,
                payload_bytes=self.payload_limit,
                record_age_s=self.record_age,
                payload_age_s=self.payload_age,
            ),
            scheme=self.scheme,
            hwm=self.hwm,
            shared_memory_limit=self.shared_memory_limit,
            cancel_grace_s=-1.0 if self.cancel_grace is None else self.cancel_grace,
            restore=self.restore,
            restarts=self.restart,
            ready_fd=ready_fd,
        )

    def _spec(self, directory: ClusterDirectory, host: LocalHost, engines: int) -> HostSpec:
        from enginery.protocol.specs import HostSpec

        startup = self.startup
        return HostSpec(
            cluster=self.name,
            directory=str(directory.path),
            engines=engines,
            controller=self.controller_spec(directory, ready_fd=host.ready_fd),
            start_method=self.start_method,
            owner_pid=0 if self.detached else os.getpid(),
            ready_fd=host.ready_fd,
            restart_controller=self.restart,
            keep_directory=host.keep_directory,
            run_startup=self.run_startup,
            startup_code=startup if isinstance(startup, str) else "",
            startup_script=os.path.abspath(startup) if isinstance(startup, os.PathLike) else "",
        )

    def _wait_for_engines(self, client: Client, count: int) -> None:
        deadline = time.monotonic() + self.engine_timeout
        died: list[str] = []
        session = client.session
        session.add_engine_listener(lambda _, left: died.extend(engine.cause for engine in left))
        self._wait(client, lambda: bool(died) or len(session.engines()) >= count, count, deadline)
        if (self.startup is not None or self.run_startup) and not died:
            # An engine answers before it runs that; its first task comes behind.
            begun = client.direct_view("all").apply_async(os.getpid)
            self._wait(client, lambda: bool(died) or begun.done(), count, deadline)
        if died:
            raise EngineError(
                f"{len(died)} of the {count} engines of the cluster {self.name!r} died while they were "
                f"starting: {died[0]}"
            )
        self.engines.awaited = set()

    def _wait(self, client: Client, is_decided: Callable[[], bool], count: int, deadline: float) -> None:
        session = client.session
        while True:
            left_s = deadline - time.monotonic()
            if session.wait_until(is_decided, max(0.0, min(left_s, _LOOK_S))):
                return
            if not self.is_running():
                raise LaunchError(
                    f"the cluster {self.name!r}",
                    "it ended while its engines were starting",
                    output=last_lines(self.directory.logs),
                )
            if left_s <= _LOOK_S:
                raise TimeoutError(
                    f"{len(session.engines())} of {count} engines have answered within "
                    f"{self.engine_timeout:g} s; look with:  enginery logs {self.name}"
                )

    def _settled(self) -> ConnectionInfo:
        """Where to reach the cluster, once engines that were started lately have answered."""
        from enginery.cluster import control

        info = self._info()
        if self.engines.awaited:
            control.await_engines(info, self.engines.awaited, timeout_s=min(self.engine_timeout, JOIN_S))
            self.engines.awaited = set()
        return info

    def _engines_of(self, set_id: str | None) -> tuple[EngineId, ...] | None:
        """None for all engines that there are, whoever started them."""
        return None if set_id is None else self.engines.named(set_id).engines

    def _let_clients_hear_of_the_start(self, fresh: Mapping[EngineId, EngineKey]) -> None:
        """The order went over a connection of its own: clients from here may not have read the news yet."""
        self._let_clients_hear(
            lambda known: all(engine in known and known[engine].key == key for engine, key in fresh.items())
        )

    def _let_clients_hear_of_the_end(self, ended: Sequence[EngineId]) -> None:
        self._let_clients_hear(lambda known: known.keys().isdisjoint(ended))

    def _let_clients_hear(self, has_heard: Callable[[Mapping[EngineId, EngineInfo]], bool]) -> None:
        deadline = time.monotonic() + HEAR_S
        for session in [client.session for client in self._clients if _is_open(client)]:
            left_s = max(0.0, deadline - time.monotonic())
            session.wait_until(partial(lambda engines: has_heard(engines()), session.engines), left_s)

    def _forget(self, set_id: str | None) -> None:
        if set_id is None:
            self.engines.clear()
        else:
            del self.engines[set_id]
        self.update_cluster_file()

    def _ask_to_end(self) -> None:
        """Let the controller say goodbye to everybody; `LocalHost.end` does the rest if it cannot."""
        from enginery.cluster import control
        from enginery.errors import ClusterNotResponding

        try:
            control.shut_down(self._info(), timeout_s=STOP_REQUEST_TIMEOUT_S)
        except (ClusterNotResponding, OSError):
            return

    def _explain(self, error: BaseException) -> None:
        """Add to an error of the start what the processes said, before their logs go."""
        lines = last_lines(self.directory.logs)
        if lines and not isinstance(error, LaunchError | KeyboardInterrupt):
            error.add_note(f"The last lines of the cluster's logs:\n{lines}")

    def _count(self, n: int | None) -> int:
        wanted = self.n if n is None else check_count("the number of engines", n)
        return available_cores() if wanted is None else wanted


def _is_open(client: Client) -> bool:
    from enginery.errors import ClientClosed

    try:
        _ = client.session
    except ClientClosed:
        return False
    return True


def _warm_up() -> None:
    """Import the client's rooms while the host's interpreter, in another process, imports its own."""
    import enginery.client.client  # noqa: F401


# `ClusterManager` builds on this module, and is found in it as it was in ipyparallel's.
__getattr__ = registry.lend(__name__, ("ClusterManager", "clean_cluster_files"))
