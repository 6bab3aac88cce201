"""What there is to see of a result: how far it is, where it runs, what went wrong first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from enginery.client.contract import TaskSession
from enginery.client.glance import Glance
from enginery.client.results.outcome import Outcome
from enginery.client.snapshots import ResultSnapshot, ResultState, Standing
from enginery.ids import NO_ENGINE, TaskId
from enginery.protocol.messages import StatusAnswer


class Shown(Protocol):
    """A result, as far as it is shown."""

    _outcomes: list[Any]
    _origin: Any

    @property
    def task_ids(self) -> list[TaskId]: ...

    def done(self) -> bool: ...

    def standing(self) -> Standing: ...


def snapshot_of(result: Shown, session: TaskSession, glance: Glance, *, may_wait: bool) -> ResultSnapshot:
    """What there is to see now. The controller is asked only what runs, and only before the end."""
    standing = result.standing()
    outcomes: list[Outcome] = list(result._outcomes)
    is_over = result.done()
    status: StatusAnswer | None = None
    if not is_over and not session.closed:
        status, _ = glance.look(session, may_wait=may_wait)
    ran = {outcome.result.engine for outcome in outcomes if outcome.result is not None}
    running = _running(status, result.task_ids)
    where = ran if is_over or running is None else running
    return ResultSnapshot(
        kind=type(result).__name__,
        state=_state(standing, is_over=is_over, is_running=bool(running) or standing.done > 0),
        standing=standing,
        label=result._origin.label,
        engines=tuple(sorted(int(engine) for engine in where if engine != NO_ENGINE)),
        running=None if running is None else len(running),
        serial_s=sum(outcome.duration_s for outcome in outcomes) if is_over else 0.0,
        error=_first_error(outcomes),
        end=session.end_reason if session.closed and not is_over else "",
    )


def _running(status: StatusAnswer | None, ids: Sequence[TaskId]) -> set[int] | None:
    """The engines that run one of these tasks, as far as the controller knows; None if it has not said."""
    if status is None:
        return None
    own = set(ids)
    return {int(engine.engine) for engine in status.engines if engine.task in own}


def _state(standing: Standing, *, is_over: bool, is_running: bool) -> ResultState:
    if not is_over:
        return "running" if is_running else "waiting"
    if standing.failed:
        return "failed"
    return "cancelled" if standing.cancelled else "done"


def _first_error(outcomes: Sequence[Outcome]) -> str:
    return next((outcome.error_line for outcome in outcomes if outcome.has_failed), "")
