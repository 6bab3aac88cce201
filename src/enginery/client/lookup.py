"""Results by task ids: out of what this client still holds, else from the controller's history."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from enginery.client.asking import HISTORY_S, Asker
from enginery.client.contract import TaskSession
from enginery.client.queries import source_of
from enginery.client.results.async_result import AsyncResult, Origin
from enginery.client.results.hub_result import AsyncHubMapResult, AsyncHubResult, new_outcome
from enginery.client.results.outcome import Outcome
from enginery.errors import QueryRefused, UnknownTask
from enginery.ids import NO_ENGINE, TaskId, task_client
from enginery.protocol.messages import (
    AskHistory,
    AskResults,
    AskStatus,
    HistoryAnswer,
    HistoryRecord,
    Kind,
    ResultsAnswer,
    Status,
    StatusAnswer,
    TaskOptions,
    Term,
)

TASKS_PER_QUESTION = 5_000


class Found(NamedTuple):
    """A task, the place of its result, and what else is known of it."""

    task: TaskId
    outcome: Outcome
    kind: Kind = Kind.CALL
    name: str = ""
    label: str = ""
    source: str | None = None
    submitted: float = 0.0


class Lookup:
    """Finds tasks for one client."""

    def __init__(self, session: Callable[[], TaskSession], asker: Asker) -> None:
        self._session = session
        self._asker = asker

    # ------------------------------------------------------------ records

    def records(self, terms: Sequence[Term], *, with_payloads: bool = False) -> list[HistoryRecord]:
        """What the history has of the tasks that meet all terms, oldest first. Raises QueryRefused."""
        answer = self._asker.ask(
            lambda number: AskHistory(number, list(terms), with_payloads),
            HistoryAnswer,
            timeout_s=HISTORY_S,
            error=QueryRefused,
        )
        return answer.records

    def records_of(
        self, tasks: Iterable[TaskId], *, with_payloads: bool = False
    ) -> dict[TaskId, HistoryRecord]:
        """What the history has of these; those that it does not know are missing."""
        wanted = list(dict.fromkeys(tasks))
        found: dict[TaskId, HistoryRecord] = {}
        for start in range(0, len(wanted), TASKS_PER_QUESTION):
            term = Term("task", "in", wanted[start : start + TASKS_PER_QUESTION])
            records = self.records([term], with_payloads=with_payloads)
            found.update((record.task, record) for record in records)
        return found

    # ------------------------------------------------------------ results

    def result(self, tasks: Sequence[TaskId], *, is_single: bool) -> AsyncResult:
        """The result of these tasks: a value if `is_single`, else a list in their order."""
        return self.result_of(self._find(tasks, {}), is_single=is_single)

    def output(self, task: TaskId) -> str:
        """What a task has written so far. Raises UnknownTask or ResultDropped."""
        answer = self._asker.ask(
            lambda number: AskResults(number, [task], False), ResultsAnswer, timeout_s=HISTORY_S
        )
        found = self._find([task], {})
        outcome = found[0].outcome
        if answer.pending:
            self._asker.ask(AskStatus, StatusAnswer)  # which comes behind what the task has said so far
        else:
            self.result_of(found, is_single=True).wait_for_output(HISTORY_S)
            if outcome.result is not None and outcome.result.status in (Status.UNKNOWN, Status.DROPPED):
                raise outcome.errors()[0]
        return outcome.text()

    def ended(self, task: TaskId) -> tuple[AsyncResult, Any]:
        """The result of a task that has ended, and its value or exception. Raises UnknownTask."""
        result = self.result([task], is_single=True)
        value = result.get(return_exceptions=True)
        if isinstance(value, UnknownTask):
            raise value
        return result, value

    def result_of_call(self, records: Sequence[HistoryRecord]) -> AsyncResult:
        """The result of a call whose tasks these are, see `calls_in`."""
        is_map = records[0].kind is Kind.MAP
        found = self._find([record.task for record in records], {record.task: record for record in records})
        return self.result_of(found, is_single=not is_map and len(records) == 1, is_map=is_map)

    def result_of(self, found: Sequence[Found], *, is_single: bool, is_map: bool = False) -> AsyncResult:
        """The result of places that are being filled already."""
        session = self._session()
        first = found[0] if found else Found(TaskId(0), new_outcome(Kind.CALL))
        alike = all(one.kind is first.kind for one in found)
        origin = Origin(
            first.name or "get_result",
            is_single,
            first.label if all(one.label == first.label for one in found) else "",
            source=first.source if alike else None,
        )
        outcomes = [one.outcome for one in found]
        submitted = min((one.submitted for one in found if one.submitted), default=0.0)
        if is_map:
            return AsyncHubMapResult.over(session, origin, outcomes, submitted=submitted)

        if found and all(task_client(one.task) == session.client_id for one in found):
            return AsyncResult._over(session, origin, outcomes, submitted=submitted or time.time())
        return AsyncHubResult.over(session, origin, outcomes, submitted=submitted)

    def _find(self, tasks: Sequence[TaskId], records: dict[TaskId, HistoryRecord]) -> list[Found]:
        session = self._session()
        shared = _shared_outcomes(session, tasks)
        unknown = [task for task in tasks if task not in records and session.options(task) is None]
        if unknown:
            records = {**records, **self.records_of(unknown)}
        sources = self._sources(records[task] for task in tasks if task in records)
        found = [
            _place(task, outcome, session.options(task), records.get(task), sources.get(task))
            for task, outcome in zip(tasks, shared, strict=True)
        ]
        _follow(session, [one for one, outcome in zip(found, shared, strict=True) if outcome is None])
        return found

    def _sources(self, records: Iterable[HistoryRecord]) -> dict[TaskId, str | None]:
        """The texts of those that execute text."""
        tasks = [record.task for record in records if record.kind is Kind.EXECUTE]
        found = self.records_of(tasks, with_payloads=True) if tasks else {}
        return {task: source_of(record) or "" for task, record in found.items()}


def _shared_outcomes(session: TaskSession, tasks: Sequence[TaskId]) -> list[Outcome | None]:
    """The places that are filled already or will be; a task that is named twice needs another one."""
    found: list[Outcome | None] = []
    taken: set[TaskId] = set()
    for task in tasks:
        promise = None if task in taken else session.promise(task)
        found.append(promise if isinstance(promise, Outcome) else None)
        taken.add(task)
    return found


def _place(
    task: TaskId,
    outcome: Outcome | None,
    options: TaskOptions | None,
    record: HistoryRecord | None,
    source: str | None,
) -> Found:
    """What is known of a task, by its unfinished call or by its record."""
    if options is not None:
        kind, name, label, submitted = options.kind, options.name, options.label, 0.0
    elif record is not None:
        kind, name, label, submitted = record.kind, record.name, record.label, record.submitted
    else:
        kind, name, label, submitted = Kind.CALL, "", "", 0.0
    if outcome is None:
        outcome = new_outcome(kind, task)
        if record is not None and record.engine != NO_ENGINE:
            outcome.target = record.engine
    return Found(task, outcome, kind, name, label, source, submitted)


def _follow(session: TaskSession, found: Sequence[Found]) -> None:
    """Have the session fill these places; a task may have several."""
    rest = list(found)
    while rest:
        promises: dict[TaskId, Outcome] = {}
        again = []
        for one in rest:
            if one.task in promises:
                again.append(one)
            else:
                promises[one.task] = one.outcome
        session.follow(promises)
        rest = again


def calls_in(records: Iterable[HistoryRecord]) -> list[list[HistoryRecord]]:
    """The tasks of each call, in the order of their first ones."""
    calls: dict[TaskId, list[HistoryRecord]] = {}
    for record in records:
        calls.setdefault(record.first, []).append(record)
    return list(calls.values())
