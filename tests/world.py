"""A whole cluster in one thread and in virtual time: the real controller, scripted peers, a faulty network.

>>> world = World()
>>> engine, client = world.engine(), world.client()
>>> call = client.call("f")
>>> world.run()
>>> call
[<Outcome of task 1: ok>]
>>> world.close()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from enginery.controller.former_life import read_left_over
from enginery.controller.inquiries import Inquiries
from enginery.controller.service import Controller
from enginery.controller.store.buffers import KeptBuffers
from enginery.controller.store.memory import MemoryStore
from enginery.core.facing_questions import queues_of
from enginery.core.hub import Hub
from enginery.core.inquiries import Order
from enginery.core.left_over import LeftOver
from enginery.core.state import ClusterState
from enginery.ids import NO_ENGINE, ClientId, EngineId, EngineKey, HostKey, TaskId
from enginery.protocol.history import HistoryFact
from enginery.protocol.messages import Status
from enginery.testing import (
    Fate,
    Outcome,
    RunLog,
    ScriptedClient,
    ScriptedEngine,
    ScriptedHost,
    VirtualChannel,
    VirtualClock,
    VirtualNetwork,
)

COMMIT_S = 0.002
TURNS_PER_INSTANT = 2000
PATIENCE_S = 10.0
QUIET_S = 15.0
"""Longer than any exchange of pings, hellos and acknowledgements takes once the network is whole."""

Peer = ScriptedEngine | ScriptedClient | ScriptedHost


class SlowStore(MemoryStore):
    """Commits after `commit_s` of virtual time, and takes nothing while `is_full`."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self.commit_s = COMMIT_S
        self.is_full = False
        self._clock = clock
        self._committed: list[tuple[list[HistoryFact], KeptBuffers]] = []

    def survivor(self) -> SlowStore:
        """What is there after the controller was killed: all that was committed, and nothing else."""
        store = SlowStore(self._clock)
        for facts, buffers in self._committed:
            while not MemoryStore.append(store, facts, buffers=buffers):
                store.flush(PATIENCE_S)
        store._committed = self._committed
        self._committed = []  # what is still under way is lost
        return store

    def append(
        self,
        facts: Sequence[HistoryFact],
        *,
        buffers: KeptBuffers = (),
        on_committed: Callable[[], None] | None = None,
    ) -> bool:
        if self.is_full or not super().append(facts, buffers=buffers):
            return False
        batch = list(facts), [(blob, [bytes(piece) for piece in pieces]) for blob, pieces in buffers]
        journal = self._committed

        def commit() -> None:
            if self._committed is journal:
                journal.append(batch)
                if on_committed is not None:
                    on_committed()

        self._clock.call_at(self._clock.now() + self.commit_s, commit)
        return True


class InstantInquiries(Inquiries):
    """Answers at once, without a thread: time is virtual."""

    def ask(self, order: Order) -> None:
        self._found.extend(self.pages(order))
        self._on_found()


