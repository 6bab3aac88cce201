"""Small records for tests of the core, and an outbox that writes down what it is told."""

from __future__ import annotations

from enginery.core.dependencies import ENDS_KEPT
from enginery.core.placement import Placement
from enginery.core.scheduler import Scheduler
from enginery.core.tasks import Task
from enginery.ids import (
    NO_ENGINE,
    BlobId,
    ClientId,
    EngineId,
    TaskId,
    content_id,
    format_task_id,
    make_task_id,
    task_number,
)
from enginery.protocol.messages import Call, Dependency, EngineResult, Kind, Status, TaskOptions, TaskResult

CLIENT = ClientId(1)
SOURCE = b"def f(): ..."
F = content_id([SOURCE])


def options(function: BlobId = F, **fields: object) -> TaskOptions:
    return TaskOptions(Kind.CALL, function, "f", **fields)  # type: ignore[arg-type]


def task_id(number: int, client: ClientId = CLIENT) -> TaskId:
    return make_task_id(client, number)


def make_task(number: int = 1, *, direct: EngineId = NO_ENGINE, **fields: object) -> Task:
    return Task(
        task_id(number), options(**fields), b"", (), direct=direct, size_bytes=10, submitted_at=0.0
    )  # fmt: skip


def result(
    number: int,
    attempt: int = 1,
    status: Status = Status.OK,
    *,
    started: float = 1.0,
    completed: float = 1.1,
    error: str = "",
) -> EngineResult:
    return EngineResult(task_id(number), attempt, status, b"", (), started, completed, error=error)


def on(*numbers: int, client: ClientId = CLIENT, **fields: bool) -> Dependency:
    """A dependency on tasks of one client."""
    return Dependency(tuple(task_id(number, client) for number in numbers), **fields)


class Effects:
    """A scheduler's outbox; `said` is what it was told, as short lines."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.ended: dict[int, TaskResult] = {}

    def take(self) -> list[str]:
        said, self.said = self.said, []
        return said

    def run(self, engine: EngineId, task: Task, *, announce: bool) -> None:
        self.said.append(f"run {task_number(task.task_id)}.{task.attempt} on {engine}")

    def take_back(self, engine: EngineId, calls: list[tuple[TaskId, int]]) -> None:
        asked = " ".join(f"{task_number(task)}.{attempt}" for task, attempt in calls)
        self.said.append(f"take {asked} back from {engine}")

    def end_calls(self, engine: EngineId, calls: list[tuple[TaskId, int]], grace_s: float) -> None:
        asked = " ".join(f"{task_number(task)}.{attempt}" for task, attempt in calls)
        self.said.append(f"end {asked} on {engine} within {grace_s:g} s")

    def skip_items(self, engine: EngineId, task: Task) -> None:
        items = " ".join(map(str, task.skipped))
        self.said.append(f"skip {items} of {task_number(task.task_id)}.{task.attempt} on {engine}")

    def replace(self, engine: EngineId, task: Task, *, now: float) -> None:
        self.said.append(f"replace {engine} for {task_number(task.task_id)}")

    def finish(self, task: Task, result: TaskResult) -> None:
        number = task_number(task.task_id)
        assert number not in self.ended, f"task {number} ends twice"
        self.ended[number] = result
        self.said.append(f"end {number} {result.status.name}")

    def waits_again(self, task: Task) -> None:
        pass

    def look_up(self, task: TaskId, ids: tuple[TaskId, ...]) -> None:
        self.said.append(f"look up {' '.join(map(format_task_id, ids))} for {task_number(task)}")

    def release(self, task: Task, engine: EngineId) -> None:
        pass


class Bench:
    """A scheduler with engines, and one-line ways to tell it things; `check` runs after each."""

    def __init__(
        self,
        engines: int = 1,
        *,
        placement: Placement | None = None,
        effects: Effects | None = None,
        ends_kept: int = ENDS_KEPT,
    ) -> None:
        self.effects = effects or Effects()
        self.scheduler = Scheduler(self.effects, placement, ends_kept=ends_kept)
        self.now = 1.0
        self.number = 0
        for engine in range(engines):
            self.scheduler.on_engine_joined(EngineId(engine))

    def submit(self, count: int = 1, *, engines: tuple[int, ...] = (), **fields: object) -> list[int]:
        """Submit calls; returns the tasks' numbers."""
        shared = options(**fields)
        numbers = []
        for _ in range(count):
            call = Call(self.number + 1, b"", (), tuple(map(EngineId, engines)))
            tasks = self.scheduler.on_submitted(CLIENT, shared, call, now=self.now)
            self.number += len(tasks)
            numbers += [task_number(task.task_id) for task in tasks]
        return numbers

    def settle(self) -> list[str]:
        """Dispatch, and return what was said since the last time."""
        self.scheduler.dispatch(now=self.now)
        self.scheduler.check()
        return self.effects.take()

    def finish(
        self,
        engine: int,
        number: int,
        attempt: int = 1,
        status: Status = Status.OK,
        *,
        took_s: float = 0.1,
        error: str = "",
        error_types: tuple[str, ...] = (),
    ) -> bool:
        self.now += took_s
        answer = result(number, attempt, status, started=self.now - took_s, completed=self.now, error=error)
        answer.error_types = error_types
        return self.scheduler.on_result(EngineId(engine), answer, now=self.now)

    def lose(self, engine: int, started: set[int] | None = None, status: Status = Status.ENGINE_DIED) -> None:
        proof = None if started is None else {task_id(number) for number in started}
        self.scheduler.on_engine_gone(
            EngineId(engine), cause="killed", status=status, started=proof, now=self.now
        )

    def tick(self, after_s: float) -> list[str]:
        self.now += after_s
        self.scheduler.on_tick(now=self.now)
        return self.settle()

    def rest(self) -> list[str]:
        """Let time pass until the next task that has failed is to be tried again."""
        until = self.scheduler._resting.next_deadline()
        assert until is not None, "no task rests"
        return self.tick(max(until - self.now, 0.0))

    def teach(self, duration_s: float, **fields: object) -> None:
        """Have one task of this duration run, so that the function's tasks are expected to take as long."""
        (number,) = self.submit(**fields)
        self.settle()
        load = next(
            load
            for engine in range(10)
            if (load := self.scheduler.load(EngineId(engine))) is not None
            and task_id(number) in load.in_flight
        )
        assert self.finish(load.engine, number, took_s=duration_s)
        self.settle()
