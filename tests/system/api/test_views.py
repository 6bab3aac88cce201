"""What all views share: flags, calls, maps, decorators, and what they do about their own calls."""

from __future__ import annotations

import itertools
import operator
import os
import pickle
import threading
import warnings
from typing import Any

import pytest

import enginery as ipp
from tests.system.api.held import PATIENCE_S, Gate, wait_at

KINDS = ["DirectView", "LoadBalancedView", "BroadcastView"]


@pytest.fixture(params=KINDS)
def view(request: pytest.FixtureRequest, another: ipp.Client) -> Any:
    """A view of each kind, of a client of its own: flags that a test leaves set go with it."""
    makers = {
        "DirectView": another.direct_view,
        "LoadBalancedView": another.load_balanced_view,
        "BroadcastView": another.broadcast_view,
    }
    return makers[request.param]([0, 1])


def value_of(view: Any, value: Any) -> Any:
    """What a call that returns `value` is worth on this view."""
    return value if view.balanced else [value] * len(view)


# ---------------------------------------------------------------- flags

FLAGS: dict[str, tuple[Any, Any]] = {  # name: (default, another value)
    "block": (False, True),
    "track": (False, True),
    "label": ("", "night"),
    "priority": (0, -3),
    "retries": (0, 2),
    "retry_on": (None, ("builtins.OSError",)),
}
BALANCED_FLAGS: dict[str, tuple[Any, Any]] = {
    "timeout": (None, 2.5),
    "after": (None, None),
    "follow": (None, None),
}


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_is_an_attribute_a_keyword_and_may_be_set(view: Any, name: str) -> None:
    default, other = FLAGS[name]
    assert getattr(view, name) == default
    assert view.set_flags(**{name: other}) is view
    assert getattr(view, name) == other
    view.set_flags(**{name: None})
    assert getattr(view, name) == default
    setattr(view, name, other)
    assert getattr(view, name) == other
    view.set_flags(**{name: default})
    with view.temp_flags(**{name: other}) as entered:
        assert entered is view
        assert getattr(view, name) == other
    assert getattr(view, name) == default
    made = view.client.view(view.targets, balanced=view.balanced, **{name: other})
    assert getattr(made, name) == other


