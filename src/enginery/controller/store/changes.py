"""What a run of facts amounts to, task by task: the rows that `tables` writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from enginery.controller.store.store import TEXT_LIMIT_BYTES
from enginery.ids import TaskId
from enginery.protocol import history as h
from enginery.protocol.history import HistoryFact
from enginery.protocol.messages import TaskResult


class Changes:
    """Facts sorted by task.

    Facts about tasks that were accepted in the same run become part of their new rows; the others are late.
    """

    def __init__(self, facts: Iterable[HistoryFact]) -> None:
        self.others: list[HistoryFact] = []
        self._accepted: dict[TaskId, h.TaskAccepted] = {}
        self._ended: dict[TaskId, TaskResult] = {}
        self._delivered: dict[TaskId, None] = {}
        self._texts: dict[TaskId, tuple[list[str], list[str]]] = {}
        for fact in facts:
            # By type and not by `match`: this is the one loop that sees every fact of every task.
            if type(fact) is h.TaskAccepted:
                self._accepted.setdefault(fact.task, fact)
            elif type(fact) is h.TaskEnded:
                self._ended.setdefault(fact.result.task, fact.result)
            elif type(fact) is h.TaskDelivered:
                self._delivered[fact.task] = None
            elif type(fact) is h.TaskText:
                texts = self._texts.setdefault(fact.task, ([], []))
                texts[fact.stream == "stderr"].append(fact.text)
            else:
                self.others.append(fact)

    def touched(self) -> list[TaskId]:
        """Every task that a fact names, in the order of the ids: neighbours share pages."""
        return sorted({*self._accepted, *self._ended, *self._delivered, *self._texts})

    def new_rows(self) -> list[tuple[Any, ...]]:
        """Values of `_TASK_COLUMNS` for the tasks accepted in this run."""
        return [self._new_row(self._accepted[task]) for task in sorted(self._accepted)]

    def _new_row(self, accepted: h.TaskAccepted) -> tuple[Any, ...]:
        task = accepted.task
        options = accepted.options
        call = h.encode_call(accepted)
        result = self._ended.get(task)
        stdout, stderr = self._text(task, result)
        delivered = int(task in self._delivered)
        # Plain numbers: sqlite3 looks for an adapter before it takes an enum or a bool for one.
        head = task, options.kind.value
        names = options.name, options.label
        if result is None:
            times = accepted.engine, accepted.submitted, 0.0, 0.0, delivered, 0
            return *head, None, *times, *names, "", stdout, stderr, b"", call, None
        size = len(call) + len(result.payload) + len(stdout) + len(stderr)
        times = result.engine, accepted.submitted, result.started, result.completed, delivered, size
        blobs = b"".join(result.blobs)
        return (
            *head,
            result.status.value,
            *times,
            *names,
            result.detail,
            stdout,
            stderr,
            blobs,
            call,
            result.payload,
        )

    def _text(self, task: TaskId, result: TaskResult | None) -> tuple[bytes, bytes]:
        texts = self._texts.get(task)
        stdout = "".join(texts[0]) if texts is not None else ""
        stderr = "".join(texts[1]) if texts is not None else ""
        if result is not None:
            stdout += result.stdout
            stderr += result.stderr
        return stdout.encode()[-TEXT_LIMIT_BYTES:], stderr.encode()[-TEXT_LIMIT_BYTES:]

    def late_ends(self) -> list[tuple[Any, ...]]:
        """Ends of tasks that were accepted before this run; with the text that came in it."""
        rows = []
        for task, result in sorted(self._ended.items()):
            if task not in self._accepted:
                stdout, stderr = self._text(task, result)
                rows.append(_end_row(result, stdout, stderr))
        return rows

    def late_texts(self) -> list[tuple[TaskId, bytes, bytes]]:
        late = self._texts.keys() - self._accepted.keys() - self._ended.keys()
        return [(task, *self._text(task, None)) for task in sorted(late)]

    def late_deliveries(self) -> list[TaskId]:
        return sorted(self._delivered.keys() - self._accepted.keys())


def _end_row(result: TaskResult, stdout: bytes, stderr: bytes) -> tuple[Any, ...]:
    times = result.engine, result.started, result.completed
    blobs = b"".join(result.blobs)
    return result.task, result.status.value, *times, result.detail, stdout, stderr, blobs, result.payload
