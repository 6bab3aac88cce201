"""A session that runs everything in this process: real payloads, the real runner, the test's order.

Nothing runs until somebody waits or the test says `step`. Whoever waits runs tasks himself, one at a time, as
the real session lets the waiting thread read the socket. A wait that nothing can end is a failed test after
`PATIENCE_S`.
"""

from __future__ import annotations

import builtins
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from enginery.client.client import Client
from enginery.client.contract import AnyAnswer, EngineListener, Promise
from enginery.client.ticking import Tickers
from enginery.core.submissions import Blob
from enginery.core.wishes import ABORT, Wish
from enginery.core.workload import Attempt
from enginery.engine.interrupts import Interrupts
from enginery.engine.runner import Runner
from enginery.errors import ClientClosed
from enginery.ids import NO_ENGINE, ClientId, EngineId, EngineKey, TaskId, make_task_id, task_number
from enginery.objects.functions import FunctionCache
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import (
    Answer,
    EngineInfo,
    EngineLeft,
    Kind,
    MemoryUse,
    Record,
    Status,
    TaskOptions,
    TaskResult,
)
from tests.unit.client.fake_hub import FakeHub

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
        self.aborted: list[TaskId] = []
        self.cancelled: list[TaskId] = []
        self.wishes: list[Wish] = []
        self.unwanted: dict[TaskId, set[int]] = {}
        self.priorities: dict[TaskId, int] = {}
        self.cancel_grace_s: float | None = None
        self.later: deque[Callable[[], object]] = deque()  # happens while somebody waits, one by one
        self._silent: list[tuple[Future[AnyAnswer], Record]] = []
        self.answer_error = ""  # of all answers
        self.is_silent = False  # questions are not answered
        self.hub = FakeHub()
        self.followers: dict[TaskId, list[Promise]] = {}
        self.item_s = 0.0  # virtual seconds per task, or per item of a map
        self.now = 1_000.0
        self.most_under_way = 0
        self._engines: dict[EngineId, EngineInfo] = {}
        self._runners: dict[EngineId, Runner] = {}
        self._interrupts: dict[EngineId, Interrupts] = {}
        self._listeners: list[EngineListener] = []
        self._end_listeners: list[Callable[[str], object]] = []
        self.tickers = Tickers(lambda: None)
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
        *,
        first: TaskId | None = None,
    ) -> TaskId:
        assert len(promises) == max(1, len(engines))
        if self.closed:
            raise ClientClosed
        with self._changed:
            task = make_task_id(self.client_id, self._next)
            self._next += len(promises)
            submission = Submission(task, options, payload, blobs, engines, len(promises))
            self.submissions.append(submission)
            for number, promise in enumerate(promises):
                engine = engines[number] if engines else NO_ENGINE
                one = TaskId(task + number)
                self.waiting.append(Waiting(one, submission, promise, engine))
                self.hub.on_submitted(one, options, payload, blobs, engine, now=self.now, first=first or task)
            self.most_under_way = max(self.most_under_way, len(self.waiting))
            self._changed.notify_all()
        return task

    def mark(self) -> int:
        return self._next

    def cancel_since(self, mark: int) -> list[TaskId]:
        with self._changed:
            tasks = [one.task for one in self.waiting if task_number(one.task) >= mark]
        if tasks and not self.closed:
            self.withdraw(tasks, Wish(True, self.cancel_grace_s))
        return tasks

    def withdraw(self, tasks: Iterable[TaskId], wish: Wish = ABORT) -> None:
        wanted = set(tasks)
        (self.cancelled if wish.cancels else self.aborted).extend(sorted(wanted))
        self.wishes.append(wish)
        with self._changed:
            taken = [entry for entry in self.waiting if entry.task in wanted]
            self.waiting = [entry for entry in self.waiting if entry.task not in wanted]
        for entry in taken:
            self.end(entry.promise, TaskResult(entry.task, wish.status))
        self.notify()

    def cancel_items(self, task: TaskId, items: Iterable[int]) -> None:
        self.unwanted.setdefault(task, set()).update(items)

    def set_priority(self, tasks: Iterable[TaskId], priority: int) -> None:
        self.priorities.update(dict.fromkeys(tasks, priority))

    def wait_until(self, predicate: Callable[[], bool], timeout_s: float | None = None) -> bool:
        while not predicate():
            if self.later and timeout_s != 0:
                self.later.popleft()()
                continue
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

    def ask(self, make: Callable[[int], Record]) -> Future[AnyAnswer]:
        if self.closed:
            raise ClientClosed
        future: Future[AnyAnswer] = Future()
        record = make(len(self.asked) + 1)
        self.asked.append(record)
        if self.answer_error:
            future.set_result(Answer(len(self.asked), self.answer_error))
        elif self.is_silent:
            self._silent.append((future, record))
        else:
            future.set_result(self.hub.answer(record))
        return future

    def answer_last(self) -> None:
        """Answer what was asked last while it was silent."""
        future, record = self._silent.pop()
        future.set_result(self.hub.answer(record))

    def follow(self, promises: Mapping[TaskId, Promise]) -> None:
        if self.closed:
            raise ClientClosed
        for task, promise in promises.items():
            known = self.hub.tasks.get(task)
            if known is None:
                promise.on_result(TaskResult(task, Status.UNKNOWN), ())
            elif known.result is not None:
                promise.on_result(known.result, known.buffers)
            else:
                self.followers.setdefault(task, []).append(promise)

    def is_accepted(self, tasks: Iterable[TaskId]) -> bool:
        return not self.outstanding().intersection(tasks)

    def promise(self, task: TaskId) -> Promise | None:
        own = next((entry.promise for entry in self.waiting if entry.task == task), None)
        return own or next(iter(self.followers.get(task, ())), None)

    def options(self, task: TaskId) -> TaskOptions | None:
        return next((entry.submission.options for entry in self.waiting if entry.task == task), None)

    def engines(self) -> dict[EngineId, EngineInfo]:
        return dict(sorted(self._engines.items()))

    def outstanding(self) -> set[TaskId]:
        return {entry.task for entry in self.waiting}

    def is_outstanding(self, task: TaskId) -> bool:
        return task in self.outstanding()

    def memory_use(self, *, free: bool = False) -> MemoryUse:
        return MemoryUse()

    def add_engine_listener(self, listener: EngineListener) -> None:
        self._listeners.append(listener)

    def add_end_listener(self, listener: Callable[[str], object]) -> None:
        self._end_listeners.append(listener)

    def close(self, linger_s: float = 1.0) -> None:
        self.closed = True
        self.end_reason = "this client is closed"
        taken, self.waiting = self.waiting, []
        for entry in taken:
            self.end(entry.promise, TaskResult(entry.task, Status.REFUSED, detail="this client was closed"))
        followers, self.followers = self.followers, {}
        for task, promises in followers.items():
            for promise in promises:
                promise.on_result(TaskResult(task, Status.REFUSED, detail="this client was closed"), ())
        for runner in self._runners.values():
            runner.close()
        while self._end_listeners:
            self._end_listeners.pop()(self.end_reason)
        self.notify()

    # ------------------------------------------------------------ what the test decides

    def join(self, *engines: int, life: str = "") -> None:
        joined = []
        for number in engines:
            engine = EngineId(number)
            namespace: dict[str, Any] = {"__builtins__": builtins, "__name__": "__main__", "engine": number}
            interrupts = self._interrupts[engine] = Interrupts()
            self._runners[engine] = Runner(
                namespace, engine=engine, key=f"key{life}{number}", interrupts=interrupts
            )
            self._engines[engine] = EngineInfo(engine, EngineKey(f"key{life}{number}"), "host", 100 + number)
            joined.append(self._engines[engine])
        self.tell(joined, [])

    def leave(self, *engines: int) -> None:
        gone = [self._engines.pop(EngineId(number)) for number in engines]
        self.tell([], [EngineLeft(info.engine, info.key, "stopped") for info in gone])

    def tell(self, joined: list[EngineInfo], left: list[EngineLeft]) -> None:
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
            self.end(entry.promise, verdict)
            return
        engine = entry.engine
        if engine == NO_ENGINE:
            choice = entry.submission.options.candidates or tuple(self.engines())
            engine = choice[self._turn % len(choice)]
            self._turn += 1
        call = entry.submission
        blobs = [blob for blob in call.blobs if blob.blob_id != call.options.function]
        function = next((blob.data for blob in call.blobs if blob.blob_id == call.options.function), None)
        attempt: Attempt = (entry.task, 1)
        interrupts = self._interrupts[engine]
        interrupts.skip(attempt, self.unwanted.get(entry.task, ()), is_running=False)
        interrupts.begin(attempt)
        outcome = self._runners[engine].run(
            call.options.kind,
            call.options.function,
            function,
            call.payload,
            [blob.data for blob in blobs],
            writeable=call.options.writeable,
        )
        interrupts.end()
        started = self.now
        self.now += self.item_s * self._items(call)
        result = TaskResult(
            entry.task,
            outcome.status,
            outcome.packed.inline,
            engine=engine,
            started=started,
            completed=self.now,
            engine_key=EngineKey(f"key{engine}"),
        )
        self.end(entry.promise, result, [bytes(buffer) for buffer in outcome.packed.buffers])

    def end(self, promise: Promise | None, result: TaskResult, buffers: Sequence[Buffer] = ()) -> None:
        """A task has ended: `promise` is that of its call, if it is of this client."""
        self.hub.on_ended(result, buffers)
        for told in ([] if promise is None else [promise]) + self.followers.pop(result.task, []):
            told.on_result(result, buffers)

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
