"""Tasks that depend on others, against a slow oracle: after each step it judges every task anew, from what
has ended where and which engines are there, and nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from enginery.core.tasks import Task, TaskState
from enginery.ids import NO_ENGINE, ClientId, EngineId, TaskId, task_client, task_number
from enginery.protocol.messages import Dependency, Status
from tests.unit.core.builders import CLIENT, Bench, Effects, task_id

STRANGER = ClientId(77)
NOWHERE, GONE = 0, -1
ENDS_KEPT = 5
engines = st.integers(0, 3)
picks = st.integers(0, 1000)
flags = st.sampled_from([(True, False)] * 4 + [(False, True), (True, True)] * 2 + [(False, False)])
backwards = st.sampled_from([2, 3, 4, 5, 6, 7, 8] * 6 + [0, 1, 12, 20])
wishes = st.none() | st.tuples(st.lists(backwards, max_size=3), st.booleans(), flags)


class Case(NamedTuple):
    """One task as it was submitted."""

    after: Dependency | None
    follow: Dependency | None
    candidates: tuple[int, ...]
    due_at: float | None


class Asking(Effects):
    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[int, tuple[TaskId, ...]] = {}
        self.open: dict[int, set[TaskId]] = {}  # of these, those that no answer has named yet

    def waits_again(self, task: Task) -> None:
        pass

    def look_up(self, task: TaskId, ids: tuple[TaskId, ...]) -> None:
        self.asked[task_number(task)] = ids
        self.open[task_number(task)] = set(ids)


class DependencyMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.effects = Asking()
        self.bench = Bench(engines=0, effects=self.effects, ends_kept=ENDS_KEPT)
        self.cases: dict[int, Case] = {}
        self.ends: dict[int, tuple[bool, int]] = {}  # returned, life of the engine
        self.lives: dict[int, int] = {}  # of the engines that are there
        self.lives_begun = 0
        self.flying: set[tuple[int, int]] = set()
        self.refusals: dict[int, set[int]] = {}
        for engine in (0, 1):
            self.join(engine)

    @property
    def scheduler(self):  # type: ignore[no-untyped-def]
        return self.bench.scheduler

    # ------------------------------------------------------------ what happens

    @rule(engine=engines)
    def join(self, engine: int) -> None:
        if engine not in self.lives:
            self.lives_begun += 1
            self.lives[engine] = self.lives_begun
            self.scheduler.on_engine_joined(EngineId(engine))

    @precondition(lambda self: self.lives)
    @rule(pick=picks, started=st.booleans())
    def lose(self, pick: int, started: bool) -> None:
        engine = sorted(self.lives)[pick % len(self.lives)]
        del self.lives[engine]
        self.bench.lose(engine, started=None if started else set())

    @rule(
        after=wishes,
        follow=wishes,
        candidates=st.sampled_from([()] * 6 + [(0,), (1, 2), (0, 3)]),
        timeout_s=st.sampled_from([-1.0] * 6 + [0.0, 3.0]),
        retries=st.integers(0, 1),
    )
    def submit(
        self, after: object, follow: object, candidates: tuple[int, ...], timeout_s: float, retries: int
    ) -> None:
        number = self.bench.number + 1
        case = Case(
            self.named(after),
            self.named(follow),
            candidates,
            None if timeout_s < 0 else self.bench.now + timeout_s,
        )
        self.cases[number] = case
        self.bench.submit(
            after=case.after,
            follow=case.follow,
            candidates=tuple(map(EngineId, candidates)),
            wait_timeout_s=timeout_s,
            retries=retries,
        )

    def named(self, wish: object) -> Dependency | None:
        """0 is a task that does not exist; the others count back, 1 being the one that is submitted now."""
        if wish is None:
            return None
        back, every, (success, failure) = wish  # type: ignore[misc]
        tasks = [
            TaskId(task_id(self.bench.number + 2 - one))
            if 0 < one <= self.bench.number + 1
            else task_id(1, STRANGER)
            for one in back
        ]
        return Dependency(tuple(tasks), all=every, success=success, failure=failure)

    @rule(pick=picks)
    def answer(self, pick: int) -> None:
        if not self.effects.asked:
            return
        asker = sorted(self.effects.asked)[pick % len(self.effects.asked)]
        ends: dict[TaskId, tuple[bool, EngineId] | None] = {}
        for asked in self.effects.asked.pop(asker):
            if task_client(asked) == STRANGER:
                ends[asked] = None
                continue
            ok, life = self.ends[task_number(asked)]
            where = [engine for engine, present in self.lives.items() if present == life]
            ends[asked] = ok, EngineId(where[0]) if where else NO_ENGINE
        self.scheduler.on_looked_up(ends, now=self.bench.now)
        for names in self.effects.open.values():
            names.difference_update(ends)

    @rule(pick=picks, how=st.sampled_from([Status.OK, Status.OK, Status.ERROR, Status.UNMET]))
    def finish(self, pick: int, how: Status) -> None:
        if self.flying:
            engine, number = sorted(self.flying)[pick % len(self.flying)]
            self.flying.discard((engine, number))
            task = self.scheduler.task(task_id(number))
            if how is Status.UNMET:
                self.refusals.setdefault(number, set()).add(self.lives[engine])
            assert self.bench.finish(engine, number, task.attempt, how, took_s=1.0)

    @rule(count=st.integers(1, 4))
    def submit_others(self, count: int) -> None:
        for number in self.bench.submit(count):
            self.cases[number] = Case(None, None, (), None)

    @rule()
    def finish_all(self) -> None:
        for _, number in sorted(self.flying):
            task = self.scheduler.task(task_id(number))
            assert self.bench.finish(task.engine, number, task.attempt)

    @rule(numbers=st.lists(st.integers(1, 30), max_size=2))
    def abort(self, numbers: list[int]) -> None:
        self.scheduler.cancelling.on_aborted(map(task_id, numbers), now=self.bench.now)

    @rule(seconds=st.sampled_from([0.0, 1.0, 4.0]))
    def wait(self, seconds: float) -> None:
        self.bench.tick(seconds)

    # ------------------------------------------------------------ the oracle

    def end_of(self, named: TaskId) -> tuple[bool, int] | None:
        return None if task_client(named) != CLIENT else self.ends.get(task_number(named))

    def judge(self, dependency: Dependency) -> tuple[str, list[int]]:
        """How it stands, and the lives of the engines where tasks ended as they should."""
        ends = [self.end_of(named) for named in dependency.tasks]
        good = [end for end in ends if end and (dependency.success if end[0] else dependency.failure)]
        bad = [end for end in ends if end and end not in good]
        places = [life for _, life in good]
        if not ends:
            return "met", places
        if not dependency.success and not dependency.failure:
            return "hopeless", places
        if dependency.all:
            return ("hopeless" if bad else "met" if len(good) == len(ends) else "open"), places
        return ("met" if good else "hopeless" if len(bad) == len(ends) else "open"), places

    def follow(self, case: Case) -> tuple[str, set[int]]:
        """How it stands, and the engines where the task may run if it is met."""
        allowed = {engine for engine in self.lives if not case.candidates or engine in case.candidates}
        if case.follow is None or not case.follow.tasks:
            return "met", allowed
        how, places = self.judge(case.follow)
        if how == "hopeless":
            return how, set()
        there = {engine for engine in allowed if self.lives[engine] in places}
        all_ended = all(self.end_of(named) for named in case.follow.tasks)
        if case.follow.all:
            if len(set(places)) > 1 or (places and not there):
                return "hopeless", set()
            return ("met" if all_ended else "open"), there
        return ("met" if there else "hopeless" if all_ended else "open"), there

    def outlook(self, number: int) -> tuple[str, set[int]]:
        case = self.cases[number]
        after = "met" if case.after is None else self.judge(case.after)[0]
        follow, there = self.follow(case)
        if "hopeless" in (after, follow):
            return "hopeless", there
        return ("met" if after == follow == "met" else "open"), there

    def is_asked_about(self, number: int) -> bool:
        """Whether one that it names is being looked up for another task, which may concern this one too."""
        asked = {named for names in self.effects.open.values() for named in names}
        case = self.cases[number]
        return any(named in asked for one in (case.after, case.follow) if one for named in one.tasks)

    def names_wrongly(self, number: int) -> bool:
        case = self.cases[number]
        named = [one for dependency in (case.after, case.follow) if dependency for one in dependency.tasks]
        return any(task_client(one) == STRANGER or task_number(one) >= number for one in named)

    # ------------------------------------------------------------ what holds after each step

    @invariant()
    def the_oracle_agrees(self) -> None:
        if not hasattr(self, "bench"):
            return
        self.bench.settle()
        news = [number for number in self.bench.effects.ended if number not in self.ends]
        for number in news:
            ended = self.bench.effects.ended[number]
            ran = ended.status in (Status.OK, Status.ERROR)
            life = self.lives.get(ended.engine, GONE) if ran else NOWHERE
            self.ends[number] = ended.status is Status.OK, life
        for number in news:
            self.check_end(number, self.bench.effects.ended[number].status)
        flying = {
            (engine, task_number(task))
            for engine in self.lives
            for task in self.scheduler.load(EngineId(engine)).in_flight
        }
        for engine, number in flying - self.flying:
            how, there = self.outlook(number)
            assert how == "met", number
            assert engine in there, number
            assert self.lives[engine] not in self.refusals.get(number, ()), number
        self.flying = flying
        for number in self.cases.keys() - self.ends.keys():
            state = self.scheduler.task(task_id(number)).state
            how, _ = self.outlook(number)
            if task_id(number) in self.scheduler._resting.tasks or self.effects.open.get(number):
                assert state is TaskState.WAITING, number
            elif not self.is_asked_about(number):
                assert how != "hopeless", number
                assert (state is TaskState.WAITING) == (how == "open"), number

    def check_end(self, number: int, status: Status) -> None:
        case = self.cases[number]
        how, _ = self.outlook(number)
        if status is Status.IMPOSSIBLE:
            refused = self.refusals.get(number, set())
            present = {
                self.lives[e] for e in self.lives if not case.candidates or e in case.candidates
            } & set(self.lives.values())
            assert how == "hopeless" or (refused and self.follow(case)[1] <= self.engines_of(refused)), number
            assert how == "hopeless" or present, number
        elif status is Status.INVALID:
            assert self.names_wrongly(number), number
        elif status is Status.TIMED_OUT:
            assert case.due_at is not None, number
            assert case.due_at <= self.bench.now, number
        elif status is Status.OK:
            assert how != "open", number
            assert not self.names_wrongly(number), number

    def engines_of(self, lives: set[int]) -> set[int]:
        return {engine for engine, life in self.lives.items() if life in lives}

    def teardown(self) -> None:
        """Whatever has happened: when everything has ended, nothing is left."""
        if not hasattr(self, "bench"):
            return
        self.scheduler.cancelling.on_aborted(list(self.scheduler._tasks), now=self.bench.now)
        for engine in sorted(self.lives):
            self.bench.lose(engine)
        self.scheduler.cancelling.on_aborted(list(self.scheduler._tasks), now=self.bench.now)
        self.bench.settle()
        assert self.bench.effects.ended.keys() == self.cases.keys()
        book = self.scheduler._dependencies
        assert (book._claims, book._conditions, book._naming, book.waiting) == ({}, {}, {}, {})
        assert len(book.deadlines) == 0


TestDependencies = DependencyMachine.TestCase
TestDependencies.settings = settings(max_examples=120, stateful_step_count=50)
