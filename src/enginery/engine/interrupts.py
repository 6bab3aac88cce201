"""Interrupts tasks in the main thread: the control thread knocks with a signal, the handler raises.

`PyThreadState_SetAsyncExc` does not end a sleep, a lock, a subprocess or a socket; a signal to the main
thread does, because what Python waits for returns and runs the handler. Its number is one that systems ignore
by default and hardly any program uses (Go's runtime uses it for the same purpose). When and how often is
decided by `core.interruption`, where it may be raised by `user_code`.

What is raised derives from KeyboardInterrupt: user code that is prepared for Ctrl-C is prepared for this,
`except Exception` lets it pass, and asyncio hands it on where it would keep other errors to itself. In an
event loop that waits it is raised by a callback, so that no other callback is lost: the loop is whole
afterwards, and may be used to clean up.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from enginery import errors
from enginery.core.interruption import FIRST_PAUSE_S, Interruption, Reason, Suspended, Wish, handles
from enginery.core.workload import Attempt
from enginery.engine import user_code
from enginery.ids import format_task_id
from enginery.protocol.messages import Status
from enginery.transport import clock

KNOCK = signal.SIGURG
PARTS_KEPT = 1000
"""Parts of maps with items that are not to run, which may not have come yet."""


class StopRunning(BaseException):
    """Raised in the main thread to end the engine in the middle of user code; never reaches a client."""


class TaskCancelled(KeyboardInterrupt):
    """Raised in a task that its user has cancelled."""


class TimeLimitExceeded(KeyboardInterrupt):
    """Raised in a task that has run longer than its `time_limit`."""


class Verdict(NamedTuple):
    """What is said of a task, or of an item, that was interrupted."""

    told: BaseException
    status: Status
    ends_all: bool  # of a part of a map: all items that have not ended


_STATUS = {
    Reason.CANCELLED: Status.CANCELLED,
    Reason.ITEM_CANCELLED: Status.CANCELLED,
    Reason.OVER_LIMIT: Status.OVER_LIMIT,
}


class Interrupts:
    """Of one engine. `wake` makes the control thread look at the deadlines anew."""

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        self.wake = wake
        self._plan = Interruption()
        self._main = threading.main_thread().ident or 0
        self._skipped: dict[Attempt, set[int]] = {}
        self._skips: set[int] = set()  # of the part of a map that runs, or ran last
        self._is_stopping = False

    def __repr__(self) -> str:
        return f"<Interrupts, {self._plan!r}>"

    def install(self) -> None:
        """Take over the signals. In the main thread."""
        signal.signal(KNOCK, self._on_knock)
        signal.signal(signal.SIGINT, self._on_interrupt)

    # ------------------------------------------------------------ the main thread

    def begin(self, attempt: Attempt, limit_s: float = -1.0) -> None:
        """A task that was claimed begins."""
        if self._plan.on_began(attempt, limit_s, now=clock.now()):
            self.wake()

    @property
    def is_limited(self) -> bool:
        return self._plan.limit_s != math.inf

    def begin_items(self, values: list[Any]) -> set[int]:
        """The task is a part of a map, and `values` grows with what its items come to.

        Returns items that are not to run, by their places; they may become more at any time.
        """
        self._plan.on_items(values)
        self._skips.clear()
        if self._skipped and self._plan.attempt is not None:
            self._skips |= self._skipped.get(self._plan.attempt, set())
        return self._skips

    def begin_item(self) -> float:
        """The next item, or the next few short ones; returns the time."""
        now = clock.now()
        self._plan.on_item(now=now)
        return now

    def end(self) -> None:
        """The task has ended."""
        attempt = self._plan.attempt
        self._plan.on_ended()
        if self._skipped and attempt is not None:
            self._skipped.pop(attempt, None)

    def suspend(self) -> Suspended:
        """The task waits, and another one is about to begin inside it."""
        return self._plan.on_suspended()

    def resume(self, suspended: Suspended) -> None:
        """That one has ended."""
        self._plan.on_resumed(suspended)
        self.wake()  # its limit may have passed

    def raise_due(self) -> None:
        """Raise what the running task is to be interrupted for, where a signal would come at a bad moment."""
        self._raise_wanted()

    def verdict(self, error: BaseException) -> Verdict | None:
        """What an error means that came of an interrupt; None if it did not.

        An item that was ended by it has been dealt with, and the rest of its part may go on.
        """
        wish = self._plan.find(error)
        if wish is None:
            return None
        told = self._tell(wish, error)
        if wish.reason in (Reason.OVER_LIMIT, Reason.ITEM_CANCELLED):
            self._plan.on_item_ended(wish)
            self.wake()  # the next item has a limit of its own
        ends_all = wish.reason in (Reason.CANCELLED, Reason.BY_HAND)
        return Verdict(told, _STATUS.get(wish.reason, Status.ERROR), ends_all)

    def stop(self, frame: FrameType | None) -> None:
        """The engine is to end: raise StopRunning in user code, now or as soon as that can be."""
        self._is_stopping = True
        if user_code.is_inside(frame):
            raise StopRunning
        self.wake()

    def _tell(self, wish: Wish, error: BaseException) -> BaseException:
        told: BaseException
        task = format_task_id(wish.attempt[0])
        if wish.reason is Reason.CANCELLED:
            told = errors.TaskCancelled(f"task {task} was cancelled while it ran")
        elif wish.reason is Reason.ITEM_CANCELLED:
            told = errors.TaskCancelled(f"item {wish.item} of task {task} was cancelled while it ran")
        elif wish.reason is Reason.OVER_LIMIT:
            told = errors.TimeLimitExceeded(limit_s=self._plan.limit_s)
        else:
            return error
        if not any(error is raised for raised in wish.raised):
            told.__cause__ = error  # what came of it while it went up
        return told.with_traceback(error.__traceback__)

    # ------------------------------------------------------------ handlers, in the main thread

    def _on_knock(self, signum: int, frame: FrameType | None) -> None:
        loop = _running_loop()
        if loop is not None and user_code.is_in_idle_loop(frame):
            if self._wanted() is not None or self._is_stopping:
                loop.call_soon_threadsafe(self._raise_wanted)
        elif user_code.is_inside(frame):
            self._raise_wanted()
        elif (wish := self._plan.due()) is not None:
            self._plan.put_off(wish, now=clock.now())
            self.wake()

    def _on_interrupt(self, signum: int, frame: FrameType | None) -> None:
        """A signal that somebody sends by hand, as Ctrl-C does."""
        attempt = self._plan.attempt
        if attempt is not None:
            self._plan.want(Reason.BY_HAND, attempt, now=clock.now())
            self._on_knock(signum, frame)
        elif user_code.is_inside(frame):
            raise KeyboardInterrupt  # in what is set up before the first task

    def _raise_wanted(self) -> None:
        if self._is_stopping:
            raise StopRunning
        wish = self._wanted()
        if wish is not None:
            self._raise(wish)

    def _wanted(self) -> Wish | None:
        wish = self._plan.due()
        if wish is None:
            return None
        now = clock.now()
        if now < wish.insist_at and handles(sys.exception(), wish.raised):
            self._plan.spare(wish, now=now)
            return None
        return wish

    def _raise(self, wish: Wish) -> NoReturn:
        error: KeyboardInterrupt
        if wish.reason is Reason.OVER_LIMIT:
            error = TimeLimitExceeded(f"it has run longer than its time_limit of {self._plan.limit_s:g} s")
        elif wish.reason is Reason.BY_HAND:
            error = KeyboardInterrupt()
        else:
            error = TaskCancelled()
        self._plan.take(wish, error, now=clock.now())
        raise error

    # ------------------------------------------------------------ the control thread
    #
    # All of it under the lock under which tasks are claimed and end, so that what is meant is still there.

    def set_grace(self, grace_s: float) -> None:
        """How long tasks that are over their limit may take to end; negative = for ever."""
        self._plan.grace_s = grace_s

    def cancel(self, attempt: Attempt, grace_s: float) -> None:
        """End a task that was claimed and has not ended."""
        self._plan.want(Reason.CANCELLED, attempt, grace_s=grace_s, now=clock.now())

    def interrupt(self, attempt: Attempt) -> None:
        """Interrupt it by hand."""
        self._plan.want(Reason.BY_HAND, attempt, now=clock.now())

    def skip(self, attempt: Attempt, items: Iterable[int], *, is_running: bool) -> None:
        """Do not run these items of a part of a map, which may not have come yet."""
        wanted = set(items)
        self._skipped.setdefault(attempt, set()).update(wanted)
        while len(self._skipped) > PARTS_KEPT:
            del self._skipped[next(iter(self._skipped))]
        if is_running:
            self._skips |= wanted
            item = self._plan.item  # looked at afterwards: the main thread looks before it begins the next
            if item in wanted:
                self._plan.want(Reason.ITEM_CANCELLED, attempt, item=item, now=clock.now())

    def next_deadline(self) -> float | None:
        return clock.now() + FIRST_PAUSE_S if self._is_stopping else self._plan.next_deadline()

    def on_tick(self, *, now: float) -> bool:
        """Returns whether the main thread was knocked at."""
        knocks = self._plan.on_tick(now=now) or self._is_stopping
        if knocks:
            signal.pthread_kill(self._main, KNOCK)
        return knocks


def _running_loop() -> Any:
    """The event loop that runs in this thread, if one does."""
    events = sys.modules.get("asyncio.events")
    return None if events is None else events._get_running_loop()
