"""Dependencies, and timeouts at each waiting point: S75 to S78."""

from __future__ import annotations

import operator
import os
from typing import Any

import pytest

import enginery as ipp
from tests.system.seed.held import PATIENCE_S, busy


def test_s75_depend(rc: ipp.Client, lview: ipp.LoadBalancedView, dview: ipp.DirectView) -> None:
    last = rc.ids[-1]
    dview.push({"is_the_one": False}, block=True)
    rc[last].push({"is_the_one": True}, block=True)
    space: dict[str, Any] = {"__name__": "__main__"}
    check = eval("lambda wanted: is_the_one == wanted", space)

    @ipp.depend(check, True)
    def where() -> int:
        return os.getpid()

    assert lview.apply_sync(where) == rc[last].apply_sync(os.getpid)

    @ipp.depend(check, "never")
    def nowhere() -> int:
        return 1

    with pytest.raises(ipp.ImpossibleDependency):
        lview.apply_async(nowhere).get(timeout=PATIENCE_S)


def test_s76_require(rc: ipp.Client, lview: ipp.LoadBalancedView, dview: ipp.DirectView) -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(
        "def triple(x): return 3 * x\ndef user(x): return triple(colorsys.rgb_to_hsv(x, 0, 0)[2]) + k",
        space,
    )
    user = ipp.require("colorsys", space["triple"], k=4)(space["user"])
    assert lview.apply_sync(user, 2) == 10
    missing = ipp.require("no_such_module_anywhere")(space["user"])
    with pytest.raises(ipp.ImpossibleDependency):
        lview.apply_async(missing, 2).get(timeout=PATIENCE_S)
    with pytest.raises(ipp.UnmetDependency):
        rc[0].apply_sync(missing, 2)


def test_s77_dependency_objects(rc: ipp.Client, lview: ipp.LoadBalancedView) -> None:
    good = lview.apply_async(pow, 2, 2)
    bad = lview.apply_async(operator.truediv, 1, 0)
    rc.wait([good, bad], timeout=PATIENCE_S)
    dependency = ipp.Dependency([*good.msg_ids, *bad.msg_ids], all=False)
    assert set(dependency) == {*good.msg_ids, *bad.msg_ids}
    assert dependency.check(completed=set(good.msg_ids), failed=set())
    with lview.temp_flags(after=dependency):
        assert lview.apply_async(pow, 2, 3).get(timeout=PATIENCE_S) == 8
    with lview.temp_flags(after=ipp.Dependency(bad.msg_ids, success=False, failure=True)):
        assert lview.apply_async(pow, 2, 5).get(timeout=PATIENCE_S) == 32
    with lview.temp_flags(after=bad), pytest.raises(ipp.ImpossibleDependency):
        lview.apply_async(pow, 2, 5).get(timeout=PATIENCE_S)
    with lview.temp_flags(after="3fa9c01b-17"), pytest.raises(ipp.InvalidDependency):
        lview.apply_async(pow, 2, 5).get(timeout=PATIENCE_S)


def test_s78_timeouts_at_each_waiting_point(rc: ipp.Client) -> None:
    held, let_go = busy(rc)
    try:
        with pytest.raises(TimeoutError):
            held.get(timeout=0.01)
        assert held.wait(0.01) is False
        assert rc.wait(held, timeout=0.01) is False
        assert rc[0].wait(held, timeout=0.01) is False
        with pytest.raises(TimeoutError):
            rc.wait_for_engines(len(rc) + 1, timeout=0.01)
        with pytest.raises(TimeoutError):
            held.result(timeout=0)
    finally:
        let_go()
    assert held.get(timeout=-1) == "done"
