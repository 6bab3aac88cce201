"""Which tasks wait for which others, and what has become of these.

Rules
=====

A `Dependency` names tasks, all or any of them, and which of their ends count: success, failure or both. A
task that was aborted, or that could never run, has failed.

* ``after`` is met when all named tasks have ended with what counts, or one of them for ``any``. It is
  hopeless as soon as one of all has ended the other way, or every one of any.
* ``follow`` is met on an engine: where all named tasks have ended with what counts, or one of them for
  ``any``. It is hopeless as soon as its ``after``-sense is, and when all tasks ended on two engines, one on
  an engine that has left or where the task is not allowed, or on none at all.

Whoever is named must be known when the task comes: unfinished, or ended and still remembered here, or else
found in the history (`on_submitted` returns those to look up; the task waits meanwhile). A task that nobody
knows makes it invalid, and so does the task itself, or one of the same client with a later number. So each
task waits only for tasks that came before it, and there are no cycles.

Cost: a condition is shared by all tasks that have the same one, so that a thousand tasks after the same ten
thousand are a thousand and ten thousand entries, not their product; each end is one step for each condition
that names the task.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Collection, Container, Mapping
from typing import NamedTuple

from enginery.core.deadlines import Deadlines
from enginery.core.tasks import Task
from enginery.ids import ClientId, EngineId, TaskId, format_task_id, task_client
from enginery.protocol.messages import Dependency

ENDS_KEPT = 100_000
"""How many ends are remembered at least; twice as many at most."""
NOWHERE = 0
"""The life (`EngineLoad.life`) of no engine: where a task ended that never ran."""
LONGEST_WAIT_S = 1e9
"""A longer time-out is none."""


class Outlook(enum.Enum):
    OPEN = "open"
    MET = "met"
    HOPELESS = "hopeless"
    INVALID = "invalid"


class Standing(NamedTuple):
    """How the dependencies of a task stand."""

    outlook: Outlook
    engines: tuple[EngineId, ...] = ()  # where it has to run then; none named = where it is allowed
    detail: str = ""  # why not


OPEN = Standing(Outlook.OPEN)


class End(NamedTuple):
    ok: bool
    life: int


class EndedTasks:
    """How the last tasks ended, and where, in two generations: the older one is dropped as a whole.

    >>> ended = EndedTasks()
    >>> ended.add(TaskId(7), True, 3)
    >>> ended.get(TaskId(7))
    End(ok=True, life=3)
    """

    __slots__ = ("_capacity", "_old", "_young")

    def __init__(self, capacity: int = ENDS_KEPT) -> None:
        self._capacity = capacity
        self._young: dict[TaskId, int] = {}
        self._old: dict[TaskId, int] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def add(self, task_id: TaskId, ok: bool, life: int) -> None:
        young = self._young
        young[task_id] = life << 1 | ok  # one small number, because there are so many
        if len(young) >= self._capacity:
            self._old, self._young = young, {}

    def get(self, task_id: TaskId) -> End | None:
        end = self._young.get(task_id)
        if end is None:
            end = self._old.get(task_id)
        return None if end is None else End(bool(end & 1), end >> 1)


class Condition:
    """One `Dependency`, as an `after` or as a `follow`; what is known of its tasks, and whose it is."""

    __slots__ = (
        "dependency",
        "is_follow",
        "members",
        "newest",
        "open",
        "places",
        "spoiler",
        "unheard_of",
        "unknown",
    )

    def __init__(self, dependency: Dependency, *, is_follow: bool = False) -> None:
        self.dependency = dependency
        self.is_follow = is_follow
        self.members: dict[TaskId, Task] = {}
        self.open = set(dependency.tasks)
        self.unknown: set[TaskId] = set()  # the open ones that are being looked up
        self.unheard_of: TaskId | None = None  # one that is in no history
        self.places: dict[int, TaskId] = {}  # lives of engines where one ended as it should, and which
        self.spoiler: TaskId | None = None  # one that ended the other way
        self.newest: dict[ClientId, TaskId] = {}
        for task_id in sorted(dependency.tasks):
            self.newest[task_client(task_id)] = task_id

    def __repr__(self) -> str:
        return f"<Condition of {len(self.members)} tasks, {len(self.open)} open>"

    def on_ended(self, task_id: TaskId, end: End) -> bool:
        """One of its tasks has ended. False if nothing can follow from that yet."""
        self.open.discard(task_id)
        self.unknown.discard(task_id)
        counts = self.dependency.success if end.ok else self.dependency.failure
        if not counts:
            is_news = self.dependency.all
            self.spoiler = task_id
        else:
            is_news = end.life not in self.places and (self.is_follow or not self.dependency.all)
            self.places.setdefault(end.life, task_id)
        return is_news or not self.open

    def after(self) -> Standing:
        """How it stands as an `after`."""
        dependency = self.dependency
        if not dependency.tasks:
            return Standing(Outlook.MET)
        if not dependency.success and not dependency.failure:
            return self._hopeless("it depends on others, but neither their success nor their failure counts")
        wanted, other_way = ("success", "failed") if dependency.success else ("failure", "succeeded")
        if dependency.all:
            if self.spoiler is not None:
                spoiler = format_task_id(self.spoiler)
                return self._hopeless(f"it depends on the {wanted} of task {spoiler}, which has {other_way}")
            return OPEN if self.open else Standing(Outlook.MET)
        if self.places:
            return Standing(Outlook.MET)
        if self.open:
            return OPEN
        return self._hopeless(f"it depends on the {wanted} of one of {self._named()}; all have {other_way}")

    def follow(self, lives: Mapping[int, EngineId], allowed: Collection[EngineId]) -> Standing:
        """How it stands as a `follow`, with these engines there; none allowed by name = all."""
        standing = self.after()
        if standing.outlook is Outlook.HOPELESS or not self.dependency.tasks:
            return standing
        engines = {
            lives[life] for life in self.places if life in lives and (not allowed or lives[life] in allowed)
        }
        if self.dependency.all:
            if len(self.places) > 1:
                one, other = (format_task_id(task_id) for task_id in list(self.places.values())[:2])
                return self._hopeless(
                    f"it is to follow tasks {one} and {other}, which ended in different places"
                )
            if len(engines) < len(self.places):
                return self._hopeless(self._why_not_there(lives))
            return OPEN if self.open else Standing(Outlook.MET, tuple(engines))
        if engines:
            return Standing(Outlook.MET, tuple(sorted(engines)))
        return OPEN if self.open else self._hopeless(self._why_not_there(lives))

    def _why_not_there(self, lives: Mapping[int, EngineId]) -> str:
        life, task_id = next(iter(self.places.items()))
        named = f"it is to follow task {format_task_id(task_id)}"
        if life == NOWHERE:
            return f"{named}, which ended on no engine that is known"
        if life in lives:
            return f"{named} to engine {lives[life]}, where it is not allowed"
        return f"{named}, and the engine where that ended has left"

    def _named(self) -> str:
        first, *others = self.dependency.tasks
        return f"task {format_task_id(first)}" + (f" and {len(others)} others" if others else "")

    @staticmethod
    def _hopeless(detail: str) -> Standing:
        return Standing(Outlook.HOPELESS, detail=detail)


class _Claim(NamedTuple):
    """What one task depends on."""

    after: Condition | None
    follow: Condition | None


class Dependencies:
    """All conditions of unfinished tasks, who waits for them, and the memory of how tasks ended."""

    def __init__(self, ends_kept: int = ENDS_KEPT) -> None:
        self.waiting: dict[TaskId, Task] = {}
        self.deadlines = Deadlines()
        self._ended = EndedTasks(ends_kept)
        self._remember = self._ended.add
        self._claims: dict[TaskId, _Claim] = {}
        self._conditions: dict[tuple[object, ...], Condition] = {}
        self._naming: dict[TaskId, dict[Condition, None]] = {}  # by the open tasks that they name
        self._last: Condition | None = None  # of the task before: calls of one record share an object
        self._news: deque[tuple[TaskId, End]] = deque()

    def __repr__(self) -> str:
        return f"<Dependencies of {len(self._claims)} tasks, of which {len(self.waiting)} wait>"

    # ------------------------------------------------------------ facts

    def on_submitted(self, task: Task, unfinished: Container[TaskId]) -> tuple[TaskId, ...]:
        """Take a task that names others; it waits. Returns those that have to be looked up in the history."""
        after, follow = task.options.after, task.options.follow
        claim = self._claims[task.task_id] = _Claim(
            None if after is None else self._condition(after, unfinished, is_follow=False),
            None if follow is None else self._condition(follow, unfinished, is_follow=True),
        )
        unknown: set[TaskId] = set()
        for condition in claim:
            if condition is not None:
                if not condition.members:
                    unknown |= condition.unknown  # else they have been asked for already
                condition.members[task.task_id] = task
        self.wait(task)
        return tuple(sorted(unknown))

    def on_ended(self, task_id: TaskId, ok: bool, life: int) -> None:
        """Any task has ended; `take_changed` tells for whom that matters."""
        self._remember(task_id, ok, life)
        if task_id in self._naming:
            self._news.append((task_id, End(ok, life)))
        if task_id in self._claims:
            self._stop_waiting(task_id)
            self._forget(task_id)

    def wait(self, task: Task) -> None:
        """This task waits from now on, or again."""
        self.waiting[task.task_id] = task
        if 0 <= task.options.wait_timeout_s < LONGEST_WAIT_S:
            self.deadlines.set(task.task_id, task.submitted_at + task.options.wait_timeout_s)

    def stop_waiting(self, task: Task) -> None:
        """What this task depends on is met. Where it follows others to, that may change again."""
        self._stop_waiting(task.task_id)
        if task.options.follow is None:
            self._forget(task.task_id)

    def on_looked_up(self, ends: Mapping[TaskId, End | None]) -> list[Task]:
        """What the history says of tasks. Returns those whose standing may have changed by that."""
        changed: dict[TaskId, Task] = {}
        for task_id, end in ends.items():
            for condition in list(self._naming.get(task_id, ())):
                if task_id not in condition.unknown:
                    continue  # it was known here when this condition came
                condition.unknown.discard(task_id)
                if end is None:
                    condition.unheard_of = task_id
                else:
                    self._unname(condition, task_id)
                    condition.on_ended(task_id, end)
                changed.update(condition.members)
        return list(changed.values())

    # ------------------------------------------------------------ questions

    @property
    def has_news(self) -> bool:
        return bool(self._news)

    def take_changed(self) -> list[Task]:
        """Tasks whose standing may have changed by what has ended since this was asked last, oldest first."""
        changed: dict[TaskId, Task] = {}
        while self._news:
            task_id, end = self._news.popleft()
            for condition in self._naming.pop(task_id, ()):
                if condition.on_ended(task_id, end):
                    changed.update(condition.members)
        return list(changed.values())

    def standing(self, task: Task, lives: Mapping[int, EngineId]) -> Standing:
        """How this task's dependencies stand while these engines are there."""
        after, follow = self._claims[task.task_id]
        for condition in (after, follow):
            if condition is not None and (detail := _why_invalid(task, condition)):
                return Standing(Outlook.INVALID, detail=detail)
        first = Standing(Outlook.MET) if after is None else after.after()
        second = Standing(Outlook.MET) if follow is None else follow.follow(lives, task.options.candidates)
        for standing in (first, second):
            if standing.outlook is Outlook.HOPELESS:
                return standing
        if Outlook.OPEN in (first.outlook, second.outlook):
            return OPEN
        if any(condition is not None and condition.unknown for condition in (after, follow)):
            return OPEN
        return second

    def open_of(self, task_id: TaskId) -> tuple[set[TaskId], set[TaskId], set[TaskId]]:
        """What a task comes after and what it follows that has not ended; and what is being looked up."""
        unknown: set[TaskId] = set()
        opened = []
        for condition in self._claims[task_id]:
            opened.append(set() if condition is None else condition.open - condition.unknown)
            unknown |= set() if condition is None else condition.unknown
        return opened[0], opened[1], unknown

    # ------------------------------------------------------------ inside

    def _stop_waiting(self, task_id: TaskId) -> None:
        self.waiting.pop(task_id, None)
        self.deadlines.forget(task_id)

    def _forget(self, task_id: TaskId) -> None:
        for condition in self._claims.pop(task_id):
            if condition is not None:
                condition.members.pop(task_id, None)
                if not condition.members:
                    self._drop(condition)

    def _condition(
        self, dependency: Dependency, unfinished: Container[TaskId], *, is_follow: bool
    ) -> Condition:
        last = self._last
        if last is not None and last.dependency is dependency and last.is_follow == is_follow:
            condition: Condition | None = last
        else:
            condition = self._conditions.get(_key(dependency, is_follow))
        # A task that has come since it was looked up can be waited for, but not by those who came before it.
        if condition is None or any(task_id in unfinished for task_id in condition.unknown):
            condition = self._begin(Condition(dependency, is_follow=is_follow), unfinished)
            self._conditions[_key(dependency, is_follow)] = condition
        self._last = condition
        return condition

    def _begin(self, condition: Condition, unfinished: Container[TaskId]) -> Condition:
        for task_id in list(condition.open):
            end = self._ended.get(task_id)
            if end is not None:
                condition.on_ended(task_id, end)
                continue
            self._naming.setdefault(task_id, {})[condition] = None
            if task_id not in unfinished:
                condition.unknown.add(task_id)
        return condition

    def _drop(self, condition: Condition) -> None:
        for task_id in condition.open:
            self._unname(condition, task_id)
        key = _key(condition.dependency, condition.is_follow)
        if self._conditions.get(key) is condition:
            del self._conditions[key]
        if self._last is condition:
            self._last = None

    def _unname(self, condition: Condition, task_id: TaskId) -> None:
        naming = self._naming.get(task_id)
        if naming is not None:
            naming.pop(condition, None)
            if not naming:
                del self._naming[task_id]

    def check(self, unfinished: Container[TaskId]) -> None:
        """Assert every invariant."""
        assert self.waiting.keys() <= self._claims.keys()
        assert len(self.deadlines) <= len(self.waiting)
        conditions: dict[Condition, set[TaskId]] = {}
        for task_id, claim in self._claims.items():
            assert task_id in unfinished, task_id
            for condition in claim:
                if condition is not None:
                    conditions.setdefault(condition, set()).add(task_id)
        assert set(self._conditions.values()) <= conditions.keys()
        for condition, members in conditions.items():
            assert condition.members.keys() == members, condition
            assert condition.unknown <= condition.open, condition
            for task_id in condition.open:
                assert condition in self._naming[task_id], task_id
        for task_id, naming in self._naming.items():
            assert naming, task_id
            assert all(task_id in condition.open for condition in naming), task_id


def _key(dependency: Dependency, is_follow: bool) -> tuple[object, ...]:
    return (is_follow, dependency.all, dependency.success, dependency.failure, dependency.tasks)


def _why_invalid(task: Task, condition: Condition) -> str:
    """Why a task cannot have this condition; nothing if it can."""
    newest = condition.newest.get(task_client(task.task_id))
    if newest == task.task_id or task.task_id in condition.open:
        return "it depends on itself"
    if newest is not None and newest > task.task_id:
        return f"it depends on task {format_task_id(newest)}, which its client had not submitted before it"
    if condition.unheard_of is not None:
        return f"it depends on task {format_task_id(condition.unheard_of)}, which nobody knows"
    return ""
