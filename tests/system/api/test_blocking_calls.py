"""Every blocking call works where it is made: in a callback, in a running event loop, in any thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

import enginery as ipp
from tests.system.api.held import PATIENCE_S, Gate


def in_callback(rc: ipp.Client, work: Callable[[], Any]) -> Any:
    done: Future[Any] = Future()
    ar = rc[0].apply_async(abs, -1)
    ar.add_done_callback(lambda _: done.set_result(work()))
    return done.result(PATIENCE_S)


def in_loop(rc: ipp.Client, work: Callable[[], Any]) -> Any:
    """In the main thread, as in a notebook's cell."""

    async def main() -> Any:
        assert asyncio.get_running_loop().is_running()
        return work()

    return asyncio.run(main())


def in_callback_of_a_loop(rc: ipp.Client, work: Callable[[], Any]) -> Any:
    """While the loop serves somebody else who awaits."""

    async def main() -> Any:
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: done.set_result(work()))
        value, others = await asyncio.gather(done, rc[:].apply_async(abs, -2))
        assert others == [2, 2]
        return value

    return asyncio.run(main())


def in_thread(rc: ipp.Client, work: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join(PATIENCE_S)
    return found[0]


def in_thread_of_a_loop(rc: ipp.Client, work: Callable[[], Any]) -> Any:
    return asyncio.run(asyncio.to_thread(work))


PLACES = [in_callback, in_loop, in_callback_of_a_loop, in_thread, in_thread_of_a_loop]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_calls(rc: ipp.Client, place: Callable[[ipp.Client, Callable[[], Any]], Any]) -> None:
    def block() -> list[Any]:
        view, balanced = rc[:], rc.load_balanced_view()
        view.push({"a": 3}, block=True)
        balanced.apply_async(abs, -6).wait_for_send(PATIENCE_S)
        with rc.executor() as executor:
            six = executor.submit(abs, -6).result(PATIENCE_S)
        text = view.execute("print('text')", block=True).stdout
        ar = view.apply_async(abs, -7)
        assert rc.wait(ar, PATIENCE_S)
        return [
            *(view.apply_sync(abs, -1), balanced.map_sync(abs, [-2, 3]), view["a"], view.pull("a").get()),
            *(view.gather("[a]", block=True), balanced.reduce(max, [1, 5, 4]), six, text),
            *(list(balanced.imap(abs, [-8])), rc.get_result(ar.msg_ids).get(PATIENCE_S)),
            *(rc.queue_status()["unassigned"], rc.output(ar.msg_ids[0]), ar.wait_interactive()),
            *(rc.replay(ar)[0].done(), ar.wait_for_output(), rc.wait(timeout=PATIENCE_S)),
            *("engines" in rc._repr_mimebundle_()[0]["text/plain"], len(rc.status().engines)),
        ]

    assert place(rc, block) == [
        *([1, 1], [2, 3], [3, 3], [3, 3], [3, 3], 5, 6, ["text\n"] * 2, [8], [7, 7]),
        *(0, "", True, True, True, True, True, 2),
    ]


def test_a_callback_may_wait_for_what_has_come_together_with_its_result(rc: ipp.Client, gate: Gate) -> None:
    view = rc[0]
    held = gate.hold(view)
    results = [view.apply_async(abs, number) for number in range(20)]  # their results travel together
    found: list[Any] = []
    done = threading.Event()

    def call_back(ar: Any) -> None:
        found.append([other.get(PATIENCE_S) for other in results])
        if len(found) == len(results):
            done.set()

    for ar in results:
        ar.add_done_callback(call_back)
    gate.open()
    assert done.wait(PATIENCE_S)
    assert found == [list(range(20))] * 20
    assert held.get(PATIENCE_S) == "through"


def test_a_callback_may_wait_for_all_that_is_outstanding(rc: ipp.Client, gates: Callable[[], Gate]) -> None:
    first, second = gates(), gates()
    fast, slow = first.hold(rc[0]), second.hold(rc[1])
    waited: Future[bool] = Future()
    fast.add_done_callback(lambda _: (second.open(), waited.set_result(rc.wait(timeout=PATIENCE_S))))
    first.open()
    assert waited.result(2 * PATIENCE_S) is True
    assert slow.done()


def test_a_cluster_in_a_running_loop() -> None:
    async def main() -> list[int]:
        with ipp.Cluster(n=1) as rc:
            blocking: list[int] = rc[:].apply_sync(abs, -1)
            awaited: list[int] = await rc[:].apply_async(abs, -2)
            return blocking + awaited

    assert asyncio.run(main()) == [1, 2]