def test_flags_of_balanced_views_alone(another: ipp.Client) -> None:
    lview = another.load_balanced_view()
    done = lview.apply_async(pow, 2, 2)
    lview.set_flags(after=done, follow=done.msg_ids, timeout=2.5)
    assert lview.after == lview.follow == ipp.Dependency(done)
    assert lview.timeout == 2.5
    assert lview.apply_async(pow, 2, 3).get(timeout=PATIENCE_S) == 8
    lview.set_flags(after=None, follow=None, timeout=-1)
    assert (lview.after, lview.follow, lview.timeout) == (None, None, None)
    for name in ("after", "follow", "timeout"):
        with pytest.raises(KeyError, match="load-balanced views only"):
            another[0].set_flags(**{name: None})


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ({"colour": 1}, KeyError),
        ({"bound": 1}, KeyError),
        ({"label": 3}, TypeError),
        ({"label": b"x"}, TypeError),
        ({"retries": "2"}, TypeError),
        ({"retries": 1.0}, TypeError),
        ({"retries": True}, TypeError),
        ({"retries": -1}, ValueError),
        ({"priority": 1.5}, TypeError),
        ({"priority": 1 << 40}, ValueError),
        ({"retry_on": 3}, TypeError),
        ({"retry_on": ["OSError"]}, TypeError),
        ({"targets": [0]}, AttributeError),
    ],
)
def test_what_no_flag_can_be_changes_nothing(
    view: Any, flags: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        view.set_flags(block=True, **flags)
    with pytest.raises(error), view.temp_flags(**flags):
        pytest.fail("entered")
    assert view.block is False
    assert view.priority == 0


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ({"timeout": "1"}, TypeError),
        ({"timeout": True}, TypeError),
        ({"timeout": float("nan")}, ValueError),
        ({"after": 3}, TypeError),
        ({"after": [3]}, TypeError),
        ({"follow": "no id"}, ValueError),
        ({"follow": {"all": True}}, ValueError),
        ({"after": {"dependencies": [], "some": 1}}, ValueError),
    ],
)
def test_what_no_flag_of_a_balanced_view_can_be(
    lview: ipp.LoadBalancedView, flags: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        lview.set_flags(**flags)
    assert (lview.after, lview.follow, lview.timeout) == (None, None, None)


def test_temp_flags_are_taken_back_after_an_error(view: Any) -> None:
    with pytest.raises(ZeroDivisionError), view.temp_flags(block=True, label="x"):
        raise ZeroDivisionError
    assert (view.block, view.label) == (False, "")


def test_a_misspelt_attribute_is_refused(view: Any) -> None:
    with pytest.raises(AttributeError, match="lable"):
        view.lable = "x"


def test_targets_and_balanced_are_fixed(view: Any) -> None:
    view.targets = [0, 1]
    view.targets = range(2)
    view.set_flags(targets=[0, 1], balanced=view.balanced)
    with view.temp_flags(targets=[0, 1], label="x"):
        assert view.label == "x"
    for other in ([1, 0], 0, "all", None, [0, 7]):
        with pytest.raises(AttributeError):
            view.targets = other
    with pytest.raises(AttributeError):
        view.balanced = not view.balanced
    assert view.targets == [0, 1]


# ---------------------------------------------------------------- attributes


def test_attributes(view: Any, another: ipp.Client) -> None:
    assert view.client is another
    assert view.results == another.results
    assert len(view) == 2
    assert repr(view) == f"<{type(view).__name__} [0,1]>"
    assert isinstance(view.executor, ipp.ViewExecutor)
    assert view.executor.view is view


def test_a_view_cannot_be_sent_or_iterated_over(view: Any) -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        pickle.dumps(view)
    with pytest.raises(TypeError, match="view"):
        view.apply(str, view)
    with pytest.raises(TypeError):
        iter(view)
    assert view.outstanding == set()


def test_history_and_outstanding_are_the_views_own(view: Any, another: ipp.Client, gate: Gate) -> None:
    another[0].apply_async(pow, 1, 1).wait(PATIENCE_S)
    assert view.history == []
    held = view.apply_async(wait_at, gate.path)
    mapped = view.map_async(abs, [1, 2])
    assert view.history == [*held.msg_ids, *mapped.msg_ids]
    assert set(held.msg_ids) <= view.outstanding
    gate.open()
    assert view.wait(timeout=PATIENCE_S) is True
    assert view.outstanding == set()


# ---------------------------------------------------------------- calls


def test_every_keyword_reaches_the_function(view: Any) -> None:
    keywords = {"f": 1, "self": 2, "args": 3, "block": 4, "targets": 5, "timeout": 6, "label": 7}
    expected = value_of(view, sorted(keywords.items()))
    assert view.apply_sync(lambda **given: sorted(given.items()), **keywords) == expected
    assert view.apply_async(lambda **given: sorted(given.items()), **keywords).get(PATIENCE_S) == expected


def test_apply_follows_block(view: Any) -> None:
    assert view.apply(pow, 2, 3).get(PATIENCE_S) == value_of(view, 8)
    view.block = True
    assert view.apply(pow, 2, 3) == value_of(view, 8)
    assert isinstance(view.apply_async(pow, 2, 3), ipp.AsyncResult)
    assert view.map(abs, [-1, -2, -3]) == [1, 2, 3]
    view.block = False
    assert view.apply_sync(pow, 2, 3) == value_of(view, 8)


@pytest.mark.parametrize("f", [3, "abs", None, [abs]])
def test_a_function_is_needed(view: Any, f: Any) -> None:
    for method in ("apply", "apply_async", "apply_sync"):
        with pytest.raises(TypeError, match="a function is needed"):
            getattr(view, method)(f)
    for method in ("map", "map_async", "map_sync", "imap", "starmap", "reduce"):
        with pytest.raises(TypeError, match="a function is needed"):
            getattr(view, method)(f, [(1, 2)])
    assert view.history == []


def test_what_cannot_be_pickled_raises_in_the_call(view: Any, another: ipp.Client) -> None:
    for use in (
        lambda: view.apply_async(len, threading.Lock()),
        lambda: view.apply_async(len, [{"deep": threading.Lock()}]),
        lambda: view.apply_sync(len, key=threading.Lock()),
    ):
        with pytest.raises((TypeError, pickle.PicklingError), match="lock"):
            use()
    assert another.outstanding == set()
    assert another.history == []


# ---------------------------------------------------------------- maps


def test_maps_of_every_kind(view: Any) -> None:
    rows = [(2, 5), (3, 2), (10, 0)]
    columns = list(zip(*rows, strict=True))
    assert view.map_sync(pow, *columns) == [32, 9, 1]
    assert view.map(pow, *columns, block=True) == [32, 9, 1]
    assert view.map(pow, *columns).get(PATIENCE_S) == [32, 9, 1]
    ar = view.map_async(pow, *columns)
    assert isinstance(ar, ipp.AsyncMapResult)
    assert len(ar) == 3
    assert list(ar) == [32, 9, 1]
    assert view.starmap(pow, rows).get(PATIENCE_S) == [32, 9, 1]
    assert view.starmap(pow, iter(rows), block=True) == [32, 9, 1]
    assert list(view.imap(pow, *columns)) == [32, 9, 1]
    assert view.reduce(operator.add, [3, 4, 5]) == 12


def test_sequences_of_unequal_length_end_with_the_shortest(view: Any) -> None:
    assert view.map_sync(operator.add, range(10), [1, 2, 3]) == [1, 3, 5]
    assert view.map_sync(operator.add, (n for n in range(4)), itertools.count()) == [0, 2, 4, 6]
    assert view.map_sync(operator.add, range(3), []) == []
    assert list(view.imap(operator.add, itertools.count(), [1, 2])) == [1, 3]


def test_empty_maps(view: Any) -> None:
    for empty in ([], (), range(0), iter([]), "", {}):
        ar = view.map_async(abs, empty)
        assert ar.get(PATIENCE_S) == []
        assert (list(ar), ar.msg_ids, ar.done(), ar.successful()) == ([], [], True, True)
    assert len(view.map_async(abs, [])) == 0
    assert view.map(abs, [], block=True) == view.map_sync(abs, []) == []
    assert list(view.imap(abs, [])) == []
    assert view.starmap(abs, []).get(PATIENCE_S) == []


def test_a_map_over_whatever_can_be_iterated_over(view: Any) -> None:
    import collections

    import numpy

    for items in (
        "abc",
        {"a": 1, "b": 2},
        collections.deque("abc"),
        numpy.arange(3),
        numpy.arange(6).reshape(3, 2),
    ):
        found = view.map_sync(repr, items)
        assert found == [repr(item) for item in items]
    assert sorted(view.map_sync(abs, {-1, -2})) == [1, 2]


@pytest.mark.parametrize("items", [3, None, abs])
def test_a_map_over_what_cannot(view: Any, items: Any) -> None:
    for method in ("map", "map_async", "map_sync", "imap", "starmap", "reduce"):
        with pytest.raises(TypeError):
            getattr(view, method)(abs, items)
    with pytest.raises(TypeError):
        view.map(abs)


def test_a_map_has_no_other_keywords(view: Any) -> None:
    with pytest.raises(TypeError, match="no keyword 'colour'"):
        view.map(abs, [1], colour="blue")
    for method in ("map_async", "map_sync"):
        with pytest.raises(TypeError, match="block"):
            getattr(view, method)(abs, [1], block=False)
    assert view.map(abs, [-1], bound=True).get(PATIENCE_S) == [1]


def test_a_map_keeps_the_label(view: Any) -> None:
    ar = view.map_async(abs, [1, 2], label="labelled")
    ar.wait(PATIENCE_S)
    assert {metadata.label for metadata in ar.metadata} == {"labelled"}


def test_exceptions_of_a_map(view: Any) -> None:
    ar = view.map_async(lambda x: 6 // x, [1, 0, 2, 3], return_exceptions=True)
    values = ar.get(timeout=PATIENCE_S)
    assert [value for value in values if not isinstance(value, Exception)] == [6, 3, 2]
    assert isinstance(values[1], ZeroDivisionError)
    assert isinstance(values[1], ipp.RemoteError)
    assert len(ar) == 4
    failing = view.map_async(lambda x: 6 // x, [1, 0, 2, 3])
    with pytest.raises(ZeroDivisionError):
        failing.get(timeout=PATIENCE_S)
    again = failing.get(timeout=PATIENCE_S, return_exceptions=True)
    assert [type(value).__name__ for value in again] == ["int", type(values[1]).__name__, "int", "int"]


def test_reduce(view: Any) -> None:
    assert view.reduce(operator.add, range(1, 101)) == 5050
    assert view.reduce(operator.add, range(1, 101), 10) == 5060
    assert view.reduce(operator.add, iter("abcdefg")) == "abcdefg"
    assert view.reduce(operator.add, ["a"], ">") == ">a"
    assert view.reduce(operator.add, [], 7) == 7
    assert view.reduce(max, [4]) == 4
    with pytest.raises(TypeError, match="empty"):
        view.reduce(operator.add, [])
    with pytest.raises(TypeError, match="initial"):
        view.reduce(operator.add, [1], 2, 3)


def test_imap_is_lazy_and_can_be_cancelled(view: Any) -> None:
    read: list[int] = []

    def inputs() -> Any:
        for number in itertools.count():
            read.append(number)
            yield number

    lazy = view.imap(abs, inputs(), max_outstanding=2)
    assert [next(lazy) for _ in range(5)] == [0, 1, 2, 3, 4]
    lazy.cancel()
    rest = list(lazy)
    assert rest == list(range(5, 5 + len(rest)))
    assert len(read) <= 5 + 2 + 2
    lazy.cancel()
    with pytest.raises(StopIteration):
        next(lazy)


def test_imap_without_order_and_with_exceptions(view: Any) -> None:
    assert sorted(view.imap(abs, range(-5, 0), ordered=False, max_outstanding=0)) == [1, 2, 3, 4, 5]
    lazy = view.imap(lambda x: 1 // x, [1, 0, -1])
    assert next(lazy) == 1
    with pytest.raises(ZeroDivisionError):
        next(lazy)
    assert next(lazy) == -1
    values = list(view.imap(lambda x: 1 // x, [1, 0], return_exceptions=True))
    assert values[0] == 1
    assert isinstance(values[1], ZeroDivisionError)


def test_imap_passes_on_what_the_inputs_raise(view: Any) -> None:
    def inputs() -> Any:
        yield -1
        raise LookupError("no more")

    lazy = view.imap(abs, inputs())
    assert next(lazy) == 1
    with pytest.raises(LookupError, match="no more"):
        next(lazy)
    with pytest.raises(StopIteration):
        next(lazy)


@pytest.mark.parametrize(
    ("limit", "error"), [("two", TypeError), (1.5, TypeError), (True, TypeError), (-1, ValueError)]
)
def test_imap_with_a_limit_that_is_none(view: Any, limit: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_outstanding"):
        view.imap(abs, [1], max_outstanding=limit)


# ---------------------------------------------------------------- decorators


def test_remote_and_parallel_of_a_view(view: Any) -> None:
    @view.remote(block=True)
    def add(x: int, y: int = 1) -> int:
        return x + y

    @view.parallel(block=True)
    def total(part: Any) -> list[int]:
        return [sum(part)]

    assert isinstance(add, ipp.RemoteFunction)
    assert isinstance(total, ipp.ParallelFunction)
    assert add(2, y=3) == value_of(view, 5)
    assert sum(total([1, 2, 3, 4])) == 10
    with pytest.raises(KeyError):
        view.remote(colour=1)


# ---------------------------------------------------------------- about its calls


def test_wait_takes_indices_of_the_views_history(view: Any, another: ipp.Client, gate: Gate) -> None:
    assert view.wait(timeout=0) is True
    gate.hold(another[0])
    done = view.client[1].apply_async(pow, 1, 1)
    assert another.wait(done, PATIENCE_S)
    held = view.apply_async(wait_at, gate.path)
    count = len(view.history)
    assert view.wait(list(range(count)), timeout=0) is False
    assert view.wait(-1, timeout=0) is False or view.balanced
    assert view.wait(held, timeout=0) is False or view.balanced
    with pytest.raises(IndexError, match="there is no task 99"):
        view.wait(99)
    gate.open()
    assert view.wait(slice(None), timeout=PATIENCE_S) is True


def test_get_result_of_a_view(view: Any) -> None:
    first = view.apply_async(pow, 2, 2)
    last = view.apply_async(pow, 2, 3)
    view.wait(timeout=PATIENCE_S)
    assert view.get_result().get(PATIENCE_S) == 8
    assert view.get_result(0).get(PATIENCE_S) == 4
    assert view.get_result(slice(None)).get(PATIENCE_S) == [4] * len(first.msg_ids) + [8] * len(last.msg_ids)
    assert view.get_result([-1, 0], block=True).get(0) == [8, 4]
    assert view.get_result(last.msg_ids[0]).owner is False
    assert view.get_result(last.msg_ids[0], owner=True).owner is True
    with pytest.raises(IndexError):
        view.get_result(50)


def test_queue_status_of_a_view(view: Any, another: ipp.Client) -> None:
    assert set(view.queue_status()) == {0, 1, "unassigned"}
    assert set(view.queue_status(0)) == {"queue", "completed", "tasks"}
    assert view.queue_status(verbose=True)[1]["queue"] == []


def test_abort_of_a_view(view: Any, another: ipp.Client, gate: Gate) -> None:
    gate.hold(another[:])
    foreign = another[0].apply_async(pow, 1, 1)
    one, two = view.apply_async(pow, 1, 1), view.apply_async(pow, 1, 1)
    view.abort(one, block=True)
    with pytest.raises(ipp.TaskAborted):
        one.get(PATIENCE_S)
    assert not two.done()
    view.abort(block=True)
    with pytest.raises(ipp.TaskAborted):
        two.get(PATIENCE_S)
    gate.open()
    assert foreign.get(PATIENCE_S) == 1


def test_purge_results_of_a_view(view: Any, another: ipp.Client) -> None:
    ar = view.apply_async(pow, 2, 2)
    ar.wait(PATIENCE_S)
    view.purge_results(ar)
    assert another.db_query({"msg_id": {"$in": ar.msg_ids}}) == []
    with pytest.raises(ValueError, match="name the tasks"):
        view.purge_results()


def test_spin_of_a_view(view: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert view.spin() is None


def test_the_executor_of_a_view(view: Any) -> None:
    pids = view.client[:].apply_sync(os.getpid)
    with view.executor as executor:
        found = executor.submit(os.getpid).result(PATIENCE_S)
        assert found == pids or found in pids
        assert list(executor.map(abs, [-1, -2, -3])) == [1, 2, 3]
        assert list(executor.map(abs, iter([-1, -2]), timeout=PATIENCE_S)) == [1, 2]
    with pytest.raises(RuntimeError):
        executor.map(abs, [1])


def test_threads_share_a_view(view: Any) -> None:
    found: list[list[int]] = []

    def use(base: int) -> None:
        found.append([view.map_sync(operator.add, [base, base], [1, 2]), base])  # type: ignore[list-item]

    threads = [threading.Thread(target=use, args=(base,)) for base in (10, 20, 30, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(found, key=lambda pair: pair[1]) == [
        [[base + 1, base + 2], base] for base in (10, 20, 30, 40)
    ]
    assert len(view.history) == len(set(view.history)) == view_tasks(view) * 4


def view_tasks(view: Any) -> int:
    """Tasks of a map of two items."""
    return 2 if view.balanced else min(2, len(view))


def test_labels_of_the_client_reach_every_kind_of_view(view: Any, another: ipp.Client) -> None:
    with another.label("of the block"):
        inside = view.apply_async(pow, 1, 1)
    outside = view.apply_async(pow, 1, 1)
    assert inside["label"] == value_of(view, "of the block")
    assert outside["label"] == value_of(view, None)
    assert view.wait(timeout=PATIENCE_S)
