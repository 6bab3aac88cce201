"""A session that runs everything in this process: real payloads, the real runner, the test's order.

Nothing runs until somebody waits or the test says `step`. Whoever waits runs tasks himself, one at a time, as
the real session lets the waiting thread read the socket. A wait that nothing can end is a failed test after
`PATIENCE_S`.
"""

from __future__ import annotations

import builtins
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from enginery.client.client import Client
from enginery.client.contract import EngineListener, Promise
from enginery.core.ledger import Blob
from enginery.engine.runner import Runner
from enginery.errors import ClientClosed
from enginery.ids import NO_ENGINE, ClientId, EngineId, EngineKey, TaskId, make_task_id, task_number
from enginery.objects.functions import FunctionCache
from enginery.protocol.messages import (
    Answer,
    EngineInfo,
    EngineLeft,
    Kind,
    Record,
    Status,
    StatusAnswer,
    TaskOptions,
    TaskResult,
)

PATIENCE_S = 10.0


@dataclass
class Submission:
    """One call of `submit`."""

    first: TaskId
    options: TaskOptions
    payload: bytes
    blobs: Sequence[Blob]
    engines: tuple[EngineId, ...]
    count: int


@dataclass
class Waiting:
    """A task that has not run."""

    task: TaskId
    submission: Submission
    promise: Promise
    engine: EngineId


