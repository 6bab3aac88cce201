"""When a task is interrupted, and how often: in virtual time, without signals."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from enginery.core.interruption import (
    AGAIN_S,
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    Interruption,
    Reason,
    Wish,
    handles,
)
from enginery.core.workload import Attempt
from enginery.ids import TaskId

ONE: Attempt = (TaskId(1), 1)
TWO: Attempt = (TaskId(2), 1)


def begun(limit_s: float = -1.0, *, grace_s: float = 5.0) -> Interruption:
    plan = Interruption()
    plan.grace_s = grace_s
    plan.on_began(ONE, limit_s, now=10.0)
    return plan


def raised(plan: Interruption, now: float) -> KeyboardInterrupt:
    wish = plan.due()
    assert wish is not None
    error = KeyboardInterrupt()
    plan.take(wish, error, now=now)
    return error


# ---------------------------------------------------------------- one wish


def test_it_is_due_until_it_is_taken_up_and_knocked_for_meanwhile() -> None:
    plan = begun()
    plan.want(Reason.CANCELLED, ONE, grace_s=8.0, now=11.0)
    knocks = []
    for _ in range(8):
        deadline = plan.next_deadline()
        assert deadline is not None
        assert not plan.on_tick(now=deadline - 0.001)
        assert plan.on_tick(now=deadline)
        assert plan.due() is not None
        knocks.append(deadline)
    pauses = [later - earlier for earlier, later in pairwise(knocks)]
    assert knocks[0] == 11.0
    assert pauses[:3] == pytest.approx([FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S])
    assert pauses[-1] == pytest.approx(LONGEST_PAUSE_S)
    raised(plan, 12.0)
    assert plan.due() is None
    assert plan.next_deadline() == 12.0 + AGAIN_S


def test_what_swallows_it_gets_another() -> None:
    plan = begun()
    plan.want(Reason.CANCELLED, ONE, grace_s=8.0, now=11.0)
    raised(plan, 11.0)
    assert plan.on_tick(now=11.0 + AGAIN_S)
    wish = plan.due()
    assert wish is not None
    assert len(wish.raised) == 1


def test_what_cleans_up_is_spared_until_half_of_the_grace_is_over() -> None:
    plan = begun()
    plan.want(Reason.CANCELLED, ONE, grace_s=3.0, now=11.0)
    error = raised(plan, 11.0)
    plan.on_tick(now=12.0)
    wish = plan.due()
    assert wish is not None
    assert handles(error, wish.raised)
    plan.spare(wish, now=12.0)
    assert plan.due() is None
    assert plan.next_deadline() == wish.insist_at == 12.5
    assert plan.on_tick(now=12.5)
    assert plan.due() is wish


def test_with_a_grace_for_ever_it_is_always_spared() -> None:
    plan = begun()
    plan.want(Reason.CANCELLED, ONE, grace_s=-1.0, now=11.0)
    (wish,) = plan._wishes
    raised(plan, 11.0)
    plan.on_tick(now=1e9)
    plan.spare(wish, now=1e9)
    assert plan.next_deadline() == 1e9 + AGAIN_S


def test_by_hand_is_once_for_each_time() -> None:
    plan = begun()
    plan.want(Reason.BY_HAND, ONE, now=11.0)
    raised(plan, 11.0)
    assert plan.next_deadline() is None
    assert not plan.on_tick(now=99.0)
    assert plan.due() is None
    plan.want(Reason.BY_HAND, ONE, now=100.0)
    assert plan.due() is not None


def test_twice_means_the_same() -> None:
    plan = begun()
    for now in (11.0, 12.0):
        plan.want(Reason.CANCELLED, ONE, grace_s=1.0, now=now)
    raised(plan, 12.0)
    assert plan.due() is None
    assert repr(plan) == "<Interruption of task (1, 1): [<Wish: CANCELLED for task (1, 1), taken up>]>"


def test_of_two_graces_the_one_counts_that_ends_first() -> None:
    plan = begun()
    for grace_s, now in ((-1.0, 11.0), (4.0, 11.0), (1.0, 12.0), (8.0, 12.1)):
        plan.want(Reason.CANCELLED, ONE, grace_s=grace_s, now=now)
    (wish,) = plan._wishes
    assert wish.insist_at == 12.5


# ---------------------------------------------------------------- whose it is


def test_it_is_for_one_attempt_and_ends_with_it() -> None:
    plan = Interruption()
    plan.want(Reason.CANCELLED, ONE, now=10.0)
    assert plan.due() is None, "claimed, and not begun"
    plan.on_began(ONE, -1.0, now=11.0)
    assert plan.due() is not None
    plan.on_ended()
    plan.on_began(TWO, -1.0, now=12.0)
    assert plan.due() is None
    assert plan.next_deadline() is None


def test_a_cancel_counts_before_a_limit() -> None:
    plan = begun(1.0)
    plan.on_tick(now=11.0)
    plan.want(Reason.CANCELLED, ONE, now=11.0)
    assert plan.due().reason is Reason.CANCELLED  # type: ignore[union-attr]


def test_an_error_is_of_the_wish_that_has_led_to_it() -> None:
    plan = begun()
    assert plan.find(ValueError()) is None
    plan.want(Reason.CANCELLED, ONE, now=11.0)
    (wish,) = plan._wishes
    error = raised(plan, 11.0)
    secondary = ValueError("in the cleaning up")
    secondary.__context__ = error
    assert plan.find(secondary) is wish
    assert plan.find(BaseExceptionGroup("g", [KeyError(), secondary])) is wish
    assert plan.find(error) is wish
    assert plan.find(ValueError("of another thing")) is None


def test_a_circle_of_errors_has_an_end() -> None:
    one, other = ValueError(), KeyError()
    one.__context__, other.__context__ = other, one
    assert not handles(one, [KeyboardInterrupt()])
    assert handles(one, [other])
    assert not handles(None, [other])


# ---------------------------------------------------------------- limits


def test_a_task_is_over_its_limit_when_it_is() -> None:
    plan = begun(2.0, grace_s=4.0)
    assert plan.next_deadline() == 12.0
    assert not plan.on_tick(now=11.9)
    assert plan.due() is None
    assert plan.on_tick(now=12.0)
    wish = plan.due()
    assert wish is not None
    assert (wish.reason, wish.insist_at) == (Reason.OVER_LIMIT, 14.0)
    assert plan.next_deadline() == 12.0 + FIRST_PAUSE_S, "and not at once again"


def test_the_control_thread_is_woken_for_a_limit_that_it_does_not_know_of() -> None:
    plan = Interruption()
    assert not plan.on_began(ONE, -1.0, now=1.0)
    plan.on_ended()
    assert plan.on_began(ONE, 5.0, now=1.0)
    assert plan.next_deadline() == 6.0
    plan.on_ended()
    assert not plan.on_began(TWO, 5.0, now=2.0), "it looks at 6 anyway"
    plan.on_ended()
    assert plan.on_began(TWO, 1.0, now=2.0)
    assert plan.next_deadline() == 3.0
    plan.on_tick(now=3.0)
    plan.next_deadline()
    plan.on_ended()
    assert plan.on_began(ONE, 5.0, now=3.0), "it looks after a wish, and not after a limit"


def test_each_item_has_the_limit() -> None:
    plan = begun(2.0)
    rows: list[object] = []
    plan.on_items(rows)
    plan.on_item(now=11.5)
    assert not plan.on_tick(now=12.0)
    assert plan.next_deadline() == 13.5
    assert plan.on_tick(now=13.5)
    wish = plan.due()
    assert wish is not None
    plan.take(wish, KeyboardInterrupt(), now=13.5)
    plan.on_item_ended(wish)
    plan.on_item(now=14.0)
    assert plan.due() is None
    assert plan.next_deadline() == 16.0
    assert plan.on_tick(now=16.0)
    plan.on_item(now=16.1)
    assert plan.due() is None, "the item ended before the interrupt came"
    plan.on_tick(now=16.2)
    assert plan.next_deadline() == pytest.approx(18.1)


# ---------------------------------------------------------------- items


def test_an_item_is_interrupted_while_it_is_the_one_that_runs() -> None:
    plan = begun()
    rows: list[object] = [0]
    plan.on_items(rows)
    assert plan.item == 1
    plan.want(Reason.ITEM_CANCELLED, ONE, item=1, now=11.0)
    assert plan.due() is not None
    rows.append(1)
    assert plan.due() is None
    assert not plan.on_tick(now=11.0)
    assert plan.next_deadline() is None


def test_both_threads_may_find_at_once_that_an_item_has_ended() -> None:
    class Overtaken(list[Wish]):
        """The other thread comes in between whenever it can."""

        def __contains__(self, wish: object) -> bool:
            is_there = super().__contains__(wish)
            self.clear()
            return is_there

    plan = begun()
    plan.want(Reason.ITEM_CANCELLED, ONE, item=0, now=11.0)
    (wish,) = plan._wishes
    plan._wishes = Overtaken(plan._wishes)
    plan.on_item_ended(wish)
    plan.on_item_ended(wish)
    assert plan.next_deadline() is None


# ---------------------------------------------------------------- anything


class InterruptionMachine(RuleBasedStateMachine):
    """Two threads' facts in any order: nothing is raised for another task than the one that was meant."""

    @initialize()
    def begin(self) -> None:
        self.plan = Interruption()
        self.plan.grace_s = 2.0
        self.now = 10.0
        self.number = 0
        self.running: Attempt | None = None
        self.wanted: set[tuple[Attempt, Reason]] = set()
        self.limit_s = -1.0
        self.began_at = 0.0
        self.by_hand = 0

    @precondition(lambda self: self.running is None)
    @rule(limit_s=st.sampled_from([-1.0, 0.5, 3.0]))
    def start(self, limit_s: float) -> None:
        self.number += 1
        self.running = (TaskId(self.number), 1)
        self.limit_s, self.began_at = limit_s, self.now
        self.plan.on_began(self.running, limit_s, now=self.now)

    @rule(
        reason=st.sampled_from([Reason.CANCELLED, Reason.BY_HAND]), grace_s=st.sampled_from([-1.0, 0.0, 2.0])
    )
    @precondition(lambda self: self.running is not None)
    def want(self, reason: Reason, grace_s: float) -> None:
        assert self.running is not None
        self.wanted.add((self.running, reason))
        self.by_hand += reason is Reason.BY_HAND
        self.plan.want(reason, self.running, grace_s=grace_s, now=self.now)

    @rule(after_s=st.sampled_from([0.0, 0.02, 0.3, 1.0, 5.0]))
    def tick(self, after_s: float) -> None:
        self.now += after_s
        deadline = self.plan.next_deadline()
        knocks = self.plan.on_tick(now=self.now)
        assert not knocks or (deadline is not None and deadline <= self.now)
        after = self.plan.next_deadline()
        assert after is None or after > self.now, "the control thread would not come to rest"

    @rule(spares=st.booleans())
    def interrupt(self, spares: bool) -> None:
        """The handler runs in user code."""
        wish = self.plan.due()
        if wish is None:
            return
        assert wish.attempt == self.running
        self.check(wish)
        if spares and wish.raised and self.now < wish.insist_at:
            self.plan.spare(wish, now=self.now)
        else:
            self.by_hand -= wish.reason is Reason.BY_HAND
            self.plan.take(wish, KeyboardInterrupt(), now=self.now)

    def check(self, wish: Wish) -> None:
        if wish.reason is Reason.OVER_LIMIT:
            assert 0 <= self.limit_s <= self.now - self.began_at
        else:
            assert (wish.attempt, wish.reason) in self.wanted
            assert wish.reason is Reason.CANCELLED or self.by_hand > 0

    @precondition(lambda self: self.running is not None)
    @rule()
    def end(self) -> None:
        self.running, self.by_hand = None, 0
        self.plan.on_ended()

    @invariant()
    def nothing_is_due_without_a_task(self) -> None:
        if hasattr(self, "plan") and self.running is None:
            assert self.plan.due() is None
            assert self.plan.next_deadline() is None


