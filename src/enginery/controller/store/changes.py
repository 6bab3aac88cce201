"""What a run of facts amounts to, task by task: the rows that `tables` writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from enginery.controller.store.store import TEXT_LIMIT_BYTES, publish, valid_time
from enginery.ids import NO_ENGINE, TaskId
from enginery.protocol import history as h
from enginery.protocol.history import HistoryFact


class Changes:
    """Facts sorted by task.

    Facts about tasks that were accepted in the same run become part of their new rows; the others are late.
    """

    def __init__(self, facts: Iterable[HistoryFact]) -> None:
        self.others: list[HistoryFact] = []
        self._accepted: dict[TaskId, h.TaskAccepted] = {}
        self._ended: dict[TaskId, h.TaskEnded] = {}
        self._delivered: dict[TaskId, None] = {}
        self._texts: dict[TaskId, tuple[list[str], list[str]]] = {}
        self._published: dict[TaskId, list[h.TaskData | h.TaskDisplay | h.TaskEnded]] = {}
        self._purged: set[TaskId] = set()
        self.buffers: dict[TaskId, h.BuffersKept] = {}
        self._released: dict[TaskId, None] = {}
        self._moved: dict[TaskId, tuple[str, int, int]] = {}
        for fact in facts:
            # By type and not by `match`: this is the one loop that sees every fact of every task.
            if type(fact) is h.TaskAccepted:
                self._accepted.setdefault(fact.task, fact)
            elif type(fact) is h.TaskEnded:
                self._end(fact)
            elif type(fact) is h.TaskDelivered:
                self._delivered[fact.task] = None
            elif type(fact) is h.TaskText:
                self._write(fact.task, fact.text, is_error=fact.stream == "stderr")
            elif type(fact) is h.TaskData or type(fact) is h.TaskDisplay:
                self._published.setdefault(fact.task, []).append(fact)
            elif type(fact) is h.TasksPurged:
                self._purged.update(fact.tasks)
            elif type(fact) is h.BuffersKept:
                self.buffers[fact.task] = fact
            elif type(fact) is h.ResultsReleased:
                self._released.update(dict.fromkeys(fact.tasks))
            elif type(fact) is h.TasksMoved:
                key = fact.key
                for task, attempt, retries_left in fact.places:
                    self._moved[task] = key, attempt, retries_left
            else:
                self.others.append(fact)

    def _end(self, fact: h.TaskEnded) -> None:
        result = fact.result
        if self._ended.setdefault(result.task, fact) is fact:
            # In its place: what the task has left running may have written since.
            self._write(result.task, result.stdout, is_error=False)
            self._write(result.task, result.stderr, is_error=True)
            if result.report is not None:
                self._published.setdefault(result.task, []).append(fact)

    def _write(self, task: TaskId, text: str, *, is_error: bool) -> None:
        if text:
            self._texts.setdefault(task, ([], []))[is_error].append(text)

    def touched(self) -> list[TaskId]:
        """Every task that a fact names, in the order of the ids: neighbours share pages."""
        named = (self._accepted, self._ended, self._delivered, self._texts, self._published, self._purged)
        return sorted(set().union(*named, self.buffers, self._released))

    def new_rows(self) -> list[tuple[Any, ...]]:
        """Values of `_TASK_COLUMNS` for the tasks accepted in this run."""
        return [self._new_row(self._accepted[task]) for task in sorted(self._accepted)]

    def _new_row(self, accepted: h.TaskAccepted) -> tuple[Any, ...]:
        task = accepted.task
        options = accepted.options
        call = h.encode_call(accepted)
        ended = self._ended.get(task)
        stdout, stderr = self._text(task)
        published = b""
        if task in self._published:
            sum_of_all = h.Published()
            self.publish(task, sum_of_all)
            published = h.encode_published(sum_of_all)
        # Plain numbers: sqlite3 looks for an adapter before it takes an enum or a bool for one.
        head = task, accepted.first or task, options.kind.value
        direct = int(accepted.engine != NO_ENGINE)
        delivered = int(task in self._delivered)
        names = options.name, options.label
        submitted = valid_time(accepted.submitted)
        if ended is None:
            middle = accepted.engine, "", direct, submitted, 0.0, 0.0, delivered, 0, 0, 0
            return *head, None, *middle, *names, "", stdout, stderr, b"", published, call, None
        result = ended.result
        size = len(call) + len(result.payload) + len(stdout) + len(stderr) + len(published)
        times = submitted, valid_time(result.started), valid_time(result.completed)
        owed = int(ended.is_owed)
        middle = result.engine, result.engine_key, direct, *times, delivered, 0 if owed else size, 0, owed
        blobs = b"".join(result.blobs)
        payloads = stdout, stderr, blobs, published, call, result.payload
        return *head, result.status.value, *middle, *names, result.detail, *payloads

    def _text(self, task: TaskId) -> tuple[bytes, bytes]:
        texts = self._texts.get(task)
        if texts is None:
            return b"", b""
        stdout, stderr = ("".join(pieces).encode()[-TEXT_LIMIT_BYTES:] for pieces in texts)
        return stdout, stderr

    def late_ends(self) -> list[tuple[Any, ...]]:
        """Ends of tasks that were accepted before this run; with the text that came in it."""
        rows = []
        for task, ended in sorted(self._ended.items()):
            if task not in self._accepted:
                stdout, stderr = self._text(task)
                rows.append(_end_row(ended, stdout, stderr))
        return rows

    def late_texts(self) -> list[tuple[TaskId, bytes, bytes]]:
        late = self._texts.keys() - self._accepted.keys() - self._ended.keys()
        return [(task, *self._text(task)) for task in sorted(late)]

    def late_deliveries(self) -> list[TaskId]:
        return sorted(self._delivered.keys() - self._accepted.keys())

    def late_publishers(self) -> list[TaskId]:
        """Tasks accepted before this run that have published or displayed something in it."""
        return sorted(self._published.keys() - self._accepted.keys())

    def publish(self, task: TaskId, published: h.Published) -> None:
        """Add what a task has published and displayed in this run to what it had before."""
        for fact in self._published.get(task, ()):
            publish(published, fact)

    def places(self) -> list[tuple[TaskId, str, int, int]]:
        """Where tasks are that have not ended in this run, as far as they have moved in it."""
        return [(task, *self._moved[task]) for task in sorted(self._moved.keys() - self._ended.keys())]

    def left_places(self) -> list[TaskId]:
        """Tasks that have ended in this run, and may have been somewhere before."""
        return sorted(self._ended.keys() - self._accepted.keys())

    def released(self) -> list[TaskId]:
        return sorted(self._released)

    def purged(self) -> list[TaskId]:
        return sorted(self._purged)


def _end_row(ended: h.TaskEnded, stdout: bytes, stderr: bytes) -> tuple[Any, ...]:
    result = ended.result
    where = result.engine, result.engine_key, valid_time(result.started), valid_time(result.completed)
    payloads = stdout, stderr, b"".join(result.blobs), result.payload
    return result.task, result.status.value, *where, result.detail, *payloads, int(ended.is_owed)
