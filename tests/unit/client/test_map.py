"""Maps: cut, sent, put together again; errors, order, bars, laziness."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from enginery.client.client import Client
from enginery.client.map_driver import BUFFER_ITEMS
from enginery.client.results import AsyncMapResult
from enginery.errors import ClientClosed, CompositeError, EngineError, TaskAborted, TaskCancelled
from enginery.ids import EngineId, TaskId
from enginery.protocol.messages import Kind, Status, TaskResult
from tests.unit.client.fake_session import PATIENCE_S, FakeSession, chunk_sizes, columns_of, make_client


@pytest.fixture
def parts() -> Iterator[tuple[Client, FakeSession]]:
    client, session = make_client((0, 1))
    yield client, session
    client.close()
    assert not [thread.name for thread in threading.enumerate() if "feeder" in thread.name]


def double(item: int) -> int:
    return 2 * item


def fail_odd(item: int) -> int:
    if item % 2:
        raise ValueError(f"{item} is odd")
    return item


# ---------------------------------------------------------------- direct


def test_direct_maps_have_one_contiguous_part_for_each_engine(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar = client[:].map_async(double, range(5))
    assert [columns_of(call) for call in session.submissions] == [(range(3),), (range(3, 5),)]
    assert [call.engines for call in session.submissions] == [(0,), (1,)]
    assert len(ar) == 5
    assert len(ar.msg_ids) == 2
    assert ar.get() == [0, 2, 4, 6, 8]
    assert ar.get_dict() == {0: [0, 2, 4], 1: [6, 8]}
    assert ar.engine_id == [0, 1]
    session.is_held = True
    assert client[1, 0].map_async(double, range(3)).engine_id == [1, 0]
    session.is_held = False
    assert client[1, 0].map_sync(double, [1, 2]) == [2, 4]
    assert client[0].map_sync(double, [1, 2]) == [2, 4]


@pytest.mark.parametrize(
    "items",
    [
        [1, 2, 3],
        (1, 2, 3),
        range(1, 4),
        b"\x01\x02\x03",
        np.array([1, 2, 3]),
        {1: "a", 2: "b", 3: "c"},
        deque([1, 2, 3]),
        iter([1, 2, 3]),
    ],
)
@pytest.mark.parametrize("is_balanced", [True, False])
def test_any_iterable(parts: tuple[Client, FakeSession], items: Any, is_balanced: bool) -> None:
    client, _ = parts
    view = client.load_balanced_view() if is_balanced else client[:]
    if isinstance(items, type(iter([]))):
        items = iter([1, 2, 3])
    assert view.map_sync(double, items) == [2, 4, 6]


@pytest.mark.parametrize("is_balanced", [True, False])
def test_several_sequences_end_with_the_shortest(
    parts: tuple[Client, FakeSession], is_balanced: bool
) -> None:
    client, _ = parts
    view = client.load_balanced_view() if is_balanced else client[:]
    assert view.map_sync(pow, [1, 2, 3, 4], (2, 3, 2)) == [1, 8, 9]
    assert view.map_sync(pow, [1, 2, 3], itertools.repeat(2)) == [1, 4, 9]
    assert view.map_sync(pow, [], [1]) == []
    assert view.map_sync(pow, iter([]), [1]) == []


@pytest.mark.parametrize("is_balanced", [True, False])
def test_bad_calls(parts: tuple[Client, FakeSession], is_balanced: bool) -> None:
    client, session = parts
    view = client.load_balanced_view() if is_balanced else client[:]
    for arguments, text in (
        ((double,), "map needs at least one sequence after the function"),
        ((double, 3), "sequence 0 of the map is of type int, which cannot be iterated over"),
        ((3, [1]), "a function is needed, not 3"),
    ):
        with pytest.raises(TypeError, match=text):
            view.map(*arguments)
    with pytest.raises(TypeError, match="map_async has no keyword 'block'"):
        view.map_async(double, [1], block=True)
    with pytest.raises(TypeError, match="map has no keyword 'nonsense'"):
        view.map(double, [1], nonsense=1)
    with pytest.raises(TypeError, match=r"item 1, of type _thread\.lock, cannot be sent"):
        view.map(double, [1, threading.Lock()])
    assert session.submissions == []


# ---------------------------------------------------------------- balanced


def test_up_to_a_thousand_items_are_a_task_each(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.order = lambda count: count - 1
    ar = client.load_balanced_view().map_async(double, range(1000))
    assert chunk_sizes(session) == [1] * 1000
    assert len(ar) == len(ar.msg_ids) == 1000
    assert ar.get() == list(range(0, 2000, 2))
    assert all(call.options is session.submissions[0].options for call in session.submissions)
    assert session.submissions[0].options.kind is Kind.MAP


def test_longer_maps_are_cut_by_measured_duration(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.item_s = 0.001
    ar = client.load_balanced_view().map_async(double, range(5000))
    assert chunk_sizes(session) == [1] * 6
    assert ar.get() == list(range(0, 10000, 2))
    sizes = chunk_sizes(session)
    assert sum(sizes) == 5000
    assert max(sizes) == 50
    assert sizes.count(50) > 90
    assert session.most_under_way == 6
    assert ar.serial_time == pytest.approx(5.0)


def test_chunksize_is_obeyed(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    view = client.load_balanced_view([1])
    assert view.map_sync(double, range(10), chunksize=4) == list(range(0, 20, 2))
    assert chunk_sizes(session) == [4, 4, 2]
    assert view.map_sync(double, iter(range(10)), chunksize=4) == list(range(0, 20, 2))
    assert chunk_sizes(session) == [4, 4, 2] * 2
    assert session.submissions[0].options.candidates == (1,)
    for bad, error in ((0, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="chunksize must be"):
            view.map(double, [1], chunksize=bad)


def test_results_come_in_order_while_the_map_runs(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar = client.load_balanced_view().map_async(double, range(4))
    results = iter(ar)
    assert next(results) == 0
    assert len(session.waiting) == 3
    assert ar.progress == 1
    session.order = lambda count: count - 1
    assert next(results) == 2
    assert session.waiting == []
    assert ar.ready()
    assert list(results) == [4, 6]
    assert list(ar) == [0, 2, 4, 6]


def test_unordered_results_come_as_they_arrive(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.order = lambda count: count - 1
    ar = client.load_balanced_view().map_async(double, range(6), chunksize=2, ordered=False)
    assert list(ar) == [8, 10, 4, 6, 0, 2]
    assert ar.get() == [0, 2, 4, 6, 8, 10]


def test_a_list_that_is_changed_meanwhile(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts
    items = list(range(3000))
    ar = client.load_balanced_view().map_async(double, items)
    items.clear()
    assert ar.get() == list(range(0, 6000, 2))


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("flags", [{}, {"chunksize": 3}])
def test_failures_count_items(parts: tuple[Client, FakeSession], flags: dict[str, int]) -> None:
    client, _ = parts
    ar = client.load_balanced_view().map_async(fail_odd, range(6), **flags)
    with pytest.raises(CompositeError, match="3 of 6 items of fail_odd failed") as caught:
        ar.get()
    assert [entry[1] for entry in caught.value.elist] == ["1 is odd", "3 is odd", "5 is odd"]
    found = ar.get(return_exceptions=True)
    assert found[::2] == [0, 2, 4]
    assert [str(error).partition("\n")[0] for error in found[1::2]] == [
        "ValueError(1 is odd)",
        "ValueError(3 is odd)",
        "ValueError(5 is odd)",
    ]
    results = iter(ar)
    assert next(results) == 0
    with pytest.raises(ValueError, match="1 is odd"):
        next(results)


@pytest.mark.parametrize("is_balanced", [True, False])
def test_return_exceptions(parts: tuple[Client, FakeSession], is_balanced: bool) -> None:
    client, _ = parts
    view = client.load_balanced_view() if is_balanced else client[:]
    for found in (
        view.map_sync(fail_odd, [0, 1, 2], return_exceptions=True),
        list(view.map_async(fail_odd, [0, 1, 2], return_exceptions=True)),
    ):
        assert [type(item).__mro__[1].__name__ if item == 1 else item for item in (found[0], found[2])] == [
            0,
            2,
        ]
        assert isinstance(found[1], ValueError)
    ar = view.map_async(fail_odd, [0, 1, 2], return_exceptions=True)
    ar.wait()
    assert ar.exception() is None


def test_one_failed_item_raises_itself(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts
    with pytest.raises(ValueError, match="1 is odd"):
        client.load_balanced_view().map_sync(fail_odd, [0, 1, 2])


def test_a_chunk_whose_engine_dies(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.verdicts[2] = TaskResult(TaskId(2), Status.ENGINE_DIED, engine=EngineId(1), detail="killed")
    ar = client.load_balanced_view().map_async(double, range(6), chunksize=2)
    with pytest.raises(EngineError, match="engine 1 died: killed; task 0abcdef0-2 was not finished"):
        ar.get()
    found = ar.get(return_exceptions=True)
    assert found[:2] + found[4:] == [0, 2, 8, 10]
    assert isinstance(found[2], EngineError)
    assert found[3] is found[2]


def test_a_function_that_cannot_be_built(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts
    ar = client.load_balanced_view().map_async(Unbuildable(), range(2), chunksize=2)
    with pytest.raises(LookupError, match="cannot be built"):
        ar.get()
    first, second = ar.get(return_exceptions=True)
    assert first is second


class Unbuildable:
    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse, ()

    def __call__(self, item: int) -> int:
        return item


def _refuse() -> None:
    raise LookupError("this cannot be built")


def test_an_item_that_cannot_be_pickled_late_in_a_long_map(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    items: list[Any] = list(range(3000))
    items[2500] = threading.Lock()
    ar = client.load_balanced_view().map_async(double, items)
    found = ar.get(return_exceptions=True)
    assert found[:2500] == list(range(0, 5000, 2))
    assert found[2501:] == list(range(5002, 6000, 2))
    assert isinstance(found[2500], TypeError)
    assert str(found[2500]).startswith("item 2500, of type _thread.lock, cannot be sent")
    assert len(ar.msg_ids) == len(session.submissions)
    with pytest.raises(TypeError, match="item 2500"):
        ar.get()


def test_many_items_that_cannot_be_pickled(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts
    items: list[Any] = [*range(10), *(threading.Lock() for _ in range(3000))]
    found = client.load_balanced_view().map_sync(double, items, return_exceptions=True)
    assert found[:10] == list(range(0, 20, 2))
    assert [type(item) for item in found[10:]] == [TypeError] * 3000


def test_one_that_cannot_be_pickled_at_the_start_of_a_long_map(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    items: list[Any] = list(range(3000))
    items[3] = threading.Lock()
    with pytest.raises(TypeError, match="item 3"):
        client.load_balanced_view().map_async(double, items)
    assert session.outstanding() == set()


def test_ctrl_c_in_mid_map_loses_nothing(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar = client.load_balanced_view().map_async(double, range(2000))
    submit, calls = session.submit, itertools.count()

    def interrupted(*arguments: Any, **more: Any) -> TaskId:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return submit(*arguments, **more)

    session.submit = interrupted  # type: ignore[method-assign]
    entry = None
    with pytest.raises(KeyboardInterrupt):
        while True:
            entry = session.waiting.pop(0)
            session.run(entry)
    assert entry is not None
    session.run(entry)  # an interrupted delivery is made again
    assert ar.get() == list(range(0, 4000, 2))


# ---------------------------------------------------------------- taking back


def test_abort_ends_what_was_not_sent_too(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar = client.load_balanced_view().map_async(double, range(2000))
    session.step()
    ar.abort()
    assert ar.done()
    assert session.outstanding() == set()
    found = ar.get(return_exceptions=True)
    assert found[0] == 0
    assert len(found) == 2000
    assert {type(item) for item in found[1:]} == {TaskAborted}
    with pytest.raises(RuntimeError):
        ar.abort()


def test_cancel(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts
    ar = client.load_balanced_view().map_async(double, range(2000))
    assert ar.cancel() is True
    assert ar.cancelled()
    with pytest.raises(TaskCancelled):
        ar.exception()
    with pytest.raises(TaskCancelled, match="2000 of 2000 items of double were cancelled"):
        ar.get()
    assert ar.cancel() is False


def test_ctrl_c_in_a_blocking_map_takes_it_back(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts

    def interrupt(*_: Any) -> bool:
        raise KeyboardInterrupt

    session.wait_until = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        client.load_balanced_view().map_sync(double, range(2000))
    assert session.outstanding() == set()


@pytest.mark.parametrize("is_balanced", [True, False])
def test_ctrl_c_while_a_map_is_sent_leaves_nothing_outstanding(
    parts: tuple[Client, FakeSession], is_balanced: bool
) -> None:
    client, session = parts
    view = client.load_balanced_view() if is_balanced else client[:]
    submit, calls = session.submit, itertools.count()

    def interrupted(*arguments: Any, **more: Any) -> TaskId:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return submit(*arguments, **more)

    session.submit = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        view.map_async(double, range(10))
    assert len(session.submissions) == 1
    assert session.outstanding() == set()


def test_a_client_that_is_closed_in_mid_map(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts
    ar = client.load_balanced_view().map_async(double, range(2000))
    client.close()
    assert ar.done()
    found = ar.get(return_exceptions=True)
    assert len(found) == 2000
    assert isinstance(found[-1], ClientClosed)


# ---------------------------------------------------------------- iterators


class Counted:
    """An endless iterator that counts how far it was read, and can be waited for."""

    def __init__(self, stop: int | None = None) -> None:
        self.read = 0
        self.stop = stop
        self.changed = threading.Condition()

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        with self.changed:
            if self.read == self.stop:
                raise StopIteration
            self.read += 1
            self.changed.notify_all()
            return self.read - 1

    def reaches(self, count: int) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.read >= count, PATIENCE_S)


def _feeder(client: Client) -> Any:
    return client.feeders._feeders[-1]


def _ended(feeder: Any) -> bool:
    feeder.thread.join(PATIENCE_S)
    return not feeder.thread.is_alive()


def test_an_iterator_is_read_at_most_buffersize_ahead(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    items = Counted()
    ar = client.load_balanced_view().map_async(double, items, buffersize=5)
    results = iter(ar)
    for taken in range(1, 30):
        assert next(results) == 2 * (taken - 1)
        assert items.reaches(taken + 4)
        assert items.read <= taken + 5
    with pytest.raises(TypeError, match="the length of this map is known when"):
        len(ar)
    assert repr(ar).endswith("of ? items>")
    ar.abort()
    assert _ended(_feeder(client))
    session.run_all()
    assert (ar.done() and len(ar) == items.read) or len(ar) == items.read - 1


def test_an_endless_iterator_with_the_default_bound(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    items = Counted()
    results = iter(client.load_balanced_view().map_async(double, items))
    assert [next(results) for _ in range(2500)] == list(range(0, 5000, 2))
    feeder = _feeder(client)
    del results
    for _ in range(1000):  # what was read is run; the rest is not read for nobody
        session.run_all()
        feeder.thread.join(PATIENCE_S / 1000)
        if not feeder.thread.is_alive():
            break
    assert not feeder.thread.is_alive()
    assert items.read <= 2500 + BUFFER_ITEMS


def test_waiting_for_the_whole_takes_all(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar = client.load_balanced_view().map_async(double, Counted(3000), buffersize=5)
    assert ar.get() == list(range(0, 6000, 2))
    assert len(ar) == 3000
    assert chunk_sizes(session)[:1000] == [1] * 1000
    assert _ended(_feeder(client))


def test_a_map_that_nobody_iterates_over_comes_to_its_end(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar = client.load_balanced_view().map_async(double, Counted(25_000))
    session.wait_until(ar.done)
    assert len(ar) == ar.progress == 25_000


def test_a_map_whose_result_nobody_keeps_still_runs(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    items = Counted(50)
    gone = weakref.ref(client.load_balanced_view().map_async(double, items))
    assert items.reaches(50)
    assert _ended(_feeder(client))
    session.run_all()
    assert len(session.submissions) == 50
    gc.collect()
    assert gone() is None


def test_an_iterator_that_raises(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts

    def items() -> Iterator[int]:
        yield from (1, 2)
        raise OSError("no more of the tape")

    ar = client.load_balanced_view().map_async(double, items())
    results = iter(ar)
    assert [next(results), next(results)] == [2, 4]
    with pytest.raises(OSError, match="no more of the tape"):
        next(results)
    with pytest.raises(OSError, match="no more of the tape"):
        ar.get(return_exceptions=True)
    assert isinstance(ar.exception(), OSError)


def test_closing_the_client_ends_the_feeder(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.is_held = True
    items = Counted()
    ar = client.load_balanced_view().map_async(double, items, buffersize=7)
    assert items.reaches(7)
    feeder = _feeder(client)
    client.close()
    assert not feeder.thread.is_alive()
    assert ar.done() is False or isinstance(ar.get(return_exceptions=True), list)


def test_a_slow_iterator_does_not_keep_items_back(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts
    gate = threading.Semaphore(0)

    def items() -> Iterator[int]:
        for number in itertools.count():
            assert gate.acquire(timeout=PATIENCE_S)
            if number == 1205:
                return
            yield number

    results = iter(client.load_balanced_view().map_async(double, items()))
    for number in range(1205):
        gate.release()
        assert next(results) == 2 * number
    gate.release()
    assert list(results) == []


def test_maps_from_several_threads(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts
    view = client.load_balanced_view()
    found: dict[int, Any] = {}

    def run(number: int) -> None:
        items = range(number * 10_000, number * 10_000 + 2500)
        found[number] = view.map_sync(double, items if number % 2 else iter(items))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for number in range(8):
        first = number * 20_000
        assert found[number] == list(range(first, first + 5000, 2))


# ---------------------------------------------------------------- bars


def test_progress_counts_items_and_failures(
    parts: tuple[Client, FakeSession], capsys: pytest.CaptureFixture[str]
) -> None:
    client, _ = parts
    before = threading.active_count()
    view = client.load_balanced_view()
    assert len(view.map_sync(fail_odd, range(10), progress=True, return_exceptions=True)) == 10
    text = capsys.readouterr().err
    assert "fail_odd: 100%" in text
    assert "10/10" in text
    assert "5 failed" in text
    list(view.map_async(double, iter(range(10)), progress=True))
    text = capsys.readouterr().err
    assert "double: 100%" in text
    assert "10/10" in text
    assert client[:].map_sync(double, [], progress=True) == []
    for thread in [feeder.thread for feeder in client.feeders._feeders]:
        thread.join(PATIENCE_S)
    assert threading.active_count() == before


def test_wait_interactive(parts: tuple[Client, FakeSession], capsys: pytest.CaptureFixture[str]) -> None:
    client, _ = parts
    ar = client.load_balanced_view().map_async(fail_odd, range(10), chunksize=5)
    assert ar.wait_interactive() is True
    text = capsys.readouterr().err
    assert "10/10" in text
    assert "5 failed" in text
    assert " items" in text


def test_repr(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar: AsyncMapResult = client.load_balanced_view().map_async(double, range(4))
    session.step()
    assert repr(ar) == "<AsyncMapResult: double: 1 of 4 items>"
