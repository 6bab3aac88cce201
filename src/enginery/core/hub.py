"""One controller's decisions behind one door: records in; records on links, and facts for the store, out.

The service around it owns sockets, clock and store. It binds connections with `on_hello`, passes every record
to `on_record`, reports routes that are gone with `on_disconnected`, and after each batch of input calls
`settle`.
"""

from __future__ import annotations

from typing import Any, Protocol

from enginery.core import ends, taking_over
from enginery.core import facing_clients as clients
from enginery.core import facing_engines as engines
from enginery.core import facing_overview as overview
from enginery.core import facing_questions as questions
from enginery.core import facing_set_up as set_up
from enginery.core.cancelling import CANCEL_GRACE_S
from enginery.core.credit import UNNAMED_BYTES
from enginery.core.inquiries import (
    CallsFound,
    DeliveriesFound,
    EndedFound,
    EndsFound,
    Found,
    InquiryFailed,
    Order,
    RecordsFound,
    ResultsFound,
)
from enginery.core.left_over import LeftOver
from enginery.core.memory import MeasureMemory
from enginery.core.placement import Placement
from enginery.core.recording import Commit, FactBatch
from enginery.core.state import ClusterState, Identity, ReadShared
from enginery.core.toward_clients import on_complete, on_deliveries_found
from enginery.core.unsendable import on_unsendable
from enginery.ids import ClientId, EngineId
from enginery.protocol import messages as m
from enginery.protocol.codec import Buffer
from enginery.protocol.history import BlobKept
from enginery.protocol.link import RECORD_BYTES, Link

SHUTDOWN_GRACE_S = 6.0
"""How long hosts and engines may take to leave before the controller goes without them."""


class Door(Protocol):
    """What a record of a bound peer leads to; `key` says which peer of its kind."""

    def __call__(self, state: ClusterState, key: Any, record: Any, /, *, now: float) -> None: ...


def _pong(kind: str) -> Door:
    def pong(state: ClusterState, key: Any, record: m.Ping, /, *, now: float) -> None:
        state.say(kind, key, m.Ping())

    return pong


def _once(door: Door) -> Door:
    """An order's door: what is repeated after a hello gets the answer again, if there is one by now."""

    def order(state: ClusterState, client: ClientId, record: Any, /, *, now: float) -> None:
        if state.given_orders.on_given(client, record.request):
            door(state, client, record, now=now)
        elif (answer := state.given_orders.answer(client, record.request)) is not None:
            state.say("client", client, answer, RECORD_BYTES + 9 * len(answer.engines))

    return order


DOORS: dict[str, dict[type, Door]] = {
    "client": {
        m.Submit: clients.on_submit,
        m.ShareBlob: clients.on_share_blob,
        m.Abort: clients.on_abort,
        m.Cancel: clients.on_cancel,
        m.CancelItems: clients.on_cancel_items,
        m.SetPriority: _once(clients.on_set_priority),
        m.InterruptEngines: _once(questions.on_interrupt_engines),
        m.Received: clients.on_received,
        m.AskStatus: overview.on_ask_status,
        m.AskReasons: overview.on_ask_reasons,
        m.AskQueues: questions.on_ask_queues,
        m.AskResults: questions.on_ask_results,
        m.AskCalls: questions.on_ask_calls,
        m.AskHistory: questions.on_ask_history,
        m.PurgeHistory: _once(questions.on_purge_history),
        m.ClearEngines: _once(questions.on_clear_engines),
        m.AskMemory: questions.on_ask_memory,
        m.AskSetUp: set_up.on_ask_set_up,
        m.ForgetSetUp: _once(set_up.on_forget_set_up),
        m.StartEngines: _once(clients.on_start_engines),
        m.StopEngines: _once(clients.on_stop_engines),
        m.RestartEngines: _once(clients.on_restart_engines),
        m.SignalEngines: _once(clients.on_signal_engines),
        m.ShutDown: _once(clients.on_shut_down),
        m.Ping: _pong("client"),
        m.Goodbye: clients.on_goodbye,
    },
    "engine": {
        m.Results: engines.on_results,
        m.ShareBlob: engines.on_share_blob,
        m.Started: engines.on_started,
        m.Lends: engines.on_lends,
        m.BlobsMissing: engines.on_blobs_missing,
        m.Ping: _pong("engine"),
        m.Goodbye: ends.on_goodbye,
    },
    "control": {
        m.TakenBack: engines.on_taken_back,
        m.Holds: engines.on_holds,
        m.EngineOutput: engines.on_output,
        m.EngineData: engines.on_data,
        m.EngineDisplay: engines.on_display,
        m.EngineProgress: engines.on_progress,
        m.Obeyed: engines.on_obeyed,
        m.EngineMemory: engines.on_memory,
        m.Ping: _pong("control"),
        m.Goodbye: engines.on_control_goodbye,
    },
    "host": {
        m.EngineExited: ends.on_engine_exited,
        m.EnginesStarted: engines.on_engines_started,
        m.HostUse: overview.on_host_use,
        m.ShareBlob: engines.on_host_share_blob,
        m.BlobDeclined: engines.on_blob_declined,
        m.ProcessText: engines.on_process_text,
        m.Ping: _pong("host"),
        m.Goodbye: engines.on_host_goodbye,
    },
}
"""Every record that a bound peer may send, by the kind of peer. Hellos and blobs have other doors."""


