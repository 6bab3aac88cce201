"""Interrupts of what runs: a whole engine in this process, its controller a thread; no network, no host.

The first half is what can be interrupted, the second what must not be.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from itertools import islice

import pytest

from enginery import errors
from enginery.engine import user_code
from enginery.ids import BlobId, TaskId, content_id
from enginery.objects.failures import unpack_failure
from enginery.objects.functions import pack_function
from enginery.objects.packing import pack, unpack
from enginery.protocol import messages as m
from enginery.protocol.link import cut_blob
from enginery.transport import clock
from tests.unit.engine.test_service import PATIENCE_S, Site, site

__all__ = ["site"]
GRACE_S = 2 * PATIENCE_S
"""Nothing is waited for that long: only what asks for it sees the half of it."""

PRELUDE = """
import asyncio, os, queue, select, signal, socket, subprocess, sys, threading, time
kept = 'kept'
"""


def cancel(site: Site, task: TaskId, *, grace_s: float = GRACE_S) -> m.TakenBack:
    site.control.say(m.EndCalls([(task, 1)], grace_s))
    return site.control.hear(m.TakenBack)


def begin(site: Site, text: str) -> TaskId:
    """Execute a text that prints something when it has come to the place that matters."""
    task = site.begin(m.Kind.EXECUTE, (text, "<execute>", True))
    assert site.control.hear(m.EngineOutput).task == task
    return task


def error_of(result: m.EngineResult) -> errors.RemoteError:
    return unpack_failure(result.payload)


def is_alive(site: Site) -> None:
    """The next task is not disturbed, and finds what was there before."""
    site.begin(m.Kind.PULL, (["kept"], True))
    result = site.result()
    assert (result.status, unpack(result.payload)) == (m.Status.OK, "kept")


def run(site: Site, script: Callable[[], None]) -> None:
    def whole() -> None:
        site.bind_control()
        assert site.execute(PRELUDE).status is m.Status.OK
        script()
        is_alive(site)

    assert site.run(whole) == 0


BLOCKED = {
    "sleep": "time.sleep(60)",
    "lock": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "queue": "queue.Queue().get()",
    "simple queue": "queue.SimpleQueue().get()",
    "event": "threading.Event().wait()",
    "join": "go = threading.Event(); t = threading.Thread(target=go.wait, args=(60,)); t.start(); t.join()",
    "subprocess": "subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])",
    "socket": "a, b = socket.socketpair()\nwith a, b: a.recv(1)",
    "select": "a, b = socket.socketpair()\nwith a, b: select.select([a], [], [])",
    "computing": "while True: pass",
    "recursion": "def f(n): return f(n + 1) if n < 500 else 0\nwhile True: f(0)",
    "generator": "sum(iter(lambda: 0, 1))",
    "await": "await asyncio.sleep(60)",
    "await and compute": "async def g():\n    while True: pass\nawait g()",
    "tasks": "await asyncio.gather(*(asyncio.sleep(60) for _ in range(9)))",
    "own loop": "async def g():\n    await asyncio.sleep(60)\nasyncio.run(g())",
    "except Exception": "while True:\n    try: time.sleep(60)\n    except Exception: pass",
    "printing": "while True: print('x')",
}


@pytest.mark.parametrize("how", BLOCKED)
def test_a_cancel_ends(site: Site, how: str) -> None:
    def script() -> None:
        task = begin(site, f"print('begun')\n{BLOCKED[how]}")
        assert cancel(site, task) == m.TakenBack([], [(task, 1)])
        result = site.result()
        assert result.status is m.Status.CANCELLED
        error = error_of(result)
        assert isinstance(error, errors.TaskCancelled)
        assert error.evalue == "task 00000000-1 was cancelled while it ran".replace("-1 ", f"-{int(task)} ")
        assert "<execute>" in error.traceback or how in ("await", "tasks"), "where it was"

    run(site, script)


def test_builtins_that_are_called_directly_are_user_code_too(site: Site) -> None:
    packed = pack_function(__import__("time").sleep)
    function = content_id([packed.data])

    def script() -> None:
        for record, frame in cut_blob(function, packed.data, keep=True):
            site.tasks.say_with(record, frame)
        call = m.EngineCall(TaskId(77), 1, site.pack_call(60))
        site.tasks.say(m.Run(m.RunOptions(m.Kind.CALL, function, "sleep", announce=True), [call]))
        while site.tasks.hear(m.Started).task != call.task:
            pass
        assert cancel(site, call.task).kept == [(call.task, 1)]
        assert site.result().status is m.Status.CANCELLED

    run(site, script)


def test_finally_blocks_and_context_managers_run_and_may_take_a_moment(site: Site) -> None:
    text = """
