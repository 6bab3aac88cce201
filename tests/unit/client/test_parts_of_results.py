"""Results in parts: what has ended so far, results of single tasks, and several as one."""

from __future__ import annotations

import concurrent.futures
import gc
import threading
import weakref
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION
from typing import Any

import pytest

from enginery.client.client import Client
from enginery.client.results import AsyncMapResult, AsyncResult, Partial
from enginery.client.results.outcome import Outcome, OutcomeOwner
from enginery.errors import CompositeError, EngineError, TaskCancelled
from enginery.ids import EngineId, TaskId
from enginery.protocol.messages import Status, TaskResult
from tests.unit.client.fake_session import FakeSession, make_client


@pytest.fixture
def parts() -> tuple[Client, FakeSession]:
    return make_client((0, 1, 2))


def where(*failing: int) -> int:
    if engine in failing:  # type: ignore[name-defined]  # noqa: F821 - a name of the engine's namespace
        raise ValueError(f"engine {engine}")  # type: ignore[name-defined]  # noqa: F821
    return engine  # type: ignore[name-defined, no-any-return]  # noqa: F821


where.__module__ = "__main__"  # by value, so that free names are the engine's


def fail_odd(item: int) -> int:
    if item % 2:
        raise ValueError(f"{item} is odd")
    return 2 * item


# ---------------------------------------------------------------- when to return


