"""The controller's loop: receive → decide → drain → send.

One thread. It wakes when messages have come, when the store has committed, or at the next deadline; takes
what is there, up to `BATCH_MESSAGES`; lets the hub decide once; and sends each peer one message with all that
is for it. Facts for the store are handed over at most every `STORE_INTERVAL_S`, so that a stream of short
tasks costs few commits; what is acknowledged is acknowledged after its commit. Whoever asks the history sees
all that came before: the facts are handed over first, and a thread reads (`inquiries`).
"""

from __future__ import annotations

import logging
import platform
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

from enginery.controller.inquiries import Inquiries
from enginery.controller.routes import HELLOS, Bound, Routes
from enginery.controller.store.store import HistoryStore
from enginery.core.cancelling import CANCEL_GRACE_S
from enginery.core.hub import Hub
from enginery.core.left_over import LeftOver
from enginery.core.placement import Placement
from enginery.core.recording import Commit, FactBatch
from enginery.core.state import Identity
from enginery.ids import new_key
from enginery.protocol.codec import Buffer, MalformedMessage, NotAllowed, Unsendable, VersionMismatch, encode
from enginery.protocol.link import Link, Verdict
from enginery.protocol.messages import Envelope, Goodbye, HelloFirst, PutBlob, Record, Refused, Versions
from enginery.transport import clock
from enginery.transport.channel import NO_FILE, Delivery, Exchange, HasFileno, Incoming, Waker
from enginery.transport.end_watch import EndWatch
from enginery.transport.footprint import GivingBack, measure
from enginery.transport.shared_memory import SegmentGone, SharedDirectory