import contextlib
@contextlib.contextmanager
def held():
    try:
        yield
    finally:
        print('released')
print('begun')
with held():
    try:
        time.sleep(60)
    finally:
        time.sleep(0.05)
        cleaned = 'up'
"""

    def script() -> None:
        task = begin(site, text)
        cancel(site, task)
        result = site.result()
        assert result.status is m.Status.CANCELLED
        while not site.control.hear(m.EngineOutput).text.endswith("released\n"):
            pass
        site.begin(m.Kind.PULL, (["cleaned"], True))
        assert unpack(site.result().payload) == "up"

    run(site, script)


def test_what_catches_it_and_returns_has_its_value(site: Site) -> None:
    text = (
        "print('begun')\ntry: time.sleep(60)\nexcept KeyboardInterrupt as error: name = type(error).__name__"
    )

    def script() -> None:
        cancel(site, begin(site, text))
        assert site.result().status is m.Status.OK
        site.begin(m.Kind.PULL, (["name"], True))
        assert unpack(site.result().payload) == "TaskCancelled"

    run(site, script)


def test_what_swallows_it_and_goes_on_gets_it_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enginery.core.interruption.AGAIN_S", 0.02)
    text = """
print('begun')
caught = []
while True:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        caught.append(1)
        if len(caught) == 3: raise
"""

    def script() -> None:
        cancel(site, begin(site, text))
        assert site.result().status is m.Status.CANCELLED
        site.begin(m.Kind.PULL, (["len(caught)"], True))
        assert unpack(site.result().payload) == 3

    run(site, script)


@pytest.mark.parametrize("where", ["finally: pass", "except KeyboardInterrupt: raise"])
def test_cleaning_up_is_not_disturbed_and_is_ended_when_it_takes_too_long(
    site: Site, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr("enginery.core.interruption.AGAIN_S", 0.02)
    text = f"""
from concurrent.futures import ThreadPoolExecutor
print('begun')
go = threading.Event()
with ThreadPoolExecutor() as pool:
    pool.submit(go.wait, 60)
    try: time.sleep(60)
    {where}
"""

    def script() -> None:
        task = begin(site, text)
        began_at = clock.now()
        cancel(site, task, grace_s=1.0)
        assert site.result().status is m.Status.CANCELLED
        assert clock.now() - began_at >= 0.5, "it had half of the grace for itself"
        site.execute("go.set()")

    run(site, script)


def test_an_error_in_the_cleaning_up_is_named_and_changes_nothing(site: Site) -> None:
    text = "print('begun')\ntry: time.sleep(60)\nfinally: raise OSError('the connection is gone')"

    def script() -> None:
        cancel(site, begin(site, text))
        result = site.result()
        assert result.status is m.Status.CANCELLED
        assert "the connection is gone" in error_of(result).traceback

    run(site, script)


def test_an_error_that_came_after_it_was_caught_is_the_tasks_own(site: Site) -> None:
    text = "print('begun')\ntry: time.sleep(60)\nexcept KeyboardInterrupt: pass\nraise ValueError('mine')"

    def script() -> None:
        cancel(site, begin(site, text))
        result = site.result()
        assert (result.status, result.error) == (m.Status.ERROR, "ValueError: mine")

    run(site, script)


def test_what_awaits_ends_with_its_finally_and_what_others_await_goes_on(site: Site) -> None:
    text = """
