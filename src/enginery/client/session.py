"""The client's connection: any thread submits, whoever waits reads.

Problem: a call should cost one thread hand-over less than "the caller waits for a receiving thread". Choice:
whoever blocks in `wait_until` takes the *reader's role*, polls the descriptor and handles what comes, for
everybody; one at a time, and when its own wish is fulfilled it hands the role to another waiter. The
background thread holds the role only when nobody waits: it takes it `LINGER_S` after the last waiter left.
Measured on a routed call: 1.05–1.19 of a raw ping-pong with the caller reading, 1.25–1.57 with a receiving
thread alone.

`_lock` guards ledger, link and channel; it is never held while promises are fulfilled or callbacks run, so
those may submit, wait and abort, and no other lock is taken under it. Finalizers never take it: they run in
any thread, also in the one that holds it.

In a forked child every call raises `ForkedClientError`, and nothing of the parent's connection is touched.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import select
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future

from enginery.client.contract import EngineListener, Promise
from enginery.client.news import News, Question
from enginery.client.reading import ReaderRole
from enginery.core.dialer import Dialer, DialState
from enginery.core.ledger import Blob, Ledger
from enginery.errors import ClientClosed, ClusterNotResponding, ForkedClientError
from enginery.ids import ClientId, EngineId, TaskId, new_client_id
from enginery.objects.functions import FunctionCache
from enginery.protocol import codec
from enginery.protocol.assembly import BlobCache
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import (
    Accepted,
    Answer,
    ClientHello,
    ClientWelcome,
    EngineInfo,
    EngineLeft,
    EnginesChanged,
    Finished,
    Goodbye,
    Output,
    PutBlob,
    Record,
    Resend,
    StatusAnswer,
    TaskOptions,
    TaskResult,
    ToClient,
    Versions,
)
from enginery.transport import clock
from enginery.transport.channel import Channel
from enginery.transport.connection_file import ConnectionInfo, is_stale
from enginery.transport.dialling import dial
from enginery.transport.end_watch import EndWatch

JOIN_S = 5.0
"""Longer than the background thread can take to notice the end, unless it is in somebody's callback."""
LINGER_S = 0.005
"""How long the background thread leaves the reader's role to callers that come in quick succession."""
GIVE_UP_S = 120.0
"""Silence of a controller on another machine after which the session is over."""
WATCH_S = 0.1
"""How often the background thread looks whether a caller that reads is still there."""
SEND_INTERVAL_S = 0.0005
"""Submissions that follow each other faster than this travel together."""

log = logging.getLogger("enginery.client")


