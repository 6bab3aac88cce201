"""Random facts into a scheduler: every invariant after each, every task ends once, and sums are right."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from enginery.core.engines import EngineLoad
from enginery.core.placement import ANYWHERE, Placement
from enginery.core.tasks import TaskState
from enginery.ids import EngineId, TaskId
from enginery.protocol.messages import Dependency, Status
from tests.unit.core.builders import Bench, on, task_id

engines = st.integers(0, 4)
numbers = st.integers(1, 40)
picks = st.integers(0, 1000)


class SchedulerMachine(RuleBasedStateMachine):
    """The engines are played by `queues`: what was sent to each, in order, attempt by attempt."""

    @initialize(hwm=st.sampled_from([None, 3]))
    def begin(self, hwm: int | None) -> None:
        self.bench = Bench(engines=0, placement=Placement(hwm=hwm))
        self.present: set[int] = set()
        self.away: set[int] = set()
        self.submitted: dict[int, int] = {}  # number -> retries
        self.failures: dict[int, int] = {}

    @property
    def scheduler(self):  # type: ignore[no-untyped-def]
        return self.bench.scheduler

    def in_flight(self) -> list[tuple[int, TaskId, int]]:
        return [
            (engine, task.task_id, task.attempt)
            for engine in sorted(self.present)
            for task in self.scheduler.load(EngineId(engine)).in_flight.values()
        ]

    # ------------------------------------------------------------ engines

    @rule(engine=engines)
    def join(self, engine: int) -> None:
        if engine not in self.present:
            self.scheduler.on_engine_joined(EngineId(engine))
            self.present.add(engine)

    @precondition(lambda self: self.present)
    @rule(pick=picks, proof=st.booleans(), keep=st.integers(0, 5))
    def lose(self, pick: int, proof: bool, keep: int) -> None:
        engine = sorted(self.present)[pick % len(self.present)]
        held = list(self.scheduler.load(EngineId(engine)).in_flight)
        self.present.discard(engine)
        self.away.discard(engine)
        self.scheduler.on_engine_gone(
            EngineId(engine),
            cause="killed",
            status=Status.ENGINE_DIED if proof else Status.ENGINE_LOST,
            started=set(held[:keep]) if proof else None,
            now=self.bench.now,
        )

    @precondition(lambda self: self.present)
    @rule(pick=picks)
    def disconnect(self, pick: int) -> None:
        engine = sorted(self.present)[pick % len(self.present)]
        self.scheduler.on_engine_disconnected(EngineId(engine))
        self.away.add(engine)

    @precondition(lambda self: self.away)
    @rule(pick=picks, held=st.integers(0, 5))
    def come_back(self, pick: int, held: int) -> None:
        engine = sorted(self.away)[pick % len(self.away)]
        self.away.discard(engine)
        tasks = list(self.scheduler.load(EngineId(engine)).in_flight.values())
        known = [(task.task_id, task.attempt) for task in tasks[:held]]
        assert self.scheduler.on_engine_returned(EngineId(engine), known) == tasks[held:]

    # ------------------------------------------------------------ tasks

    @rule(
        count=st.integers(1, 6),
        direct=st.lists(engines, max_size=2, unique=True).map(tuple),
        candidates=st.lists(engines, max_size=2, unique=True).map(tuple),
        retries=st.integers(0, 2),
        priority=st.integers(-1, 2),
        time_limit_s=st.sampled_from([-1.0, -1.0, 0.5]),
        after=st.none() | st.lists(st.integers(1, 40), max_size=2).map(lambda numbers: on(*numbers)),
    )
    def submit(
        self,
        count: int,
        direct: tuple[int, ...],
        candidates: tuple[int, ...],
        retries: int,
        priority: int,
        time_limit_s: float,
        after: Dependency | None,
    ) -> None:
        allowed = () if direct else tuple(map(EngineId, candidates))
        for number in self.bench.submit(
            count,
            engines=direct,
            candidates=allowed,
            retries=retries,
            priority=priority,
            time_limit_s=time_limit_s,
            after=after,
        ):
            self.submitted[number] = retries

    @rule(count=st.integers(1, 6), priority=st.integers(-1, 2))
    def submit_plain(self, count: int, priority: int) -> None:
        for number in self.bench.submit(count, priority=priority):
            self.submitted[number] = 0
        self.bench.settle()
        self.nothing_is_overtaken()

    @rule(tasks=st.lists(numbers, max_size=4))
    def abort(self, tasks: list[int]) -> None:
        self.scheduler.cancelling.on_aborted(map(task_id, tasks), now=self.bench.now)

    @rule(tasks=st.lists(numbers, max_size=4), grace_s=st.sampled_from([None, 0.0, 0.5, -1.0]))
    def cancel(self, tasks: list[int], grace_s: float | None) -> None:
        wanted = list(map(task_id, tasks))
        self.scheduler.cancelling.on_cancelled(wanted, grace_s=grace_s, now=self.bench.now)
        for task in filter(None, map(self.scheduler.task, wanted)):
            assert task.engine >= 0, "what no engine has ends at once"

    @rule(task=numbers, items=st.lists(st.integers(0, 3), max_size=2))
    def skip(self, task: int, items: list[int]) -> None:
        self.scheduler.cancelling.on_items_cancelled(task_id(task), items)

    @rule(tasks=st.lists(numbers, max_size=4), priority=st.integers(-1, 2))
    def set_priority(self, tasks: list[int], priority: int) -> None:
        self.scheduler.urgency.on_priority_set(map(task_id, tasks), priority, now=self.bench.now)

    @precondition(lambda self: self.present)
    @rule(pick=picks)
    def say_again(self, pick: int) -> None:
        engine = sorted(self.present)[pick % len(self.present)]
        self.scheduler.cancelling.say_again(EngineId(engine))

    @rule(
        pick=picks,
        status=st.sampled_from(
            [*[Status.OK, Status.ERROR, Status.UNMET] * 2, Status.CANCELLED, Status.OVER_LIMIT]
        ),
        took_s=st.sampled_from([0.0, 0.001, 0.01, 1.0]),
    )
    def finish(self, pick: int, status: Status, took_s: float) -> None:
        flying = self.in_flight()
        if flying:
            engine, task, attempt = flying[pick % len(flying)]
            assert self.bench.finish(engine, task & 0xFFFF, attempt, status, took_s=took_s)

    @rule(pick=picks)
    def start(self, pick: int) -> None:
        flying = self.in_flight()
        if flying:
            engine, task, attempt = flying[pick % len(flying)]
            self.scheduler.on_started(EngineId(engine), task, attempt, now=self.bench.now)

    @rule(engine=engines, number=numbers, attempt=st.integers(1, 4))
    def late(self, engine: int, number: int, attempt: int) -> None:
        if (engine, task_id(number), attempt) not in self.in_flight():
            before = self.scheduler.statistics()
            assert not self.bench.finish(engine, number, attempt)
            self.scheduler.on_started(EngineId(engine), task_id(number), attempt, now=self.bench.now)
            claim = [(task_id(number), attempt)]
            self.scheduler.on_taken_back(EngineId(engine), claim, claim, now=self.bench.now)
            assert self.scheduler.statistics() == before

    @rule(pick=picks, taken=st.booleans())
    def claim(self, pick: int, taken: bool) -> None:
        flying = [
            (engine, task, attempt)
            for engine, task, attempt in self.in_flight()
            if self.scheduler.task(task).recalled and self.scheduler.task(task).state is TaskState.SENT
        ]
        if flying:
            engine, task, attempt = flying[pick % len(flying)]
            calls = [(task, attempt)]
            self.scheduler.on_taken_back(
                EngineId(engine), calls if taken else [], [] if taken else calls, now=self.bench.now
            )

    @rule(after_s=st.sampled_from([0.0, 0.02, 1.0, 6.0]))
    def settle(self, after_s: float) -> None:
        self.bench.tick(after_s)
        for engine in self.present - self.away:
            load = self.scheduler.load(EngineId(engine))
            if load.has_room and load.direct:
                assert self.is_reserved(load), "a direct task waits although its engine has room"
        idle = [e for e in self.present - self.away if not self.scheduler.load(EngineId(e)).in_flight]
        assert not (idle and len(self.scheduler._ready)), "a task waits although an engine is idle"
        self.nothing_is_overtaken()

    def is_reserved(self, load: EngineLoad) -> bool:
        """Whether something that is more urgent than its direct tasks waits for this engine."""
        top = load.direct.top()
        queues = [*self.scheduler._waiting.balanced.restricted(), (ANYWHERE, self.scheduler._ready)]
        return any(
            queue.top() is not None and queue.top() > top and load in self.scheduler._table.wanted_for(there)
            for there, queue in queues
        )

    def nothing_is_overtaken(self) -> None:
        """What waits and may go anywhere is at least as urgent as what engines could give back."""
        waiting = max((task.priority for task in self.scheduler._ready), default=-100)
        for engine in self.present - self.away:
            load = self.scheduler.load(EngineId(engine))
            unstarted = [task for task in load.unstarted() if task.engine == engine]
            assert all(task.priority >= waiting for task in unstarted), (waiting, unstarted)
            assert not (load.ending and load.has_room), load

    # ------------------------------------------------------------ what holds at any instant

    @invariant()
    def all_is_whole(self) -> None:
        if not hasattr(self, "bench"):
            return
        self.scheduler.check()
        counts = self.scheduler.statistics()
        ended = self.bench.effects.ended
        assert counts.submitted == len(self.submitted) == sum(counts[1:])
        assert counts.done + counts.failed + counts.cancelled + counts.impossible == len(ended)
        alive = {number for number in self.submitted if self.scheduler.task(task_id(number)) is not None}
        assert alive.isdisjoint(ended)
        assert alive | ended.keys() == self.submitted.keys()
        for number in alive:
            task = self.scheduler.task(task_id(number))
            assert 0 <= task.retries_left <= self.submitted[number]

    def teardown(self) -> None:
        """Whatever has happened: with every engine gone and everything aborted, nothing is left."""
        if not hasattr(self, "bench"):
            return
        for engine in sorted(self.present):
            self.bench.lose(engine)
        self.scheduler.cancelling.on_aborted(list(self.scheduler._tasks), now=self.bench.now)
        self.bench.settle()
        assert self.bench.effects.ended.keys() == self.submitted.keys()
        assert not any(self.scheduler)
        assert len(self.scheduler._room) == 0
        assert self.scheduler._waiting.balanced.restricted() == []
        assert not self.scheduler._waiting.direct
        assert self.scheduler.ready_count == 0


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=150, stateful_step_count=50)
