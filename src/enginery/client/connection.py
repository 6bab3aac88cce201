"""A client's connection to the controller, and its machines, under one lock: what one turn does.

A *turn* receives what is there, lets the machines take it, and sends what can go; it returns the `News`,
which is acted on outside the lock: promises are fulfilled, listeners called, and then the deliveries count as
taken; callbacks come last. Who makes the turns is for `reader` to say; what is asked for, and by whom, for
`session`.

`lock` guards state, link and channel; it is never held while promises are fulfilled or callbacks run, so
those may submit, wait and abort, and no other lock is taken under it. Finalizers never take it: they run in
any thread, also in the one that holds it.

In a forked child every call raises `ForkedClientError`, and nothing of the parent's connection is touched.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from enginery.client.contract import Promise
from enginery.client.copying import AT_ONCE_BYTES, Copier, copy
from enginery.client.fulfilling import act_on, guard
from enginery.client.leaving import Progress
from enginery.client.news import News
from enginery.client.reading import ReaderRole
from enginery.client.shield import Shield
from enginery.client.state import ClientState
from enginery.client.ticking import Tickers
from enginery.core.dialer import Dialer, DialState
from enginery.core.submissions import Copies
from enginery.errors import (
    ClientClosed,
    ClusterNotFound,
    ConnectionFileError,
    ForkedClientError,
    ReentrantUseError,
)
from enginery.ids import BlobId, ClientId, client_pool, new_client_id
from enginery.protocol import codec
from enginery.protocol.link import Link, Message
from enginery.protocol.messages import ClientHello, Goodbye, TaskResult, ToClient, Versions
from enginery.transport import clock
from enginery.transport.channel import NO_FILE, Channel
from enginery.transport.connection_file import ConnectionInfo, is_stale, load
from enginery.transport.end_watch import EndWatch
from enginery.transport.sharing import Sharing

RESTART_S = 30.0
"""How long a controller that is started again when it dies may be gone."""
GIVE_UP_S = 120.0
"""Silence of a controller on another machine after which the session is over."""
WATCH_S = 0.1
"""How often somebody looks whether what must have happened has."""

log = logging.getLogger("enginery.client")


class Connection:
    """One client's connection. Any thread may call its methods; those that say so hold the lock."""

    def __init__(self, info: ConnectionInfo, channel: Channel, *, version: str) -> None:
        self.info = info
        self.client_id: ClientId = new_client_id()
        self.channel = channel
        self.pid = os.getpid()
        self._secret = secrets.token_bytes(16)
        self._versions = Versions(version, (sys.version_info.major, sys.version_info.minor))
        # Held by one thread at a time, and never taken twice, see `check_caller`.
        self.lock = threading.RLock()
        self.sharing = Sharing.join(
            info.shared,
            info.host_proof,
            client_pool(self.client_id),
            limit_bytes=info.shared_limit_bytes,
        )
        self.copier = Copier(self.sharing, self.on_copied)
        self.state = ClientState(self.client_id, self.sharing)
        self.ledger = self.state.ledger
        self.dialer: Dialer[ToClient] = Dialer(codec.to_client(), self._hello)
        self.role = ReaderRole()
        self.tickers = Tickers(self.wake)
        self.sent_at = 0.0
        self.due = 0.0  # when the dialer wants to be asked again
        self.is_woken = False  # somebody has been told that there is something to send
        self._is_torn = False  # an interrupt may have left a step half done
        self.end_reason = ""  # why the session is over
        self.is_over = threading.Event()  # and everybody has been told
        self.end_listeners: list[Callable[[str], object]] = []
        self.idle = threading.Event()  # wakes the background thread
        # Whether the controller lives can be known on its own machine only, and while its files are there.
        near = info.is_same_host() and not is_stale(info)
        self.controller = EndWatch(info.controller_pid if near else 0)
        self._bound_at = clock.now()
        self._gone_at: float | None = None  # since when the controller is known to have ended

    def __repr__(self) -> str:
        state = f"closed: {self.end_reason}" if self.end_reason else self.dialer.state.value
        return f"<Connection {self.client_id:08x} at {self.info.cluster}, {state}>"

    def greet(self) -> None:
        """Say the first hello."""
        with self.lock:
            self.dialer.greet(now=clock.now())
            self._send()

    # ------------------------------------------------------------ for callers

    def check_caller(self) -> None:
        """Whoever calls from outside must be of this process, and not an interruption of our own work."""
        if self.pid != os.getpid():
            raise ForkedClientError(self.pid, os.getpid())
        if self.lock._is_owned():  # type: ignore[attr-defined]
            raise ReentrantUseError()

    def check_open(self) -> None:
        self.check_caller()
        self.check_not_ended()

    def check_not_ended(self) -> None:
        if self.end_reason:
            raise ClientClosed(self.end_reason)

    @property
    def watched(self) -> int:
        """A descriptor that tells of the controller's end; -1 if there is none, or that is known."""
        return self.controller.fileno() if self._gone_at is None else NO_FILE

    def bound_link(self) -> Link | None:
        return self.dialer.link if self.dialer.is_bound else None

    def wake(self) -> None:
        """Make somebody read and send: the reader, or the background thread."""
        if self.role.is_taken:
            self.role.waker.wake()
        else:
            self.idle.set()

    def step(self) -> Step:
        """A block that Ctrl-C comes before or after. What else is raised in it may leave it half done."""
        return Step(self)

    def tear(self) -> None:
        """A step was left half done: the next turn, at once, begins a new epoch and all is said again."""
        self._is_torn = True
        self.due = 0.0

    def on_copied(self, copies: Copies, segments: dict[BlobId, str]) -> None:
        """The big buffers of a call are in shared memory: it can go."""
        with self.step(), self.lock:
            self.ledger.on_copied(copies, segments)
            if not self.end_reason:
                self.pump(clock.now())
        self.wake()  # who closes waits for this

    def copy(self, own_copies: Iterable[Copies]) -> None:
        """Copy these, which `pump` has left to its caller."""
        for copies in own_copies:
            self.on_copied(copies, copy(self.sharing, copies))

    def report(self) -> None:
        """Before going quiet, tell the controller what has arrived."""
        with self.lock:
            if self.dialer.is_bound:
                self.ledger.report(self.dialer.link)
                self._send()

    def progress(self) -> Progress:
        with self.lock:
            waiting = self.dialer.link.waiting_count
            return Progress(self.ledger.unaccepted_count, waiting, self.copier.is_busy)

    # ------------------------------------------------------------ one turn

    def turn(self, now: float) -> News:
        """Receive what is there and send what can go; returns what is to be done about it."""
        news = News()
        with self.lock:
            if self.end_reason:
                return news
            if self._is_torn:
                self._is_torn = False
                self.dialer.greet(now=now)
            try:
                self.state.take_unsendable(news)
                while (message := self.channel.receive()) is not None:
                    for record, frame in self.dialer.on_message(*message, now=now):
                        if type(record) is Goodbye:
                            self.end_reason = "the cluster was shut down"
                        self.state.on_record(record, frame, self.dialer.link, news)
                if self.state.has_missed:
                    self.tear()
                if now >= self.due or self.dialer.refusal or self.channel.broken:
                    self._keep_in_touch(now)
                self.pump(now)
            except BaseException:
                self.tear()
                raise
        if self.end_reason:
            try:
                self.act_on(news)  # results and answers that came before the goodbye count
            finally:
                self.finish()
            return News()
        return news

    def _keep_in_touch(self, now: float) -> None:
        dialer = self.dialer
        dialer.on_tick(now=now)
        if dialer.is_bound:
            self._bound_at = now
        if dialer.state is DialState.REFUSED:
            self.end_reason = f"the controller has refused this client: {dialer.refusal}"
        elif self.controller.has_ended() and not self._comes_back(now):
            self.end_reason = f"the controller of {self.info.cluster!r} has ended"
        elif now - self._bound_at > GIVE_UP_S:
            self.end_reason = (
                f"the controller of {self.info.cluster!r} has not answered for {GIVE_UP_S:.0f} s"
            )
        elif dialer.wants_redial or self.channel.broken:
            self.channel.redial()
            dialer.greet(now=now)
        look_at = now + (self.controller.interval_s or GIVE_UP_S)
        if not dialer.is_bound:
            look_at = now + WATCH_S  # the controller may be there any moment
        self.due = min(dialer.next_deadline() or now + WATCH_S, look_at)

    def _comes_back(self, now: float) -> bool:
        """Whether another controller takes this one's place, or may: it has ended."""
        if not self.info.restarts:
            return False
        try:
            info = load(Path(self.info.directory) / f"{self.info.role.value}.json")
        except (ClusterNotFound, ConnectionFileError):
            return False  # it was told to end, or its host has ended too
        if not is_stale(info):
            self._gone_at = None
            self.info = info
            self.controller.close()
            self.controller = EndWatch(info.controller_pid)
            return True
        if self._gone_at is None:
            self._gone_at = now
            log.info("the controller of %r has ended; waiting for the next one", info.cluster)
        return now - self._gone_at < RESTART_S

    def pump(self, now: float, own_copies: list[Copies] | None = None) -> None:
        """Send what can go; the lock is held.

        `own_copies` gets what the caller is to `copy` when he has let go of the lock.
        """
        self.is_woken = False
        if self.ledger.has_output and self.dialer.is_bound:
            self.ledger.pump(self.dialer.link)
            self.sent_at = now
            for copies in self.ledger.take_copies():
                if own_copies is not None and copies.size_bytes <= AT_ONCE_BYTES:
                    own_copies.append(copies)
                else:
                    self.copier.put(copies)
        self.state.release_unused()
        self._send()
        if self.channel.pending():
            self.role.waker.wake()  # a send may have used up the descriptor's news, see `Channel`

    def _send(self) -> None:
        while (message := self._next_message()) is not None:
            if not self.channel.send(*message):
                return

    def _next_message(self) -> Message | None:
        while True:
            try:
                return self.dialer.next_message()
            except codec.Unsendable as error:
                log.error("%s", error)
                self.state.unsendable.append(error)
                self.due = 0.0
                self.wake()  # the next turn tells whom it concerns

    def _hello(self) -> ClientHello:
        return self.state.hello(self._secret, self._versions, self.pid)

    # ------------------------------------------------------------ outside the lock

    def act_on(self, news: News) -> None:
        """Hand out what has come."""
        if not news:
            return
        try:
            act_on(news, self.state, self.lock, self.role.wake_satisfied)
        except BaseException:
            self.tear()  # what was not taken comes again
            raise
        self.tickers.on_news()
        self.role.wake_satisfied()

    def end_tasks(
        self, ended: Iterable[tuple[Promise, TaskResult]], others: Iterable[TaskResult] = ()
    ) -> None:
        """These have ended here, without a delivery."""
        news = News()
        news.add_ended(ended)
        news.others.extend(others)
        self.act_on(news)

    # ------------------------------------------------------------ the end

    def say_goodbye(self, reason: str) -> None:
        """Leave on purpose, unless the session is over already; `finish` comes next."""
        with self.lock:
            if not self.end_reason:
                if self.dialer.is_bound:
                    self.ledger.report(self.dialer.link)
                    self.dialer.link.put_after_bulk(Goodbye())
                    self._send()
                self.end_reason = reason

    def finish(self, linger_s: float = 0.0) -> None:
        """The session is over: let go of the connection, and of everybody who waits on it."""
        with self.lock:
            endings = self.state.on_closed(self.end_reason)
            self.channel.close(linger_s)
            self.controller.close()
        self.copier.end()
        self.sharing.close()
        for question in endings.questions:
            question.answer(ClientClosed(self.end_reason))
        self.end_tasks(endings.calls, endings.followed)
        while self.end_listeners:
            guard(self.end_listeners.pop(0), self.end_reason)
        self.is_over.set()
        self.tickers.run(clock.now())
        self.role.wake_satisfied(everybody=True)
        self.role.waker.wake()
        self.idle.set()


class Step(Shield):
    """A block of a connection's own work, see `Connection.step`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def __exit__(self, *raised: object) -> None:
        if raised[0] is not None:
            self._connection.tear()  # others may wait for what was being copied, or said, in it
            self._connection.wake()
        super().__exit__(*raised)
