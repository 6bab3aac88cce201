"""How everything on one host comes to its end: controller, supervisor, engines, as their parent sees them.

Once a household is ending it ends. The supervisor ends the engines, because it explains how they died; if the
supervisor is gone, the parent does so itself. What is left after the grace is killed.

A controller that was killed, or has failed, is started again where that is wanted: at once, and no more than
`COMEBACKS` times in `COMEBACKS_S`. One that ends by itself was told to, and everything ends with it. A
supervisor that was killed is replaced in the same way, always where it is a process of its own: nothing is
needed for that but what the parent knows, and engines do not notice.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from enginery.core.supervision import KILL_INTERVAL_S, STOP_GRACE_S
from enginery.ids import EngineKey

CONTROLLER_GRACE_S = 2.0
"""How long a controller whose host has left may take to end by itself."""
MARGIN_S = 0.5
"""The parent's grace is longer than the supervisor's by this, so that the supervisor can report."""


COMEBACKS = 5
COMEBACKS_S = 60.0
PAUSE_S = 0.5
"""Between the end of a controller that was started again lately and the start of the next one."""


class HouseholdOutbox(Protocol):
    def restart_controller(self, cause: str) -> None:
        """Start another controller on what the one before has left; say `on_controller_started`."""

    def replace_supervisor(self) -> None:
        """Start another supervisor for the engines that there are; say `on_supervisor_started`."""

    def end_supervisor(self, reason: str) -> None:
        """Tell the supervisor to stop all engines and to leave."""

    def terminate_engines(self) -> None: ...

    def terminate_controller(self) -> None: ...

    def kill_all(self) -> None:
        """Kill whatever is left."""


class Comebacks:
    """When a process that has died is started again: at once, after a pause if it did so lately, or never."""

    def __init__(self) -> None:
        self._deaths: deque[float] = deque(maxlen=COMEBACKS)
        self.due: float | None = None  # when the next one is to be started

    def __repr__(self) -> str:
        return f"<Comebacks: {len(self._deaths)} deaths lately>"

    def plan(self, *, now: float) -> bool:
        """It has died. False if it did so too often to be started again."""
        while self._deaths and self._deaths[0] < now - COMEBACKS_S:
            self._deaths.popleft()
        if len(self._deaths) == COMEBACKS:
            return False
        self.due = now + (PAUSE_S if self._deaths else 0.0)
        self._deaths.append(now)
        return True

    def take_due(self, *, now: float) -> bool:
        """Whether it is to be started now."""
        if self.due is None or self.due > now:
            return False
        self.due = None
        return True


class Household:
    """All processes of one host, seen by their parent. Once it is ending it ends."""

    def __init__(
        self,
        *,
        stop_grace_s: float = STOP_GRACE_S,
        restarts_controller: bool = False,
        replaces_supervisor: bool = False,
    ) -> None:
        self._stop_grace_s = stop_grace_s
        self._restarts_controller = restarts_controller
        self._replaces_supervisor = replaces_supervisor
        self._controllers, self._supervisors = Comebacks(), Comebacks()
        self._cause = ""  # of the end of the controller that is started again
        self._has_controller = False
        self._has_supervisor = False
        self._engines: set[EngineKey] = set()
        self._terminate_at: float | None = None
        self._kill_at: float | None = None
        self.reason = ""  # why it is ending; empty = it is not
        self.has_failed = False

    def __repr__(self) -> str:
        state = f"ending because {self.reason}" if self.reason else "running"
        return f"<Household {state}, {self._describe()}>"

    @property
    def is_ending(self) -> bool:
        return bool(self.reason)

    @property
    def is_over(self) -> bool:
        """Everybody has left."""
        is_coming_back = self._controllers.due is not None or self._supervisors.due is not None
        return not (is_coming_back or self._has_controller or self._has_supervisor or self._engines)

    # ------------------------------------------------------------ facts

    def on_controller_started(self) -> None:
        self._has_controller = True

    def on_supervisor_started(self) -> None:
        self._has_supervisor = True

    def on_engine_started(self, key: EngineKey) -> None:
        self._engines.add(key)

    def on_engine_exited(self, key: EngineKey) -> None:
        self._engines.discard(key)

    def on_controller_exited(self, cause: str, *, clean: bool, now: float, outbox: HouseholdOutbox) -> None:
        self._has_controller = False
        self._terminate_at = None
        may_come_back = self._restarts_controller and not clean and not self.is_ending
        if may_come_back and self._controllers.plan(now=now):
            self._cause = cause
            self.on_tick(now=now, outbox=outbox)
            return
        self.on_end_asked(f"the controller has ended: {cause}", failed=not clean, now=now, outbox=outbox)

    def on_supervisor_died(self, *, now: float, outbox: HouseholdOutbox) -> None:
        """It is gone, and has not said that it would go."""
        self._has_supervisor = False
        if self._replaces_supervisor and not self.is_ending and self._supervisors.plan(now=now):
            self.on_tick(now=now, outbox=outbox)
            return
        self.on_supervisor_left(orderly=False, now=now, outbox=outbox)

    def on_supervisor_left(self, *, orderly: bool, now: float, outbox: HouseholdOutbox) -> None:
        """It is gone; `orderly` if it said that it would go because its engines have."""
        self._has_supervisor = False
        if not self.is_ending and not orderly:
            self.on_end_asked("the supervisor has died", failed=True, now=now, outbox=outbox)
            return
        if self._engines:
            outbox.terminate_engines()
        if not self.is_ending:
            # The cluster was told to stop. Its controller knows and goes when it has said everything.
            self.reason = "all engines were told to stop"
            self._controllers.due = None
            self._terminate_at = now + CONTROLLER_GRACE_S if self._has_controller else None
            self._kill_at = now + CONTROLLER_GRACE_S + self._stop_grace_s

    def on_end_asked(self, reason: str, *, failed: bool = False, now: float, outbox: HouseholdOutbox) -> None:
        """Bring everything to an end. Asking again changes nothing."""
        if self.is_ending:
            return
        self.reason = reason
        self.has_failed = failed
        self._controllers.due = self._supervisors.due = None
        self._kill_at = now + self._stop_grace_s + MARGIN_S
        if self._has_supervisor:
            outbox.end_supervisor(reason)
        elif self._engines:
            outbox.terminate_engines()
        if self._has_controller:
            outbox.terminate_controller()

    # ------------------------------------------------------------ time

    def next_deadline(self) -> float | None:
        deadlines = (self._terminate_at, self._kill_at, self._controllers.due, self._supervisors.due)
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def on_tick(self, *, now: float, outbox: HouseholdOutbox) -> None:
        if self._supervisors.take_due(now=now):
            outbox.replace_supervisor()
        if self._controllers.take_due(now=now):
            outbox.restart_controller(self._cause)
        if self._terminate_at is not None and self._terminate_at <= now:
            self._terminate_at = None
            outbox.terminate_controller()
        if self._kill_at is not None and self._kill_at <= now:
            self._kill_at = now + KILL_INTERVAL_S
            outbox.kill_all()

    # ------------------------------------------------------------ looking

    def statistics(self) -> dict[str, int]:
        return {
            "controllers": int(self._has_controller),
            "supervisors": int(self._has_supervisor),
            "engines": len(self._engines),
        }

    def check(self) -> None:
        assert (self._kill_at is not None) == self.is_ending
        for comebacks in (self._controllers, self._supervisors):
            assert comebacks.due is None or not self.is_ending
        assert self._terminate_at is None or (self.is_ending and self._has_controller)

    def _describe(self) -> str:
        return ", ".join(f"{count} {what}" for what, count in self.statistics().items())
