"""Set-up that stays, among the other machines: recorded with calls, and made on engines that come.

An engine that is set up gets nothing else meanwhile, see `EngineLoad.setting_up`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from enginery.core.set_up import BYTES_KEPT, STEPS_KEPT, Step
from enginery.core.tasks import Task
from enginery.ids import ClientId, EngineId, TaskId
from enginery.protocol.history import TaskAccepted
from enginery.protocol.link import RECORD_BYTES
from enginery.protocol.messages import (
    Answer,
    AskSetUp,
    Call,
    FailureNote,
    ForgetSetUp,
    KeptStep,
    SetUpAnswer,
    Status,
    TaskOptions,
    text_size,
)

if TYPE_CHECKING:
    from enginery.core.state import ClusterState

HIGHEST_PRIORITY = (1 << 31) - 1
FULL = (
    f"this call is not kept for engines that come later: {STEPS_KEPT} such calls, or {BYTES_KEPT >> 20} MiB, "
    "are kept already; rc.setup() lists them, rc.forget_setup() lets them go"
)


def keep(state: ClusterState, options: TaskOptions, call: Call, tasks: list[Task], *, now: float) -> None:
    """A call has come that is to be made on later engines too."""
    size_bytes = state.blobs.size_bytes(call.blobs)
    if not state.set_up.has_room(size_bytes + len(call.payload)):
        note = FailureNote(
            tasks[0].task_id, options.name, options.label, Status.REFUSED, call.engines[0], FULL, now
        )
        state.failures.append(note)
        return
    step, replaced = state.set_up.on_kept(
        options,
        call.payload,
        call.blobs,
        tuple(map(EngineId, call.engines)),
        tasks=[task.task_id for task in tasks],
        size_bytes=size_bytes,
        now=now,
    )
    state.blobs.hold(step.needed)
    let_go(state, replaced)
    if step.engines:
        return
    # Its client did not know these when it made the call. Those that join just now get all steps.
    for engine in state.registry.engines.keys() - set(call.engines) - state.joining:
        state.scheduler.on_set_up(engine, _tasks(state, engine, [step], now=now), now=now)


def begin(state: ClusterState, engine: EngineId, *, now: float) -> None:
    """This engine has come, and has had nothing to do: first it is set up."""
    steps = state.set_up.of(engine)
    if steps:
        state.scheduler.on_set_up(engine, _tasks(state, engine, steps, now=now), now=now)


def on_ended(state: ClusterState, task: Task, status: Status) -> None:
    """A task has ended whose call is kept."""
    let_go(state, state.set_up.on_ended(task.task_id, has_raised=status is Status.ERROR))


def let_go(state: ClusterState, steps: Iterable[Step]) -> None:
    for step in steps:
        state.blobs.release(step.needed)


def _tasks(state: ClusterState, engine: EngineId, steps: list[Step], *, now: float) -> list[Task]:
    tasks = []
    for step in steps:
        options = msgspec.structs.replace(
            step.options, keep="", keep_for_all=False, retries=0, priority=HIGHEST_PRIORITY
        )
        state.blobs.hold(step.needed)  # the task lets go of them by itself
        task_id: TaskId = state.set_up.new_task()
        accepted = TaskAccepted(task_id, now, options, step.payload, step.blobs, engine, task_id)
        state.remember(accepted, RECORD_BYTES + len(step.payload))
        task = Task(
            task_id,
            options,
            step.payload,
            step.blobs,
            direct=engine,
            size_bytes=step.size_bytes,
            submitted_at=now,
        )
        tasks.append(task)
    return tasks


# ---------------------------------------------------------------- clients


def on_ask_set_up(state: ClusterState, client: ClientId, record: AskSetUp, *, now: float) -> None:
    steps = []
    size_bytes = RECORD_BYTES
    for step in state.set_up.steps:
        what, label = step.options.keep, step.options.label
        steps.append(KeptStep(step.number, what, label, list(step.engines), step.since, step.size_bytes))
        size_bytes += 64 + text_size(what) + text_size(label) + 9 * len(step.engines)
    state.say("client", client, SetUpAnswer(record.request, steps), size_bytes)


def on_forget_set_up(state: ClusterState, client: ClientId, record: ForgetSetUp, *, now: float) -> None:
    numbers = record.steps or [step.number for step in state.set_up.steps]
    let_go(state, state.set_up.forget(numbers))
    state.say("client", client, Answer(record.request))
