"""The reader's role: one thread at a time, handed on without a gap, and whole again after any interrupt."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from enginery.client import reading
from enginery.client.reading import ReaderRole
from enginery.transport import clock

PATIENCE_S = 10.0


@pytest.fixture
def role() -> Iterator[ReaderRole]:
    role = ReaderRole()
    yield role
    role.waker.close()


class Sleeping:
    """A thread that sleeps until its flag is set and it has been woken."""

    def __init__(self, role: ReaderRole) -> None:
        self.flag = threading.Event()
        self._asked = threading.Event()
        deadline = clock.now() + PATIENCE_S
        self.thread = threading.Thread(target=lambda: role.sleep(self.ask, deadline, kick=False))
        self.thread.start()
        assert self._asked.wait(PATIENCE_S), "it is among the sleepers when it asks its predicate"

    def ask(self) -> bool:
        self._asked.set()
        return self.flag.is_set()

    def was_woken(self) -> bool:
        """Whether it ended by being woken, and not by its deadline."""
        self.thread.join(PATIENCE_S / 2)
        return not self.thread.is_alive()

    def end(self, role: ReaderRole) -> None:
        role.wake_satisfied(everybody=True)
        self.thread.join(PATIENCE_S)


def in_a_thread(call: Callable[[], object]) -> object:
    """What the call returns in another thread."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    return found[0]


def test_one_thread_at_a_time(role: ReaderRole) -> None:
    assert not role.is_taken
    assert role.take()
    assert role.take(), "a thread that finds itself in the role was interrupted while it left"
    assert role.is_taken
    assert in_a_thread(role.take) is False
    in_a_thread(role.leave)
    assert role.is_taken, "only its holder gives it back"
    role.leave()
    assert not role.is_taken
    assert in_a_thread(lambda: (role.take(), role.leave())) == (True, None)
    assert repr(role) == "<ReaderRole of thread 0, 0 sleepers>"


def test_nobody_sleeps_while_the_role_is_free(role: ReaderRole) -> None:
    deadline = clock.now() + PATIENCE_S / 2
    role.sleep(lambda: False, deadline, kick=True)
    assert clock.now() < deadline
    assert not role.is_wanted


def test_nobody_sleeps_whose_wish_is_fulfilled_and_the_reader_is_kicked(role: ReaderRole) -> None:
    role.take()
    in_a_thread(lambda: role.sleep(lambda: True, None, kick=True))
    assert role.waker.clear()
    in_a_thread(lambda: role.sleep(lambda: True, None, kick=False))
    assert not role.waker.clear()


def test_sleep_ends_with_its_deadline(role: ReaderRole) -> None:
    role.take()
    in_a_thread(lambda: role.sleep(lambda: False, clock.now() + 0.01, kick=False))
    assert not role.is_wanted


def test_who_leaves_wakes_one_sleeper(role: ReaderRole) -> None:
    role.take()
    sleepers = [Sleeping(role), Sleeping(role)]
    role.leave()
    assert sleepers[0].was_woken()
    # It did not read, so it has passed the news on.
    assert sleepers[1].was_woken()
    assert not role.is_wanted


def test_those_whose_wish_is_fulfilled_are_woken(role: ReaderRole) -> None:
    role.take()
    first, second = Sleeping(role), Sleeping(role)
    second.flag.set()
    role.wake_satisfied()
    assert second.was_woken()
    assert role.is_wanted
    assert first.thread.is_alive()
    first.end(role)
    role.leave()


# ---------------------------------------------------------------- interrupts


class InterruptedLock:
    """A lock at whose gate Ctrl-C comes, once: `before` it is taken, or `after` it was let go."""

    def __init__(self, lock: threading.Lock, at: str) -> None:
        self._lock = lock
        self._at = at

    def __enter__(self) -> None:
        if self._at == "before":
            self._at = ""
            raise KeyboardInterrupt
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if self._at == "after":
            self._at = ""
            raise KeyboardInterrupt


@pytest.mark.parametrize("at", ["before", "after"])
def test_who_is_interrupted_while_it_leaves_has_left(role: ReaderRole, at: str) -> None:
    role.take()
    sleeping = Sleeping(role)
    role._lock = InterruptedLock(role._lock, at)  # type: ignore[assignment,arg-type]
    with pytest.raises(KeyboardInterrupt):
        role.leave()
    assert not role.is_taken
    role.heal()
    assert sleeping.was_woken()
    assert in_a_thread(lambda: (role.take(), role.leave())) == (True, None)


