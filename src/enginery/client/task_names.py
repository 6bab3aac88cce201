"""Tasks, as users name them: AsyncResults, ids, indices into a history, and collections of these."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from enginery.client.contract import TaskSession
from enginery.client.histories import TaskHistory
from enginery.client.results.async_result import AsyncResult
from enginery.errors import NoSuchEngine
from enginery.ids import EngineId, TaskId, parse_task_id, task_client

_FORMS = "AsyncResults, task ids, indices into the history or lists of these"


class TaskNames:
    """Reads the names that users of one client give."""

    def __init__(self, session: TaskSession, history: TaskHistory) -> None:
        self._session = session
        self._history = history

    def sort_out(self, jobs: Any) -> tuple[list[Future[Any]], set[TaskId]]:
        """Futures and task ids among what a user gives for tasks; neither for None."""
        futures: list[Future[Any]] = []
        tasks: set[TaskId] = set()
        for job in _flat(jobs):
            if isinstance(job, Future):
                futures.append(job)
            else:
                tasks.add(self._task(job))
        return futures, tasks

    def tasks(self, jobs: Any) -> list[TaskId]:
        """The tasks that are named, in order. Raises TypeError for a Future that is no AsyncResult."""
        found: list[TaskId] = []
        for job in _flat(jobs):
            if isinstance(job, AsyncResult):
                found.extend(job.task_ids)
            elif isinstance(job, Future):
                raise TypeError(f"{job!r} is not a task; tasks are named by {_FORMS}")
            else:
                found.append(self._task(job))
        return found

    def is_single(self, jobs: Any) -> bool:
        """Whether one task is named and not a list of them."""
        return isinstance(jobs, str) or (isinstance(jobs, int) and not isinstance(jobs, Future))

    def is_own(self, result: AsyncResult) -> bool:
        """Whether the result was made by this client."""
        return result._session is self._session

    def of_others(self, tasks: Iterable[TaskId]) -> set[TaskId]:
        """Those of other clients among them."""
        return {task for task in tasks if task_client(task) != self._session.client_id}

    def to_purge(self, jobs: Any, targets: Any) -> tuple[list[TaskId] | None, list[EngineId]]:
        """Tasks and engines whose results are to be forgotten; None is all tasks."""
        if any(isinstance(named, str) and named == "all" for named in (jobs, targets)):
            return None, []
        tasks = self.tasks(jobs)
        engines = [_engine(target) for target in _each(targets)]
        if not tasks and not engines:
            raise ValueError("name the tasks or the engines whose results are to be purged, or 'all'")
        return tasks, engines

    def _task(self, job: Any) -> TaskId:
        if isinstance(job, str):
            return parse_task_id(job)
        if isinstance(job, int) and not isinstance(job, bool):
            return self._history.at(job)
        raise TypeError(f"tasks are named by {_FORMS}, not by {job!r} ({type(job).__name__})")


def _flat(jobs: Any) -> Iterable[Any]:
    """What is named, one after the other, out of collections in collections."""
    if jobs is None:
        return
    if isinstance(jobs, Future | str | bytes | Mapping) or not isinstance(jobs, Iterable):
        yield jobs
        return
    for job in jobs:
        if job is None:
            raise TypeError(f"tasks are named by {_FORMS}, not by None")
        yield from _flat(job)


def _each(targets: Any) -> Iterable[Any]:
    if targets is None:
        return []
    return targets if isinstance(targets, (list, tuple, set, frozenset, range)) else [targets]


def _engine(target: Any) -> EngineId:
    if isinstance(target, (bool, str)) or not hasattr(target, "__index__"):
        raise TypeError(f"engines are named by their ids, not by {target!r} ({type(target).__name__})")
    number = operator.index(target)
    if number < 0:
        raise NoSuchEngine(f"there is no engine {number}: engines whose results are to go are named by id")
    return EngineId(number)
