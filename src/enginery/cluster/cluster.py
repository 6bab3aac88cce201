"""`Cluster`: a controller and engines on this machine, for the process that starts them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from enginery.cluster.environment import choose_start_method, host_environment
from enginery.cluster.faces import awaited, run_in_thread
from enginery.cluster.local_host import LocalHost
from enginery.cluster.names import is_given, make_up_name
from enginery.cluster.upkeep import last_lines, prepare, sweep
from enginery.errors import ClusterAlreadyRunning, ClusterNotFound, LaunchError
from enginery.ids import EngineId
from enginery.transport.addresses import ClusterDirectory, ClusterLock, check_cluster_name

if TYPE_CHECKING:
    from enginery.client.client import Client
    from enginery.protocol.specs import HostSpec
    from enginery.transport.connection_file import ConnectionInfo

DATABASES = ("sqlite", "memory")
DURABILITIES = ("fast", "strict")
START_TIMEOUT_S = 30.0
"""From the start of the host's interpreter to a controller that is bound."""
STOP_REQUEST_TIMEOUT_S = 1.5
WAIT_STEP_S = 0.5
"""How long a cancelled `wait` may hold on to its thread."""
_LOOK_S = 1.0
"""How often a start that waits for engines looks whether the host is still there."""


class Cluster:
    """Start engines on this machine and use them.

    Every method has two faces: ``await cluster.start_cluster()`` and ``cluster.start_cluster_sync()``. As a
    context manager, with ``with`` or ``async with``, a cluster is entered when all engines have answered,
    gives the `Client`, and leaves nothing behind. Making the object starts nothing.

    `n` is the number of engines, as many as the cores this process may use if it is None. A `name` keeps the
    cluster's history and logs when it stops; without one it gets a name of its own that ends with it. `host`
    and `port` are where the controller listens. `env` changes the environment of the engines, `cwd` their
    working directory; both are otherwise this process's. `db` ("sqlite" or "memory") and `durability` ("fast"
    or "strict") say how the history is kept. `engine_timeout` is in seconds.

    A cluster ends with the process that started it, however that ends, unless it was `detached` at its start.
    Raises ValueError or TypeError for what cannot be meant.

    >>> with Cluster(n=2) as rc:  # doctest: +SKIP
    ...     rc[:].apply_sync(lambda: 6 * 7)
    [42, 42]
    """

    def __init__(
        self,
        n: int | None = None,
        *,
        name: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        start_method: str | None = None,
        db: str = "sqlite",
        durability: str = "fast",
        engine_timeout: float = 60.0,
        detached: bool = False,
    ) -> None:
        self.n = None if n is None else _check_count(n)
        self.name = make_up_name() if name is None else check_cluster_name(name)
        self.host = host
        self.port = port
        self.env = dict(env or {})
        self.cwd = cwd
        self.start_method = choose_start_method(start_method)
        self.db = _one_of("db", db, DATABASES)
        self.durability = _one_of("durability", durability, DURABILITIES)
        self.engine_timeout = engine_timeout
        self.detached = detached
        self.engines: dict[str, tuple[EngineId, ...]] = {}
        """Ids of the engines that `start_engines` has added, by the id of the set that it returned."""
        self._lock = threading.RLock()
        self._host: LocalHost | None = None
        self._started = 0
        self._clients: list[Client] = []  # all that came from here and may be open

    def __repr__(self) -> str:
        engines = f", {self._started} engines" if self._started else ""
        return f"<Cluster {self.name!r}: {'running' if self.is_running() else 'not running'}{engines}>"

    @property
    def cluster_id(self) -> str:
        """The name."""
        return self.name

    @property
    def connection_file(self) -> str:
        """The file that lets other processes of this user in: ``Client(path)``."""
        return str(self._directory().connection_file("client"))

    def is_running(self) -> bool:
        """Tell whether the cluster that this object has started is still there."""
        return self._host is not None and self._host.is_running()

    # ------------------------------------------------------------ starting

    def start_controller_sync(self) -> None:
        """Start the cluster without engines.

        Raises ClusterAlreadyRunning if the name is taken, LaunchError with the last lines of the logs.
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

    def start_engines_sync(self, n: int | None = None) -> str:
        """Add `n` engines to the running cluster; return the id of the set, a key of `engines`.

        Raises LaunchError if they cannot be started, ClusterNotFound if the cluster does not run.
        """
        from enginery.cluster import control

        with self._lock:
            added = control.start_engines(self._info(), self._count(n))
            set_id = f"set-{len(self.engines)}"
            self.engines[set_id] = added
            self._started += len(added)
        return set_id

    def connect_client_sync(self, /, **keywords: Any) -> Client:
        """Return a new `Client` of this cluster; keywords are the client's. Raises ClusterNotFound."""
        from enginery.client.client import Client

        self._require_running()
        client = Client(self.connection_file, cluster=self, **keywords)
        self._clients = [known for known in self._clients if _is_open(known)]
        self._clients.append(client)
        return client

    def start_and_connect_sync(self, n: int | None = None) -> Client:
        """Start the cluster, wait until `n` engines have answered, and return a `Client`.

        Stops the cluster again if that fails. Raises as `start_controller` does, and TimeoutError after
        `engine_timeout`.
        """
        with self._lock:
            count = self._count(n)
            self._start(count)
            try:
                client = self.connect_client_sync()
                try:
                    self._wait_for_engines(client, count)
                except BaseException:
                    client.close()
                    raise
            except BaseException as error:
                self._explain(error)
                self.stop_cluster_sync()
                raise
        return client

    # ------------------------------------------------------------ stopping

    def stop_engines_sync(self, engine_set_id: str | None = None) -> None:
        """Stop the engines of one set, or all; raises KeyError for an unknown set."""
        from enginery.cluster import control

        with self._lock:
            if engine_set_id is None:
                control.stop_engines(self._info(), ())
                self.engines.clear()
                self._started = 0
                return
            if engine_set_id not in self.engines:
                known = ", ".join(self.engines) or "none"
                raise KeyError(f"there is no set of engines {engine_set_id!r}; known: {known}")
            control.stop_engines(self._info(), self.engines[engine_set_id])
            self._started -= len(self.engines.pop(engine_set_id))

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
                for client in self._clients:
                    client.close()
            finally:
                self._clients.clear()
                if host is not None:
                    if host.is_running():
                        self._ask_to_end()
                    host.end()
            self._host = None
            self.engines.clear()
            self._started = 0

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
        return self.start_and_connect_sync()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_cluster_sync()

    async def __aenter__(self) -> Client:
        try:
            return await self.start_and_connect()
        except BaseException:
            # Cancelled in the last moment, there is a client that nobody has, and the cluster runs.
            await self.stop_cluster()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop_cluster()

    # ------------------------------------------------------------ inside

    def _start(self, engines: int) -> None:
        if self.is_running():
            raise ClusterAlreadyRunning(self.name)
        directory = self._directory().create()
        launching: Future[LocalHost] = Future()
        try:
            with directory.lock() as lock:
                prepare(directory)
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
        self._started = engines

    def _launch(self, directory: ClusterDirectory, lock: ClusterLock) -> LocalHost:
        return LocalHost.launch(
            directory,
            lock,
            environment=host_environment(self.env),
            cwd=self.cwd,
            keep_directory=is_given(self.name),
        )

    def _spec(self, directory: ClusterDirectory, host: LocalHost, engines: int) -> HostSpec:
        from enginery.protocol.specs import ControllerSpec, HostSpec

        owner = 0 if self.detached else os.getpid()
        controller = ControllerSpec(
            cluster=self.name,
            directory=str(directory.path),
            host=self.host,
            port=self.port,
            database=self.db,
            durability=self.durability,
            ready_fd=host.ready_fd,
        )
        return HostSpec(
            cluster=self.name,
            directory=str(directory.path),
            engines=engines,
            controller=controller,
            start_method=self.start_method,
            owner_pid=owner,
            ready_fd=host.ready_fd,
            keep_directory=host.keep_directory,
        )

    def _wait_for_engines(self, client: Client, count: int) -> None:
        deadline = time.monotonic() + self.engine_timeout
        died: list[str] = []
        client.session.add_engine_listener(lambda _, left: died.extend(engine.cause for engine in left))
        while True:
            remaining = deadline - time.monotonic()
            try:
                client.wait_for_engines(count, timeout=max(0.0, min(remaining, _LOOK_S)))
            except TimeoutError:
                if died:
                    raise LaunchError(
                        f"the cluster {self.name!r}",
                        f"{len(died)} of its {count} engines died while they were starting: {died[0]}",
                        output=last_lines(self._directory().logs),
                    ) from None
                if not self.is_running():
                    raise LaunchError(
                        f"the cluster {self.name!r}",
                        "it ended while its engines were starting",
                        output=last_lines(self._directory().logs),
                    ) from None
                if remaining <= _LOOK_S:
                    here = len(client.ids)
                    raise TimeoutError(
                        f"{here} of {count} engines have answered within {self.engine_timeout:g} s; "
                        f"look with:  enginery logs {self.name}"
                    ) from None
            else:
                return

    def _directory(self) -> ClusterDirectory:
        return self._host.directory if self._host is not None else ClusterDirectory(self.name)

    def _require_running(self) -> None:
        if not self.is_running():
            raise ClusterNotFound(self.name)

    def _info(self) -> ConnectionInfo:
        from enginery.transport.connection_file import load

        self._require_running()
        return load(self.connection_file)

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
        lines = last_lines(self._directory().logs)
        if lines and not isinstance(error, LaunchError | KeyboardInterrupt):
            error.add_note(f"The last lines of the cluster's logs:\n{lines}")

    def _count(self, n: int | None) -> int:
        wanted = self.n if n is None else _check_count(n)
        return available_cores() if wanted is None else wanted


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_count(n: object) -> int:
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"the number of engines must be an int or None, not {n!r}")
    if n < 0:
        raise ValueError(f"the number of engines cannot be negative, and {n} is")
    return n


def _one_of(keyword: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"{keyword}={value!r} is not possible; use one of {', '.join(map(repr, allowed))}")
    return value


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
