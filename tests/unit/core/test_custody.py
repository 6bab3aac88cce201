"""Pools whose writers are gone are cleared until nothing is left of them."""

from __future__ import annotations

from enginery.core.custody import LOOK_S, Custody


def test_a_pool_is_looked_at_until_it_is_cleared() -> None:
    custody = Custody()
    custody.on_hello("client", "c-1")
    assert custody.is_reader("client")
    assert custody.next_deadline() is None
    custody.on_gone("client")
    assert not custody.is_reader("client")
    assert custody.next_deadline() == 0.0, "at once"
    assert custody.take_due(now=10.0) == ["c-1"]
    custody.check()
    assert custody.next_deadline() == 10.0 + LOOK_S, "it was not cleared"
    assert custody.take_due(now=10.0 + LOOK_S / 2) == []
    assert custody.take_due(now=10.0 + LOOK_S) == ["c-1"]
    custody.on_cleared("c-1")
    assert custody.take_due(now=10.0 + 2 * LOOK_S) == []
    assert custody.next_deadline() is None
    custody.check()


def test_who_comes_back_looks_after_his_own() -> None:
    custody = Custody()
    custody.on_hello("client", "c-1")
    custody.on_gone("client")
    custody.on_hello("client", "c-1")
    assert custody.take_due(now=20.0) == []
    custody.check()


def test_who_shares_no_longer_leaves_a_pool_that_is_cleared() -> None:
    custody = Custody()
    custody.on_hello("client", "c-1")
    assert custody.owns("client", "c-1/5.0")
    assert not custody.owns("client", "c-10/5.0")
    custody.on_hello("client", "")
    assert not custody.owns("client", "c-1/5.0")
    assert custody.take_due(now=1.0) == ["c-1"]
    custody.check()


def test_who_shares_nothing_leaves_nothing() -> None:
    custody = Custody()
    custody.on_hello("client", "")
    assert not custody.is_reader("client")
    custody.on_gone("client")
    assert custody.next_deadline() is None


def test_who_cannot_map_gets_frames_and_keeps_its_pool() -> None:
    custody = Custody()
    custody.on_hello("engine", "e-1")
    custody.on_unreadable("engine")
    assert not custody.is_reader("engine")
    custody.check()
    custody.on_gone("engine")
    assert custody.take_due(now=1.0) == ["e-1"]
