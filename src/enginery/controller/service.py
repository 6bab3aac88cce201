"""The controller's loop: receive → decide → drain → send.

One thread. It wakes when messages have come, when the store has committed, or at the next deadline; takes
what is there, up to `BATCH_MESSAGES`; lets the hub decide once; and sends each peer one message with all that
is for it. Facts for the store are handed over at most every `STORE_INTERVAL_S`, so that a stream of short
tasks costs few commits; what is acknowledged is acknowledged after its commit.
"""

from __future__ import annotations

import logging
import platform
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

from enginery.controller.routes import HELLOS, Bound, Routes
from enginery.controller.store.store import HistoryStore
from enginery.core.hub import Hub
from enginery.core.state import Commit
from enginery.ids import new_key
from enginery.protocol.codec import MalformedMessage, VersionMismatch, encode
from enginery.protocol.history import HistoryFact
from enginery.protocol.link import Link, Verdict
from enginery.protocol.messages import Envelope, Goodbye, HelloFirst, PutBlob, Record, Refused, Versions
from enginery.transport import clock
from enginery.transport.channel import NO_FILE, Delivery, Exchange, HasFileno, Incoming, Waker
from enginery.transport.end_watch import EndWatch

BATCH_MESSAGES = 256
STORE_INTERVAL_S = 0.02
FACTS_PER_BATCH = 2000

log = logging.getLogger("enginery.controller")


