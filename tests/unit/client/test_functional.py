"""`remote` and `parallel`: functions that run on engines when they are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from enginery.client.client import Client
from enginery.client.functional import ParallelFunction, RemoteFunction, parallel, remote
from enginery.client.results import AsyncMapResult, AsyncResult
from enginery.client.views import View
from enginery.errors import CompositeError
from enginery.protocol.messages import Kind
from tests.unit.client.fake_session import FakeSession, make_client

Parts = tuple[Client, FakeSession]


@pytest.fixture
def parts() -> Parts:
    return make_client((0, 1, 4))


def power(base: int, exponent: int = 2) -> int:
    """Raise to a power."""
    return base**exponent


def squares(part: Sequence[int]) -> list[int]:
    """Square a part."""
    return [item**2 for item in part]


# ---------------------------------------------------------------- remote


def test_remote(parts: Parts) -> None:
    rc, _ = parts
    ours = remote(rc[:], block=True)(power)
    assert isinstance(ours, RemoteFunction)
    assert ours(3) == [9, 9, 9]
    assert ours(2, exponent=5) == [32, 32, 32]
    assert rc[0].remote(block=True)(power)(3) == 9
    assert rc.load_balanced_view().remote()(power)(3).get() == 9
    assert ours.func is power


@pytest.mark.parametrize("block", [None, True, False])
@pytest.mark.parametrize("of_view", [True, False])
def test_block_is_the_views_unless_given(parts: Parts, block: bool | None, of_view: bool) -> None:
    view = parts[0][0]
    view.block = of_view
    waits = of_view if block is None else block
    for found in (view.remote(block)(power)(3), view.parallel(block=block)(squares)([3])):
        assert isinstance(found, AsyncResult) is not waits
    assert view.block is of_view


def test_flags_of_a_remote_function(parts: Parts) -> None:
    rc, session = parts
    view = rc.load_balanced_view(label="view")
    first = view.apply_async(int)
    labelled = view.remote(label="mine", retries=2, after=first)(power)
    plain = view.remote()(power)
    labelled(1)
    plain(1)
    view.label = "later"
    plain(1)
    labels = [call.options.label for call in session.submissions]
    assert labels == ["view", "mine", "view", "later"]
    options = session.submissions[1].options
    assert options.retries == 2
    assert options.after is not None
    assert options.after.tasks == tuple(first.task_ids)


@pytest.mark.parametrize("make", [remote, parallel])
def test_they_look_like_their_function(parts: Parts, make: Callable[..., Any]) -> None:
    wrapped = make(parts[0][0])(power)
    assert wrapped.__name__ == "power"
    assert inspect.signature(wrapped) == inspect.signature(power)
    kind = "RemoteFunction" if make is remote else "ParallelFunction"
    assert wrapped.__doc__ == f"{kind} wrapping:\nRaise to a power."
    assert repr(wrapped) == f"<{kind} power on <DirectView 0>>"
    assert make(parts[0][0])(max).__name__ == "max"


@pytest.mark.parametrize("make", [remote, parallel])
def test_bad_decorators(parts: Parts, make: Callable[..., Any]) -> None:
    view = parts[0][0]
    with pytest.raises(TypeError, match=r"a view is needed to say where the function runs, not 3 \(int\)"):
        make(3)
    with pytest.raises(TypeError, match="a function is needed, not 3"):
        make(view)(3)
    with pytest.raises(KeyError, match="'nonsense' is no flag"):
        make(view, nonsense=1)(power)
    with pytest.raises(KeyError, match="'after' is a flag of load-balanced views only"):
        make(view, after=())(power)


# ---------------------------------------------------------------- parallel


@pytest.fixture(params=["direct", "balanced"])
def view(request: pytest.FixtureRequest, parts: Parts) -> View:
    return parts[0][:] if request.param == "direct" else parts[0].load_balanced_view()


@pytest.mark.parametrize("dist", ["b", "r"])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_parallel(view: View, dist: str, count: int) -> None:
    ours = parallel(view, dist=dist)(squares)
    assert isinstance(ours, ParallelFunction)
    expected = [item**2 for item in range(count)]
    ar = ours(range(count))
    assert isinstance(ar, AsyncMapResult)
    assert ar.get() == expected
    assert list(ours(tuple(range(count)))) == expected
    assert ours(iter(range(count))).get() == expected
    assert ar.msg_ids == view.history[: len(ar.msg_ids)]


def test_how_arguments_are_cut(parts: Parts) -> None:
    rc, session = parts

    def look(*given: Any) -> list[Any]:
        return [given]

    assert rc[:].parallel(block=True)(look)(range(7), "abcdefg") == [
        ([0, 1, 2], "abc"),
        ([3, 4], "de"),
        ([5, 6], "fg"),
    ]
    balanced = rc.load_balanced_view()
    assert balanced.parallel(block=True)(look)([1, 2]) == [([1],), ([2],)]
    assert balanced.parallel(block=True, chunksize=2)(look)([1, 2, 3]) == [([1, 2],), ([3],)]
    assert balanced.parallel("r", block=True, chunksize=2)(look)([1, 2, 3, 4]) == [([1, 3],), ([2, 4],)]
    session.run_all()


def test_what_calls_return_is_joined(parts: Parts) -> None:
    view = parts[0][:]
    whole = view.parallel(block=True)(np.sqrt)(np.arange(7.0))
    assert np.array_equal(whole, np.sqrt(np.arange(7.0)))
    assert view.parallel(block=True)(sum)([1, 2, 3, 4, 5, 6]) == [3, 7, 11]  # numbers are no sequences


def test_calls_and_elements(view: View) -> None:
    ours = view.parallel(block=True)(power)
    assert ours.map([1, 2, 3]) == [1, 4, 9]
    assert ours.map([1, 2, 3], [1, 3]) == [1, 8]
    assert ours.map([]) == []
    assert view.parallel(block=True, return_exceptions=True)(power).map([1, "a"])[0] == 1


def test_in_order_of_arrival() -> None:
    rc, _ = make_client((0, 1), order=lambda count: count - 1)  # the last one first
    ours = rc.load_balanced_view().parallel(ordered=False)(squares)
    assert list(ours([1, 2, 3])) == [9, 4, 1]
    assert ours([1, 2, 3]).get() == [1, 4, 9]
    assert list(rc.load_balanced_view().parallel(ordered=False)(power).map([1, 2, 3])) == [9, 4, 1]


def test_nothing_to_do(view: View, parts: Parts) -> None:
    assert view.parallel()(squares)([]) == []
    assert view.parallel()(squares)((), "") == []
    assert parts[1].submissions == []


def test_bad_calls(view: View, parts: Parts) -> None:
    ours = view.parallel()(power)
    for call, error, text in (
        (lambda: ours([1, 2], [1]), ValueError, r"must have the same length; they have \[1, 2\]"),
        (
            lambda: ours([1], exponent=[2]),
            TypeError,
            r"called with sequences alone, not with \['exponent'\]",
        ),
        (ours, TypeError, "power needs at least one sequence"),
        (lambda: ours(3), TypeError, "a sequence is needed, not 3"),
        (lambda: view.parallel("x")(power), ValueError, "dist is 'b'"),
        (lambda: view.parallel(chunksize=0)(power), ValueError, "chunksize must be at least 1, and is 0"),
    ):
        with pytest.raises(error, match=text):
            call()
    assert parts[1].submissions == []


def test_parts_that_fail(view: View) -> None:
    def first(part: Sequence[int]) -> list[float]:
        return [1 / item for item in part]

    with pytest.raises(ZeroDivisionError):
        view.parallel(block=True)(first)([1, 0, 1])
    with pytest.raises(CompositeError, match="2 of 3"):
        view.parallel(block=True)(first)([0, 1, 0])
    found = view.parallel(block=True, return_exceptions=True)(first)([1, 0, 2])
    assert found[::2] == [1.0, 0.5]
    assert isinstance(found[1], ZeroDivisionError)


def test_each_part_is_one_call(parts: Parts) -> None:
    rc, session = parts
    rc[:].parallel(block=True)(squares)(range(9))
    assert [call.options.kind for call in session.submissions] == [Kind.CALL] * 3
    assert [call.engines for call in session.submissions] == [(0,), (1,), (4,)]