other = asyncio.ensure_future(asyncio.sleep(0.2, 'others'))
print('begun')
try:
    await asyncio.sleep(60)
finally:
    await asyncio.sleep(0)
    ended = 'rightly'
"""

    def script() -> None:
        cancel(site, begin(site, text))
        assert site.result().status is m.Status.CANCELLED
        assert site.execute("assert ended == 'rightly'; assert await other == 'others'").error == ""

    run(site, script)


# ---------------------------------------------------------------- limits


def limited(site: Site, kind: m.Kind, value: object, limit_s: float) -> TaskId:
    site._tasks += 1
    options = m.RunOptions(kind, BlobId(b""), "", announce=True, time_limit_s=limit_s)
    site.tasks.say(m.Run(options, [m.EngineCall(TaskId(site._tasks), 1, pack(value).inline)]))
    return TaskId(site._tasks)


def test_a_task_over_its_limit_is_ended_and_the_limit_named(site: Site) -> None:
    def script() -> None:
        limited(site, m.Kind.EXECUTE, ("time.sleep(60)", "<execute>", True), 0.1)
        result = site.result()
        assert result.status is m.Status.OVER_LIMIT
        error = error_of(result)
        assert isinstance(error, errors.TimeLimitExceeded)
        assert error.limit_s == 0.1
        assert "longer than its time_limit of 0.1 s" in str(error)
        assert "enginery.errors.TaskTimeout" in result.error_types

    run(site, script)


def test_a_task_within_its_limit_is_not_and_the_next_has_none(site: Site) -> None:
    def script() -> None:
        for _ in range(20):
            limited(site, m.Kind.EXECUTE, ("1", "<execute>", True), 0.05)
            assert site.result().status is m.Status.OK
        assert site.execute("time.sleep(0.2)").status is m.Status.OK

    run(site, script)


# ---------------------------------------------------------------- maps


def begin_map(
    site: Site, function: Callable[..., object], items: list[object], *, limit_s: float = -1.0
) -> TaskId:
    packed = pack_function(function)
    name = content_id([packed.data])
    for record, frame in cut_blob(name, packed.data, keep=True):
        site.tasks.say_with(record, frame)
    site._tasks += 1
    task = TaskId(site._tasks)
    options = m.RunOptions(m.Kind.MAP, name, "f", announce=True, time_limit_s=limit_s)
    site.tasks.say(m.Run(options, [m.EngineCall(task, 1, pack((items,)).inline)]))
    return task


def outcome(result: m.EngineResult) -> tuple[list[object], dict[object, errors.RemoteError]]:
    values, failures = unpack(result.payload)
    return values, {row: unpack_failure(inline, parts) for row, inline, *parts in failures}


def slow(item: int) -> int:
    import threading

    print(item, flush=True)
    threading.Event().wait(60 if item < 0 else 0)
    return item * 2


def test_cancelling_an_item_leaves_the_others_their_values(site: Site) -> None:
    def script() -> None:
        task = begin_map(site, slow, [0, 1, -1, 3, 4, 5])
        assert "-1\n" in site.control.hear(m.EngineOutput).text
        site.control.say(m.SkipItems(task, 1, [4]), m.SkipItems(task, 1, [4, 2]))
        result = site.result()
        assert result.status is m.Status.CANCELLED
        values, failures = outcome(result)
        assert values == [0, 2, None, 6, None, 10]
        assert {row: error.evalue for row, error in failures.items()} == {
            2: f"item 2 of task 00000000-{task} was cancelled while it ran",
            4: "the item was cancelled before it started",
        }
        assert all(isinstance(error, errors.TaskCancelled) for error in failures.values())

    run(site, script)


def test_items_that_are_not_wanted_may_be_named_before_their_part_comes(site: Site) -> None:
    def script() -> None:
        for row in (0, 3):
            site.control.say(m.SkipItems(TaskId(2), 1, [row]))
        site.control.say(m.TakeBack([]))
        site.control.hear(m.TakenBack)
        assert begin_map(site, slow, [0, 1, 2, 3]) == 2
        values, failures = outcome(site.result())
        assert (values, list(failures)) == ([None, 2, 4, None], [0, 3])
        begin_map(site, slow, [0, 1, 2, 3])
        assert outcome(site.result()) == ([0, 2, 4, 6], {})

    run(site, script)


def test_cancelling_the_whole_leaves_what_is_done(site: Site) -> None:
    def script() -> None:
        task = begin_map(site, slow, [0, 1, -1, 3, 4])
        site.control.hear(m.EngineOutput)
        cancel(site, task)
        result = site.result()
        assert result.status is m.Status.CANCELLED
        values, failures = outcome(result)
        assert (values, list(failures)) == ([0, 2, None, None, None], [(2, 5)])

    run(site, script)


def test_a_limit_is_for_each_item(site: Site) -> None:
    def script() -> None:
        begin_map(site, slow, [0, -1, 2, -1, 4], limit_s=0.1)
        result = site.result()
        assert result.status is m.Status.ERROR
        values, failures = outcome(result)
        assert values == [0, None, 4, None, 8]
        assert {row: type(error) for row, error in failures.items()} == {
            1: errors.TimeLimitExceeded,
            3: errors.TimeLimitExceeded,
        }

    run(site, script)


def test_many_items_together_may_take_longer_than_the_limit_of_one(site: Site) -> None:
    def moment(item: int) -> int:
        from time import perf_counter

        until = perf_counter() + 0.0005
        while perf_counter() < until:
            pass
        return item

    def script() -> None:
        begin_map(site, moment, list(range(1000)), limit_s=0.2)
        result = site.result()
        assert (result.status, outcome(result)[1]) == (m.Status.OK, {})

    run(site, script)


# ---------------------------------------------------------------- by hand


@pytest.mark.parametrize("how", ["the controller", "a signal"])
def test_an_interrupt_by_hand_is_a_keyboard_interrupt(site: Site, how: str) -> None:
    def script() -> None:
        begin(site, "print('begun')\ntime.sleep(60)")
        if how == "a signal":
            os.kill(os.getpid(), signal.SIGINT)
        else:
            site.control.say(m.Interrupt(4))
            assert site.control.hear(m.Obeyed).order == 4
        result = site.result()
        assert (result.status, result.error) == (m.Status.ERROR, "KeyboardInterrupt")

    run(site, script)


def test_an_interrupt_by_hand_ends_all_of_a_part_of_a_map(site: Site) -> None:
    def script() -> None:
        begin_map(site, slow, [0, -1, 2, 3])
        site.control.hear(m.EngineOutput)
        site.control.say(m.Interrupt(1))
        values, failures = outcome(site.result())
        assert (values, list(failures)) == ([0, None, None, None], [(1, 4)])
        assert failures[1, 4].ename == "KeyboardInterrupt"

    run(site, script)


def test_an_interrupt_of_an_engine_that_runs_nothing_is_for_nobody(site: Site) -> None:
    def script() -> None:
        for order in range(3):
            site.control.say(m.Interrupt(order))
            site.control.hear(m.Obeyed)
        assert site.execute("time.sleep(0.1)").status is m.Status.OK

    run(site, script)


# ---------------------------------------------------------------- what must not be hit


def test_a_cancel_that_overtakes_its_task_is_remembered(site: Site) -> None:
    def script() -> None:
        assert cancel(site, TaskId(2)) == m.TakenBack([(TaskId(2), 1)], [])
        site.begin(m.Kind.EXECUTE, ("never = 1", "<execute>", True))
        assert site.execute("assert 'never' not in globals()").error == ""

    run(site, script)


def test_a_cancel_that_comes_too_late_is_for_nobody(site: Site) -> None:
    def script() -> None:
        task = site.begin(m.Kind.EXECUTE, ("1", "<execute>", True))
        record = site.tasks.hear(m.Results)
        assert cancel(site, task) == m.TakenBack([], [(task, 1)])
        site.tasks.say(m.Stored(record.first + 1))
        assert site.execute("time.sleep(0.1)").status is m.Status.OK

    run(site, script)


def test_the_engines_own_code_is_not_interrupted_where_user_code_calls_it() -> None:
    found: list[bool] = []

    @user_code.uninterrupted
    def own() -> None:
        helper()

    def helper() -> None:
        found.append(user_code.is_inside(sys._getframe()))

    user_code.call(helper)
    user_code.call(own)
    helper()
    assert found == [True, False, False]


class Crowd:
    """Many short tasks, what they have come to, and which of them were to be ended."""

    def __init__(self, site: Site, function: Callable[[int], int], count: int) -> None:
        self._site = site
        self._left = iter(range(100, 100 + count))
        self._randomness = random.Random(4)
        packed = pack_function(function)
        name = content_id([packed.data])
        for record, frame in cut_blob(name, packed.data, keep=True):
            site.tasks.say_with(record, frame)
        self._options = m.RunOptions(m.Kind.CALL, name, "f", announce=True)
        self._begun = 0
        self.sent: set[TaskId] = set()
        self.results: dict[TaskId, m.EngineResult] = {}
        self.taken: set[TaskId] = set()
        self.asked: set[TaskId] = set()

    def pass_through(self) -> None:
        deadline = clock.now() + 6 * PATIENCE_S
        while len(self.results.keys() | self.taken) < len(self.sent) or self._send():
            assert clock.now() < deadline, (len(self.results), len(self.taken))
            self._cancel_some()
            self._site.receive(clock.now() + 0.001)
            self._listen()

    def _send(self) -> bool:
        tasks = [TaskId(number) for number in islice(self._left, 20)]
        calls = [m.EngineCall(task, 1, self._site.pack_call(int(task))) for task in tasks]
        self._site.tasks.say(m.Run(self._options, calls))
        self.sent.update(tasks)
        return bool(tasks)

    def _cancel_some(self) -> None:
        task = TaskId(self._begun + self._randomness.choice([0, 0, 0, 1, 5]))
        if self._randomness.random() < 0.5 and task in self.sent:
            self.asked.add(task)
            for _ in range(self._randomness.choice([1, 1, 2])):
                self._site.control.say(m.EndCalls([(task, 1)], GRACE_S))

    def _listen(self) -> None:
        heard, self._site.tasks.heard = self._site.tasks.heard, []
        for record in heard:
            if isinstance(record, m.Started):
                self._begun = int(record.task)
            elif isinstance(record, m.Results):
                for result in record.results:
                    assert result.task not in self.results, "a task ends twice"
                    self.results[result.task] = result
                self._site.tasks.say(m.Stored(record.first + len(record.results)))
        heard, self._site.control.heard = self._site.control.heard, []
        self.taken.update(
            task for record in heard if isinstance(record, m.TakenBack) for task, _ in record.taken
        )

    def judge(self) -> None:
        assert self.taken | self.results.keys() == self.sent
        cancelled = 0
        for task, result in self.results.items():
            if result.status is m.Status.OK:
                assert unpack(result.payload) == task
            else:
                assert result.status is m.Status.CANCELLED, result.error
                assert task in self.asked
                cancelled += 1
        assert cancelled > 50, "the test does not test much"


def test_thousands_of_short_tasks_with_random_cancels(site: Site) -> None:
    """Each ends once, with its value or cancelled; none escapes into another one or into the engine."""

    def work(item: int) -> int:
        total = 0
        for step in range(10 * (item % 600)):
            total += step
            if step % 1000 == 0:
                print(step)
        return item

    def script() -> None:
        crowd = Crowd(site, work, 3000)
        crowd.pass_through()
        crowd.judge()

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)  # so that threads meet each other at all places
    try:
        run(site, script)
    finally:
        sys.setswitchinterval(interval_s)
