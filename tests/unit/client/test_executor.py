"""ViewExecutor: PEP 3148 over a view."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import operator
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from enginery.client.client import Client
from enginery.client.executor import ViewExecutor
from enginery.client.results import AsyncResult
from tests.unit.client.fake_session import FakeSession, chunk_sizes, make_client


@pytest.fixture
def parts() -> Iterator[tuple[ViewExecutor, Client, FakeSession]]:
    client, session = make_client((0, 1))
    yield ViewExecutor(client.load_balanced_view()), client, session
    client.close()


Parts = tuple[ViewExecutor, Client, FakeSession]


def fail_odd(item: int) -> int:
    if item % 2:
        raise ValueError(f"{item} is odd")
    return item


# ---------------------------------------------------------------- submit


def test_submit_gives_a_future(parts: Parts) -> None:
    executor, client, _ = parts
    assert isinstance(executor, concurrent.futures.Executor)
    future = executor.submit(pow, 2, 10)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result() == 1024
    assert executor.submit(dict, self=1, fn=2).result() == {"self": 1, "fn": 2}
    assert isinstance(executor.submit(fail_odd, 1).exception(), ValueError)
    assert executor._max_workers == 2
    assert executor.view is client.load_balanced_view()
    assert repr(executor) == "<ViewExecutor over <LoadBalancedView None>: 0 calls pending>"
    futures = [executor.submit(abs, -n) for n in range(5)]
    assert [future.result() for future in futures] == list(range(5))
    with pytest.raises(TypeError, match=r"cannot be sent|cannot pickle"):
        executor.submit(abs, threading.Lock())
    assert not executor._pending


# ---------------------------------------------------------------- map


def test_map_reads_all_and_gives_values_in_order(parts: Parts) -> None:
    executor, _, session = parts
    session.order = lambda count: count - 1
    items = iter(range(5))
    values = executor.map(abs, items)
    assert next(items, None) is None
    assert len(session.submissions) == 5
    assert list(values) == list(range(5))
    assert list(executor.map(operator.mul, [1, 2, 3], (4, 5))) == [4, 10]
    assert list(executor.map(abs, [])) == []
    assert not executor._pending


def test_map_runs_though_nobody_iterates(parts: Parts) -> None:
    executor, _, session = parts
    executor.map(abs, range(3))
    executor.shutdown()
    assert len(session.submissions) == 3
    assert session.outstanding() == set()


def test_the_first_error_ends_it_and_takes_back_the_rest(parts: Parts) -> None:
    executor, _, session = parts
    values = executor.map(fail_odd, range(5))
    assert next(values) == 0
    with pytest.raises(ValueError, match="1 is odd"):
        next(values)
    assert session.outstanding() == set()
    with pytest.raises(StopIteration):
        next(values)


def test_a_time_out_counts_from_the_call(parts: Parts) -> None:
    executor, _, session = parts
    session.is_held = True
    values = executor.map(abs, range(3), timeout=0)
    session.step()
    assert next(values) == 0
    with pytest.raises(TimeoutError, match=r"abs has not ended \(1 of 3 items done\)"):
        next(values)
    assert session.outstanding() == set()
    assert list(executor.map(abs, [], timeout=0)) == []


def test_closing_the_iterator_takes_back_the_rest(parts: Parts) -> None:
    executor, _, session = parts
    with contextlib.closing(executor.map(abs, range(5))) as values:  # type: ignore[type-var]
        assert next(values) == 0
    assert session.outstanding() == set()


def test_chunksize(parts: Parts) -> None:
    executor, client, session = parts
    assert list(executor.map(abs, range(5), chunksize=2)) == list(range(5))
    assert chunk_sizes(session) == [2, 2, 1]
    for bad, error in ((0, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="chunksize must be"):
            executor.map(abs, [1], chunksize=bad)  # type: ignore[arg-type]
    session.submissions.clear()
    assert list(ViewExecutor(client[:]).map(abs, range(5), chunksize=2)) == list(range(5))
    assert chunk_sizes(session) == [3, 2]


@pytest.mark.parametrize("chunksize", [None, 3])
def test_buffersize_bounds_what_is_read_ahead(parts: Parts, chunksize: int | None) -> None:
    executor, _, session = parts
    items = itertools.count()
    values = executor.map(abs, items, buffersize=2, chunksize=chunksize)
    size = chunksize or 1
    assert next(items) == 2 * size
    session.submissions.clear()
    expected = [n for n in range(2 + 20 * size) if n != 2 * size][:15]
    assert [next(values) for _ in range(15)] == expected
    assert next(items) <= 2 * size + 15 + 2 * size
    values.close()  # type: ignore[attr-defined]
    assert session.outstanding() == set()
    for bad, error in ((0, ValueError), ("2", TypeError)):
        with pytest.raises(error, match="buffersize must be"):
            executor.map(abs, [1], buffersize=bad)  # type: ignore[arg-type]


def test_a_full_buffer_reads_no_more(parts: Parts) -> None:
    executor, _, session = parts
    items = iter(range(4))
    executor.map(str, items, buffersize=2)
    executor.shutdown()
    assert next(items) == 2
    assert session.outstanding() == set()


# ---------------------------------------------------------------- shutdown


def test_shutdown_waits_and_takes_no_new_calls(parts: Parts) -> None:
    executor, _, session = parts
    future = executor.submit(abs, -1)
    executor.shutdown()
    assert future.done()
    for call in (lambda: executor.submit(abs, 1), lambda: executor.map(abs, [1])):
        with pytest.raises(RuntimeError, match="has been shut down and takes no new calls"):
            call()
    assert repr(executor).endswith("shut down>")
    executor.shutdown()
    assert len(session.engines()) == 2
    assert session.asked == []


def test_shutdown_without_waiting(parts: Parts) -> None:
    executor, _, session = parts
    session.is_held = True
    future = executor.submit(abs, -1)
    executor.shutdown(wait=False)
    assert not future.done()
    session.is_held = False
    assert future.result() == 1


def test_shutdown_may_cancel_what_has_not_started(parts: Parts) -> None:
    executor, client, session = parts
    session.is_held = True
    others = client.load_balanced_view().apply_async(abs, -5)
    futures = [executor.submit(abs, -n) for n in range(4)]
    mapped = executor.map(abs, range(2))
    session.step()
    session.step()
    executor.shutdown(cancel_futures=True)
    assert [future.cancelled() for future in futures] == [False, True, True, True]
    assert futures[0].result() == 0
    with pytest.raises(concurrent.futures.CancelledError):
        next(mapped)
    assert others.get() == 5


def test_with_shuts_down(parts: Parts) -> None:
    executor, _, _ = parts
    with executor as entered:
        assert entered is executor
        future = executor.submit(abs, -1)
    assert future.done()
    with pytest.raises(RuntimeError):
        executor.submit(abs, 1)


def test_a_call_that_a_shutdown_overtakes_is_taken_back(parts: Parts) -> None:
    executor, _, session = parts
    view = executor.view

    class Overtaken:
        def apply_async(self, *arguments: Any) -> AsyncResult:
            result = view.apply_async(*arguments)
            executor.shutdown(wait=False)
            return result

    executor.view = Overtaken()  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(abs, 1)
    assert session.outstanding() == set()


def test_callbacks_may_submit(parts: Parts) -> None:
    executor, _, session = parts
    found: list[Any] = []
    executor.submit(abs, -1).add_done_callback(lambda done: found.append(executor.submit(abs, -2)))
    session.run_all()
    assert found[0].result() == 2