class Session:
    """One client's identity at one cluster. Safe to use from any thread."""

    def __init__(self, info: ConnectionInfo, channel: Channel, *, version: str) -> None:
        self.info = info
        self.client_id: ClientId = new_client_id()
        self.functions = FunctionCache()
        self._channel = channel
        self._pid = os.getpid()
        self._secret = secrets.token_bytes(16)
        self._versions = Versions(version, (sys.version_info.major, sys.version_info.minor))
        self._lock = threading.Lock()
        self._ledger: Ledger[Promise] = Ledger(self.client_id)
        self._dialer: Dialer[ToClient] = Dialer(codec.to_client(), self._hello)
        self._blobs = BlobCache()
        self._engines: dict[EngineId, EngineInfo] = {}
        self._listeners: list[EngineListener] = []
        self._questions: dict[int, tuple[Record, Question]] = {}
        self._next_question = 1
        self._texts: dict[TaskId, int] = {}  # unfinished tasks with output, and the pieces of it that came
        self._late: dict[TaskId, tuple[Promise, int]] = {}  # finished tasks, and the pieces to come
        self._role = ReaderRole()
        self._sent_at = 0.0
        self._due = 0.0  # when the dialer wants to be asked again
        self._is_woken = False  # somebody has been told that there is something to send
        self._is_torn = False  # an interrupt may have left a step half done
        self._end = ""  # why the session is over
        self._is_over = threading.Event()  # and everybody has been told
        self._idle = threading.Event()  # wakes the background thread
        # Whether the controller lives can be known on its own machine only, and while its files are there.
        near = info.is_same_host() and not is_stale(info)
        self._controller = EndWatch(info.controller_pid if near else 0)
        self._bound_at = clock.now()
        self._thread = threading.Thread(target=self._serve, name="enginery-client", daemon=True)

    def __repr__(self) -> str:
        state = f"closed: {self._end}" if self._end else self._dialer.state.value
        return f"<Session {self.client_id:08x} at {self.info.cluster}, {state}>"

    @classmethod
    def open(cls, info: ConnectionInfo, *, version: str, timeout_s: float = 10.0) -> Session:
        """Dial the controller and wait for its welcome.

        Raises ClusterNotResponding after `timeout_s`, ClientClosed with the controller's reason if it
        refuses.
        """
        session = cls(info, dial(info), version=version)
        try:
            with session._lock:
                session._dialer.greet(now=clock.now())
                session._send()
            session._thread.start()
            _open_sessions.add(session)
            if not session.wait_until(lambda: session._dialer.is_bound or bool(session._end), timeout_s):
                raise ClusterNotResponding(
                    info.cluster, timeout_s=timeout_s, address=session._channel.address
                )
            session._check_open()
        except BaseException:
            session.close()
            raise
        return session

    # ------------------------------------------------------------ questions

    @property
    def closed(self) -> bool:
        return bool(self._end)

    @property
    def end_reason(self) -> str:
        """Why the session is over; empty while it is not."""
        return self._end

    def engines(self) -> dict[EngineId, EngineInfo]:
        """The engines as last heard, ascending ids."""
        with self._lock:
            return dict(sorted(self._engines.items()))

    def outstanding(self) -> set[TaskId]:
        with self._lock:
            return self._ledger.outstanding()

    def add_engine_listener(self, listener: EngineListener) -> None:
        """Call `listener(joined, left)` when engines come and go, from the thread that reads."""
        with self._lock:
            self._listeners.append(listener)

    # ------------------------------------------------------------ calls

    def submit(
        self,
        options: TaskOptions,
        payload: bytes,
        blobs: Sequence[Blob],
        promises: Sequence[Promise],
        engines: tuple[EngineId, ...] = (),
    ) -> TaskId:
        """Send one call; returns the id of its first task, the others follow it.

        Waits while the backlog of unsent calls is above its bound, except in a thread that is fulfilling
        promises.
        """
        self._check_open()
        if self._ledger.is_over_backlog and not _present.is_fulfilling:
            self.wait_until(lambda: bool(self._end) or not self._ledger.is_over_backlog)
        with self._lock:
            self._check_open()
            task = self._ledger.on_submitted(options, payload, blobs, promises, engines)
            now = clock.now()
            wake = False
            if self._ledger.outstanding_count == len(promises) or now - self._sent_at >= SEND_INTERVAL_S:
                self._pump(now)
            elif not self._is_woken:
                wake = self._is_woken = True
        if wake:
            self._wake()  # whoever reads, or the background thread, sends it with what comes next
        return task

    def abort(self, tasks: Iterable[TaskId]) -> None:
        """Take these tasks out if they have not started."""
        self._check_open()
        with self._lock:
            ended = self._ledger.on_abort(tasks, self._dialer.link)
            self._pump(clock.now())
        self._end_tasks(ended)

    def ask(self, make: Callable[[int], Record]) -> Question:
        """Send a question or an order; `make` gets its number. The future holds the controller's answer."""
        self._check_open()
        future: Question = Future()
        with self._lock:
            self._check_open()
            number = self._next_question
            self._next_question += 1
            record = make(number)
            self._questions[number] = record, future
            if self._dialer.is_bound:
                self._dialer.link.put(record)
            self._pump(clock.now())
        self._wake()
        return future

    def notify(self) -> None:
        """Predicates may have changed for another reason than a message."""
        self._role.wake_satisfied()
        self._role.waker.wake()

    # ------------------------------------------------------------ waiting

    def wait_until(self, predicate: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until the predicate holds; the caller reads the connection meanwhile.

        The predicate is cheap and thread-safe. None or a negative time-out means for ever. Returns its last
        value.
        """
        self._check_process()
        deadline = None if timeout_s is None or timeout_s < 0 else clock.now() + timeout_s
        while not predicate():
            if deadline is not None and clock.now() >= deadline:
                return False
            if self._end:
                if not _present.is_fulfilling:
                    self._is_over.wait(JOIN_S)  # whoever noticed the end is about to tell every promise
                return predicate()
            news = self._read(predicate, deadline)
            if news is None:
                # The background thread makes room for us, but not for itself.
                self._role.sleep(predicate, deadline, kick=_present.background_of is not self)
            else:
                self._act_on(news)
        return True

    def _read(self, predicate: Callable[[], bool], deadline: float | None) -> News | None:
        """Take the reader's role and read until there is news or the predicate holds; None: it is taken.

        Nothing is pending when this begins, or the waker is set: `_pump` sees to it.
        """
        try:
            if not self._role.take():
                return None
            while not predicate() and not self._end:
                if self._ledger.has_output:  # submitted while nobody read, and left to whoever reads next
                    with self._lock:
                        self._pump(clock.now())
                now = self._poll(deadline)
                news = self._turn(now)
                if news or (deadline is not None and now >= deadline):
                    return news
            return News()
        finally:
            self._role.leave()

    def _poll(self, deadline: float | None) -> float:
        """Sleep until something may have come or is due; returns the time."""
        due = self._due
        if deadline is not None and deadline < due:
            due = deadline
        poller = select.poll()
        poller.register(self._role.waker.fileno(), select.POLLIN)
        descriptor = self._channel.fileno()
        if descriptor >= 0:
            poller.register(descriptor, select.POLLIN)
        watched = self._controller.fileno()
        if watched >= 0:
            poller.register(watched, select.POLLIN)
        for ready, _ in poller.poll(max((due - clock.now()) * 1000, 0.0)):
            if ready == watched:
                self._due = 0.0
            elif ready != descriptor:
                self._role.waker.clear()
        return clock.now()

    # ------------------------------------------------------------ the background thread

    def _serve(self) -> None:
        _present.background_of = self
        try:
            self._serve_until_end()
        except Exception as error:
            # Whatever it is, those who wait must not wait for a thread that is gone.
            log.exception("the connection to %s has failed", self.info.cluster)
            self._end = f"its connection has failed: {type(error).__name__}: {error}"
            self._finish()
        while not self._role.take():  # who reads still polls the waker; he leaves, because this is the end
            self._idle.wait(WATCH_S)
            self._idle.clear()
        self._role.waker.close()

    def _serve_until_end(self) -> None:
        while not self._end:
            self._role.heal()
            busy = self._role.is_taken or self._role.is_wanted
            if busy or clock.now() - self._role.left_at < LINGER_S:
                self._idle.wait(WATCH_S if busy else LINGER_S)
                self._idle.clear()
                continue
            self._report()
            news = self._read(lambda: self._role.is_wanted, None)
            if news is not None:
                self._act_on(news)

    def _report(self) -> None:
        """Before going quiet, tell the controller what has arrived."""
        with self._lock:
            if self._dialer.is_bound:
                self._ledger.report(self._dialer.link)
                self._send()

    def _wake(self) -> None:
        """Make somebody read and send: the reader, or the background thread."""
        if self._role.is_taken:
            self._role.waker.wake()
        else:
            self._idle.set()

    # ------------------------------------------------------------ one turn, under the lock

    def _turn(self, now: float) -> News:
        """Receive what is there and send what can go; returns what is to be done about it."""
        news = News()
        with self._lock:
            if self._end:
                return news
            if self._is_torn:
                self._is_torn = False
                self._dialer.greet(now=now)
            try:
                while (message := self._channel.receive()) is not None:
                    for record, frame in self._dialer.on_message(*message, now=now):
                        if frame is not None:
                            assert isinstance(record, PutBlob)
                            self._blobs.on_piece(record, frame)
                        else:
                            self._on_record(record, news)
                if now >= self._due or self._dialer.refusal or self._channel.broken:
                    self._keep_in_touch(now)
                self._pump(now)
            except BaseException:
                self._tear()
                raise
        if self._end:
            self._finish()
        return news

    def _tear(self) -> None:
        """A step was left half done: the next turn, at once, begins a new epoch and all is said again."""
        self._is_torn = True
        self._due = 0.0

    def _on_record(self, record: ToClient, news: News) -> None:
        if isinstance(record, Finished):
            news.deliveries.append(record)
            for promise, result in self._ledger.on_finished(record.first, record.results):
                news.results.append((promise, result, self._buffers(result)))
                if result.outputs:
                    missing = result.outputs - self._texts.pop(result.task, 0)
                    if missing > 0:
                        self._late[result.task] = promise, missing
        elif isinstance(record, Output):
            self._on_output(record, news)
        elif isinstance(record, Accepted):
            self._ledger.on_accepted(record.ranges)
        elif isinstance(record, Resend):
            self._ledger.on_resend(record.numbers, record.blobs)
        elif isinstance(record, EnginesChanged):
            self._on_engines_changed(record)
            news.changes.append(record)
        elif isinstance(record, (Answer, StatusAnswer)):
            question = self._questions.pop(record.request, None)
            if question is not None:
                news.answers.append((question[1], record))
        elif isinstance(record, ClientWelcome):
            self._on_welcome(record, news)
        elif isinstance(record, Goodbye):
            self._end = "the cluster was shut down"

    def _on_output(self, record: Output, news: News) -> None:
        """Text comes on another connection than results: before them or after."""
        promise = self._ledger.promise(record.task)
        if promise is not None:
            self._texts[record.task] = self._texts.get(record.task, 0) + 1
        elif record.task in self._late:
            promise, missing = self._late.pop(record.task)
            if missing > 1:
                self._late[record.task] = promise, missing - 1
        if promise is not None:
            news.texts.append((promise, record))

    def _buffers(self, result: TaskResult) -> Sequence[Buffer]:
        if not result.blobs:
            return ()
        buffers = [data for blob in result.blobs if (data := self._blobs.get(blob)) is not None]
        for blob in result.blobs:
            self._blobs.drop(blob)
        return buffers

    def _on_engines_changed(self, record: EnginesChanged) -> None:
        for left in record.left:
            known = self._engines.get(left.engine)
            if known is not None and known.key == left.key:
                del self._engines[left.engine]
        for joined in record.joined:
            self._engines[joined.engine] = joined

    def _on_welcome(self, welcome: ClientWelcome, news: News) -> None:
        known = {info.key: info for info in self._engines.values()}
        present = {info.key for info in welcome.engines}
        joined = [info for info in welcome.engines if info.key not in known]
        left = [
            EngineLeft(info.engine, key, "it left while this client was away")
            for key, info in known.items()
            if key not in present
        ]
        self._engines = {info.engine: info for info in welcome.engines}
        if joined or left:
            news.changes.append(EnginesChanged(joined, left))
        self._blobs.restart()
        for record, _ in self._questions.values():
            self._dialer.link.put(record)
        lost = self._ledger.on_welcome(welcome, self._dialer.link)
        news.results.extend((promise, result, ()) for promise, result in lost)

    def _keep_in_touch(self, now: float) -> None:
        dialer = self._dialer
        dialer.on_tick(now=now)
        if dialer.is_bound:
            self._bound_at = now
        if dialer.state is DialState.REFUSED:
            self._end = f"the controller has refused this client: {dialer.refusal}"
        elif self._controller.has_ended():
            self._end = f"the controller of {self.info.cluster!r} has ended"
        elif now - self._bound_at > GIVE_UP_S:
            self._end = f"the controller of {self.info.cluster!r} has not answered for {GIVE_UP_S:.0f} s"
        elif dialer.wants_redial or self._channel.broken:
            self._channel.redial()
            dialer.greet(now=now)
        look_at = now + (self._controller.interval_s or GIVE_UP_S)
        self._due = min(dialer.next_deadline() or now + WATCH_S, look_at)

    def _pump(self, now: float) -> None:
        self._is_woken = False
        if self._ledger.has_output and self._dialer.is_bound:
            self._ledger.pump(self._dialer.link)
            self._sent_at = now
        self._send()
        if self._channel.pending():
            self._role.waker.wake()  # a send may have used up the descriptor's news, see `Channel`

    def _send(self) -> None:
        while (message := self._dialer.next_message()) is not None:
            if not self._channel.send(*message):
                return

    # ------------------------------------------------------------ outside the lock

    def _act_on(self, news: News) -> None:
        """Fulfil promises and call listeners; then the deliveries count as taken."""
        if not news:
            return
        nested, _present.is_fulfilling = _present.is_fulfilling, True
        try:
            for writer, text in news.texts:
                _guard(writer.on_output, text.stream, text.text)
            for promise, result, buffers in news.results:
                _guard(promise.on_result, result, buffers)
            with self._lock:
                for delivery in news.deliveries:
                    self._ledger.on_taken(delivery.first, delivery.results)
            for question, answer in news.answers:
                question.set_result(answer)
            for change in news.changes:
                for listener in list(self._listeners):
                    _guard(listener, change.joined, change.left)
        except BaseException:
            self._tear()  # what was not taken comes again
            raise
        finally:
            _present.is_fulfilling = nested
        self._role.wake_satisfied()

    def _end_tasks(self, ended: list[tuple[Promise, TaskResult]]) -> None:
        news = News()
        news.results = [(promise, result, ()) for promise, result in ended]
        self._act_on(news)

    # ------------------------------------------------------------ the end

    def close(self, linger_s: float = 1.0) -> None:
        """Leave the cluster: tasks go on, their results stay with the controller. Repeating it does nothing.

        What is still outstanding here fails with ClientClosed' reason. `linger_s` bounds the wait for what
        was submitted and has not left this process.
        """
        if self._pid != os.getpid():
            return  # the connection is the parent's
        if not self._end and self._dialer.is_bound:
            self.wait_until(self._has_left, linger_s)
        with self._lock:
            if not self._end:
                if self._dialer.is_bound:
                    self._ledger.report(self._dialer.link)
                    self._dialer.link.put_after_bulk(Goodbye())
                    self._send()
                self._end = "this client is closed"
        self._finish(linger_s)
        if self._thread.ident is None:
            self._role.waker.close()
        elif threading.current_thread() is not self._thread:
            self._thread.join(JOIN_S)

    def _has_left(self) -> bool:
        """Whether all that was submitted is out of this process."""
        return not self._ledger.statistics().queued and self._dialer.link.is_drained

    def _finish(self, linger_s: float = 0.0) -> None:
        """The session is over: let go of the connection, and of everybody who waits on it."""
        with self._lock:
            ended = self._ledger.on_closed(self._end)
            questions, self._questions = self._questions, {}
            self._channel.close(linger_s)
            self._controller.close()
        _open_sessions.discard(self)
        for _, question in questions.values():
            question.set_exception(ClientClosed(self._end))
        self._end_tasks(ended)
        self._is_over.set()
        self._role.wake_satisfied(everybody=True)
        self._role.waker.wake()
        self._idle.set()

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise ForkedClientError(self._pid, os.getpid())

    def _check_open(self) -> None:
        self._check_process()
        if self._end:
            raise ClientClosed(self._end)

    def _hello(self) -> ClientHello:
        return ClientHello(self.client_id, self._secret, self._versions, self._pid, self._ledger.received)


def _guard(callback: Callable[..., object], *arguments: object) -> None:
    """Call what is not ours: its error must not keep the other results from their owners."""
    try:
        callback(*arguments)
    except Exception:
        log.exception("an error in %r", callback)


class _Present(threading.local):
    """What the present thread is doing."""

    is_fulfilling: bool = False
    background_of: Session | None = None


_present = _Present()
_open_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _close_all() -> None:
    for session in list(_open_sessions):
        session.close(linger_s=0.2)


atexit.register(_close_all)