def test_wait_for_the_first(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.order = lambda count: count - 1
    ar = client[:].apply_async(where)
    done, pending = ar.wait(return_when=FIRST_COMPLETED)
    assert [part.get() for part in done] == [2]
    assert len(pending) == 2
    assert len(session.waiting) == 2
    assert not any(part.done() for part in pending)
    again = ar.wait(-1, FIRST_COMPLETED)
    assert again == (done, pending)
    done, pending = ar.wait(return_when=ALL_COMPLETED)
    assert (sorted(part.get() for part in done), pending) == ([0, 1, 2], set())


def test_wait_for_the_first_error(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar = client[:].apply_async(where, 1)
    done, pending = ar.wait(return_when=FIRST_EXCEPTION)
    assert len(done) == 2
    assert len(pending) == 1
    assert len(session.waiting) == 1
    good = client[:].apply_async(where)
    done, pending = good.wait(return_when=FIRST_EXCEPTION)
    assert (len(done), pending) == (3, set())


def test_a_time_out_gives_what_there_is(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.is_held = True
    ar = client[:].apply_async(where)
    done, pending = ar.wait(0, FIRST_COMPLETED)
    assert (done, len(pending)) == (set(), 3)
    session.step()
    done, pending = ar.wait(0, ALL_COMPLETED)
    assert ([part.get(0) for part in done], len(pending)) == ([0], 2)
    with pytest.raises(TimeoutError):
        ar.get(0, return_when=FIRST_EXCEPTION)


def test_a_single_result_is_its_own_part(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts
    ar = client[1].apply_async(where)
    assert ar.split() == (ar,)
    assert ar.wait(return_when=FIRST_COMPLETED) == ({ar}, set())


def test_get_need_not_wait_for_all(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar = client[:].apply_async(where, 1)
    assert ar.get(return_when=FIRST_COMPLETED) == [0]
    assert len(session.waiting) == 2
    with pytest.raises(ValueError, match="engine 1"):
        ar.get(return_when=FIRST_EXCEPTION)
    assert len(session.waiting) == 1
    value, error = ar.get(return_exceptions=True, return_when=FIRST_EXCEPTION)
    assert value == 0
    assert isinstance(error, ValueError)
    good = client[:].apply_async(where)
    assert good.get(return_when=FIRST_EXCEPTION) == [0, 1, 2]
    assert good.get(return_when=ALL_COMPLETED) == [0, 1, 2]
    assert client[0].apply_async(where).get(return_when=FIRST_COMPLETED) == 0
    with pytest.raises(ValueError, match="return_when is ALL_COMPLETED, FIRST_COMPLETED or FIRST_EXCEPTION"):
        good.get(return_when="SOON")  # type: ignore[arg-type]


def test_maps_give_items(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    view = client.load_balanced_view()
    ar = view.map_async(fail_odd, [0, 2, 4, 5, 6], chunksize=2)
    assert ar.get(return_when=FIRST_COMPLETED) == [0, 4]
    assert len(session.waiting) == 2
    with pytest.raises(ValueError, match="5 is odd"):
        ar.get(return_when=FIRST_EXCEPTION)
    assert len(session.waiting) == 1
    found = ar.get(return_exceptions=True, return_when=FIRST_EXCEPTION)
    assert found[:3] == [0, 4, 8]
    assert isinstance(found[3], ValueError)
    done, pending = ar.wait(return_when=FIRST_COMPLETED)
    assert (len(done), len(pending)) == (2, 1)
    assert sorted(part.get(return_exceptions=True)[0] for part in done) == [0, 8]


def test_wait_interactive_for_the_first(
    parts: tuple[Client, FakeSession], capsys: pytest.CaptureFixture[str]
) -> None:
    client, session = parts
    ar = client[:].apply_async(where, 0)
    assert ar.wait_interactive(return_when=FIRST_EXCEPTION, widget=False) is True
    assert len(session.waiting) == 2
    assert "1/3" in capsys.readouterr().err


# ---------------------------------------------------------------- split and join


def test_parts_are_futures_of_single_tasks(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar = client[:].apply_async(where, 1)
    first, second, third = ar.split()
    assert ar.split() == (first, second, third)
    assert [part.msg_ids for part in (first, second, third)] == [[task] for task in ar.msg_ids]
    assert (first.engine_id, third.metadata.engine_id) == (0, 2)
    session.run_all()
    assert all(part.done() for part in (first, second, third))
    assert (first.get(), third.r) == (0, 2)
    with pytest.raises(ValueError, match="engine 1"):
        second.get()
    assert first.metadata.status == "ok"
    assert second.metadata.status == "error"
    assert 0 <= first.wall_time <= ar.wall_time + 1e-6
    late = client[0, 1].apply_async(where)
    session.run_all()
    assert concurrent.futures.wait(late.split(), timeout=0).not_done == set()


def test_join_undoes_split(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar = client[:].apply_async(where)
    joined = AsyncResult.join(*ar.split())
    assert (joined.msg_ids, len(joined), joined.engine_id) == (ar.msg_ids, 3, [0, 1, 2])
    assert joined.get() == [0, 1, 2]
    assert joined.get_dict() == joined.result_dict == {0: 0, 1: 1, 2: 2}
    assert AsyncResult.join(ar) is ar
    one, two = client[2].apply_async(where), client[0, 1].apply_async(where, 1)
    both = AsyncResult.join(one, two)
    session.step()
    assert both.progress == 1
    assert not both.done()
    session.run_all()
    assert both.done()
    assert both.get(return_exceptions=True)[:2] == [2, 0]
    with pytest.raises(ValueError, match="engine 1"):
        both.get()
    failed = client[:].apply_async(where, 0, 1)
    with pytest.raises(CompositeError, match="2 of 3 calls of where failed"):
        AsyncResult.join(*failed.split()).get()


def test_bad_joins(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts
    ar = client[0].apply_async(where)
    other, _ = make_client((0,))
    with pytest.raises(ValueError, match="join needs at least one result"):
        AsyncResult.join()
    with pytest.raises(TypeError, match="join needs AsyncResults, not 3"):
        AsyncResult.join(ar, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="results of different clients cannot be joined"):
        AsyncResult.join(ar, other[0].apply_async(where))
    lazy = client.load_balanced_view().map_async(fail_odd, range(2000))
    with pytest.raises(ValueError, match="has not been sent as a whole yet; wait for it first"):
        AsyncResult.join(ar, lazy)


def test_parts_of_a_map_are_lists_of_items(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar = client.load_balanced_view().map_async(fail_odd, [0, 2, 4, 5, 7], chunksize=2)
    session.verdicts[1] = TaskResult(TaskId(1), Status.ENGINE_DIED, engine=EngineId(0))
    first, second, third = ar.split()
    with pytest.raises(EngineError):
        first.get()
    with pytest.raises(ValueError, match="5 is odd"):
        second.get()
    found = second.get(return_exceptions=True)
    assert found[0] == 8
    assert isinstance(found[1], ValueError)
    with pytest.raises(ValueError, match="7 is odd"):
        third.get()
    with pytest.raises(CompositeError, match="4 of 5 items of fail_odd failed"):
        AsyncResult.join(*ar.split()).get()


def test_cancelling_a_part_cancels_its_task_only(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar = client[:].apply_async(where)
    first, second, third = ar.split()
    assert second.cancel() is True
    assert second.cancelled()
    session.run_all()
    assert [first.get(), third.get()] == [0, 2]
    with pytest.raises(TaskCancelled):
        ar.get()
    assert ar.cancelled()
    assert not first.cancelled()
    assert ar.progress == 3


def test_parts_are_freed_with_their_last_reference(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar: AsyncResult | None = client[:].apply_async(where)
    assert ar is not None
    part: AsyncResult | None = ar.split()[0]
    assert part is not None
    joined = AsyncResult.join(*ar.split())
    session.run_all()
    assert joined.get() == [0, 1, 2]
    gone = [weakref.ref(ar), weakref.ref(part)]
    gc.disable()
    try:
        del ar, part
        assert [reference() for reference in gone] == [None, None]
    finally:
        gc.enable()


# ---------------------------------------------------------------- partial


def test_partial_of_a_call(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.is_held = True
    ar = client[:].apply_async(where, 1)
    assert ar.partial() == Partial([None, None, None], [0, 1, 2], {})
    session.step()
    session.step()
    found = ar.partial()
    assert (found.values, found.missing, list(found.failed)) == ([0, None, None], [2], [1])
    assert isinstance(found.failed[1], ValueError)
    assert repr(found) == "<Partial: 1 of 3 values, 1 missing, 1 failed>"
    assert len(found) == 3


def test_partial_of_a_map(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.is_held = True
    ar = client.load_balanced_view().map_async(fail_odd, range(7), chunksize=3)
    session.order = lambda count: count - 1
    session.step()
    session.step()
    found = ar.partial()
    assert found.values == [None, None, None, None, 8, None, 12]
    assert found.missing == [0, 1, 2]
    assert sorted(found.failed) == [3, 5]
    long = client.load_balanced_view().map_async(fail_odd, range(2000))
    assert len(long.partial().missing) == 2000
    session.run_all()
    assert long.partial().missing == []


def test_partial_of_a_map_whose_engine_died(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar = client[:].map_async(fail_odd, [0, 2, 4], return_exceptions=True)
    session.verdicts[2] = TaskResult(TaskId(2), Status.ENGINE_DIED, engine=EngineId(1), detail="killed")
    iterator = iter(ar)
    assert next(iterator) == 0
    error: Any = next(iterator)
    assert isinstance(error, EngineError)
    assert next(iterator) == 8
    found = ar.partial()
    assert (found.values, found.missing, found.failed) == ([0, None, 8], [], {1: error})
    assert isinstance(ar, AsyncMapResult)
    assert ar.get() == [0, error, 8]


class Follower:
    """Counts what it hears of."""

    is_writeable = False

    def __init__(self) -> None:
        self.heard = 0

    def on_outcome(self, outcome: Outcome, /) -> None:
        self.heard += 1

    def on_moved(self, outcome: Outcome, /) -> None: ...


def test_who_comes_while_a_result_is_handed_out_keeps_nobody_from_hearing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner, early, late = Follower(), Follower(), Follower()
    outcome = Outcome(owner)
    outcome.tell_also(early)
    tell = Outcome._tell

    def tell_after_another_has_come(self: Outcome, told: OutcomeOwner) -> None:
        thread = threading.Thread(target=self.tell_also, args=(late,))
        thread.start()
        thread.join()
        tell(self, told)

    monkeypatch.setattr(Outcome, "_tell", tell_after_another_has_come)
    outcome.on_result(TaskResult(TaskId(1), Status.OK), ())
    assert (owner.heard, early.heard, late.heard) == (1, 1, 1)
