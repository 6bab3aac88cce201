"""What one client has sent: the ids of its last tasks, and which of them have ended.

Values and metadata are not kept here a second time: who asks for them by id is given those of the result that
is still alive, else what the controller remembers.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any, NoReturn

from enginery.client.contract import TaskSession
from enginery.errors import UnknownTask
from enginery.ids import TaskId, format_task_id, parse_task_id

HISTORY_LIMIT = 100_000


class TaskHistory:
    """The last `limit` tasks of one client. Safe to use from several threads."""

    def __init__(self, session: TaskSession, limit: int = HISTORY_LIMIT) -> None:
        self._session = session
        self.limit = limit
        self._calls: deque[tuple[TaskId, int]] = deque(maxlen=limit)  # first id, and how many follow it
        self._purged: set[TaskId] = set()
        self._end = TaskId(0)  # all tasks are below it
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<TaskHistory: {len(self._calls)} calls>"

    def remember(self, first: TaskId, count: int) -> None:
        """A call has been sent: `count` tasks from `first` on."""
        with self._lock:
            self._calls.append((first, count))
            self._end = max(self._end, TaskId(first + count))

    def calls(self) -> list[tuple[TaskId, int]]:
        """The calls, oldest first."""
        return list(self._calls)

    def tasks(self) -> list[TaskId]:
        """Their tasks, oldest first, no more than the limit."""
        found = [TaskId(first + number) for first, count in self.calls() for number in range(count)]
        return found[-self.limit :]

    def ended(self) -> list[TaskId]:
        """Those that have ended and were not purged."""
        outstanding = self._session.outstanding()
        return [task for task in self.tasks() if task not in outstanding and task not in self._purged]

    def has_ended(self, task: TaskId) -> bool:
        """Whether this is one of them; without a look at the whole history."""
        calls = self._calls
        try:
            start = calls[0][0]
        except IndexError:
            return False
        return start <= task < self._end and task not in self._purged and self._session.options(task) is None

    def at(self, index: int) -> TaskId:
        """The task at a position in the history; raises IndexError that says how long it is."""
        tasks = self.tasks()
        try:
            return tasks[index]
        except IndexError:
            raise IndexError(
                f"there is no task {index} in the history, which has {len(tasks)} tasks"
            ) from None

    def purge(self, tasks: Iterable[TaskId]) -> None:
        """Show no values of these any more."""
        self._purged.update(tasks)
        if len(self._purged) > self.limit:
            self._purged.intersection_update(self.tasks())

    def clear(self) -> None:
        with self._lock:
            self._calls.clear()
            self._purged.clear()


class EndedTasks(MutableMapping[str, Any]):
    """Something of each task of a client that has ended, by task id.

    It is looked up when it is asked for. Entries can be deleted, which is the same as
    `Client.purge_local_results`, and not be set.
    """

    def __init__(self, name: str, history: TaskHistory, read: Callable[[TaskId], Any]) -> None:
        self._name = name
        self._history = history
        self._read = read

    def __repr__(self) -> str:
        return f"<{self._name} of {len(self)} tasks>"

    def __getitem__(self, msg_id: str) -> Any:
        try:
            return self._read(self._task(msg_id))
        except UnknownTask:
            raise KeyError(msg_id) from None

    def __contains__(self, msg_id: object) -> bool:
        try:
            self._task(msg_id)
        except KeyError:
            return False
        return True

    def __delitem__(self, msg_id: str) -> None:
        self._history.purge([self._task(msg_id)])

    def __setitem__(self, msg_id: str, value: Any) -> NoReturn:
        raise TypeError(f"{self._name} are what tasks came to, and cannot be set")

    def __iter__(self) -> Iterator[str]:
        return iter(list(map(format_task_id, self._history.ended())))

    def __len__(self) -> int:
        return len(self._history.ended())

    def clear(self) -> None:
        self._history.purge(self._history.ended())

    def _task(self, msg_id: object) -> TaskId:
        try:
            task = parse_task_id(msg_id) if isinstance(msg_id, str) else None
        except ValueError:
            task = None
        if task is None or not self._history.has_ended(task):
            raise KeyError(msg_id)
        return task
