"""Why is this task not running? What the records of scheduler and engines say, as a sentence.

Pure functions over what is there: nothing is kept for the sake of being explained.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from enginery.core.engines import EngineLoad
from enginery.core.scheduler import Scheduler
from enginery.core.tasks import Task, TaskState
from enginery.ids import NO_ENGINE, EngineId, TaskId, format_task_id
from enginery.protocol.messages import Reason, Status, TaskResult

NAMED = 3
"""How many tasks or engines a sentence names before it counts the others."""


def explain(scheduler: Scheduler, task_ids: Iterable[TaskId], *, now: float) -> list[Reason]:
    """Why these have not ended, those with the same reason together, in the order of the first of each.

    Tasks that have ended, or were never submitted, are left out.
    """
    found: dict[tuple[str, str], Reason] = {}
    asked = [task for task_id in task_ids if (task := scheduler.task(task_id)) is not None]
    for task in asked:
        why = _why(scheduler, task, now=now, is_alone=len(asked) == 1)
        reason = found.get((task.state.value, why))
        if reason is None:
            where = task.engine if task.engine != NO_ENGINE else task.direct
            found[task.state.value, why] = Reason(1, task.task_id, task.state.value, why, where)
        else:
            reason.tasks += 1
    return list(found.values())


class Phases(NamedTuple):
    """Where the time of a task that has ended went, in seconds; they add up to its whole time."""

    queue: float  # until an engine was given it
    transfer: float  # until the engine began with it; it may have waited there for others
    unpickle: float
    run: float
    pickle: float
    back: float  # from the engine to its client


def phases(result: TaskResult, *, received: float) -> Phases | None:
    """None for a task that never began. Clocks of two hosts differ: nothing is less than no time."""
    if not result.started:
        return None
    sent = result.sent or result.submitted
    inside = max(result.completed - result.started, 0.0)
    unpickle = min(result.unpickle_s, inside)
    pickle = min(result.pickle_s, inside - unpickle)
    return Phases(
        queue=max(sent - result.submitted, 0.0),
        transfer=max(result.started - sent, 0.0),
        unpickle=unpickle,
        run=inside - unpickle - pickle,
        pickle=pickle,
        back=max(received - result.completed, 0.0),
    )


def busy_with(load: EngineLoad, *, now: float) -> tuple[Task | None, float]:
    """What an engine runs, or begins next, and for how many seconds; (None, 0) if it has nothing."""
    first = next(iter(load.in_flight.values()), None)
    if first is None:
        return None, 0.0
    return first, max(now - max(load.last_result_at, first.sent_at), 0.0)


def engine_state(load: EngineLoad) -> str:
    if not load.connected:
        return "disconnected"
    if load.setting_up:
        return "set up"
    if load.lent_to:
        return "waiting"
    return "busy" if load.in_flight else "idle"


def _why(scheduler: Scheduler, task: Task, *, now: float, is_alone: bool) -> str:
    if task.state is TaskState.WAITING:
        return _why_waiting(scheduler, task)
    if task.engine != NO_ENGINE:
        load = scheduler.load(task.engine)
        assert load is not None, task
        return _why_in_engine(load, task, now)
    if task.direct != NO_ENGINE:
        load = scheduler.load(task.direct)
        assert load is not None, task
        before = f"; {_count(load.direct.ahead_of(task), 'task')} before it" if is_alone else ""
        return f"it is addressed to engine {task.direct}, which {_occupation(load, now)}{before}"
    return _why_ready(scheduler, task, is_alone=is_alone)


def _why_waiting(scheduler: Scheduler, task: Task) -> str:
    if scheduler.is_resting(task):
        tried = task.options.retries - task.retries_left
        return f"it has failed {_count(tried, 'time')} and rests for a moment before it is tried again"
    after, follow, unknown = scheduler.open_dependencies(task)
    parts = []
    if after:
        parts.append(f"it comes after {_tasks(after)}, not ended yet")
    if follow:
        parts.append(f"it follows {_tasks(follow)}, not ended yet, to the same engine")
    if unknown:
        parts.append(f"the history is being asked about {_tasks(unknown)}")
    return "; ".join(parts) or "what it depends on is about to be decided"


def _why_in_engine(load: EngineLoad, task: Task, now: float) -> str:
    away = "" if load.connected else ", which is disconnected: it may run on, and is given up after a grace"
    first, for_s = busy_with(load, now=now)
    if first is task or task.state is TaskState.RUNNING:
        return f"it runs on engine {load.engine}{away or f', for {for_s:.1f} s'}{_how_it_ends(task)}"
    if away:
        return f"it was given to engine {load.engine}{away}"
    return f"engine {load.engine} has it and {_occupation(load, now)}; it can still be taken back"


def _how_it_ends(task: Task) -> str:
    """What somebody, or its limit, wants of a task that runs."""
    if task.overdue:
        return f"; {task.overdue}, and its engine is to be replaced, if its host can do that"
    if task.wanted_end is Status.CANCELLED:
        grace = "" if task.grace_s < 0 else f"; if that takes more than {task.grace_s:g} s, it is replaced"
        return f"; it has been cancelled, and its engine is to end it{grace}"
    return ""


def _why_ready(scheduler: Scheduler, task: Task, *, is_alone: bool) -> str:
    loads = scheduler.loads
    if not loads:
        return "there is no engine; start some with `enginery engine` or `Cluster.start_engines`"
    engines, refused, failed, _ = task.destination
    allowed = [load for load in loads if not engines or load.engine in engines]
    kept_from = []
    if engines:
        kept_from.append(f"it may only run on engine {_names(engines)}")
    said_no = [load.engine for load in allowed if load.life in refused]
    if said_no:
        kept_from.append(f"engine {_names(said_no)} refused it ({task.unmet})")
    spoilt = [load.engine for load in allowed if load.life in failed]
    if spoilt:
        kept_from.append(f"it has failed on engine {_names(spoilt)} and is to be tried on another")
    left = [load for load in allowed if load.life not in refused and load.life not in failed]
    if not left:
        kept_from.append("of the engines that are left none is free")
    elif all(not load.connected for load in left):
        kept_from.append(f"engine {_names([load.engine for load in left])} is disconnected")
    elif all(load.in_flight for load in left):
        kept_from.append(f"each of the {_count(len(left), 'engine')} that could take it has work to do")
    else:
        kept_from.append("it is about to be given to an engine")
    if is_alone:
        ahead = scheduler.ahead_of(task)
        if ahead:
            kept_from.append(f"{_count(ahead, 'task')} of its priority or a higher one came before it")
    return "; ".join(kept_from)


def _occupation(load: EngineLoad, now: float) -> str:
    if not load.connected:
        return "is disconnected"
    first, for_s = busy_with(load, now=now)
    if first is None:
        return "is about to get it"
    if load.setting_up:
        return f"is set up first, {_count(len(load.setting_up), 'step')} to go"
    name = f" ({first.options.name})" if first.options.name else ""
    return f"is busy with task {format_task_id(first.task_id)}{name}, for {for_s:.1f} s"


def _tasks(task_ids: Iterable[TaskId]) -> str:
    named = [format_task_id(task_id) for task_id in sorted(task_ids)]
    return f"{'task' if len(named) == 1 else 'tasks'} {_first(named)}"


def _names(engines: Iterable[EngineId]) -> str:
    return _first([str(engine) for engine in sorted(engines)])


def _first(names: list[str]) -> str:
    others = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {others} more" if others > 0 else "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
