"""What a client's user wants of tasks that were submitted: to have them back, or ended, or parts of them.

A wish is said to the controller when its task has been, behind it on the same way, and again after each hello
until the task has ended. Nobody says that a wish for another client's task has arrived; the last
`OTHERS_KEPT` of those are said again too, which does no harm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from enginery.ids import TaskId
from enginery.protocol.link import RECORD_BYTES
from enginery.protocol.messages import Abort, Cancel, CancelItems, Record, Status

TASKS_PER_RECORD = 10_000
OTHERS_KEPT = 1000

Put = Callable[[Record, int], None]


class Wish(NamedTuple):
    """What is to become of a task: taken back if it has not started, or (`cancels`) ended in any case."""

    cancels: bool = False
    grace_s: float | None = None  # see `Cancel`

    @property
    def status(self) -> Status:
        """How a task ends that was never sent."""
        return Status.CANCELLED if self.cancels else Status.ABORTED


ABORT = Wish()


class Wishes:
    """Those of one client, as far as they are not fulfilled."""

    def __init__(self) -> None:
        self._wishes: dict[TaskId, Wish] = {}  # of tasks of this client that have not ended
        self._items: dict[TaskId, set[int]] = {}  # and of some items of parts of its maps
        self._others: deque[tuple[TaskId, Wish]] = deque(maxlen=OTHERS_KEPT)

    def __bool__(self) -> bool:
        """Whether there is one for a task of this client."""
        return bool(self._wishes or self._items)

    def __repr__(self) -> str:
        return f"<Wishes for {len(self._wishes)} tasks, {len(self._items)} parts of maps>"

    def __len__(self) -> int:
        return len(self._wishes.keys() | self._items.keys())

    def add(self, task: TaskId, wish: Wish) -> None:
        """Whoever cancels a task means it, also if somebody only wants it back."""
        if wish.cancels or task not in self._wishes:
            self._wishes[task] = wish

    def add_items(self, task: TaskId, items: Iterable[int]) -> None:
        self._items.setdefault(task, set()).update(items)

    def add_others(self, tasks: Iterable[TaskId], wish: Wish) -> None:
        self._others.extend((task, wish) for task in tasks)

    def forget(self, task: TaskId) -> None:
        """The task has ended."""
        self._wishes.pop(task, None)
        self._items.pop(task, None)

    def keep(self, unfinished: set[TaskId]) -> None:
        """All other tasks have ended."""
        for task in self._tasks() - unfinished:
            self.forget(task)

    def say(self, tasks: Iterable[TaskId], put: Put) -> None:
        """Put the wishes for these tasks of this client on the link."""
        tasks = list(tasks)
        say(((task, self._wishes[task]) for task in tasks if task in self._wishes), put)
        for task in tasks:
            items = self._items.get(task)
            if items:
                put(CancelItems(task, sorted(items)), RECORD_BYTES + 5 * len(items))

    def say_all(self, sent: Callable[[TaskId], bool], put: Put) -> None:
        """After a hello: all wishes for tasks that the controller has, and those for others' tasks."""
        self.say(sorted(filter(sent, self._tasks())), put)
        say(self._others, put)

    def _tasks(self) -> set[TaskId]:
        return self._wishes.keys() | self._items.keys()

    def check(self, unfinished: set[TaskId]) -> None:
        assert self._tasks() <= unfinished


def say(wishes: Iterable[tuple[TaskId, Wish]], put: Put) -> None:
    """Put wishes on the link, as few records."""
    by_wish: dict[Wish, list[TaskId]] = {}
    for task, wish in wishes:
        by_wish.setdefault(wish, []).append(task)
    for wish, tasks in by_wish.items():
        for start in range(0, len(tasks), TASKS_PER_RECORD):
            portion = tasks[start : start + TASKS_PER_RECORD]
            record = Cancel(portion, wish.grace_s) if wish.cancels else Abort(portion)
            put(record, RECORD_BYTES + 9 * len(portion))