class Controller:
    """A controller around an exchange and a store; both are closed by whoever opened them."""

    def __init__(
        self,
        *,
        cluster: str,
        version: str,
        exchange: Exchange,
        store: HistoryStore,
        owner_pid: int = 0,
        now: Callable[[], float] = clock.now,
    ) -> None:
        self._now = now
        self._exchange = exchange
        self._store = store
        self._routes = Routes()
        python = (sys.version_info.major, sys.version_info.minor)
        self.key = new_key()
        self.hub = Hub(cluster=cluster, controller=self.key, versions=Versions(version, python), now=now())
        self._committed: deque[Commit] = deque()  # filled by the store's thread
        self._waker = Waker()
        self._owner = EndWatch(owner_pid)
        self._wakers: tuple[HasFileno, ...] = (self._waker,)
        if self._owner.fileno() != NO_FILE:
            self._wakers = self._waker, self._owner
        self._store_at: float | None = None
        self._refused_batch: tuple[list[HistoryFact], Commit] | None = None
        self._stopping = False
        log.info("controller %s of %s on %s starts", self.key, cluster, platform.node())

    def __repr__(self) -> str:
        return f"<Controller {self.key}, {self._routes!r}>"

    def stop(self) -> None:
        """Make `run` return soon. May be called from a signal handler."""
        self._stopping = True
        self._waker.wake()

    def run(self) -> None:
        """Serve until `stop` or until a client has shut the cluster down."""
        while not self._stopping and not self.hub.is_finished(now=self._now()):
            self.step(self._timeout_s())
        self._say_goodbye()

    def step(self, timeout_s: float | None) -> None:
        """One turn of the loop."""
        self._exchange.wait(timeout_s, self._wakers)
        now = self._now()
        incoming = self._exchange.receive()
        if incoming is None:
            self._waker.clear()
            if self._owner.has_ended():
                log.info("the host of this controller has ended")
                self._stopping = True
        for _ in range(BATCH_MESSAGES):
            if incoming is None:
                break
            self._on_incoming(incoming, now)
            incoming = self._exchange.receive()
        if incoming is not None:
            self._on_incoming(incoming, now)
        while self._committed:
            self.hub.on_committed(self._committed.popleft())
        self._flush(now)
        # What is due comes after what has come, which somebody is waiting for.
        deadline = self.hub.next_deadline()
        if deadline is not None and deadline <= now:
            self.hub.on_tick(now=now)
            self._flush(now)
        self._feed_store(now)
        for rejected in self._exchange.rejections():
            log.warning("turned away %s: %s", rejected.peer or "a stranger", rejected.reason)

    def close(self) -> None:
        """Hand the last facts to the store and let go of what `run` used."""
        self._store_at = 0.0
        self._feed_store(self._now())
        self._waker.close()
        self._owner.close()

    # ------------------------------------------------------------ in

    def _on_incoming(self, incoming: Incoming, now: float) -> None:
        bound = self._routes.get(incoming.route)
        if bound is None:
            self._on_stranger(incoming, now)
            return
        if incoming.role is not bound.role:
            log.warning("a message for %s %s came with another role; dropped", bound.kind, bound.key)
            return
        try:
            envelope = bound.decode(incoming.header, incoming.frames)
        except MalformedMessage as error:
            log.warning("a malformed message of %s %s: %s", bound.kind, bound.key, error)
            self._ask_for_hello(incoming, bound.link.epoch, "a message was malformed")
            self._unbind(bound, now)
            return
        records = envelope.records
        if records and isinstance(records[0], HELLOS):
            if envelope.epoch > bound.link.epoch:
                self._on_hello(incoming, envelope, now)
            return
        verdict = bound.link.on_message(envelope, incoming.frames)
        if verdict is Verdict.GAP:
            log.info("messages of %s %s were lost; asking for a hello", bound.kind, bound.key)
            self._ask_for_hello(incoming, envelope.epoch, "messages were lost")
            self._unbind(bound, now)
            return
        if verdict is Verdict.STALE:
            return
        identity = bound.identity
        hub = self.hub
        hub.on_heard(identity, now=now)
        if bound.link.has_output:
            hub.state.touch(identity)  # its bulk window has moved, or wants to be told
        frames = iter(incoming.frames)
        try:
            for record in records:
                hub.on_record(identity, record, next(frames) if type(record) is PutBlob else None, now=now)
        except Exception:
            # A defect, or an attack nobody thought of: one peer's records must not end everybody's cluster.
            log.exception("a record of %s %s could not be handled; it has to say hello again", *identity)
            self._unbind(bound, now)

    def _on_stranger(self, incoming: Incoming, now: float) -> None:
        try:
            envelope = self._routes.decode_stranger(incoming.role, incoming.header, incoming.frames)
        except VersionMismatch as error:
            log.warning("refused a %s: %s", incoming.role.value, error)
            self._reply(incoming, error.epoch, Refused(str(error)))
            return
        except MalformedMessage as error:
            log.warning("a malformed message of an unknown %s: %s", incoming.role.value, error)
            return
        if envelope.records and isinstance(envelope.records[0], HELLOS) and envelope.number == 0:
            self._on_hello(incoming, envelope, now)
        else:
            self._ask_for_hello(incoming, envelope.epoch, "this connection is not known")

    def _on_hello(self, incoming: Incoming, envelope: Envelope[Any], now: float) -> None:
        hello = envelope.records[0]
        link = Link(envelope.epoch)
        link.on_message(envelope, ())
        identity, refusal = self.hub.on_hello(hello, link, now=now)
        if refusal:
            log.warning("refused %s %s: %s", *identity, refusal)
            self._reply(incoming, envelope.epoch, Refused(refusal))
            return
        if not self.hub.knows(identity):
            return  # too early: it will say hello again
        bound = self._routes.bind(incoming.route, incoming.role, hello, identity, envelope.epoch)
        bound.link = link
        log.info("hello from %s %s, epoch %d", *identity, envelope.epoch)

    def _ask_for_hello(self, incoming: Incoming, epoch: int, reason: str) -> None:
        self._reply(incoming, epoch, HelloFirst(reason))

    def _reply(self, incoming: Incoming, epoch: int, record: Record) -> None:
        """Answer a connection that is not bound."""
        self._exchange.send(incoming.route, encode(epoch, 0, 0, [record]))

    def _unbind(self, bound: Bound, now: float) -> None:
        self._routes.unbind(bound)
        self.hub.on_disconnected(bound.identity, now=now)

    # ------------------------------------------------------------ out

    def _flush(self, now: float) -> None:
        # Sending can find routes gone, which can decide something: again, until all is said.
        while not self._flush_once(now):
            pass

    def _flush_once(self, now: float) -> bool:
        """Decide and send; False if a route was found gone."""
        all_sent = True
        for kind, key in self.hub.settle(now=now):
            bound = self._routes.of(kind, key)
            if bound is None:
                continue
            if not self.hub.knows((kind, key)):
                self._routes.unbind(bound)  # it has left
            elif not self._send_all(bound, now):
                all_sent = False
        return all_sent

    def _send_all(self, bound: Bound, now: float) -> bool:
        try:
            while (message := bound.link.next_message()) is not None:
                if self._exchange.send(bound.route, *message) is not Delivery.SENT:
                    log.info("the connection of %s %s is gone", bound.kind, bound.key)
                    self._unbind(bound, now)
                    return False
        except ValueError as error:  # a record too large, or with text that cannot be encoded
            log.error("cannot talk to %s %s any more: %s", bound.kind, bound.key, error)
            self._unbind(bound, now)
            return False
        return True

    def _say_goodbye(self) -> None:
        self.hub.state.tell_all_clients(Goodbye())
        self._flush(self._now())

    # ------------------------------------------------------------ store and time

    def _feed_store(self, now: float) -> None:
        if self._store_at is None:
            if self.hub.state.has_facts:
                self._store_at = now + STORE_INTERVAL_S
            return
        if now < self._store_at and self.hub.state.fact_count < FACTS_PER_BATCH:
            return
        batch = self._refused_batch or self.hub.take_facts()
        self._store_at = None
        self._refused_batch = None
        if batch is None:
            return
        facts, commit = batch

        def on_committed() -> None:
            self._committed.append(commit)
            self._waker.wake()

        if not self._store.append(facts, on_committed=on_committed):
            # Its queue is full: nothing is acknowledged meanwhile, so clients and engines keep theirs.
            self._refused_batch = batch
            self._store_at = now + STORE_INTERVAL_S

    def next_deadline(self) -> float | None:
        """When `step` has something to do even if nothing comes."""
        deadline = self.hub.next_deadline()
        if self._store_at is not None:
            deadline = self._store_at if deadline is None else min(deadline, self._store_at)
        return deadline

    def _timeout_s(self) -> float | None:
        deadline = self.next_deadline()
        return None if deadline is None else max(deadline - self._now(), 0.0)