class FakeSession:
    def __init__(
        self, engines: Iterable[int] = (0, 1), *, order: Callable[[int], int] = lambda count: 0
    ) -> None:
        self.client_id = ClientId(0x0ABCDEF0)
        self.functions = FunctionCache()
        self.closed = False
        self.end_reason = ""
        self.order = order  # index of the task to run next, out of so many
        self.is_held = False  # nothing runs by itself
        self.submissions: list[Submission] = []
        self.waiting: list[Waiting] = []
        self.verdicts: dict[int, TaskResult] = {}  # by task number: how it ends instead of being run
        self.asked: list[Record] = []
        self.answer_error = ""
        self.item_s = 0.0  # virtual seconds per task, or per item of a map
        self.now = 1_000.0
        self.most_under_way = 0
        self._engines: dict[EngineId, EngineInfo] = {}
        self._runners: dict[EngineId, Runner] = {}
        self._listeners: list[EngineListener] = []
        self._turn = 0
        self._changed = threading.Condition(threading.RLock())
        self._next = 1
        self.join(*engines)

    # ------------------------------------------------------------ the contract

    def submit(
        self,
        options: TaskOptions,
        payload: bytes,
        blobs: Sequence[Blob],
        promises: Sequence[Promise],
        engines: tuple[EngineId, ...] = (),
    ) -> TaskId:
        assert len(promises) == max(1, len(engines))
        if self.closed:
            raise ClientClosed
        with self._changed:
            first = make_task_id(self.client_id, self._next)
            self._next += len(promises)
            submission = Submission(first, options, payload, blobs, engines, len(promises))
            self.submissions.append(submission)
            for number, promise in enumerate(promises):
                engine = engines[number] if engines else NO_ENGINE
                self.waiting.append(Waiting(TaskId(first + number), submission, promise, engine))
            self.most_under_way = max(self.most_under_way, len(self.waiting))
            self._changed.notify_all()
        return first

    def abort(self, tasks: Iterable[TaskId]) -> None:
        wanted = set(tasks)
        with self._changed:
            taken = [entry for entry in self.waiting if entry.task in wanted]
            self.waiting = [entry for entry in self.waiting if entry.task not in wanted]
        for entry in taken:
            entry.promise.on_result(TaskResult(entry.task, Status.ABORTED), ())
        self.notify()

    def wait_until(self, predicate: Callable[[], bool], timeout_s: float | None = None) -> bool:
        while not predicate():
            if timeout_s is not None and timeout_s >= 0 and (self.is_held or timeout_s == 0):
                return False
            if self.closed:
                return predicate()
            if self.is_held or not self.step():
                with self._changed:
                    assert self._changed.wait_for(
                        lambda: predicate() or self.closed or (bool(self.waiting) and not self.is_held),
                        PATIENCE_S,
                    ), "this wait would never end"
        return True

    def notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def ask(self, make: Callable[[int], Record]) -> Future[Answer | StatusAnswer]:
        future: Future[Answer | StatusAnswer] = Future()
        self.asked.append(make(len(self.asked) + 1))
        future.set_result(Answer(len(self.asked), self.answer_error))
        return future

    def engines(self) -> dict[EngineId, EngineInfo]:
        return dict(sorted(self._engines.items()))

    def outstanding(self) -> set[TaskId]:
        return {entry.task for entry in self.waiting}

    def add_engine_listener(self, listener: EngineListener) -> None:
        self._listeners.append(listener)

    def close(self, linger_s: float = 1.0) -> None:
        self.closed = True
        self.end_reason = "this client is closed"
        taken, self.waiting = self.waiting, []
        for entry in taken:
            result = TaskResult(entry.task, Status.REFUSED, detail="this client was closed")
            entry.promise.on_result(result, ())
        self.notify()

    # ------------------------------------------------------------ what the test decides

    def join(self, *engines: int) -> None:
        joined = []
        for number in engines:
            engine = EngineId(number)
            namespace: dict[str, Any] = {"__builtins__": builtins, "__name__": "__main__", "engine": number}
            self._runners[engine] = Runner(namespace, engine=engine, key=f"key{number}")
            self._engines[engine] = EngineInfo(engine, EngineKey(f"key{number}"), "host", 100 + number)
            joined.append(self._engines[engine])
        self._tell(joined, [])

    def leave(self, *engines: int) -> None:
        gone = [self._engines.pop(EngineId(number)) for number in engines]
        self._tell([], [EngineLeft(info.engine, info.key, "stopped") for info in gone])

    def _tell(self, joined: list[EngineInfo], left: list[EngineLeft]) -> None:
        for listener in self._listeners:
            listener(joined, left)
        self.notify()

    def step(self) -> bool:
        """Run one task; False if there is none."""
        with self._changed:
            if not self.waiting:
                return False
            entry = self.waiting.pop(self.order(len(self.waiting)))
        self.run(entry)
        self.notify()
        return True

    def run_all(self) -> None:
        while self.step():
            pass

    def run(self, entry: Waiting) -> None:
        number = task_number(entry.task)
        if number in self.verdicts:
            verdict = self.verdicts[number]
            verdict.task = entry.task
            entry.promise.on_result(verdict, ())
            return
        engine = entry.engine
        if engine == NO_ENGINE:
            choice = entry.submission.options.candidates or tuple(self.engines())
            engine = choice[self._turn % len(choice)]
            self._turn += 1
        call = entry.submission
        blobs = [blob for blob in call.blobs if blob.blob_id != call.options.function]
        function = next((blob.data for blob in call.blobs if blob.blob_id == call.options.function), None)
        outcome = self._runners[engine].run(
            call.options.kind, call.options.function, function, call.payload, [blob.data for blob in blobs]
        )
        started = self.now
        self.now += self.item_s * self._items(call)
        result = TaskResult(
            entry.task,
            outcome.status,
            outcome.packed.inline,
            engine=engine,
            started=started,
            completed=self.now,
        )
        entry.promise.on_result(result, [bytes(buffer) for buffer in outcome.packed.buffers])

    def _items(self, call: Submission) -> int:
        return len(columns_of(call)[0]) if call.options.kind is Kind.MAP else 1


def columns_of(call: Submission) -> Any:
    """The columns in a chunk of a map."""
    from enginery.objects.packing import unpack

    blobs = [blob.data for blob in call.blobs if blob.blob_id != call.options.function]
    return unpack(call.payload, blobs)


def chunk_sizes(session: FakeSession) -> list[int]:
    return [len(columns_of(call)[0]) for call in session.submissions]


def make_client(engines: Iterable[int] = (0, 1), **options: Any) -> tuple[Client, FakeSession]:
    session = FakeSession(engines, **options)
    return Client.over(session, name="test"), session
