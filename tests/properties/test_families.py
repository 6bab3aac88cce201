"""Tasks that make tasks and wait for them always come to an end, whatever engines they keep meanwhile.

A tree of calls is drawn; engines do what `engine.lending` does, one step at a time and in an order that is
drawn too: take what they are given, run the newest thing they may run, wait, go on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginery.core.scheduler import Scheduler
from enginery.core.tasks import Task
from enginery.ids import NO_TASK, EngineId, TaskId, make_task_id
from enginery.protocol.messages import Call, EngineResult, Status
from tests.unit.core.builders import CLIENT, Effects, options

STEPS = 5_000


@dataclass
class Plan:
    """What a task does: it makes these, waits for all of them, and ends."""

    where: tuple[str, tuple[int, ...]]  # "any", "one of" these, or "each of" these engines
    priority: int = 0
    children: list[Plan] = field(default_factory=list)


def plans(engines: int) -> st.SearchStrategy[Plan]:
    some = st.lists(st.integers(0, engines - 1), min_size=1, max_size=engines, unique=True).map(tuple)
    where = st.one_of(
        st.just(("any", ())),
        st.tuples(st.just("one of"), some),
        st.tuples(st.just("each of"), some),
        st.just(("each of", tuple(range(engines)))),
    )
    priorities = st.sampled_from([0, 0, 0, 1, -1])
    leaves = st.builds(Plan, where, priorities)
    return st.recursive(
        leaves, lambda below: st.builds(Plan, where, priorities, st.lists(below, max_size=2)), max_leaves=5
    )


@dataclass
class Running:
    """A task on an engine's stack."""

    task: TaskId
    plan: Plan
    children: set[TaskId] | None = None  # None: it has made none yet


class FakeEngine:
    """What it was given and has not begun, and the tasks on its stack, the newest last."""

    def __init__(self, engine: EngineId) -> None:
        self.engine = engine
        self.given: list[Task] = []
        self.stack: list[Running] = []


class Site(Effects):
    """A scheduler and its engines."""

    def __init__(self, engines: int) -> None:
        super().__init__()
        self.scheduler = Scheduler(self)
        self.engines = [FakeEngine(EngineId(number)) for number in range(engines)]
        self.plans: dict[TaskId, Plan] = {}
        self.number = 1
        self.done: set[TaskId] = set()
        for each in self.engines:
            self.scheduler.on_engine_joined(each.engine)

    def run(self, engine: EngineId, task: Task, *, announce: bool) -> None:
        self.engines[engine].given.append(task)

    def take_back(self, engine: EngineId, calls: list[tuple[TaskId, int]]) -> None:
        self.asked.append((engine, calls))

    asked: list[tuple[EngineId, list[tuple[TaskId, int]]]]

    def submit(self, plan: Plan, parent: TaskId = NO_TASK) -> set[TaskId]:
        how, engines = plan.where
        named = tuple(map(EngineId, engines))
        shared = options(priority=plan.priority, candidates=named if how == "one of" else ())
        call = Call(self.number, b"", (), named if how == "each of" else (), 0, parent)
        tasks = {make_task_id(CLIENT, self.number + place) for place in range(max(len(call.engines), 1))}
        self.number += len(tasks)
        self.plans.update(dict.fromkeys(tasks, plan))
        family = self.scheduler.families.of_child(parent)
        self.scheduler.on_submitted(CLIENT, shared, call, family=family, now=1.0)
        return tasks

    # ------------------------------------------------------------ steps

    def step(self, each: FakeEngine) -> bool:
        """One thing that this engine can do. False if there is nothing."""
        if each.stack:
            top = each.stack[-1]
            if top.children is None:
                top.children = set()
                for plan in top.plan.children:
                    top.children |= self.submit(plan, top.task)
                if not top.children <= self.done:
                    self.scheduler.on_lends(each.engine, top.task, 1, is_over=False, now=1.0)
                return True
            if top.children <= self.done:
                if top.children:
                    self.scheduler.on_lends(each.engine, top.task, 1, is_over=True, now=1.0)
                each.stack.pop()
                self.done.add(top.task)
                end = EngineResult(top.task, 1, Status.OK, b"", (), 1.0, 1.1)
                assert self.scheduler.on_result(each.engine, end, now=1.0)
                return True
        below = {running.task for running in each.stack[:-1]}
        for task in each.given:
            if not each.stack or (task.inside and task.inside not in below):
                each.given.remove(task)
                each.stack.append(Running(task.task_id, self.plans[task.task_id]))
                return True
        return False

    def answer(self) -> bool:
        """Give back what an engine was asked for and has not begun."""
        if not self.asked:
            return False
        engine, calls = self.asked.pop(0)
        each = self.engines[engine]
        waiting = {task.task_id for task in each.given}
        taken = [call for call in calls if call[0] in waiting]
        each.given = [task for task in each.given if task.task_id not in dict(taken)]
        kept = [call for call in calls if call not in taken]
        self.scheduler.on_taken_back(engine, taken, kept, now=1.0)
        return True


def play(engines: int, roots: list[Plan], choices: list[int]) -> None:
    site = Site(engines)
    site.asked = []
    for plan in roots:
        site.submit(plan)
    order = list(choices)
    for count in range(STEPS):
        site.scheduler.dispatch(now=1.0)
        site.scheduler.check()
        first = order[count % len(order)]
        if first % 5 == 4 and site.answer():
            continue
        turns = [site.engines[(first + place) % engines] for place in range(engines)]
        if not any(site.step(each) for each in turns) and not site.answer():
            break
    assert set(site.plans) == site.done, [(each.engine, each.stack, each.given) for each in site.engines]
    assert not any(site.scheduler)


@pytest.mark.timeout(300)  # a failure is made small before it is shown
@settings(max_examples=100)
@given(st.data())
def test_whoever_waits_for_what_he_has_made_goes_on(data: st.DataObject) -> None:
    engines = data.draw(st.integers(1, 3))
    roots = data.draw(st.lists(plans(engines), min_size=1, max_size=3))
    choices = data.draw(st.lists(st.integers(0, 20), min_size=1, max_size=12))
    play(engines, roots, choices)


def test_each_engine_calls_each_other_one_by_name() -> None:
    everywhere = ("each of", (0, 1, 2))
    for depth in (1, 2, 3):
        plan = Plan(everywhere)
        for _ in range(depth):
            plan = Plan(everywhere, 0, [plan])
        play(3, [plan], [0, 1, 2])
