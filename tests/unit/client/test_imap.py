"""imap: lazy on both sides, bounded, endless."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from enginery.client.client import Client
from enginery.client.imap import LazyMapIterator
from enginery.errors import ClientClosed, NoEnginesRegistered
from enginery.ids import EngineId, TaskId
from enginery.protocol.messages import Status, TaskResult
from tests.unit.client.fake_session import PATIENCE_S, FakeSession, make_client


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


def feeder_ends(client: Client) -> bool:
    feeder = client.feeders._feeders[-1]
    feeder.thread.join(PATIENCE_S)
    return not feeder.thread.is_alive()


class Submissions:
    """Counts what was sent, and can be waited for."""

    def __init__(self, session: FakeSession) -> None:
        self._submit = session.submit
        self.count = 0
        self._changed = threading.Condition()
        session.submit = self.submit  # type: ignore[method-assign]

    def submit(self, *arguments: Any) -> TaskId:
        task = self._submit(*arguments)
        with self._changed:
            self.count += 1
            self._changed.notify_all()
        return task

    def reach(self, count: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.count >= count, PATIENCE_S)


def test_results_come_in_order(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.order = lambda count: count - 1
    view = client.load_balanced_view()
    assert list(view.imap(double, range(50))) == list(range(0, 100, 2))
    assert list(view.imap(pow, [2, 3, 4], itertools.repeat(2))) == [4, 9, 16]
    assert list(view.imap(double, [])) == []
    results = view.imap(double, [1])
    assert iter(results) is results
    assert next(results) == 2
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(results)
    assert repr(results) == "<LazyMapIterator: 1 results taken, ended>"


@pytest.mark.parametrize("limit", ["auto", 1, 5])
def test_never_more_than_the_bound_without_their_results_taken(
    parts: tuple[Client, FakeSession], limit: int | str
) -> None:
    client, session = parts
    bound = 2 if limit == "auto" else int(limit)
    sent = Submissions(session)
    results = client.load_balanced_view().imap(double, itertools.count(), max_outstanding=limit)
    for taken in range(30):
        assert sent.reach(taken + bound)
        assert sent.count == taken + bound
        assert next(results) == 2 * taken
    results.cancel()
    assert feeder_ends(client)


def test_a_greedy_one_does_not_wait_for_takers(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.is_held = True
    sent = Submissions(session)
    results = client.load_balanced_view().imap(double, range(100), max_outstanding=0)
    assert sent.reach(100)
    session.is_held = False
    assert list(results) == list(range(0, 200, 2))


def test_unordered_results_come_as_they_arrive(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.is_held = True
    sent = Submissions(session)
    results = client.load_balanced_view().imap(double, range(4), ordered=False, max_outstanding=4)
    assert sent.reach(4)
    session.order = lambda count: count - 1
    session.is_held = False
    assert list(results) == [6, 4, 2, 0]


def test_a_direct_view_means_one_of_its_targets(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    assert list(client[1].imap(double, range(3))) == [0, 2, 4]
    assert {call.options.candidates for call in session.submissions} == {(1,)}
    assert {call.engines for call in session.submissions} == {()}
    session.submissions.clear()
    view = client.direct_view("all", label="night", retries=2)
    assert list(view.imap(double, range(3))) == [0, 2, 4]
    options = session.submissions[0].options
    assert (options.candidates, options.label, options.retries) == ((), "night", 2)


def test_errors_stand_where_their_items_stood(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    view = client.load_balanced_view()
    results = view.imap(fail_odd, range(4))
    assert next(results) == 0
    with pytest.raises(ValueError, match="1 is odd"):
        next(results)
    assert next(results) == 2
    with pytest.raises(ValueError, match="3 is odd"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    found = list(view.imap(fail_odd, range(4), return_exceptions=True))
    assert found[::2] == [0, 2]
    assert all(isinstance(error, ValueError) for error in found[1::2])
    session.verdicts[len(session.submissions) + 1] = TaskResult(
        TaskId(0), Status.ENGINE_DIED, engine=EngineId(0)
    )
    first, second = view.imap(double, [1, 2], return_exceptions=True)
    assert type(first).__name__ == "EngineError"
    assert second == 4


def test_an_item_that_cannot_be_sent_fails_alone(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts
    found = list(client.load_balanced_view().imap(double, [1, threading.Lock(), 3], return_exceptions=True))
    assert (found[0], found[2]) == (2, 6)
    assert isinstance(found[1], TypeError)


def test_an_input_that_raises(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts

    def items() -> Iterator[int]:
        yield 1
        raise OSError("no more of the tape")

    results = client.load_balanced_view().imap(double, items())
    assert next(results) == 2
    with pytest.raises(OSError, match="no more of the tape"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_cancel_ends_the_inputs_and_takes_back_what_waits(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.is_held = True
    sent = Submissions(session)
    results = client.load_balanced_view().imap(double, itertools.count(), max_outstanding=10)
    assert sent.reach(10)
    session.step()
    session.step()
    results.cancel()
    assert session.outstanding() == set()
    assert feeder_ends(client)
    assert list(results) == [0, 2]
    assert repr(results) == "<LazyMapIterator: 10 results taken, cancelled>"
    results.cancel()
    assert list(results) == []


def test_ctrl_c_loses_no_item(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    results = client.load_balanced_view().imap(double, range(5))
    assert next(results) == 0
    wait_until = session.wait_until

    def interrupted(*_: Any) -> bool:
        raise KeyboardInterrupt

    session.wait_until = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        next(results)
    session.wait_until = wait_until  # type: ignore[method-assign]
    assert list(results) == [2, 4, 6, 8]


@pytest.mark.parametrize("limit", [2, 0])
def test_an_abandoned_iterator_leaves_no_thread(parts: tuple[Client, FakeSession], limit: int) -> None:
    client, session = parts
    sent = Submissions(session)
    items: Any = itertools.count() if limit else Slow()
    results: LazyMapIterator | None = client.load_balanced_view().imap(double, items, max_outstanding=limit)
    assert results is not None
    assert next(results) == 0
    assert sent.reach(2)
    gone = weakref.ref(results)
    del results
    gc.collect()
    assert gone() is None
    if not limit:
        items.gate.set()
    assert feeder_ends(client)


class Slow:
    """Endless, and after two items waits until the test goes on."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self._count = -1

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self._count += 1
        if self._count > 1:
            assert self.gate.wait(PATIENCE_S)
        return self._count


