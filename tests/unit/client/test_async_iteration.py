"""`async for` over results: items as they come, in an event loop that goes on meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from enginery.client.client import Client
from enginery.client.results import AsyncResult
from enginery.client.results.awaiting import LoopWaits
from tests.unit.client.fake_session import PATIENCE_S, FakeSession, make_client


@pytest.fixture
def parts() -> Iterator[tuple[Client, FakeSession]]:
    client, session = make_client((0, 1))
    yield client, session
    client.close()


def double(item: int) -> int:
    return 2 * item


def fail_odd(item: int) -> int:
    if item % 2:
        raise ValueError(f"{item} is odd")
    return item


def collect(session: FakeSession, result: AsyncResult) -> list[Any]:
    """All values, while another thread plays the engines."""

    async def all_of_them() -> list[Any]:
        return [value async for value in result]

    engines = threading.Thread(target=session.wait_until, args=(result.done, PATIENCE_S))
    engines.start()
    try:
        return asyncio.run(asyncio.wait_for(all_of_them(), PATIENCE_S))
    finally:
        engines.join()


@pytest.mark.parametrize("ordered", [True, False])
def test_items_of_a_map(parts: tuple[Client, FakeSession], ordered: bool) -> None:
    client, session = parts
    view = client.load_balanced_view()
    found = collect(session, view.map_async(double, range(7), chunksize=2, ordered=ordered))
    assert (found if ordered else sorted(found)) == [0, 2, 4, 6, 8, 10, 12]


def test_items_that_come_while_the_loop_waits(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.is_held = True
    result = client.load_balanced_view().map_async(double, range(3), chunksize=1)
    taken: list[int] = []

    async def consume() -> None:
        async for value in result:
            taken.append(value)

    async def scene() -> None:
        consumer = asyncio.create_task(consume())
        await asyncio.sleep(0)
        assert taken == []
        session.is_held = False
        thread = threading.Thread(target=session.run_all)
        thread.start()
        await asyncio.wait_for(consumer, PATIENCE_S)
        thread.join()

    asyncio.run(scene())
    assert taken == [0, 2, 4]


def test_the_first_error_ends_it(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    with pytest.raises(ValueError, match="1 is odd"):
        collect(session, client.load_balanced_view().map_async(fail_odd, range(4), chunksize=2))
    found = collect(session, client[:].map_async(fail_odd, range(3), return_exceptions=True))
    assert [str(item)[:20] for item in found] == ["0", "ValueError(1 is odd)", "2"]


def test_items_of_an_iterator(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    result = client.load_balanced_view().map_async(double, iter(range(50)), buffersize=3)
    assert collect(session, result) == list(range(0, 100, 2))


def test_an_iterator_that_raises(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts

    def items() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        collect(session, client.load_balanced_view().map_async(double, items()))


def test_values_of_several_engines(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    assert collect(session, client[:].apply_async(double, 4)) == [8, 8]
    with pytest.raises(TypeError, match="nothing to iterate over; await it"):
        aiter(client[0].apply_async(double, 4))


def test_a_loop_that_was_closed_is_not_waited_for(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.is_held = True
    result = client.load_balanced_view().map_async(double, range(2))

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(aiter(result)), 0.01)

    asyncio.run(give_up())
    session.is_held = False
    session.run_all()
    assert result.get() == [0, 2]


def test_tellings_after_a_loops_end_do_no_harm() -> None:
    waits = LoopWaits()

    async def leave_a_waker() -> None:
        waiting = waits.until(lambda: False)
        waiting.send(None)
        waits._abandoned = waiting  # type: ignore[attr-defined]

    asyncio.run(leave_a_waker())
    waits.tell()
    assert repr(waits) == "<LoopWaits: 1>"
    waits._abandoned.close()  # type: ignore[attr-defined]
    assert repr(waits) == "<LoopWaits: 0>"


@pytest.mark.parametrize("dist", ["b", "r"])
def test_items_of_parts(parts: tuple[Client, FakeSession], dist: str) -> None:
    client, session = parts
    halves = client[:].parallel(dist=dist, block=False)(lambda items: [2 * item for item in items])
    assert collect(session, halves(range(5))) == [0, 2, 4, 6, 8]
