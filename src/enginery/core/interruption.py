"""Which task of an engine is to be interrupted, when, and how often. Signals and clock are elsewhere.

Theory
======

A *wish* to interrupt is for one attempt at a task, and for nothing that comes after it: wishes end with the
task. It comes from a user who cancels the task, from its time limit, from a user who cancels an item of a
part of a map, or from one who interrupts by hand whatever runs. Wishes for an item end with the item.

The main thread can be interrupted only while it is in code of the user's. So a wish is *due* until the main
thread has taken it up (`take`), and while it is due the control thread *knocks*: it sends a signal, after
`FIRST_PAUSE_S`, twice as much, and so on up to `LONGEST_PAUSE_S`. A single knock may come to nothing: just
before a system call that it should have interrupted, or in the middle of the engine's own code. In that case
(`put_off`) the next one comes sooner, because a task that prints in a loop is in such code most of the time.

What was interrupted may clean up as long as it handles that interrupt. If it does not, and runs on all the
same after `AGAIN_S`, it has swallowed the interrupt and gets another. After half of the grace it gets one
whatever it does: what holds it up may be the cleaning up, and once the grace is over the engine is replaced.
Who interrupts by hand does so once.

Two threads share this without a lock, because one of them may be interrupted at any place: each field is
written by one of them, or is a list whose single steps are atomic. Between two steps the other may have come:
what was found in the list need not be there any more.
"""

from __future__ import annotations

import contextlib
import enum
import math
from collections.abc import Sized
from typing import Final, NamedTuple

from enginery.core.workload import Attempt

SHORT_PAUSE_S = 0.001
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.5
AGAIN_S = 1.0


class Reason(enum.IntEnum):
    """Why; the first one that applies counts."""

    CANCELLED = 0
    OVER_LIMIT = 1
    ITEM_CANCELLED = 2
    BY_HAND = 3


class Wish:
    """An interrupt that a task is to get."""

    __slots__ = (
        "attempt",
        "began_at",
        "insist_at",
        "is_due",
        "item",
        "knock_at",
        "pause_s",
        "raised",
        "reason",
    )

    def __init__(
        self, reason: Reason, attempt: Attempt, *, now: float, insist_at: float, item: int, began_at: float
    ) -> None:
        self.reason = reason
        self.attempt = attempt
        self.item = item  # that it is for, if it is for one
        self.began_at = began_at  # when what is over its limit began
        self.insist_at = insist_at  # from then on cleaning up is no excuse
        self.is_due = True
        self.knock_at = now
        self.pause_s = FIRST_PAUSE_S
        self.raised: list[BaseException] = []  # for it, so far

    def __repr__(self) -> str:
        return f"<Wish: {self.reason.name} for task {self.attempt}, {'due' if self.is_due else 'taken up'}>"


class Suspended(NamedTuple):
    """A task that waits while another one runs inside it. Its limit goes on."""

    attempt: Attempt
    began_at: float
    limit_s: float
    rows: Sized