class FoundDoor(Protocol):
    """What an answer of the history leads to."""

    def __call__(self, state: ClusterState, found: Any, /, *, now: float) -> None: ...


FOUND_DOORS: dict[type, FoundDoor] = {
    ResultsFound: questions.on_results_found,
    DeliveriesFound: on_deliveries_found,
    CallsFound: questions.on_calls_found,
    RecordsFound: questions.on_records_found,
    EndedFound: questions.on_ended_found,
    EndsFound: questions.on_ends_found,
    InquiryFailed: questions.on_inquiry_failed,
}


class Hub:
    """The composed machines of one controller."""

    def __init__(
        self,
        *,
        cluster: str,
        controller: str,
        versions: m.Versions,
        now: float,
        placement: Placement | None = None,
        grace_s: float = CANCEL_GRACE_S,
        read_shared: ReadShared | None = None,
        measure_memory: MeasureMemory | None = None,
        left_over: LeftOver | None = None,
        heals: bool = False,
    ) -> None:
        self.state = ClusterState(
            cluster=cluster,
            controller=controller,
            versions=versions,
            now=now,
            placement=placement,
            grace_s=grace_s,
            read_shared=read_shared,
            measure_memory=measure_memory,
            heals=heals,
        )
        self._shutdown_at: float | None = None
        if left_over is not None:
            taking_over.take_over(self.state, left_over, now=now)

    def __repr__(self) -> str:
        return f"<Hub of {self.state!r}>"

    # ------------------------------------------------------------ facts

    def on_hello(self, hello: m.Record, link: Link, *, now: float) -> tuple[Identity, str]:
        """Bind a peer to its identity. Returns it, and why it is refused (nothing if it is welcome).

        Without a refusal and unknown (`knows`): it came too early, and gets no answer.
        """
        state = self.state
        if isinstance(hello, m.ClientHello):
            return ("client", hello.client), clients.on_hello(state, hello, link, now=now)
        if isinstance(hello, m.EngineHello):
            engine, refusal = engines.on_hello(state, hello, link, now=now)
            return ("engine", engine), refusal
        if isinstance(hello, m.ControlHello):
            engine, refusal = engines.on_control_hello(state, hello, link, now=now)
            return ("control", engine), refusal
        if isinstance(hello, m.HostHello):
            refusal = engines.on_host_hello(state, hello, link, now=now)
            clients.pass_on_launches(state)
            return ("host", hello.key), refusal
        raise TypeError(f"{type(hello).__name__} is no hello")

    def knows(self, identity: Identity) -> bool:
        """Whether this peer is connected: not once it has left, or was found to be dead."""
        return identity in self.state.links

    def on_record(self, identity: Identity, record: Any, frame: Buffer | None, *, now: float) -> None:
        """A record of a bound peer. The last words of one that counts as gone meanwhile change nothing."""
        if identity not in self.state.links:
            return
        kind, key = identity
        if frame is not None:
            if kind != "client":
                record.keep = False  # only clients have things that others are given by name
            if self.state.blobs.on_piece(record, frame, identity) and record.keep:
                self.state.remember(BlobKept(record.blob, self.state.blobs.data(record.blob)))
            self._check_unnamed(identity)
            return
        door = DOORS[kind].get(type(record))
        if door is not None:  # else a hello in mid-batch, which means nothing
            door(self.state, key, record, now=now)

    def _check_unnamed(self, identity: Identity) -> None:
        size_bytes = self.state.blobs.unnamed_bytes(identity)
        if size_bytes > UNNAMED_BYTES and identity[0] == "client":
            reason = f"it has sent {size_bytes >> 20:,} MiB of buffers without the calls that need them"
            self.state.refuse(identity, reason)

    def on_heard(self, identity: Identity, *, now: float) -> None:
        self.state.liveness.on_heard(identity, now=now)

    def on_unsendable(self, identity: Identity, record: m.Record, reason: str, *, now: float) -> None:
        """This was on the link of a peer, and cannot be sent. More may be on the links afterwards."""
        on_unsendable(self.state, identity, record, reason, now=now)

    def on_disconnected(self, identity: Identity, *, now: float) -> None:
        """This peer's route is gone. That is no proof of its end."""
        self.state.disconnect(identity)
        if not self.state.liveness.on_disconnected(identity, now=now):
            return
        kind, key = identity
        if kind == "engine" and key in self.state.registry.engines:
            self.state.scheduler.on_engine_disconnected(EngineId(key))

    def on_committed(self, commit: Commit, *, now: float) -> None:
        self.state.on_committed(commit, now=now)

    def on_found(self, found: Found, *, now: float) -> None:
        """The history has answered an inquiry, or a page of the answer is there."""
        if found.is_last and not questions.is_paged(found):
            self.state.open_inquiries -= 1
        FOUND_DOORS[type(found)](self.state, found, now=now)

    # ------------------------------------------------------------ time and output

    def settle(self, *, now: float) -> list[Identity]:
        """Decide what can be decided now; returns the peers whose links may have output."""
        self.state.scheduler.dispatch(now=now)
        if self.state.is_shutting_down and self._shutdown_at is None:
            self._shutdown_at = now + SHUTDOWN_GRACE_S
        self.state.late_texts.on_settled(now=now)
        touched = self.state.drain()
        for identity in touched:
            link = self.state.links.get(identity)
            if link is not None and link.is_flooded and identity[0] == "client":
                self.on_disconnected(identity, now=now)  # it has to say hello when it takes something again
        return touched

    def take_refusal(self, identity: Identity) -> str:
        """Why this peer, which counts as gone, is to be refused; empty if it is not."""
        return self.state.take_refusal(identity)

    def take_facts(self) -> FactBatch | None:
        return self.state.take_facts()

    @property
    def has_inquiries(self) -> bool:
        return self.state.has_inquiries

    def take_inquiries(self) -> list[Order]:
        """What is to be asked of the history, once it has all facts that `take_facts` gave."""
        return self.state.take_inquiries()

    def next_deadline(self) -> float | None:
        state = self.state
        first = state.liveness.next_deadline()
        for deadline in (
            state.scheduler.next_deadline(),
            state.launches.next_deadline(),
            state.orders.next_deadline(),
            state.memory_questions.next_deadline(),
            state.host_polls.next_deadline(),
            state.custody.next_deadline(),
            state.late_texts.next_deadline(),
            state.voices.next_deadline(),
            state.restoring.next_deadline(),
            self._shutdown_at,
        ):
            if deadline is not None and (first is None or deadline < first):
                first = deadline
        return first

    def on_tick(self, *, now: float) -> None:
        self.state.scheduler.on_tick(now=now)
        taking_over.on_tick(self.state, now=now)
        clients.refuse_launches(self.state, now=now)
        questions.give_up_orders(self.state, now=now)
        self.state.voices.on_tick(now=now, outbox=self.state)
        for question in self.state.memory_questions.take_overdue(now=now):
            self.state.answer_memory(question)
        for poll in self.state.host_polls.take_overdue(now=now):
            overview.answer_status(self.state, poll, now=now)
        for task in self.state.late_texts.take_overdue(now=now):
            on_complete(self.state, task)
        self.state.liveness.on_tick(now=now, outbox=_LivenessEffects(self.state, now))

    def take_abandoned_pools(self, *, now: float) -> list[tuple[str, set[str]]]:
        """Pools of shared memory to clear if their writers are gone, and what of them is to be spared."""
        state = self.state
        return [(pool, state.blobs.segments_of(pool)) for pool in state.custody.take_due(now=now)]

    def on_pool_cleared(self, pool: str) -> None:
        """Nothing is left of it."""
        self.state.custody.on_cleared(pool)

    def is_finished(self, *, now: float) -> bool:
        """Whether a controller that was told to shut down may go."""
        if not self.state.is_shutting_down:
            return False
        everybody_left = not self.state.registry.hosts and not self.state.registry.engines
        return everybody_left or (self._shutdown_at is not None and now >= self._shutdown_at)

    def check(self) -> None:
        self.state.check()


class _LivenessEffects:
    """What follows from silence."""

    def __init__(self, state: ClusterState, now: float) -> None:
        self._state = state
        self._now = now

    def probe(self, peer: Identity) -> None:
        self._state.say(*peer, m.Ping())

    def give_up(self, peer: Identity) -> None:
        kind, key = peer
        if kind == "engine":
            ends.lose_engine(self._state, EngineId(key), now=self._now)  # type: ignore[arg-type]
        elif kind == "client":
            self._state.forget_client(ClientId(key))  # type: ignore[arg-type]
        elif kind == "host":
            engines.lose_host(self._state, key, now=self._now)  # type: ignore[arg-type]
