"""The face to be awaited is made from the blocking one."""

import asyncio
import threading

import pytest

from enginery.cluster.faces import awaited


class Thing:
    def __init__(self) -> None:
        self.entered = threading.Event()
        self.leave = threading.Event()
        self.left = False

    def add_sync(self, one: int, *, two: int = 2) -> int:
        """Add numbers."""
        if one < 0:
            raise ValueError("negative")
        return one + two

    def hold_sync(self) -> str:
        self.entered.set()
        assert self.leave.wait(10)
        self.left = True
        return "held"

    add = awaited(add_sync)
    hold = awaited(hold_sync)


def test_it_returns_what_the_method_returns() -> None:
    assert asyncio.run(Thing().add(1)) == 3
    assert asyncio.run(Thing().add(1, two=5)) == 6


def test_it_raises_what_the_method_raises() -> None:
    with pytest.raises(ValueError, match="negative"):
        asyncio.run(Thing().add(-1))


def test_it_says_what_it_is() -> None:
    assert Thing.add.__name__ == "add"
    assert Thing.add.__qualname__ == "Thing.add"
    assert Thing.add.__doc__ == "Add numbers.\n\nTo be awaited; `add_sync` is the blocking face."
    assert asyncio.iscoroutinefunction(Thing.add)


def test_the_loop_goes_on_meanwhile() -> None:
    thing = Thing()

    async def main() -> str:
        holding = asyncio.ensure_future(thing.hold())
        await asyncio.to_thread(thing.entered.wait, 10)
        assert await asyncio.wait_for(asyncio.sleep(0, "beside"), 10) == "beside"
        thing.leave.set()
        return await holding

    assert asyncio.run(main()) == "held"


def test_cancelled_it_waits_for_the_end_of_the_method() -> None:
    thing = Thing()

    async def main() -> None:
        holding = asyncio.ensure_future(thing.hold())
        await asyncio.to_thread(thing.entered.wait, 10)
        holding.cancel()
        asyncio.get_running_loop().call_soon(thing.leave.set)
        with pytest.raises(asyncio.CancelledError):
            await holding
        assert thing.left

    asyncio.run(main())