def test_what_was_taken_is_let_go(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts
    results = client.load_balanced_view().imap(double, range(200))
    for _ in range(200):
        next(results)
        assert len(results._window._queue) <= 3
    assert list(results) == []
    assert not results._window._pending


@pytest.mark.parametrize("ordered", [True, False])
def test_several_threads_may_take(parts: tuple[Client, FakeSession], ordered: bool) -> None:
    client, _ = parts
    results = client.load_balanced_view().imap(double, range(300), ordered=ordered, max_outstanding=10)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.extend(results)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(found) == list(range(0, 600, 2))


def test_closing_the_client_ends_it(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.is_held = True
    sent = Submissions(session)
    results = client.load_balanced_view().imap(double, itertools.count(), max_outstanding=3)
    assert sent.reach(3)
    client.close()
    found = []
    for _ in range(3):
        with pytest.raises(Exception, match="came to no result") as caught:
            next(results)
        found.append(caught.value)
    with pytest.raises(ClientClosed, match="this client is closed"):
        next(results)
    assert len(found) == 3


def test_bad_calls(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    view = client.load_balanced_view()
    with pytest.raises(TypeError, match="imap needs at least one sequence after the function"):
        view.imap(double)
    with pytest.raises(TypeError, match="sequence 0 of the imap is of type int"):
        view.imap(double, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="max_outstanding is a whole number of calls or 'auto', not 'many'"):
        view.imap(double, [1], max_outstanding="many")
    with pytest.raises(ValueError, match="max_outstanding is at least 0, which means any number, not -1"):
        view.imap(double, [1], max_outstanding=-1)
    session.leave(0, 1)
    client.look_at_engines()
    with pytest.raises(NoEnginesRegistered):
        view.imap(double, [1])
    assert session.submissions == []