class Interruption:
    """The task that runs, its limit, and all wishes."""

    def __init__(self) -> None:
        self.attempt: Attempt | None = None
        self.began_at = 0.0  # the task; of a part of a map, the item that runs
        self.limit_s = math.inf
        self.grace_s = -1.0  # of a task over its limit; negative = for ever
        self._rows: Sized = ()  # of a part of a map: what its items have come to so far
        self._wishes: list[Wish] = []
        self._suspended = 0  # tasks that wait while this one runs inside them
        self._looks_at = math.inf  # when the control thread will look after the limit

    def __repr__(self) -> str:
        return f"<Interruption of task {self.attempt}: {self._wishes}>"

    # ------------------------------------------------------------ the main thread

    def on_began(self, attempt: Attempt, limit_s: float, *, now: float) -> bool:
        """A task begins. Returns whether the control thread has to be woken to look after its limit."""
        self.attempt = attempt
        self.began_at = now
        self._rows = ()
        if limit_s < 0:
            self.limit_s = math.inf
            return False
        self.limit_s = limit_s
        return now + limit_s < self._looks_at

    def on_items(self, rows: Sized) -> None:
        """The task is a part of a map, which puts what its items come to into `rows`."""
        self._rows = rows

    @property
    def item(self) -> int:
        """The item that runs, by its place in its part of a map."""
        return len(self._rows)

    def on_item(self, *, now: float) -> None:
        """The next item begins, or the next few short ones."""
        self.began_at = now

    def on_ended(self) -> None:
        """Nothing is meant for the next task. What is meant for those that wait still stands."""
        ended, self.attempt = self.attempt, None
        self.limit_s = math.inf
        if self._wishes and not self._suspended:
            self._wishes.clear()
        for wish in list(self._wishes):
            if wish.attempt == ended:
                self.on_item_ended(wish)

    def on_suspended(self) -> Suspended:
        """The task waits, and another one is about to begin inside it."""
        assert self.attempt is not None, "it runs"
        self._suspended += 1
        return Suspended(self.attempt, self.began_at, self.limit_s, self._rows)

    def on_resumed(self, suspended: Suspended) -> None:
        """What ran inside it has ended."""
        self._suspended -= 1
        self.attempt, self.began_at, self.limit_s, self._rows = suspended

    def on_item_ended(self, wish: Wish) -> None:
        """The item that this wish was for has ended by it. Either thread may be the first to find that."""
        with contextlib.suppress(ValueError):
            self._wishes.remove(wish)

    def due(self) -> Wish | None:
        """What the running task is to be interrupted for, now."""
        due = [wish for wish in self._wishes if wish.is_due and self._applies(wish)]
        return min(due, key=lambda wish: wish.reason, default=None)

    def take(self, wish: Wish, error: BaseException, *, now: float) -> None:
        """The error is about to be raised."""
        wish.raised.append(error)
        wish.is_due = False
        wish.pause_s = FIRST_PAUSE_S
        wish.knock_at = now + AGAIN_S if wish.reason is not Reason.BY_HAND else math.inf

    def put_off(self, wish: Wish, *, now: float) -> None:
        """It cannot be raised at this very moment. Worth telling the control thread."""
        wish.pause_s = SHORT_PAUSE_S
        wish.knock_at = now + SHORT_PAUSE_S

    def spare(self, wish: Wish, *, now: float) -> None:
        """The task is cleaning up after the last interrupt."""
        wish.is_due = False
        wish.knock_at = min(now + AGAIN_S, max(wish.insist_at, now))

    def find(self, error: BaseException) -> Wish | None:
        """The wish that an error was raised for, or an error that it has led to."""
        if not self._wishes:
            return None
        seen = set(map(id, _all_behind(error)))
        return next((wish for wish in self._wishes if not seen.isdisjoint(map(id, wish.raised))), None)

    # ------------------------------------------------------------ the control thread

    def want(
        self, reason: Reason, attempt: Attempt, *, grace_s: float = -1.0, item: int = -1, now: float
    ) -> None:
        """Interrupt this attempt, which has been claimed and has not ended.

        Said twice it means the same, with the grace that ends first.
        """
        insist_at = math.inf if grace_s < 0 else now + grace_s / 2
        for wish in [] if reason is Reason.BY_HAND else list(self._wishes):
            is_same = (wish.reason, wish.attempt, wish.item) == (reason, attempt, item)
            if is_same and (reason is not Reason.OVER_LIMIT or self._applies(wish)):
                wish.insist_at = min(wish.insist_at, insist_at)
                return
        self._wishes.append(
            Wish(reason, attempt, now=now, insist_at=insist_at, item=item, began_at=self.began_at)
        )

    def next_deadline(self) -> float | None:
        # Set before the limit is read: a task that begins in between has the thread woken.
        self._looks_at = math.inf
        limit_at = self.began_at + self.limit_s
        wishes = list(self._wishes)
        if any(wish.reason is Reason.OVER_LIMIT and self._applies(wish) for wish in wishes):
            limit_at = math.inf  # its wish says when to look again
        self._looks_at = limit_at
        deadline = min((wish.knock_at for wish in wishes), default=math.inf)
        deadline = min(deadline, limit_at)
        return None if deadline == math.inf else deadline

    def on_tick(self, *, now: float) -> bool:
        """Whether to knock."""
        attempt, began_at = self.attempt, self.began_at
        if attempt is not None and now >= began_at + self.limit_s:
            self.want(Reason.OVER_LIMIT, attempt, grace_s=self.grace_s, now=now)
        knocks = False
        for wish in list(self._wishes):
            if wish.attempt == self.attempt and not self._applies(wish):
                self.on_item_ended(wish)
            elif now >= wish.knock_at:
                knocks = True
                if wish.reason is not Reason.BY_HAND:
                    wish.is_due = True
                wish.knock_at = now + wish.pause_s
                wish.pause_s = min(2 * wish.pause_s, LONGEST_PAUSE_S)
        return knocks

    # ------------------------------------------------------------ both

    def _applies(self, wish: Wish) -> bool:
        """Whether the wish is for what runs now."""
        if wish.attempt != self.attempt:
            return False
        if wish.reason is Reason.ITEM_CANCELLED:
            return wish.item == self.item
        return wish.reason is not Reason.OVER_LIMIT or wish.began_at == self.began_at


_CHAIN_LIMIT: Final = 100


def handles(handled: BaseException | None, raised: list[BaseException]) -> bool:
    """Whether whoever handles one error handles one of the raised ones, or what it has led to."""
    if handled is None:
        return False
    behind = set(map(id, _all_behind(handled)))
    return not behind.isdisjoint(map(id, raised))


def _all_behind(error: BaseException) -> list[BaseException]:
    """The error, the members of a group, and all that they came about in the handling of."""
    found: dict[int, BaseException] = {}
    waiting = [error]
    while waiting and len(found) < _CHAIN_LIMIT:
        one = waiting.pop()
        if id(one) in found:
            continue
        found[id(one)] = one
        waiting += [other for other in (one.__context__, one.__cause__) if other is not None]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
    return list(found.values())
