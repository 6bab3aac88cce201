"""The engine's event loop: one for all tasks, and an interrupt ends what was interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator

import pytest

from enginery.engine import event_loop
from enginery.engine.event_loop import EventLoop


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    loop = EventLoop()
    yield loop
    loop.close()


async def the_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_it_is_the_same_one_each_time(loop: EventLoop) -> None:
    assert repr(loop) == "<EventLoop, not begun>"
    first = loop.run(the_loop())
    assert loop.run(the_loop()) is first
    loop.close()
    assert first.is_closed()


def test_what_is_left_running_goes_on_with_the_next(loop: EventLoop) -> None:
    steps: list[int] = []

    async def count() -> None:
        for step in range(3):
            steps.append(step)
            await asyncio.sleep(0)

    async def begin() -> asyncio.Task[None]:
        return asyncio.create_task(count())

    task = loop.run(begin())

    async def finish() -> None:
        await task

    loop.run(finish())
    assert steps == [0, 1, 2]


def test_errors_are_the_coroutines(loop: EventLoop) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError("x")

    with pytest.raises(KeyError):
        loop.run(fail())


def test_an_interrupt_ends_what_was_interrupted(loop: EventLoop) -> None:
    ended: list[str] = []

    async def wait() -> None:
        running = asyncio.get_running_loop()
        running.call_soon(interrupt)  # as a signal would: outside the coroutine
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("ended")

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.run(wait())
    assert ended == ["ended"]
    assert loop.run(the_loop())


def test_what_does_not_let_itself_be_cancelled_is_left(
    loop: EventLoop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(event_loop, "CLOSE_S", 0.01)

    async def stay() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    async def begin() -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(stay()), asyncio.create_task(asyncio.sleep(60))]
        await asyncio.sleep(0)
        return tasks

    staying, waiting = loop.run(begin())
    loop.close()
    assert waiting.cancelled()
    assert not staying.done()
    staying.get_coro().close()  # type: ignore[union-attr]
    del staying
    gc.collect()
    assert "Task was destroyed but it is pending" in caplog.text