class World:
    """One cluster. Whatever its methods make takes part at once; `run` lets time pass."""

    def __init__(self, *, fates: Mapping[int, Fate] | None = None, checks: bool = True) -> None:
        self.clock = VirtualClock()
        self.network = VirtualNetwork(self.clock, fates=fates)
        self.store = SlowStore(self.clock)
        self.runs = RunLog()
        self.peers: list[Peer] = []
        self.controller = self._start_controller()
        self.after_step: list[Callable[[], None]] = [self.check] if checks else []

    def _start_controller(self, left_over: LeftOver | None = None) -> Controller:
        return Controller(
            cluster="world",
            version="0",
            exchange=self.network.exchange,
            store=self.store,
            left_over=left_over,
            inquiries=InstantInquiries,
            now=self.clock.now,
        )

    def restart_controller(self) -> None:
        """Kill the controller and start another one on the same history; all connections are cut."""
        self.controller._inquiries.close()
        self.controller._waker.close()
        self.controller._owner.close()
        self.store, before = self.store.survivor(), self.store
        before.close()
        self.network.exchange.inbox.clear()
        for peer in self.peers:
            self.cut(peer)
        self.controller = self._start_controller(read_left_over(self.store))

    @property
    def hub(self) -> Hub:
        return self.controller.hub

    @property
    def state(self) -> ClusterState:
        return self.hub.state

    @property
    def clients(self) -> list[ScriptedClient]:
        return [peer for peer in self.peers if isinstance(peer, ScriptedClient)]

    @property
    def hosts(self) -> list[ScriptedHost]:
        return [peer for peer in self.peers if isinstance(peer, ScriptedHost)]

    @property
    def engines(self) -> list[ScriptedEngine]:
        return [peer for peer in self.peers if isinstance(peer, ScriptedEngine)]

    # ------------------------------------------------------------ builders

    def client(self) -> ScriptedClient:
        number = len(self.clients) + 1
        client = ScriptedClient(f"client{number}", self.network, self.clock, client=ClientId(number))
        self.peers.append(client)
        return client

    def host(self) -> ScriptedHost:
        number = len(self.hosts)
        key = HostKey(f"{number:016x}")

        def launch(wanted: EngineId) -> EngineKey:
            return self.engine(wanted=wanted, host=host).key

        def stop(keys: list[EngineKey]) -> None:
            for engine in self.engines:
                if engine.is_alive and engine.host_key == key and (not keys or engine.key in keys):
                    engine.leave()
                    host.report_exit(engine.key, "exited with code 0", list(engine.started), expected=True)

        def kill(key: EngineKey, running: TaskId) -> None:
            engine = next((one for one in self.engines if one.key == key and one.is_alive), None)
            if engine is not None and engine.running is not None and engine.running.attempt[0] == running:
                self.kill(engine)

        host = self.make_host(f"host{number}", key=key, launch=launch, stop=stop, kill=kill)
        self.peers.append(host)
        return host

    def make_host(self, name: str, **more: Any) -> ScriptedHost:
        return ScriptedHost(name, self.network, self.clock, **more)

    def engine(
        self, *, wanted: EngineId = NO_ENGINE, host: ScriptedHost | None = None, speed: float = 1.0
    ) -> ScriptedEngine:
        number = len(self.engines)
        engine = ScriptedEngine(
            f"engine{number}",
            self.network,
            self.clock,
            self.runs,
            key=EngineKey(f"{number:016x}"),
            wanted=wanted,
            host_key=HostKey("") if host is None else host.key,
            speed=speed,
        )
        self.peers.append(engine)
        return engine

    # ------------------------------------------------------------ what happens to peers

    def kill(self, engine: ScriptedEngine, *, proof: bool = True, report_s: float | None = 0.0) -> None:
        """Kill an engine as `kill -9` would. Its host says so after `report_s`, never if that is None."""
        engine.kill()
        host = self.host_of(engine)
        if host is None or report_s is None:
            return
        started = list(engine.started) if proof else None
        self.clock.call_at(
            self.clock.now() + report_s,
            lambda: host.report_exit(engine.key, "killed by SIGKILL (signal 9)", started),
        )

    def host_of(self, engine: ScriptedEngine) -> ScriptedHost | None:
        return next((host for host in self.hosts if host.key == engine.host_key), None)

    def cut(self, peer: Peer, *, away_s: float = 0.0) -> None:
        """Break a peer's connections: new routes, nobody is told. With `away_s` they are down meanwhile."""
        for channel in self._channels(peer):
            if channel.is_closed:
                continue
            if not away_s:
                self.network.connect(channel)
                continue
            self.network.unplug(channel)
            self.clock.call_at(self.clock.now() + away_s, partial(self.network.plug, channel))

    def _channels(self, peer: Peer) -> list[VirtualChannel]:
        if isinstance(peer, ScriptedEngine):
            return [peer.tasks.channel, peer.control.channel]
        return [peer.conversation.channel]

    @property
    def is_connected(self) -> bool:
        """Whether no living peer is cut off."""
        channels = [channel for peer in self.peers if peer.is_alive for channel in self._channels(peer)]
        return not any(channel.is_unplugged for channel in channels)

    # ------------------------------------------------------------ time

    def run(self, *, limit_s: float = 300.0) -> None:
        """Let time pass until every call of every living client has ended."""
        self.run_until(lambda: not any(client.is_waiting for client in self.clients), limit_s=limit_s)

    def run_for(self, duration_s: float) -> None:
        end = self.clock.now() + duration_s
        self.clock.call_at(end, lambda: None)
        self.run_until(lambda: self.clock.now() >= end, limit_s=duration_s + 1.0)

    def settle(self) -> None:
        """Let everything come to rest that can."""
        self.run_for(QUIET_S)

    def run_until(self, condition: Callable[[], bool], *, limit_s: float = 300.0) -> None:
        """Let time jump from deadline to deadline until the condition holds."""
        end = self.clock.now() + limit_s
        while True:
            self._do_instant()
            if condition():
                return
            deadline = self._next_deadline()
            if deadline is None or deadline > end:
                raise AssertionError(f"nothing more happens within {limit_s:g} s\n{self.describe()}")
            self.clock.jump_to(max(deadline, self.clock.now()))

    def _do_instant(self) -> None:
        for _ in range(TURNS_PER_INSTANT):
            active = self.clock.run_due()
            if self._controller_is_due():
                self.controller.step(0.0)
                active = True
            for peer in list(self.peers):
                active = peer.turn() or active
            if not active:
                return
            for look in self.after_step:
                look()
        raise AssertionError(f"the world does not come to rest at {self.clock.now():g}\n{self.describe()}")

    def _controller_is_due(self) -> bool:
        deadline = self.controller.next_deadline()
        return bool(
            self.network.exchange.inbox
            or self.controller._committed
            or self.controller._inquiries._found
            or (deadline is not None and deadline <= self.clock.now())
        )

    def _next_deadline(self) -> float | None:
        deadlines = [
            self.clock.next_deadline(),
            self.controller.next_deadline(),
            *(peer.next_deadline() for peer in self.peers),
        ]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    # ------------------------------------------------------------ judging

    def check(self) -> None:
        """Assert the invariants of every machine of the world."""
        self.hub.check()
        for peer in self.peers:
            if isinstance(peer, ScriptedEngine):
                peer.workload.check()
            elif isinstance(peer, ScriptedClient):
                peer.ledger.check()
                ended = peer.ledger.statistics().finished
                assert len(peer.outcomes) == ended + peer.ledger.outstanding_count, peer
        self.check_counts()

    def check_counts(self) -> None:
        """At every instant each task is counted once, in `status()` as in `queue_status`.

        What is submitted here was counted by the scheduler when it came, not when it moved.
        """
        scheduler = self.state.scheduler
        counts = scheduler.statistics()
        assert counts.submitted == sum(counts[1:]), counts
        unfinished = counts.waiting + counts.ready + counts.sent + counts.running
        assert unfinished == len(list(scheduler)), counts
        queues = [queues_of(scheduler, load) for load in scheduler.loads]
        assert unfinished == scheduler.ready_count + sum(each.queue + each.tasks for each in queues), queues

    def check_history(self, *, restarted: bool) -> None:
        """After `settle`: the history has each accepted task once, as its client knows it, and as many of
        each kind as the controller has counted, if there was one controller.
        """
        rows = {row.task: row.status for row in self.store.find(outcome.task for outcome in self.outcomes())}
        for client in self.clients:
            for outcome in client.outcomes.values() if client.is_alive else ():
                assert rows.get(outcome.task, outcome.status) == outcome.status, outcome
        if not restarted:
            counts = self.state.scheduler.statistics()
            assert self.store.count() == len(rows) == counts.submitted == sum(counts[5:]), counts
            assert sum(status is Status.OK for status in rows.values()) == counts.done

    def check_nothing_left(self) -> None:
        """After `settle`: no table keeps anything of what has ended."""
        state = self.state
        living = {peer for peer in self.peers if peer.is_alive}
        for client in self.clients:
            if client not in living:
                state.forget_client(client.client)  # its goodbye may be lost; its grace ends much later
        assert not state.scheduler._tasks
        assert not state.watching._watchers
        assert not state.watching._said
        assert state.open_inquiries == 0
        state.ended_blobs.clear()  # what is kept on purpose
        waiting = {
            client: repr(outbound) for client, outbound in state.outbound.items() if outbound.is_waiting
        }
        assert waiting == {}
        assert not state.recording.owed
        held = [blob for blob in state.blobs._blobs.values() if blob.holders or not blob.keep]
        assert held == []
        for engine in self.engines:
            if engine in living:
                assert engine.workload.held() == [], engine
                assert not engine._result_blobs, engine
                assert not engine.blobs._once, engine
        for client in self.clients:
            if client in living:
                assert not client.ledger._wishes, client
                assert not client._blobs._once, client
        routes = len(self.controller._routes)
        assert routes == sum(len(self._channels(peer)) for peer in living), self.controller._routes.all()

    def outcomes(self) -> list[Outcome]:
        return [outcome for client in self.clients for outcome in client.outcomes.values()]

    def describe(self) -> str:
        lines = [repr(self.controller.hub), *map(repr, self.controller._routes.all()), *map(repr, self.peers)]
        lines += [repr(task) for task in self.state.scheduler._tasks.values()]
        return "\n".join(lines)

    def close(self) -> None:
        self.controller.close()
