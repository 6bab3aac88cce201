"""What a controller remembers of tasks, and its answers to questions, for `FakeSession`; tests add to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from enginery.client.contract import AnyAnswer, FetchedCalls
from enginery.core.submissions import Blob
from enginery.ids import NO_ENGINE, BlobId, EngineId, EngineKey, TaskId
from enginery.objects.packing import pack
from enginery.protocol import messages as m
from enginery.protocol.codec import Buffer


@dataclass
class Remembered:
    """One task."""

    record: m.HistoryRecord
    options: m.TaskOptions
    payload: bytes = b""
    blobs: Sequence[Blob] = ()
    result: m.TaskResult | None = None
    buffers: Sequence[Buffer] = field(default_factory=list)


class FakeHub:
    def __init__(self) -> None:
        self.tasks: dict[TaskId, Remembered] = {}
        self.queues = m.QueuesAnswer(0, [], 0)
        self.status = m.StatusAnswer(0, "test", 1.0, 1, 0, m.TaskCounts(*[0] * 9))
        self.error = ""
        """The answer to whatever is asked next, if there is one."""

    # ------------------------------------------------------------ facts

    def on_submitted(
        self,
        task: TaskId,
        options: m.TaskOptions,
        payload: bytes = b"",
        blobs: Sequence[Blob] = (),
        engine: EngineId = NO_ENGINE,
        *,
        now: float = 1.0,
        first: TaskId | None = None,
    ) -> None:
        record = m.HistoryRecord(
            task,
            options.kind,
            options.name,
            options.label,
            None,
            engine != NO_ENGINE,
            engine,
            "",
            now,
            0.0,
            0.0,
            False,
            call=payload,
            first=first or task,
        )
        self.tasks[task] = Remembered(record, options, payload, blobs)

    def on_ended(self, result: m.TaskResult, buffers: Sequence[Buffer]) -> None:
        known = self.tasks.get(result.task)
        if known is None:
            return
        known.result, known.buffers = result, buffers
        record = known.record
        record.status, record.engine, record.engine_key = result.status, result.engine, result.engine_key
        record.started, record.completed = result.started, result.completed
        record.stdout, record.stderr, record.detail = result.stdout, result.stderr, result.detail
        record.result = result.payload

    def add_ended(
        self, task: TaskId, value: Any, *, engine: int = 0, name: str = "f", label: str = ""
    ) -> None:
        """A task of another client has ended with a value."""
        self.on_submitted(task, m.TaskOptions(m.Kind.CALL, name=name, label=label))
        packed = pack(value)
        result = m.TaskResult(task, m.Status.OK, packed.inline, engine=EngineId(engine), submitted=1.0)
        result.engine_key = EngineKey(f"key{engine}")
        self.on_ended(result, [bytes(buffer) for buffer in packed.buffers])

    # ------------------------------------------------------------ answers

    def answer(self, record: m.Record) -> AnyAnswer:
        number: int = record.request  # type: ignore[attr-defined]
        if self.error:
            error, self.error = self.error, ""
            return m.Answer(number, error)
        match record:
            case m.AskHistory(_, terms, with_payloads):
                found = [
                    known.record
                    for known in self.tasks.values()
                    if all(holds(known.record, t) for t in terms)
                ]
                found.sort(key=lambda one: one.submitted)
                return m.HistoryAnswer(number, [one if with_payloads else _bare(one) for one in found])
            case m.AskQueues():
                self.queues.request = number
                return self.queues
            case m.AskStatus():
                return msgspec.structs.replace(self.status, request=number)
            case m.AskResults(_, tasks, False):
                pending = [task for task in tasks if task in self.tasks and self.tasks[task].result is None]
                return m.ResultsAnswer(number, [], pending)
            case m.AskCalls(_, tasks):
                return self._calls(number, tasks)
            case m.AskMemory(_, engines):
                wanted = sorted(engines) or [EngineId(number) for number in range(3)]
                uses = [m.EngineMemoryUse(engine, m.MemoryUse()) for engine in wanted]
                return m.MemoryAnswer(number, uses, controller=m.MemoryUse())
            case m.PurgeHistory(_, tasks, engines, everything):
                return m.Answer(number, self._purge(tasks, engines, everything))
        return m.Answer(number)

    def _calls(self, number: int, tasks: Sequence[TaskId]) -> FetchedCalls:
        calls: list[m.StoredCall] = []
        blobs: dict[BlobId, Buffer] = {}
        missing = [task for task in tasks if task not in self.tasks]
        for known in (self.tasks[task] for task in tasks if task in self.tasks):
            names = tuple(blob.blob_id for blob in known.blobs if blob.blob_id != known.options.function)
            calls.append(
                m.StoredCall(known.record.task, known.options, known.payload, names, known.record.engine)
            )
            blobs.update((blob.blob_id, blob.data) for blob in known.blobs)
        return FetchedCalls(m.CallsAnswer(number, calls, missing), blobs)

    def _purge(self, tasks: Sequence[TaskId], engines: Sequence[EngineId], everything: bool) -> str:
        for task in tasks:
            if task not in self.tasks:
                return f"there is no task {task}"
            if self.tasks[task].result is None:
                return f"task {task} has not ended"
        for task, known in list(self.tasks.items()):
            ended = known.result is not None
            if ended and (everything or task in tasks or known.record.engine in engines):
                del self.tasks[task]
        return ""


def holds(record: m.HistoryRecord, term: m.Term) -> bool:
    """Enough of the query language for the client's own questions."""
    found = record.task if term.field in ("msg_id", "task") else getattr(record, term.field)
    match term.operator:
        case "eq":
            return bool(found == term.value)
        case "ne":
            return bool(found != term.value)
        case "in":
            return found in term.value
        case "gt":
            return found is not None and bool(found > term.value)
        case "gte":
            return found is not None and bool(found >= term.value)
        case "lt":
            return found is not None and bool(found < term.value)
    raise AssertionError(term)


def _bare(record: m.HistoryRecord) -> m.HistoryRecord:
    bare = m.HistoryRecord(*(getattr(record, name) for name in record.__struct_fields__))
    bare.call = bare.result = b""
    bare.stdout = bare.stderr = ""
    return bare
