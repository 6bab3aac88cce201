"""Whose task code works for: that of whoever started it, in any generation, also after its end."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from enginery.engine.threads import TaskRun, TaskThreads
from enginery.ids import TaskId

FIRST, SECOND = TaskRun(TaskId(1), 1), TaskRun(TaskId(2), 3)
PATIENCE_S = 10.0


@pytest.fixture
def threads() -> Iterator[TaskThreads]:
    threads = TaskThreads()
    unfollow = threads.follow()
    yield threads
    threads.end()
    unfollow()


def asked_in_a_thread(threads: TaskThreads) -> TaskRun | None:
    found: list[TaskRun | None] = []
    thread = threading.Thread(target=lambda: found.append(threads.here()))
    thread.start()
    thread.join(PATIENCE_S)
    return found[0]


def test_the_thread_that_runs_tasks_and_those_it_starts(threads: TaskThreads) -> None:
    assert threads.here() is None
    assert asked_in_a_thread(threads) is None
    threads.begin(*FIRST)
    assert repr(threads) == "<TaskThreads of task 1>"
    assert (threads.here(), asked_in_a_thread(threads)) == (FIRST, FIRST)
    assert threads.end() == FIRST
    assert (threads.here(), asked_in_a_thread(threads)) == (None, None)


def test_a_pool_works_for_the_task_that_its_threads_were_started_in(threads: TaskThreads) -> None:
    threads.begin(*FIRST)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(threads.here).result(PATIENCE_S) == FIRST
        threads.end()
        assert pool.submit(threads.here).result(PATIENCE_S) == FIRST
        threads.begin(*SECOND)
        assert threads.here() == SECOND
        assert pool.submit(threads.here).result(PATIENCE_S) == FIRST
        # What an old task's thread starts is the old task's, whatever runs by now.
        assert pool.submit(asked_in_a_thread, threads).result(PATIENCE_S) == FIRST
        # Unless it says itself for whom it works.
        context = contextvars.copy_context()
        assert pool.submit(context.run, threads.here).result(PATIENCE_S) == SECOND


def test_a_thread_made_in_one_task_and_started_in_another(threads: TaskThreads) -> None:
    found: list[TaskRun | None] = []
    threads.begin(*FIRST)
    thread = threading.Thread(target=lambda: found.append(threads.here()))
    threads.end()
    threads.begin(*SECOND)
    thread.start()
    thread.join(PATIENCE_S)
    assert found == [SECOND]


def test_a_thread_that_was_there_before_works_for_none() -> None:
    threads = TaskThreads()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1
        unfollow = threads.follow()
        threads.begin(*FIRST)
        assert pool.submit(threads.here).result(PATIENCE_S) is None
        threads.end()
        unfollow()


def test_coroutines_work_for_the_task_that_made_them(threads: TaskThreads) -> None:
    """One loop for all tasks, as in an engine: what one leaves goes on when the next one awaits."""
    found: list[TaskRun | None] = []
    loop = asyncio.new_event_loop()

    async def note() -> None:
        found.append(threads.here())
        await asyncio.sleep(0)
        found.append(await asyncio.to_thread(threads.here))

    async def leave_one() -> asyncio.Task[None]:
        loop.call_soon(lambda: found.append(threads.here()))
        return asyncio.create_task(note())

    try:
        threads.begin(*FIRST)
        left = loop.run_until_complete(leave_one())
        threads.end()
        threads.begin(*SECOND)
        loop.run_until_complete(note())
        loop.run_until_complete(left)
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    assert sorted(found) == [FIRST, FIRST, FIRST, SECOND, SECOND]  # type: ignore[type-var]
    assert threads.here() == SECOND


def test_a_task_lingers_as_long_as_its_threads(threads: TaskThreads) -> None:
    go_on = threading.Event()
    first = threads.begin(*FIRST)
    assert not threads.linger(first)
    thread = threading.Thread(target=go_on.wait)
    thread.start()
    assert threads.linger(first)
    go_on.set()
    thread.join(PATIENCE_S)
    assert not threads.linger(first)
    threads.end()
    assert not threads.linger(threads.begin(*SECOND)), "its threads are not another's"


def test_it_can_be_ended() -> None:
    start: Callable[..., None] = threading.Thread.start
    unfollow = TaskThreads().follow()
    assert threading.Thread.start is not start
    unfollow()
    assert threading.Thread.start is start
