"""The machines of one controller together, and what they have said since the last drain.

`ClusterState` is what the doors (`facing_clients`, `facing_engines`) act on, and the scheduler's outbox:
effects become records on the links of those who are connected, facts for the history store, and inquiries.
The service drains it once per batch of input, so that tasks of one batch share records and messages.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from typing import cast

from enginery.core import facing_set_up, taking_over, toward_clients, toward_engines
from enginery.core.asked_again import AskedAgain
from enginery.core.blobs import BlobTable, EndedBlobs
from enginery.core.cancelling import CANCEL_GRACE_S
from enginery.core.credit import Credit
from enginery.core.custody import Custody
from enginery.core.deliveries import Held
from enginery.core.given_orders import GivenOrders
from enginery.core.healing import Healing
from enginery.core.inquiries import Asker, FindEnds, Inquiry, NextPage, NoMorePages, PagedInquiry
from enginery.core.inquiries import Order as InquiryOrder
from enginery.core.late_texts import LateTexts
from enginery.core.launches import Launches
from enginery.core.liveness import Liveness
from enginery.core.memory import MeasureMemory, Question, pages
from enginery.core.moves import Moves
from enginery.core.orders import ANSWER_WAIT_S, Order, Orders
from enginery.core.outbound import Outbound
from enginery.core.placement import Placement
from enginery.core.polls import Polls
from enginery.core.recording import Commit, FactBatch, Recording
from enginery.core.registry import Registry
from enginery.core.relays import Relays
from enginery.core.restarts import Place, Restarts
from enginery.core.restoring import Restoring
from enginery.core.scheduler import Scheduler
from enginery.core.set_up import SetUp
from enginery.core.tasks import Task
from enginery.core.voices import Departed, Voices
from enginery.core.watching import Recorded, Watching
from enginery.ids import (
    BlobId,
    ClientId,
    EngineId,
    EngineKey,
    HostKey,
    TaskId,
    format_task_id,
    task_client,
    task_number,
)
from enginery.protocol.codec import Buffer
from enginery.protocol.history import ClientGone, EngineGone
from enginery.protocol.link import RECORD_BYTES, Link, cut_blob
from enginery.protocol.messages import (
    Accepted,
    Answer,
    DeathNote,
    DropBlobs,
    EndCalls,
    EngineLeft,
    EnginesChanged,
    FailureNote,
    FreeSegments,
    HostUse,
    KillProcess,
    MemoryUse,
    Progress,
    Record,
    ShareBlob,
    SignalProcesses,
    SkipItems,
    Status,
    Stored,
    TakeBack,
    TaskResult,
    Versions,
)
from enginery.protocol.ranges import NumberSet, collect_ranges

Identity = tuple[str, Hashable]
"""("client", ClientId), ("engine", EngineId), ("control", EngineId) or ("host", HostKey)."""

ReadShared = Callable[[str, int], Buffer | None]
"""Maps a segment of shared memory, by name and size; None if that cannot be done."""
LOST = "a large buffer of it is lost: the shared memory in which it was is there no more, or cannot be read"
HOST_WAIT_S = 1.0
"""How long a host may take to say what its engines use."""
FAILURES_KEPT = 20
DEATHS_KEPT = 20
TASKS_NAMED = 5
"""Of those that an engine has taken along."""
SEGMENTS_PER_RECORD = 1000
SIGNALS_KEPT = 100
"""Signals that wait for the hello of a host."""
ERROR_LETTERS = 200
"""Of the error of a task that has failed lately."""
_NO_FAILURE = frozenset({Status.OK, Status.ABORTED})


class ClusterState:
    """All that a controller knows. Pure: no socket, no clock."""

    def __init__(
        self,
        *,
        cluster: str,
        controller: str,
        versions: Versions,
        now: float,
        placement: Placement | None = None,
        grace_s: float = CANCEL_GRACE_S,
        read_shared: ReadShared | None = None,
        measure_memory: MeasureMemory | None = None,
        heals: bool = False,
    ) -> None:
        self.cluster = cluster
        self.controller = controller
        self.started_at = now
        self.registry = Registry(versions)
        self.scheduler = Scheduler(self, placement, grace_s=grace_s)
        self.blobs = BlobTable()
        self.ended_blobs = EndedBlobs(self.blobs)
        self.custody = Custody()
        self.relays = Relays(self.blobs)
        self._read_shared = read_shared
        self._measure_memory = measure_memory
        self.host_polls: Polls[HostKey, HostUse] = Polls(HOST_WAIT_S)
        self.failures: deque[FailureNote] = deque(maxlen=FAILURES_KEPT)
        self.memory_questions: Polls[EngineId, MemoryUse] = Polls(ANSWER_WAIT_S)
        self.voices = Voices()
        self.watching = Watching()
        self.late_texts = LateTexts()
        self.liveness: Liveness[Identity] = Liveness()
        self.links: dict[Identity, Link] = {}
        self.held = Held()
        self.outbound: dict[ClientId, Outbound] = {}
        self.accepted: dict[ClientId, NumberSet] = {}
        self.credits: dict[ClientId, Credit] = {}
        self._refusals: dict[Identity, str] = {}
        self.asked_again: dict[ClientId, AskedAgain] = {}
        self.results_seen: dict[EngineId, NumberSet] = {}
        self.joining: set[EngineId] = set()  # that another controller would not know yet
        self.stored: dict[EngineId, int] = {}  # of these, all below are safe
        self.orders = Orders()
        self.given_orders = GivenOrders()
        self.open_inquiries = 0  # of those without pages: asked and not answered
        self.launches = Launches(first_number=1 + int(now) % (1 << 30))  # as above all: no two alike
        self.healing = Healing(is_wanted=heals)
        self.deaths: deque[DeathNote] = deque(maxlen=DEATHS_KEPT)
        self.restarts = Restarts()
        self.set_up = SetUp(first_task=1 + int(now) % (1 << 31))  # numbers that no earlier controller gave
        self.signals: defaultdict[HostKey, deque[SignalProcesses]] = defaultdict(
            lambda: deque(maxlen=SIGNALS_KEPT)
        )  # for hosts that are not connected
        self.stopping: set[EngineKey] = set()  # told to stop, or to be told when somebody can
        self.is_shutting_down = False
        self._touched: dict[Identity, None] = {}
        self._runs: dict[EngineId, list[tuple[Task, bool]]] = {}
        self._drops: dict[EngineId, list[BlobId]] = {}
        self._look_ups: list[tuple[TaskId, tuple[TaskId, ...]]] = []
        self.recording = Recording()
        self.remember = self.recording.add
        self.moves = Moves()
        self.waits_again = self.moves.note
        self.restoring = Restoring()
        self._inquiries: list[InquiryOrder] = []

    def __repr__(self) -> str:
        return f"<ClusterState {self.cluster}: {self.registry!r}, {self.scheduler!r}>"

    # ------------------------------------------------------------ saying things

    def say(self, kind: str, key: Hashable, record: Record, size_bytes: int = RECORD_BYTES) -> bool:
        """Queue a record for a peer; False if it is not connected."""
        identity = (kind, key)
        if type(record) is Answer:
            self.given_orders.on_answered(cast(ClientId, key), record)
        link = self.links.get(identity)
        if link is None:
            return False
        link.put(record, size_bytes)
        self._touched[identity] = None
        return True

    def pass_on(self, saying: Recorded) -> None:
        """A task has said something: whoever listens is told, and the history remembers it."""
        toward_clients.pass_on(self, saying)

    def answer_order(self, order: Order) -> None:
        """Every engine has carried it out, or has left."""
        self.say("client", order.client, Answer(order.request, engines=order.engines))

    def answer_memory(self, question: Question) -> None:
        """Every engine has answered it, or has left, or is not waited for any longer."""
        kept = self.ended_blobs.total_bytes
        own = MemoryUse(blobs=self.blobs.total_bytes - kept, results=kept)
        if self._measure_memory is not None:
            own.resident, own.proportional = self._measure_memory()
        for page, size_bytes in pages(question, own):
            self.say("client", question.client, page, size_bytes)

    def tell_all_clients(self, record: Record) -> None:
        for client in self.registry.clients:
            self.say("client", client, record)

    def touch(self, identity: Identity) -> None:
        """This peer's link has something to send."""
        self._touched[identity] = None

    def keep_buffers(self, task: TaskId, blobs: Sequence[BlobId]) -> None:
        """Have the history keep the large buffers of a result."""
        self.recording.add_buffers(task, [(blob, self._pieces(blob)) for blob in blobs])

    def _pieces(self, blob: BlobId) -> Sequence[Buffer]:
        """A blob's bytes, wherever they are; none if it is lost."""
        shared = self.blobs.shared(blob)
        if shared is None:
            return [frame for _, frame in self.blobs.pieces(blob)]
        data = self.shared_data(shared)
        return [] if data is None else [data]

    def restore_blobs(self, buffers: Mapping[BlobId, Buffer]) -> list[BlobId]:
        """These come from the history. Returns those that were not here: they are to be held at once."""
        missing = self.blobs.missing(buffers)
        for blob in missing:
            self.blobs.on_restored(blob, buffers[blob])
        return missing

    def inquire(self, inquiry: Inquiry) -> None:
        """Ask the history; `Hub.on_found` takes the answer."""
        self.open_inquiries += 1
        self._inquiries.append(inquiry)

    def ask_page(self, order: PagedInquiry | NextPage) -> None:
        """Ask the history for the first page of an answer, or for the next."""
        self._inquiries.append(order)

    def stop_answer(self, asker: Asker | None) -> None:
        """Nobody waits for the rest of this answer."""
        if asker is not None:
            self._inquiries.append(NoMorePages(asker))

    # ------------------------------------------------------------ the scheduler's outbox

    def run(self, engine: EngineId, task: Task, *, announce: bool) -> None:
        known = self.watching.progress(task.task_id)
        if known is not None and known.attempt < task.attempt:  # what that attempt had done is done again
            again = Progress(task.task_id, engine, task.attempt, known.items)
            toward_clients.tell_listeners(self, again)
        self.moves.note(task)
        self._runs.setdefault(engine, []).append((task, announce))

    def take_back(self, engine: EngineId, calls: list[tuple[TaskId, int]]) -> None:
        self.say("control", engine, TakeBack(calls), RECORD_BYTES + 12 * len(calls))

    def end_calls(self, engine: EngineId, calls: list[tuple[TaskId, int]], grace_s: float) -> None:
        self.say("control", engine, EndCalls(calls, grace_s), RECORD_BYTES + 12 * len(calls))

    def skip_items(self, engine: EngineId, task: Task) -> None:
        record = SkipItems(task.task_id, task.attempt, list(task.skipped))
        self.say("control", engine, record, RECORD_BYTES + 5 * len(task.skipped))

    def replace(self, engine: EngineId, task: Task, *, now: float) -> None:
        registered = self.registry.engines[engine]
        if not registered.host_key:
            return  # nobody can: the task ends when the engine says so
        cause = f"it was replaced, because task {format_task_id(task.task_id)} in it did not end"
        self.restarts.on_overdue(registered.key, Place(registered.host_key, engine), cause, now=now)
        self.say("host", registered.host_key, KillProcess(registered.key, task.task_id))

    def finish(self, task: Task, result: TaskResult) -> None:
        registered = self.registry.engines.get(result.engine)
        if registered is not None:
            result.engine_key = registered.key
        credit = self.credits.get(task_client(task.task_id))
        if credit is not None:  # else its client has left
            credit.on_ended(task_number(task.task_id))
        if result.status not in _NO_FAILURE:
            self._note_failure(task, result)
        toward_clients.on_ended(self, task.task_id, result)
        if task.options.keep:
            facing_set_up.on_ended(self, task, result.status)
        if task.blobs or result.blobs:
            self.ended_blobs.on_ended(task.task_id, (*task.blobs, *result.blobs))
        self.blobs.release(task.needed_blobs)

    def _note_failure(self, task: Task, result: TaskResult) -> None:
        name, label = task.options.name, task.options.label
        where, error = result.engine, result.detail[:ERROR_LETTERS]
        note = FailureNote(task.task_id, name, label, result.status, where, error, result.completed)
        self.failures.append(note)

    def look_up(self, task: TaskId, ids: tuple[TaskId, ...]) -> None:
        self._look_ups.append((task, ids))

    def release(self, task: Task, engine: EngineId) -> None:
        self.relays.on_released(engine, task)
        if task.blobs:
            self._drops.setdefault(engine, []).extend(self.blobs.to_drop(engine, task.blobs))

    # ------------------------------------------------------------ who comes and goes

    def refuse(self, identity: Identity, reason: str) -> None:
        """This peer does not keep to what it was told: it is told why, and counts as gone."""
        self._refusals[identity] = reason
        if identity[0] == "client":
            self.forget_client(cast(ClientId, identity[1]))

    def take_refusal(self, identity: Identity) -> str:
        """Why this peer was refused, once; empty if it was not."""
        return self._refusals.pop(identity, "")

    def forget_client(self, client: ClientId) -> None:
        """It has left, or is given up: what it has not fetched stays in the store only."""
        toward_clients.forget_client(self, client)
        self.accepted.pop(client, None)
        self.asked_again.pop(client, None)
        self.recording.on_client_gone(client)
        self.given_orders.on_client_gone(client)
        self.watching.on_client_gone(client)
        self.registry.on_client_gone(client)
        self.remember(ClientGone(client))
        taking_over.on_client_gone(self, client)
        self.credits.pop(client, None)
        self.blobs.on_source_gone(("client", client))
        self.disconnect(("client", client))
        self.liveness.on_left(("client", client))

    def forget_engine(
        self,
        key: EngineKey,
        *,
        cause: str,
        status: Status,
        started: frozenset[TaskId] | None,
        expected: bool = False,
        now: float,
    ) -> None:
        """It is dead or given up: its tasks learn of it, and so do the clients."""
        record = self.registry.engine_by_key(key)
        if record is None:
            return
        engine = record.engine
        self.stopping.discard(key)
        self._runs.pop(engine, None)
        self._drops.pop(engine, None)
        self.recording.on_engine_gone(engine)
        load = self.scheduler.load(engine)
        if not expected and load is not None:
            begun, _ = load.started_and_not(started)
            lost = [task.task_id for task in begun[:TASKS_NAMED]]
            self.deaths.append(DeathNote(engine, record.info.host, cause, lost, now))
        departed = Departed(engine, record.host_key, self.scheduler.tasks_of(engine))
        self.voices.on_engine_gone(engine, key, departed, outbox=self)
        # Whoever asks why a task has failed may have to look there.
        is_death = status is Status.ENGINE_DIED and not expected
        where = f"{cause}, on host {record.info.host}" if is_death else cause
        self.scheduler.on_engine_gone(
            engine, cause=where, status=status, started=started, expected=expected, now=now
        )
        for task in self.late_texts.take_of_engine(engine):
            toward_clients.on_complete(self, task)
        self._drops.pop(engine, None)
        self.registry.on_engine_gone(key)  # not before: the ends of its tasks name it
        for order in self.orders.on_engine_gone(engine):
            self.answer_order(order)
        for question in self.memory_questions.on_gone(engine):
            self.answer_memory(question)
        self.relays.on_engine_gone(engine)
        self.blobs.on_engine_gone(engine)
        self.blobs.on_source_gone(("engine", engine))
        self.results_seen.pop(engine, None)
        self.stored.pop(engine, None)
        self.joining.discard(engine)
        taking_over.on_engine_gone(self, key, engine, status=status, cause=cause, started=started)
        for identity in (("engine", engine), ("control", engine)):
            self.disconnect(identity)
            self.liveness.on_left(identity)
        left = EngineLeft(engine, key, cause, expected)
        self.remember(EngineGone(left, now))
        self.tell_all_clients(EnginesChanged([], [left]))

    def disconnect(self, identity: Identity) -> None:
        """Its link ends; it is among the next ones touched, so that the service lets go of its connection."""
        self.links.pop(identity, None)
        self.custody.on_gone(identity)
        if identity[0] == "host":
            self.relays.on_host_away(cast(HostKey, identity[1]))
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
        for engine in self.relays.take_news():
            self._runs.setdefault(engine, [])
        for engine, runs in self._runs.items():
            link = self.links.get(("engine", engine))
            if link is not None:  # else its next hello says what it holds, and the rest is sent again
                toward_engines.put_runs(self, engine, link, self.relays.pass_through(engine, runs, self))
                self._touched["engine", engine] = None
        self._runs.clear()
        self.relays.stop_unwanted(self)
        if self.blobs.has_freed:
            self._say_freed()
        touched = list(self._touched)
        self._touched.clear()
        for kind, key in touched:
            if kind == "client":
                toward_clients.serve(self, cast(ClientId, key))
        return touched

    def take_facts(self) -> FactBatch | None:
        """What the store is to remember, and what may be acknowledged when it does."""
        was_behind = self.recording.is_behind
        self.moves.record(self)
        batch = self.recording.take(self.blobs.take_dropped())
        if was_behind:
            for client in self.outbound:
                self.touch(("client", client))  # what has ended may be delivered again
        return batch

    @property
    def has_inquiries(self) -> bool:
        return bool(self._inquiries or self._look_ups)

    def take_inquiries(self) -> list[InquiryOrder]:
        """What is to be asked of the history, once it has all facts there are."""
        if self._look_ups:
            self.inquire(FindEnds(self._look_ups))
            self._look_ups = []
        inquiries, self._inquiries = self._inquiries, []
        return inquiries

    def on_committed(self, commit: Commit, *, now: float) -> None:
        """A batch of facts is safe. Tasks that have ended meanwhile need no word: their result says it."""
        self.recording.on_committed(commit)
        for client, numbers in commit.accepted.items():
            base = int(client) << 32
            open_numbers = [
                number for number in numbers if self.scheduler.task(TaskId(base | number)) is not None
            ]
            if open_numbers:
                ranges = collect_ranges(open_numbers)
                self.say("client", client, Accepted(ranges), RECORD_BYTES + 10 * len(ranges))
        for engine, below in commit.stored.items():
            if engine in self.results_seen and below <= self.results_seen[engine].low:  # else it is another
                self.stored[engine] = below
                self.say("engine", engine, Stored(below))
        for key in commit.joined:
            self.on_known(key, now=now)

    def on_known(self, key: EngineKey, *, now: float) -> None:
        """Another controller would know this engine: it may be given tasks."""
        record = self.registry.engine_by_key(key)
        if record is not None and record.engine in self.joining:
            self.joining.discard(record.engine)
            if ("engine", record.engine) in self.links:
                self.scheduler.on_engine_known(record.engine)
                facing_set_up.begin(self, record.engine, now=now)

    def put_blob(self, identity: Identity, link: Link, blob: BlobId) -> bool:
        """Give a blob to a peer, by name if it shares memory. True if it went to the bulk lane.

        One that turns out to be lost is given to nobody, and is among the missing ones from now on.
        """
        shared = self.blobs.shared(blob)
        if shared is not None and self.custody.is_reader(identity):
            link.put(shared)
            return False
        kind, key = identity
        if kind == "engine" and (copy := self.relays.segment_for(cast(EngineId, key), blob)):
            link.put(self.blobs.copied(blob, copy))
            return False
        if shared is None:
            return link.put_blob(self.blobs.pieces(blob))
        data = self.shared_data(shared)
        return data is not None and link.put_blob(cut_blob(blob, data, keep=shared.keep))

    def shared_data(self, shared: ShareBlob) -> Buffer | None:
        """The bytes of a blob in shared memory, for those who cannot map it; None if it is lost."""
        data = self.read_segment(shared)
        if data is None:
            self.blobs.on_lost(shared.blob)
        return data

    def read_segment(self, shared: ShareBlob) -> Buffer | None:
        """The bytes that a peer says are there, whether a blob is known by them or not."""
        assert self._read_shared is not None, "nobody shares what nobody can read"
        return self._read_shared(shared.segment, shared.size_bytes)

    def relay(self, host: HostKey, blob: BlobId) -> bool:
        """Send a blob to a host, for its engines; False if it is lost."""
        identity = ("host", host)
        if self.blobs.missing((blob,)) or not self.put_blob(identity, self.links[identity], blob):
            return False
        self._touched[identity] = None
        return True

    def stop_relaying(self, host: HostKey, blob: BlobId) -> None:
        """Send no more of it, and have the host forget what has come."""
        self.links["host", host].take_back_blob(blob)
        self.say("host", host, DropBlobs([blob]))

    def on_sharing(self, identity: Identity, pool: str, lent: list[str]) -> None:
        """A peer has said hello: this is its pool, and what it has lent and the controller may have freed."""
        if self._read_shared is None:
            pool = ""
        self.custody.on_hello(identity, pool)
        self.blobs.on_source_returned(identity)
        self.free_unneeded(*identity, lent, self.blobs.needed_segments)

    def free_unneeded(self, kind: str, key: Hashable, lent: list[str], needed: Container[str]) -> None:
        """Tell a peer what it need not lend any longer; it may have been told, and not have heard."""
        free = [segment for segment in lent if segment not in needed]
        if free:
            self.say(kind, key, FreeSegments(free), RECORD_BYTES + 32 * len(free))

    def _say_freed(self) -> None:
        # Who is away hears of it at his next hello; what was left by who is gone is cleared, see `Custody`.
        for source, segments in self.blobs.take_freed().items():
            kind, key = cast(Identity, source)
            if kind == "host":
                self.relays.on_freed(cast(HostKey, key))
            for start in range(0, len(segments), SEGMENTS_PER_RECORD):
                part = segments[start : start + SEGMENTS_PER_RECORD]
                self.say(kind, key, FreeSegments(part), RECORD_BYTES + 32 * len(part))

    def check(self) -> None:
        """Assert every invariant of every machine."""
        self.scheduler.check()
        self.registry.check()
        self.liveness.check()
        self.launches.check()
        self.restarts.check()
        self.set_up.check()
        self.blobs.check()
        self.custody.check()
        self.relays.check()
        self.ended_blobs.check()
        self.voices.check()
        self.watching.check()
        self.late_texts.check()
        self.restoring.check(self.registry.engines)
        self.orders.check()
        self.given_orders.check()
        self.memory_questions.check()
        self.host_polls.check()
        for outbound in self.outbound.values():
            outbound.check()
        assert self.outbound.keys() == self.registry.clients.keys() == self.accepted.keys()
        everybody = [outbound.deliveries for outbound in self.outbound.values()]
        assert self.held.memory_bytes == sum(deliveries.memory_bytes for deliveries in everybody)
        owed = [task for deliveries in everybody for task in deliveries.owed]
        assert sorted(self.recording.owed.elements()) == sorted(owed)
        self.recording.check()
        assert self.stopping <= {record.key for record in self.registry.engines.values()}
        assert self.results_seen.keys() == self.registry.engines.keys()
        unfinished: Counter[ClientId] = Counter()
        for task_id in self.scheduler:
            client = task_client(task_id)
            unfinished[client] += 1
            assert client not in self.accepted or task_number(task_id) in self.accepted[client], task_id
        assert self.credits.keys() == self.outbound.keys()
        for client, credit in self.credits.items():
            credit.check()
            assert len(credit) == unfinished[client]
