"""What a client can ask of the controller's memory: queues, states, records; and have it forget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from enginery.client.asking import HISTORY_S, Asker
from enginery.client.calls import once
from enginery.client.contract import FetchedCalls, TaskSession
from enginery.client.histories import TaskHistory
from enginery.client.lookup import TASKS_PER_QUESTION, Found, Lookup, calls_in
from enginery.client.queries import check_keys, describe, needs_payloads, translate
from enginery.client.results.async_result import AsyncResult
from enginery.client.results.hub_result import new_outcome
from enginery.core.submissions import Blob
from enginery.errors import PurgeRefused, UnknownTask
from enginery.ids import EngineId, TaskId, format_task_id, task_client
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import (
    Answer,
    AskCalls,
    AskQueues,
    EngineQueues,
    HistoryRecord,
    PurgeHistory,
    QueuesAnswer,
    StoredCall,
    Term,
)

CALLS_PER_QUESTION = 8
"""Each may fill a record with its arguments."""
PURGED_PER_QUESTION = 50_000


class Hub:
    """The controller's memory, as one client sees it."""

    def __init__(
        self, session: Callable[[], TaskSession], asker: Asker, lookup: Lookup, history: TaskHistory
    ) -> None:
        self._session = session
        self._asker = asker
        self._lookup = lookup
        self._history = history

    # ------------------------------------------------------------ states

    def queue_status(self, engines: Sequence[EngineId], *, verbose: bool) -> dict[Any, Any]:
        answer = self._asker.ask(
            lambda number: AskQueues(number, list(engines), verbose), QueuesAnswer, error=IndexError
        )
        status: dict[Any, Any] = {int(one.engine): _queues(one, verbose) for one in answer.engines}
        status["unassigned"] = _ids(answer.unassigned_ids) if verbose else answer.unassigned
        return status

    def tasks_on(self, engines: Sequence[EngineId]) -> set[TaskId]:
        """The unfinished tasks that these engines have been given or are addressed in."""
        answer = self._asker.ask(
            lambda number: AskQueues(number, list(engines), True), QueuesAnswer, error=IndexError
        )
        return {task for one in answer.engines for task in (*one.queue_ids, *one.task_ids)}

    def result_status(self, tasks: Sequence[TaskId], *, status_only: bool) -> dict[str, Any]:
        outstanding = self._session().outstanding()
        others = [task for task in tasks if task not in outstanding]
        records = self._lookup.records_of(others)
        unknown = [task for task in others if task not in records]
        if unknown:
            raise UnknownTask(f"no task {', '.join(_ids(unknown))} is known")
        completed = [task for task in others if records[task].status is not None]
        ended = set(completed)
        content: dict[str, Any] = {
            "pending": [format_task_id(task) for task in tasks if task not in ended],
            "completed": _ids(completed),
        }
        if completed and not status_only:
            values = self._lookup.result(completed, is_single=len(completed) == 1).get(HISTORY_S)
            content.update(zip(_ids(completed), [values] if len(completed) == 1 else values, strict=True))
        return content

    # ------------------------------------------------------------ records

    def history(self) -> list[str]:
        return _ids(record.task for record in self._lookup.records([]))

    def query(self, query: Mapping[str, Any], keys: Sequence[str] | None) -> list[dict[str, Any]]:
        wanted = check_keys(keys)
        records = self._lookup.records(translate(query), with_payloads=needs_payloads(wanted))
        return [describe(record, wanted) for record in records]

    def labelled(self, label: str) -> list[AsyncResult]:
        calls = calls_in(self._lookup.records([Term("label", "eq", label)]))
        return [self._lookup.result_of_call(call) for call in calls]

    def recent(self) -> list[AsyncResult]:
        """The results of all calls that have unfinished tasks; if there are none, of the last call.

        Oldest first; the finished tasks of these calls are among them.
        """
        unfinished = self._lookup.records([Term("status", "eq", None)])
        firsts = list(dict.fromkeys(record.first for record in unfinished or self._last_records()[-1:]))
        records: list[HistoryRecord] = []
        for start in range(0, len(firsts), TASKS_PER_QUESTION):
            records += self._lookup.records([Term("first", "in", firsts[start : start + TASKS_PER_QUESTION])])
        return [self._lookup.result_of_call(call) for call in calls_in(records)]

    def _last_records(self) -> list[HistoryRecord]:
        """Those of the last hour, day or month in which there are some."""
        now = time.time()
        for age_s in (3_600.0, 86_400.0, 30 * 86_400.0):
            records = self._lookup.records([Term("submitted", "gte", now - age_s)])
            if records:
                return records
        return self._lookup.records([])

    # ------------------------------------------------------------ again

    def resubmit(self, tasks: Sequence[TaskId], *, is_single: bool) -> AsyncResult:
        """Submit the calls of these tasks again, under new ids. Raises UnknownTask before it sends any."""
        fetched: dict[TaskId, tuple[StoredCall, Mapping[Any, Buffer]]] = {}
        wanted = list(dict.fromkeys(tasks))
        for start in range(0, len(wanted), CALLS_PER_QUESTION):
            answer = self._ask_calls(wanted[start : start + CALLS_PER_QUESTION])
            if answer.answer.missing:
                raise UnknownTask(
                    f"no call of task {', '.join(_ids(answer.answer.missing))} is known, or what it needs is "
                    "no longer kept; submit it with its function and arguments"
                )
            fetched.update((call.task, (call, answer.blobs)) for call in answer.answer.calls)
        found: list[Found] = []
        for task in tasks:
            found.append(self._submit(*fetched[task], first=found[0].task if found else None))
        return self._lookup.result_of(found, is_single=is_single)

    def _ask_calls(self, tasks: list[TaskId]) -> FetchedCalls:
        return self._asker.ask(lambda number: AskCalls(number, tasks), FetchedCalls, timeout_s=HISTORY_S)

    def _submit(self, call: StoredCall, blobs: Mapping[Any, Buffer], *, first: TaskId | None) -> Found:
        options = call.options
        function = options.function
        sent = [Blob(function, blobs[function], True)] if function else []
        sent.extend(once([memoryview(blobs[blob]) for blob in call.blobs]))
        outcome = new_outcome(options.kind)
        outcome.task = task = self._session().submit(options, call.payload, sent, [outcome], first=first)
        self._history.remember(task, 1)
        return Found(task, outcome, options.kind, options.name, options.label)

    # ------------------------------------------------------------ forgetting

    def purge_local(self, tasks: Sequence[TaskId] | None, engines: Sequence[EngineId]) -> None:
        """None is all of this client. Raises RuntimeError if one has not ended."""
        session = self._session()
        purged = self._history.tasks() if tasks is None else list(tasks)
        if engines and tasks is not None:
            records = self._lookup.records([Term("engine", "in", list(engines))])
            purged.extend(
                record.task
                for record in records
                if record.status is not None and task_client(record.task) == session.client_id
            )
        pending = session.outstanding().intersection(purged)
        if pending:
            raise RuntimeError(
                f"task {', '.join(_ids(sorted(pending)))} has not ended, and only results can be purged; "
                "wait for it or abort it"
            )
        self._history.purge(purged)

    def purge(self, tasks: Sequence[TaskId] | None, engines: Sequence[EngineId]) -> None:
        """Have the controller forget ended tasks. None is all.

        Raises PurgeRefused. They go in portions of `PURGED_PER_QUESTION`; those before one that is refused
        are forgotten.
        """
        wanted = list(tasks or ())
        self._purge(wanted[:PURGED_PER_QUESTION], list(engines), everything=tasks is None)
        for start in range(PURGED_PER_QUESTION, len(wanted), PURGED_PER_QUESTION):
            self._purge(wanted[start : start + PURGED_PER_QUESTION], [], everything=False)

    def _purge(self, tasks: list[TaskId], engines: list[EngineId], *, everything: bool) -> None:
        self._asker.ask(
            lambda number: PurgeHistory(number, tasks, engines, everything),
            Answer,
            timeout_s=HISTORY_S,
            error=PurgeRefused,
        )


def _queues(one: EngineQueues, verbose: bool) -> dict[str, Any]:
    if verbose:
        return {
            "queue": _ids(one.queue_ids),
            "completed": _ids(one.completed_ids),
            "tasks": _ids(one.task_ids),
        }
    return {"queue": one.queue, "completed": one.completed, "tasks": one.tasks}


def _ids(tasks: Iterable[TaskId]) -> list[str]:
    return list(map(format_task_id, tasks))