def test_who_is_interrupted_inside_leaves_and_its_sleepers_are_found(
    role: ReaderRole, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> float:
        raise KeyboardInterrupt

    role.take()
    sleeping = Sleeping(role)
    with monkeypatch.context() as patch:
        patch.setattr(reading.clock, "now", interrupted)
        with pytest.raises(KeyboardInterrupt):
            role.leave()
    assert not role.is_taken
    assert sleeping.thread.is_alive(), "nobody has woken it"
    role.heal()
    assert sleeping.was_woken()


@pytest.mark.parametrize("at", ["before", "after"])
def test_who_is_interrupted_while_it_takes_can_take_again(role: ReaderRole, at: str) -> None:
    role._lock = InterruptedLock(role._lock, at)  # type: ignore[assignment,arg-type]
    with pytest.raises(KeyboardInterrupt):
        role.take()
    # Whoever takes calls `leave` in its `finally`, whether it came to have the role or not.
    role.leave()
    assert not role.is_taken
    assert role.take()
    role.leave()


def test_a_predicate_that_is_interrupted_leaves_no_sleeper_behind(role: ReaderRole) -> None:
    def interrupted() -> bool:
        raise KeyboardInterrupt

    def sleep() -> bool:
        with pytest.raises(KeyboardInterrupt):
            role.sleep(interrupted, None, kick=True)
        return role.is_wanted

    role.take()
    assert in_a_thread(sleep) is False
    role.leave()
    assert not role.is_taken


def test_a_sleeper_that_was_to_read_and_is_interrupted_passes_it_on(role: ReaderRole) -> None:
    role.take()
    entered, go = threading.Event(), threading.Event()

    def interrupted() -> bool:
        entered.set()
        assert go.wait(PATIENCE_S)
        raise KeyboardInterrupt

    def sleep() -> None:
        with pytest.raises(KeyboardInterrupt):
            role.sleep(interrupted, None, kick=False)

    first = threading.Thread(target=sleep)
    first.start()
    assert entered.wait(PATIENCE_S)
    second = Sleeping(role)
    role.leave()  # wakes the first
    go.set()
    first.join(PATIENCE_S)
    assert second.was_woken()


def test_healing_leaves_a_reader_and_its_sleepers_alone(role: ReaderRole) -> None:
    role.take()
    sleeping = Sleeping(role)
    role.heal()
    assert role.is_wanted
    assert sleeping.thread.is_alive()
    role.leave()
    assert sleeping.was_woken()
    role.heal()


# ---------------------------------------------------------------- no missed wake-up


@pytest.fixture
def quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("quick_switches")
@pytest.mark.parametrize("threads", [2, 3])
def test_no_wake_up_is_missed_between_leaving_and_sleeping(role: ReaderRole, threads: int) -> None:
    turns, holders = 4000, [0]
    overslept: list[str] = []
    begin = threading.Barrier(threads)

    def read() -> None:
        begin.wait(PATIENCE_S)
        done = 0
        while done < turns and not overslept:
            if role.take():
                holders[0] += 1
                role.waker.wake()  # system calls, in which the others come and find the role taken
                role.waker.clear()
                if holders[0] != 1:
                    overslept.append("two readers")
                holders[0] -= 1
                role.leave()
                done += 1
                continue
            deadline = clock.now() + PATIENCE_S
            role.sleep(lambda: False, deadline, kick=False)
            if clock.now() >= deadline:
                overslept.append(repr(role))

    readers = [threading.Thread(target=read) for _ in range(threads)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(2 * PATIENCE_S)
    assert overslept == []
    assert not role.is_taken
    assert not role.is_wanted


@pytest.mark.usefixtures("quick_switches")
def test_who_comes_while_the_last_reader_leaves_reads(role: ReaderRole) -> None:
    """Nobody comes after the reader that leaves, so a sleeper that it does not see sleeps on."""
    rounds = 3000
    taken, over = threading.Semaphore(0), threading.Semaphore(0)
    overslept: list[int] = []

    def come() -> None:
        for number in range(rounds):
            taken.acquire()
            deadline = clock.now() + PATIENCE_S / 2
            while not role.take():
                role.sleep(lambda: False, deadline, kick=False)
                if clock.now() >= deadline:
                    overslept.append(number)
                    return
            role.leave()
            over.release()

    comer = threading.Thread(target=come, daemon=True)
    comer.start()
    for number in range(rounds):
        assert role.take()
        taken.release()
        for _ in range(number % 40):  # leave at another moment of the other's way each time
            pass
        role.leave()
        assert over.acquire(timeout=PATIENCE_S), f"overslept in round {number}"
        assert overslept == []
    comer.join(PATIENCE_S)


@pytest.mark.parametrize("at", ["before", "after"])
def test_nobody_is_among_the_sleepers_after_an_interrupt(role: ReaderRole, at: str) -> None:
    in_a_thread(role.take)
    lock = role._lock
    role._lock = InterruptedLock(lock, at)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        role.sleep(lambda: False, clock.now() + PATIENCE_S, kick=False)
    role._lock = lock
    assert not role.is_wanted