TestInterruption = InterruptionMachine.TestCase
TestInterruption.settings = settings(max_examples=100, stateful_step_count=40)


# ---------------------------------------------------------------- a task that runs inside another


def test_a_wish_for_the_one_that_waits_stands_until_it_goes_on() -> None:
    plan = Interruption()
    plan.on_began(ONE, -1.0, now=0.0)
    outer = plan.on_suspended()
    plan.on_began(TWO, -1.0, now=1.0)
    plan.want(Reason.CANCELLED, ONE, now=2.0)
    plan.want(Reason.CANCELLED, TWO, now=2.0)
    due = plan.due()
    assert due is not None
    assert due.attempt == TWO, "it runs on top"
    plan.on_ended()
    assert plan.due() is None
    plan.on_resumed(outer)
    due = plan.due()
    assert due is not None
    assert due.attempt == ONE
    plan.on_ended()
    plan.on_began(TWO, -1.0, now=3.0)
    assert plan.due() is None


def test_the_limit_of_the_one_that_waits_goes_on() -> None:
    plan = Interruption()
    plan.on_began(ONE, 2.0, now=0.0)
    outer = plan.on_suspended()
    plan.on_began(TWO, -1.0, now=1.0)
    assert plan.next_deadline() is None
    assert not plan.on_tick(now=5.0)
    plan.on_ended()
    plan.on_resumed(outer)
    assert plan.next_deadline() == 2.0
    assert plan.on_tick(now=5.0)
    due = plan.due()
    assert due is not None
    assert (due.reason, due.attempt) == (Reason.OVER_LIMIT, ONE)
