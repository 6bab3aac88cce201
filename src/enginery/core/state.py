"""The machines of one controller together, and what they have said since the last drain.

`ClusterState` is what the doors (`facing_clients`, `facing_engines`) act on, and the scheduler's outbox:
effects become records on the links of those who are connected, and facts for the history store. The service
drains it once per batch of input, so that tasks of one batch share records and messages.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

from enginery.core.blobs import BlobTable
from enginery.core.deliveries import Deliveries
from enginery.core.launches import Launches
from enginery.core.liveness import Liveness
from enginery.core.registry import Registry
from enginery.core.scheduler import Scheduler
from enginery.core.tasks import Task
from enginery.ids import BlobId, ClientId, EngineId, EngineKey, TaskId, task_client, task_number
from enginery.protocol.history import BlobDropped, EngineGone, HistoryFact, TaskEnded
from enginery.protocol.link import RECORD_BYTES, Link
from enginery.protocol.messages import (
    Accepted,
    DropBlobs,
    EngineCall,
    EngineLeft,
    EnginesChanged,
    Finished,
    Record,
    Run,
    RunOptions,
    Status,
    Stored,
    TakeBack,
    TaskResult,
    Versions,
)
from enginery.protocol.ranges import NumberSet, collect_ranges

Identity = tuple[str, Hashable]
"""("client", ClientId), ("engine", EngineId), ("control", EngineId) or ("host", HostKey)."""

CALLS_PER_RECORD = 500
BYTES_PER_RECORD = 1 << 18


class Commit(NamedTuple):
    """What may be acknowledged once a batch of facts is safe."""

    accepted: dict[ClientId, list[int]]
    stored: dict[EngineId, int]


class ClusterState:
    """All that a controller knows. Pure: no socket, no clock."""

    def __init__(self, *, cluster: str, controller: str, versions: Versions, now: float) -> None:
        self.cluster = cluster
        self.controller = controller
        self.started_at = now
        self.registry = Registry(versions)
        self.scheduler = Scheduler(self)
        self.blobs = BlobTable()
        self.liveness: Liveness[Identity] = Liveness()
        self.links: dict[Identity, Link] = {}
        self.deliveries: dict[ClientId, Deliveries] = {}
        self.accepted: dict[ClientId, NumberSet] = {}
        self.results_seen: dict[EngineId, NumberSet] = {}
        self.launches = Launches()
        self.stopping: set[EngineKey] = set()  # told to stop, or to be told when somebody can
        self.is_shutting_down = False
        self._touched: dict[Identity, None] = {}
        self._runs: dict[EngineId, list[tuple[Task, bool]]] = {}
        self._drops: dict[EngineId, list[BlobId]] = {}
        self._facts: list[HistoryFact] = []
        self._accepting: dict[ClientId, list[int]] = {}
        self._storing: dict[EngineId, int] = {}

    def __repr__(self) -> str:
        return f"<ClusterState {self.cluster}: {self.registry!r}, {self.scheduler!r}>"

    # ------------------------------------------------------------ saying things

    def say(self, kind: str, key: Hashable, record: Record, size_bytes: int = RECORD_BYTES) -> bool:
        """Queue a record for a peer; False if it is not connected."""
        identity = (kind, key)
        link = self.links.get(identity)
        if link is None:
            return False
        link.put(record, size_bytes)
        self._touched[identity] = None
        return True

    def tell_all_clients(self, record: Record) -> None:
        for client in self.registry.clients:
            self.say("client", client, record)

    def touch(self, identity: Identity) -> None:
        """This peer's link has something to send."""
        self._touched[identity] = None

    def remember(self, fact: HistoryFact) -> None:
        self._facts.append(fact)

    def on_accepted(self, client: ClientId, numbers: range) -> None:
        """These tasks are in; their client hears of it when that is committed."""
        self._accepting.setdefault(client, []).extend(numbers)

    def on_results_seen(self, engine: EngineId) -> None:
        """Results of this engine are in; it hears of it when that is committed."""
        self._storing[engine] = self.results_seen[engine].low

    # ------------------------------------------------------------ the scheduler's outbox

    def run(self, engine: EngineId, task: Task, *, announce: bool) -> None:
        self._runs.setdefault(engine, []).append((task, announce))

    def take_back(self, engine: EngineId, calls: list[tuple[TaskId, int]]) -> None:
        self.say("control", engine, TakeBack(calls), RECORD_BYTES + 12 * len(calls))

    def finish(self, task: Task, result: TaskResult) -> None:
        self.blobs.release(needed_blobs(task))
        self._facts.append(TaskEnded(result))
        client = task_client(task.task_id)
        deliveries = self.deliveries.get(client)
        if deliveries is None:
            self.blobs.drop_unheld(result.blobs)
            return  # its client has left; the store remembers
        self.blobs.hold(result.blobs)
        deliveries.add(result, self.blobs.size_bytes(result.blobs))
        self._touched["client", client] = None

    def release(self, task: Task, engine: EngineId) -> None:
        if task.blobs:
            self._drops.setdefault(engine, []).extend(self.blobs.to_drop(engine, task.blobs))

    # ------------------------------------------------------------ who comes and goes

    def forget_client(self, client: ClientId) -> None:
        """It has left, or is given up: what it has not fetched stays in the store only."""
        deliveries = self.deliveries.pop(client, None)
        if deliveries is not None:
            for result in deliveries.everything():
                self.blobs.release(result.blobs)
        self.accepted.pop(client, None)
        self._accepting.pop(client, None)
        self.registry.on_client_gone(client)
        self.blobs.on_source_gone(("client", client))
        self.disconnect(("client", client))
        self.liveness.on_left(("client", client))

    def forget_engine(
        self, key: EngineKey, *, cause: str, status: Status, started: frozenset[TaskId] | None, now: float
    ) -> None:
        """It is dead or given up: its tasks learn of it, and so do the clients."""
        record = self.registry.on_engine_gone(key)
        if record is None:
            return
        engine = record.engine
        self.stopping.discard(key)
        self._runs.pop(engine, None)
        self._drops.pop(engine, None)
        self._storing.pop(engine, None)
        self.scheduler.on_engine_gone(engine, cause=cause, status=status, started=started, now=now)
        self._drops.pop(engine, None)
        self.blobs.on_engine_gone(engine)
        self.blobs.on_source_gone(("engine", engine))
        self.results_seen.pop(engine, None)
        for identity in (("engine", engine), ("control", engine)):
            self.disconnect(identity)
            self.liveness.on_left(identity)
        left = EngineLeft(engine, key, cause)
        self.remember(EngineGone(left, now))
        self.tell_all_clients(EnginesChanged([], [left]))

    def disconnect(self, identity: Identity) -> None:
        """Its link ends; it is among the next ones touched, so that the service lets go of its connection."""
        self.links.pop(identity, None)
        self._touched[identity] = None

    # ------------------------------------------------------------ draining

    def drain(self) -> list[Identity]:
        """Turn what was decided into records on the links; returns whose links may have output."""
        for engine, drops in self._drops.items():
            link = self.links.get(("engine", engine))
            if link is not None and drops:
                link.put_after_bulk(DropBlobs(drops), RECORD_BYTES + 18 * len(drops))
                self._touched["engine", engine] = None
        self._drops.clear()
        for engine, runs in self._runs.items():
            link = self.links.get(("engine", engine))
            if link is not None:  # else its next hello says what it holds, and the rest is sent again
                self._put_runs(engine, link, runs)
                self._touched["engine", engine] = None
        self._runs.clear()
        touched = list(self._touched)
        self._touched.clear()
        for kind, key in touched:
            if kind == "client":
                self._put_deliveries(key)  # type: ignore[arg-type]
        return touched

    @property
    def fact_count(self) -> int:
        return len(self._facts)

    @property
    def has_facts(self) -> bool:
        return bool(self._facts or self._storing)

    def take_facts(self) -> tuple[list[HistoryFact], Commit] | None:
        """What the store is to remember, and what may be acknowledged when it does."""
        self._facts.extend(BlobDropped(blob) for blob in self.blobs.take_dropped())
        if not self._facts and not self._storing:
            return None
        batch = self._facts, Commit(self._accepting, self._storing)
        self._facts, self._accepting, self._storing = [], {}, {}
        return batch

    def on_committed(self, commit: Commit) -> None:
        """A batch of facts is safe. Tasks that have ended meanwhile need no word: their result says it."""
        for client, numbers in commit.accepted.items():
            base = int(client) << 32
            open_numbers = [
                number for number in numbers if self.scheduler.task(TaskId(base | number)) is not None
            ]
            if open_numbers:
                ranges = collect_ranges(open_numbers)
                self.say("client", client, Accepted(ranges), RECORD_BYTES + 10 * len(ranges))
        for engine, below in commit.stored.items():
            self.say("engine", engine, Stored(below))

    def _put_runs(self, engine: EngineId, link: Link, runs: list[tuple[Task, bool]]) -> None:
        options: Any = None
        announced = False
        calls: list[EngineCall] = []
        weight = 0
        in_bulk = False
        record: RunOptions | None = None

        def put() -> None:
            if record is not None and calls:
                (link.put_after_bulk if in_bulk else link.put)(Run(record, calls), weight)

        for task, announce in runs:
            if (
                task.options is not options
                or announce != announced
                or len(calls) >= CALLS_PER_RECORD
                or weight > BYTES_PER_RECORD
            ):
                put()
                options, announced = task.options, announce
                record = RunOptions(options.kind, options.function, options.name, announce)
                calls, weight, in_bulk = [], RECORD_BYTES, False
            for blob in self.blobs.to_send(engine, needed_blobs(task)):
                in_bulk = link.put_blob(self.blobs.pieces(blob)) or in_bulk
            in_bulk = in_bulk or bool(task.blobs)
            calls.append(EngineCall(task.task_id, task.attempt, task.payload, task.blobs))
            weight += 64 + len(task.payload)
        put()

    def _put_deliveries(self, client: ClientId) -> None:
        link = self.links.get(("client", client))
        deliveries = self.deliveries.get(client)
        if link is None or deliveries is None:
            return
        for first, results, weight in deliveries.take():
            in_bulk = False
            for result in results:
                for blob in result.blobs:
                    link.put_blob(self.blobs.pieces(blob))
                    in_bulk = True
            (link.put_after_bulk if in_bulk else link.put)(Finished(first, results), weight)

    def check(self) -> None:
        """Assert every invariant of every machine."""
        self.scheduler.check()
        self.registry.check()
        self.liveness.check()
        self.launches.check()
        self.blobs.check()
        for deliveries in self.deliveries.values():
            deliveries.check()
        assert self.deliveries.keys() == self.registry.clients.keys() == self.accepted.keys()
        assert self.stopping <= {record.key for record in self.registry.engines.values()}
        assert self.results_seen.keys() == self.registry.engines.keys()
        for client, numbers in self.accepted.items():
            for task_id in self.scheduler.unfinished_of(client):
                assert task_number(task_id) in numbers, task_id


def needed_blobs(task: Task) -> tuple[BlobId, ...]:
    """Everything that must be on an engine before the task."""
    function = task.options.function
    return (function, *task.blobs) if function else task.blobs
