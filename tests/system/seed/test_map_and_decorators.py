"""Map, decorators and remote functions: S67 to S74."""

from __future__ import annotations

import functools
import operator
import os
from typing import Any

import pytest

import enginery as ipp
from tests.system.seed.held import PATIENCE_S


def test_s67_map_over_any_number_of_sequences(
    rc: ipp.Client, dview: ipp.DirectView, lview: ipp.LoadBalancedView
) -> None:
    for view in (dview, lview):
        assert view.map_sync(pow, [1, 2, 3], [3, 2, 1]) == [1, 4, 3]
        assert view.map_sync(pow, [2, 3, 4], (n for n in (1, 2))) == [2, 9]
        assert view.map_sync(abs, []) == []
    assert len(dview.map_async(abs, range(10)).msg_ids) == min(10, len(rc))
    assert len(lview.map_async(abs, range(10)).msg_ids) == 10
    assert len(lview.map_async(abs, range(10), chunksize=5).msg_ids) == 2


def test_s68_block_and_bound_are_keywords(dview: ipp.DirectView) -> None:
    assert dview.map(abs, [-1, -2], block=True) == [1, 2]
    assert dview.map(abs, [-1, -2], block=False, bound=True).get() == [1, 2]


def test_s69_iterating_over_a_map(rc: ipp.Client, lview: ipp.LoadBalancedView) -> None:
    assert list(lview.map_async(abs, range(-9, 0))) == list(range(9, 0, -1))
    assert sorted(lview.map_async(abs, range(-9, 0), ordered=False)) == list(range(1, 10))


def test_s70_map_async_map_sync_and_imap(dview: ipp.DirectView, lview: ipp.LoadBalancedView) -> None:
    for view in (dview, lview):
        assert view.map_async(abs, [-1]).get() == [1]
        with pytest.raises(TypeError):
            view.map_async(abs, [-1], block=True)
        with pytest.raises(TypeError):
            view.map_sync(abs, [-1], block=True)
    lazy = lview.imap(abs, iter(range(-3, 0)))
    assert [next(lazy), *lazy] == [3, 2, 1]
    endless = lview.imap(abs, iter(int, 1))
    assert next(endless) == 0
    endless.cancel()


def test_s71_reduce(dview: ipp.DirectView, lview: ipp.LoadBalancedView) -> None:
    assert functools.reduce(operator.add, lview.map_async(abs, range(-4, 0))) == 10
    for view in (dview, lview):
        assert view.reduce(operator.add, range(100)) == 4950
        assert view.reduce(operator.add, list("abcdefgh"), ">") == ">abcdefgh"


def test_s72_parallel(rc: ipp.Client, dview: ipp.DirectView) -> None:
    @dview.parallel(block=True)
    def total(part: Any) -> list[int]:
        return [sum(part)]

    assert sum(total(range(10))) == 45

    @ipp.parallel(dview, block=True)
    def square(part: Any) -> list[int]:
        return [x * x for x in part]

    assert square(list(range(6))) == [0, 1, 4, 9, 16, 25]

    @dview.parallel(block=True)
    def negative(x: int) -> int:
        return -x

    assert negative.map([1, 2, 3]) == [-1, -2, -3]


def test_s73_remote(rc: ipp.Client, dview: ipp.DirectView) -> None:
    @dview.remote(block=True)
    def pid() -> int:
        return os.getpid()

    assert pid() == dview.apply_sync(os.getpid)

    @ipp.remote(rc[0], block=False)
    def later(x: int) -> int:
        return x + 1

    assert later(2).get(timeout=PATIENCE_S) == 3


def test_s74_remote_and_parallel_functions_look_like_their_own(dview: ipp.DirectView) -> None:
    import inspect

    def named(x: int, y: int = 2) -> int:
        """Add."""
        return x + y

    for wrapped, kind in (
        (ipp.remote(dview)(named), ipp.RemoteFunction),
        (ipp.parallel(dview)(named), ipp.ParallelFunction),
    ):
        assert isinstance(wrapped, kind)
        assert wrapped.__name__ == "named"
        assert inspect.signature(wrapped) == inspect.signature(named)
        assert wrapped.__doc__ is not None
        assert wrapped.__doc__.endswith("Add.")
