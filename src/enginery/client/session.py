"""A client's session: what users, from any thread, ask of one identity at one cluster.

The session is what is held: by the client, by its views' calls, and by every result whose tasks have not been
forgotten. The connection under it, and the thread that reads that (`connection`, `reader`), do not hold it.
So a session that nobody holds any more is closed, by that thread, as if somebody had called `close`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence

from enginery import nesting
from enginery.client.connection import Connection
from enginery.client.contract import EngineListener, Promise
from enginery.client.fulfilling import present
from enginery.client.leaving import LINGER_S
from enginery.client.questions import AskedFuture
from enginery.client.reader import Reader
from enginery.client.ticking import Tickers
from enginery.core.submissions import Blob, Copies
from enginery.core.wishes import ABORT, Wish
from enginery.errors import ClusterNotResponding
from enginery.ids import NO_TASK, EngineId, TaskId
from enginery.objects.functions import FunctionCache
from enginery.protocol.messages import EngineInfo, MemoryUse, Record, SetPriority, TaskOptions
from enginery.transport import clock
from enginery.transport.channel import Channel
from enginery.transport.connection_file import ConnectionInfo
from enginery.transport.dialling import dial

SEND_INTERVAL_S = 0.0005
"""Submissions that follow each other faster than this travel together."""


class Session:
    """One client's identity at one cluster. Safe to use from any thread."""

    def __init__(self, info: ConnectionInfo, channel: Channel, *, version: str) -> None:
        self.info = info
        self.functions = FunctionCache()
        self._connection = connection = Connection(info, channel, version=version)
        self._reader = Reader(connection)
        self.client_id = connection.client_id
        self._lock = connection.lock
        self._ledger = connection.ledger
        self._state = connection.state
        self.cancel_grace_s: float | None = None
        finalizer = weakref.finalize(self, self._reader.abandon)
        finalizer.atexit = False  # `leaving` sees to that

    def __repr__(self) -> str:
        state = f"closed: {self.end_reason}" if self.closed else self._connection.dialer.state.value
        return f"<Session {self.client_id:08x} at {self.info.cluster}, {state}>"

    @classmethod
    def open(cls, info: ConnectionInfo, *, version: str, timeout_s: float = 10.0) -> Session:
        """Dial the controller and wait for its welcome.

        Raises ClusterNotResponding after `timeout_s`, ClientClosed with the controller's reason if it
        refuses.
        """
        session = cls(info, dial(info), version=version)
        connection, dialer = session._connection, session._connection.dialer
        try:
            connection.greet()
            session._reader.start()
            if not session.wait_until(lambda: dialer.is_bound or bool(connection.end_reason), timeout_s):
                address = connection.channel.address
                raise ClusterNotResponding(info.cluster, timeout_s=timeout_s, address=address)
            connection.check_open()
        except BaseException:
            session.close()
            raise
        return session

    def nest(self) -> None:
        """Calls of a task that runs in this process are that task's, and its engine serves while it waits."""
        self._reader.is_nested = True

    # ------------------------------------------------------------ questions

    @property
    def closed(self) -> bool:
        return bool(self._connection.end_reason)

    @property
    def end_reason(self) -> str:
        """Why the session is over; empty while it is not."""
        return self._connection.end_reason

    @property
    def tickers(self) -> Tickers:
        """What is shown of the session while it goes on."""
        return self._connection.tickers

    def engines(self) -> dict[EngineId, EngineInfo]:
        """The engines as last heard, ascending ids."""
        with self._lock:
            return self._state.engines.in_order()

    def outstanding(self) -> set[TaskId]:
        with self._lock:
            return self._ledger.outstanding()

    def is_outstanding(self, task: TaskId) -> bool:
        """Whether it is a task of this client that has not ended."""
        return self._ledger.is_outstanding(task)

    def promise(self, task: TaskId) -> Promise | None:
        """A promise of a task that this client has sent or follows, until it has ended or a moment longer."""
        with self._lock:
            return self._state.promise(task)

    def options(self, task: TaskId) -> TaskOptions | None:
        """With what options an unfinished task of this client was submitted."""
        with self._lock:
            return self._ledger.options(task)

    def is_accepted(self, tasks: Iterable[TaskId]) -> bool:
        """Whether the controller has all of these safe, so that no buffer of theirs is read any more."""
        with self._lock:
            return all(map(self._ledger.is_accepted, tasks))

    def add_engine_listener(self, listener: EngineListener) -> None:
        """Call `listener(joined, left)` when engines come and go, from the thread that reads.

        It is kept as long as the connection: one that holds the session keeps that open.
        """
        with self._lock:
            self._state.engines.add_listener(listener)

    def add_end_listener(self, listener: Callable[[str], object]) -> None:
        """Call `listener(reason)` once, when the session is over and every promise has been told."""
        with self._lock:
            if not self._connection.is_over.is_set():
                self._connection.end_listeners.append(listener)
                return
        listener(self.end_reason)

    def memory_use(self, *, free: bool = False) -> MemoryUse:
        """What this process holds; with `free`, less shared memory that was kept to be used again."""
        return self._state.memory_use(free=free)

    # ------------------------------------------------------------ calls

    def submit(
        self,
        options: TaskOptions,
        payload: bytes,
        blobs: Sequence[Blob],
        promises: Sequence[Promise],
        engines: tuple[EngineId, ...] = (),
        *,
        first: TaskId | None = None,
    ) -> TaskId:
        """Send one call; returns the id of its first task, the others follow it.

        It is a part of what the user has called with the task `first`, if that is given.

        Waits while the backlog of unsent calls is above its bound, except in a thread that is fulfilling
        promises.
        """
        connection = self._connection
        connection.check_open()
        if self._ledger.is_over_backlog and not present.is_fulfilling:
            self.wait_until(lambda: bool(connection.end_reason) or not self._ledger.is_over_backlog)
        with connection.step():
            return self._submit(options, payload, blobs, promises, engines, first)

    def _submit(
        self,
        options: TaskOptions,
        payload: bytes,
        blobs: Sequence[Blob],
        promises: Sequence[Promise],
        engines: tuple[EngineId, ...],
        first: TaskId | None,
    ) -> TaskId:
        connection = self._connection
        stage = nesting.stage if self._reader.is_nested else None
        parent = NO_TASK if stage is None else stage.current()
        own_copies: list[Copies] = []
        with self._lock:
            connection.check_not_ended()
            task = self._ledger.on_submitted(
                options, payload, blobs, promises, engines, first, submitter=_submitter(), parent=parent
            )
            now = clock.now()
            wake = False
            is_alone = self._ledger.outstanding_count == len(promises)
            if is_alone or now - connection.sent_at >= SEND_INTERVAL_S:
                connection.pump(now, own_copies)
            elif not connection.is_woken:
                wake = connection.is_woken = True
        if wake:
            connection.wake()  # whoever reads, or the background thread, sends it with what comes next
        if own_copies:
            connection.copy(own_copies)
        return task

    def mark(self) -> int:
        """What is submitted from now on is after this mark; for `cancel_since`."""
        return self._ledger.mark

    def cancel_since(self, mark: int) -> list[TaskId]:
        """End what this thread has submitted after a mark; returns those tasks.

        What promises have submitted that it fulfilled meanwhile is not its own.

        Nobody will hold the results. Of a session that has ended there is nothing to take back.
        """
        with self._connection.step():
            with self._lock:
                tasks = self._ledger.submitted_since(mark, _submitter())
            if tasks and not self.closed:
                self.withdraw(tasks, Wish(True, self.cancel_grace_s))
            return tasks

    def withdraw(self, tasks: Iterable[TaskId], wish: Wish = ABORT) -> None:
        """Take these tasks out if they have not started, or end them in any case."""
        connection = self._connection
        connection.check_open()
        with connection.step():
            with self._lock:
                ended = self._ledger.on_wish(tasks, wish, connection.dialer.link)
                connection.pump(clock.now())
            connection.end_tasks(ended)

    def cancel_items(self, task: TaskId, items: Iterable[int]) -> None:
        """Do not run these items of a part of a map, by their places in it; end the one that runs."""
        connection = self._connection
        connection.check_open()
        with connection.step(), self._lock:
            self._ledger.on_items_unwanted(task, items, connection.dialer.link)
            connection.pump(clock.now())

    def set_priority(self, tasks: Iterable[TaskId], priority: int) -> None:
        """Have tasks that wait leave the queues by this priority."""
        connection = self._connection
        connection.check_open()
        with connection.step():
            with self._lock:
                asked = self._ledger.on_priority(tasks, priority)
            if asked:
                self.ask(lambda number: SetPriority(number, asked, priority))

    def ask(self, make: Callable[[int], Record]) -> AskedFuture:
        """Send a question or an order; `make` gets its number. The future holds the controller's answer."""
        connection = self._connection
        connection.check_open()
        with connection.step():
            with self._lock:
                connection.check_not_ended()
                link = connection.bound_link()
                if link is not None:
                    self._ledger.pump(link)  # the question comes after the calls that were made before it
                future = self._state.on_asked(make, link)
                connection.pump(clock.now())
            connection.wake()
            return future

    def follow(self, promises: Mapping[TaskId, Promise]) -> None:
        """Have tasks of any client fulfil these promises: at once if they have ended, else when they do."""
        connection = self._connection
        connection.check_open()
        with connection.step():
            with self._lock:
                connection.check_not_ended()
                self._state.on_followed(promises, connection.bound_link())
                connection.pump(clock.now())
            connection.wake()

    # ------------------------------------------------------------ waiting, and the end

    def wait_until(self, predicate: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until the predicate holds, which is cheap and thread-safe; returns its last value.

        None or a negative time-out means for ever. The end of the session ends it.
        """
        return self._reader.wait_until(predicate, timeout_s)

    def notify(self) -> None:
        """Predicates may have changed for another reason than a message."""
        self._reader.notify()

    def close(self, linger_s: float = LINGER_S) -> None:
        """Leave the cluster: tasks go on, their results stay with the controller. Repeating it does nothing.

        What is still outstanding here fails with ClientClosed' reason. `linger_s` bounds the wait for what
        was submitted and is on its way to the controller; it is shorter when nothing moves.
        """
        self._reader.close(linger_s)


def _submitter() -> int:
    """Who submits: this thread, by its own will or (negative) in a promise that it fulfils."""
    ident = threading.get_ident()
    return -ident if present.is_fulfilling else ident
