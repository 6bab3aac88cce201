"""One controller's decisions behind one door: records in, records on links and facts for the store out.

The service around it owns sockets, clock and store. It binds connections with `on_hello`, passes every record
to `on_record`, reports routes that are gone with `on_disconnected`, and after each batch of input calls
`settle`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from enginery.core import facing_clients as clients
from enginery.core import facing_engines as engines
from enginery.core.state import ClusterState, Commit, Identity
from enginery.ids import ClientId, EngineId
from enginery.protocol import messages as m
from enginery.protocol.codec import Buffer
from enginery.protocol.history import BlobKept, HistoryFact
from enginery.protocol.link import Link

SHUTDOWN_GRACE_S = 6.0
"""How long hosts and engines may take to leave before the controller goes without them."""

Door = Callable[[ClusterState, Any, Any, float], None]

DOORS: dict[str, dict[type, Door]] = {
    "client": {
        m.Submit: lambda state, key, record, now: clients.on_submit(state, key, record, now=now),
        m.Abort: lambda state, key, record, now: clients.on_abort(state, key, record, now=now),
        m.Received: lambda state, key, record, now: clients.on_received(state, key, record),
        m.AskStatus: lambda state, key, record, now: clients.on_ask_status(state, key, record, now=now),
        m.StartEngines: lambda state, key, record, now: clients.on_start_engines(state, key, record, now=now),
        m.StopEngines: lambda state, key, record, now: clients.on_stop_engines(state, key, record),
        m.SignalEngines: lambda state, key, record, now: clients.on_signal_engines(state, key, record),
        m.ShutDown: lambda state, key, record, now: clients.on_shut_down(state, key, record),
        m.Ping: lambda state, key, record, now: clients.on_ping(state, key),
        m.Goodbye: lambda state, key, record, now: clients.on_goodbye(state, key),
    },
    "engine": {
        m.Results: lambda state, key, record, now: engines.on_results(state, key, record, now=now),
        m.Started: lambda state, key, record, now: engines.on_started(state, key, record),
        m.BlobsMissing: lambda state, key, record, now: engines.on_blobs_missing(state, key, record),
        m.Ping: lambda state, key, record, now: engines.on_ping(state, key),
        m.Goodbye: lambda state, key, record, now: engines.on_goodbye(state, key, record, now=now),
    },
    "control": {
        m.TakenBack: lambda state, key, record, now: engines.on_taken_back(state, key, record, now=now),
        m.EngineOutput: lambda state, key, record, now: engines.on_output(state, key, record),
        m.Ping: lambda state, key, record, now: _pong(state, "control", key),
        m.Goodbye: lambda state, key, record, now: engines.on_control_goodbye(state, key),
    },
    "host": {
        m.EngineExited: lambda state, key, record, now: engines.on_engine_exited(state, key, record, now=now),
        m.EnginesStarted: lambda state, key, record, now: engines.on_engines_started(state, record),
        m.Ping: lambda state, key, record, now: _pong(state, "host", key),
        m.Goodbye: lambda state, key, record, now: engines.on_host_goodbye(state, key),
    },
}
"""Every record that a bound peer may send, by the kind of peer. Hellos and blobs have other doors."""


def _pong(state: ClusterState, kind: str, key: Any) -> None:
    state.say(kind, key, m.Ping())


class Hub:
    """The composed machines of one controller."""

    def __init__(self, *, cluster: str, controller: str, versions: m.Versions, now: float) -> None:
        self.state = ClusterState(cluster=cluster, controller=controller, versions=versions, now=now)
        self._shutdown_at: float | None = None

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
            return
        door = DOORS[kind].get(type(record))
        if door is not None:  # else a hello in mid-batch, which means nothing
            door(self.state, key, record, now)

    def on_heard(self, identity: Identity, *, now: float) -> None:
        self.state.liveness.on_heard(identity, now=now)

    def on_disconnected(self, identity: Identity, *, now: float) -> None:
        """This peer's route is gone. That is no proof of its end."""
        self.state.disconnect(identity)
        if not self.state.liveness.on_disconnected(identity, now=now):
            return
        kind, key = identity
        if kind == "engine" and key in self.state.registry.engines:
            self.state.scheduler.on_engine_disconnected(EngineId(key))

    def on_committed(self, commit: Commit) -> None:
        self.state.on_committed(commit)

    # ------------------------------------------------------------ time and output

    def settle(self, *, now: float) -> list[Identity]:
        """Decide what can be decided now; returns the peers whose links may have output."""
        self.state.scheduler.dispatch(now=now)
        if self.state.is_shutting_down and self._shutdown_at is None:
            self._shutdown_at = now + SHUTDOWN_GRACE_S
        return self.state.drain()

    def take_facts(self) -> tuple[list[HistoryFact], Commit] | None:
        return self.state.take_facts()

    def next_deadline(self) -> float | None:
        state = self.state
        first = state.liveness.next_deadline()
        for deadline in (state.scheduler.next_deadline(), state.launches.next_deadline(), self._shutdown_at):
            if deadline is not None and (first is None or deadline < first):
                first = deadline
        return first

    def on_tick(self, *, now: float) -> None:
        self.state.scheduler.on_tick(now=now)
        clients.refuse_launches(self.state, now=now)
        self.state.liveness.on_tick(now=now, outbox=_LivenessEffects(self.state, now))

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
            engines.lose_engine(self._state, EngineId(key), now=self._now)  # type: ignore[arg-type]
        elif kind == "client":
            self._state.forget_client(ClientId(key))  # type: ignore[arg-type]
        elif kind == "host":
            engines.on_host_goodbye(self._state, key)  # type: ignore[arg-type]