BATCH_MESSAGES = 256
STORE_INTERVAL_S = 0.02
FACTS_PER_BATCH = 2000
STORE_PATIENCE_S = 5.0
"""How long the store may take nothing before the log says so, each time."""
SUSPECT_S = 10.0
"""Who sends again, within this time, what cannot be taken, does so after every hello."""

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
        placement: Placement | None = None,
        cancel_grace_s: float = CANCEL_GRACE_S,
        shared: SharedDirectory | None = None,
        left_over: LeftOver | None = None,
        heals: bool = False,
        inquiries: type[Inquiries] = Inquiries,
        now: Callable[[], float] = clock.now,
    ) -> None:
        self._now = now
        self._exchange = exchange
        self._store = store
        self._routes = Routes()
        python = (sys.version_info.major, sys.version_info.minor)
        self.key = new_key()
        self._shared = shared
        self.hub = Hub(
            cluster=cluster,
            controller=self.key,
            versions=Versions(version, python),
            now=now(),
            placement=placement,
            grace_s=cancel_grace_s,
            read_shared=None if shared is None else self._read_shared,
            measure_memory=measure,
            left_over=left_over,
            heals=heals,
        )
        self._committed: deque[Commit] = deque()  # filled by the store's thread
        self._waker = Waker()
        self._inquiries = inquiries(store, on_found=self._waker.wake)
        self._owner = EndWatch(owner_pid)
        self._wakers: tuple[HasFileno, ...] = (self._waker,)
        if self._owner.fileno() != NO_FILE:
            self._wakers = self._waker, self._owner
        self._suspects: dict[Identity, float] = {}  # who has sent what cannot be taken, until when it counts
        self._store_at: float | None = None
        self._refused_batch: FactBatch | None = None
        self._refused_at: float | None = None  # since when the store takes nothing
        self._warn_at = 0.0
        self._giving_back = GivingBack()
        self._stopping = False
        log.info("controller %s of %s on %s starts", self.key, cluster, platform.node())
        if left_over is not None:
            log.info(
                "it takes over %d tasks, %d engines and %d clients",
                len(left_over.tasks),
                len(left_over.engines),
                len(left_over.clients),
            )

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
            self.hub.on_committed(self._committed.popleft(), now=now)
        for found in self._inquiries.take():
            self.hub.on_found(found, now=now)
        self._flush(now)
        # What is due comes after what has come, which somebody is waiting for.
        deadline = self.hub.next_deadline()
        if deadline is not None and deadline <= now:
            self.hub.on_tick(now=now)
            self._clear_pools(now)
            self._flush(now)
        self._feed_store(now)
        self._ask_history()
        self._giving_back.look(self.hub.state.blobs.total_bytes, now=now)
        for rejected in self._exchange.rejections():
            log.warning("turned away %s: %s", rejected.peer or "a stranger", rejected.reason)

    def _clear_pools(self, now: float) -> None:
        """Remove shared memory whose writers are gone and that nobody needs any more."""
        for pool, spare in self.hub.take_abandoned_pools(now=now):
            if self._shared is not None and self._shared.clear_pool(pool, spare=spare) and not spare:
                self.hub.on_pool_cleared(pool)

    def _read_shared(self, name: str, size_bytes: int) -> Buffer | None:
        """The bytes of a segment, for a peer that cannot map it."""
        assert self._shared is not None
        try:
            return self._shared.read(name, size_bytes)
        except (SegmentGone, OSError) as error:
            log.error("segment %s cannot be read, and what needs it fails: %r", name, error)
            return None

    def close(self) -> None:
        """Hand the last facts to the store and let go of what `run` used."""
        self._store_at = 0.0
        self._feed_store(self._now())
        self._inquiries.close()
        self._waker.close()
        self._owner.close()

    # ------------------------------------------------------------ in

    def _on_incoming(self, incoming: Incoming, now: float) -> None:
        bound = self._routes.get(incoming.route)
        try:
            if bound is None:
                self._on_stranger(incoming, now)
            else:
                self._on_known(bound, incoming, now)
        except Exception as error:
            # A defect, or an attack nobody thought of: one peer's message must not end everybody's cluster.
            who = f"{bound.kind} {bound.key}" if bound is not None else f"an unknown {incoming.role.value}"
            log.exception("a message of %s could not be handled; it has to say hello again", who)
            if bound is not None:
                self._start_over(incoming, bound, "a record could not be handled", repr(error), now)

    def _start_over(self, incoming: Incoming, bound: Bound, what: str, why: str, now: float) -> None:
        """Have a peer say hello and then everything again. If that was of no use the last time, refuse it."""
        self._suspects = {peer: until for peer, until in self._suspects.items() if until > now}
        if self._suspects.pop(bound.identity, None) is not None:
            log.error("refused %s %s, which says again what cannot be taken: %s", *bound.identity, why)
            refusal = Refused(f"{what}, and again after a new hello: {why}")
            self._reply(incoming, bound.link.epoch, refusal)
        else:
            self._suspects[bound.identity] = now + SUSPECT_S
            self._ask_for_hello(incoming, bound.link.epoch, what)
        self._unbind(bound, now)

    def _on_known(self, bound: Bound, incoming: Incoming, now: float) -> None:
        if incoming.role is not bound.role:
            log.warning("a message for %s %s came with another role; dropped", bound.kind, bound.key)
            return
        try:
            envelope = bound.decode(incoming.header, incoming.frames)
        except MalformedMessage as error:
            log.warning("a malformed message of %s %s: %s", bound.kind, bound.key, error)
            what = "a message was malformed"
            if isinstance(error, NotAllowed):
                self._start_over(incoming, bound, what, str(error), now)
            else:  # torn on its way, perhaps
                self._ask_for_hello(incoming, bound.link.epoch, what)
                self._unbind(bound, now)
            return
        records = envelope.records
        if records and isinstance(records[0], HELLOS):
            if envelope.epoch > bound.link.epoch:
                self._on_hello(incoming, envelope, now)
            return
        verdict = bound.link.on_message(envelope, incoming.frames, header_bytes=len(incoming.header))
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
        for record in records:
            hub.on_record(identity, record, next(frames) if type(record) is PutBlob else None, now=now)

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
        link.on_message(envelope, (), header_bytes=len(incoming.header))
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
        """Decide and send; False if there is more to decide, because a route was found gone."""
        all_sent = True
        for kind, key in self.hub.settle(now=now):
            bound = self._routes.of(kind, key)
            if bound is None:
                continue
            if not self.hub.knows((kind, key)):
                self._let_go(bound)
            elif not self._send_all(bound, now):
                all_sent = False
        return all_sent

    def _let_go(self, bound: Bound) -> None:
        """This peer has left, or counts as gone."""
        refusal = self.hub.take_refusal(bound.identity)
        if refusal:
            log.error("refused %s %s: %s", bound.kind, bound.key, refusal)
            self._exchange.send(bound.route, encode(bound.link.epoch, 0, 0, [Refused(refusal)]))
        self._routes.unbind(bound)

    def _send_all(self, bound: Bound, now: float) -> bool:
        has_decided = False
        while True:
            try:
                message = bound.link.next_message()
            except Unsendable as error:
                log.error("%s %s has to do without: %s", bound.kind, bound.key, error)
                self.hub.on_unsendable(bound.identity, error.record, str(error), now=now)
                has_decided = True
                continue
            if message is None:
                return not has_decided
            if self._exchange.send(bound.route, *message) is not Delivery.SENT:
                log.info("the connection of %s %s is gone", bound.kind, bound.key)
                self._unbind(bound, now)
                return False

    def _say_goodbye(self) -> None:
        self.hub.state.tell_all_clients(Goodbye())
        self._flush(self._now())

    # ------------------------------------------------------------ store and time

    def _feed_store(self, now: float) -> None:
        hub = self.hub
        if self._store_at is None:
            if not (hub.state.recording.is_waiting or len(hub.state.moves)):
                return
            self._store_at = now + STORE_INTERVAL_S
        is_urgent = (hub.has_inquiries or hub.state.recording.is_urgent) and self._refused_batch is None
        if now < self._store_at and len(hub.state.recording) < FACTS_PER_BATCH and not is_urgent:
            return
        batch = self._refused_batch or self.hub.take_facts()
        self._store_at = None
        self._refused_batch = None
        if batch is None:
            return
        facts, commit, buffers = batch

        def on_committed() -> None:
            self._committed.append(commit)
            self._waker.wake()

        if self._store.append(facts, buffers=buffers, on_committed=on_committed):
            self._refused_at = None
            return
        # Its queue is full: nothing is acknowledged meanwhile, so clients and engines keep theirs.
        self._refused_batch = batch
        self._store_at = now + STORE_INTERVAL_S
        if self._refused_at is None:
            self._refused_at = self._warn_at = now
        if now - self._warn_at >= STORE_PATIENCE_S:
            self._warn_at = now
            log.warning(
                "%r has taken nothing for %.0f s: results wait for it, and calls for them",
                self._store,
                now - self._refused_at,
            )

    def _ask_history(self) -> None:
        """Hand over inquiries, once the store has all facts that came before them."""
        if self.hub.has_inquiries and not self.hub.state.recording.is_waiting and self._refused_batch is None:
            for inquiry in self.hub.take_inquiries():
                self._inquiries.ask(inquiry)

    def next_deadline(self) -> float | None:
        """When `step` has something to do even if nothing comes."""
        deadline = self.hub.next_deadline()
        if self._store_at is not None:
            deadline = self._store_at if deadline is None else min(deadline, self._store_at)
        return deadline

    def _timeout_s(self) -> float | None:
        deadline = self.next_deadline()
        return None if deadline is None else max(deadline - self._now(), 0.0)
