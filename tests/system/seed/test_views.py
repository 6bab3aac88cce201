"""Views: S34 to S43."""

from __future__ import annotations

import os

import pytest

import enginery as ipp


def test_s34_targets_and_balanced_are_immutable(rc: ipp.Client) -> None:
    for view in (rc[0], rc[:], rc.load_balanced_view()):
        with pytest.raises(AttributeError):
            view.targets = [12]
        with pytest.raises(AttributeError):
            view.balanced = not view.balanced
        view.targets = view.targets
        view.balanced = view.balanced
        with pytest.raises(AttributeError):
            view.set_flags(targets=[12])


def test_s35_balanced_decides_the_class(rc: ipp.Client) -> None:
    assert type(rc.view(0)) is ipp.DirectView
    assert type(rc.view(0, balanced=True)) is ipp.LoadBalancedView
    assert rc.view(0).balanced is False
    assert rc.load_balanced_view().balanced is True


def test_s36_targets_are_what_the_view_was_built_with(rc: ipp.Client) -> None:
    assert rc[0].targets == 0
    assert rc[[0]].targets == [0]
    assert rc[:].targets == rc.ids
    assert rc.direct_view("all").targets == "all"
    assert rc.load_balanced_view().targets is None


def test_s37_views_are_cached(rc: ipp.Client) -> None:
    last = rc.ids[-1]
    v1 = rc.load_balanced_view([0, last])
    v2 = rc.load_balanced_view([0, last])
    assert v2 is v1
    assert rc[0] is rc[0]
    assert rc[:] is rc[:]
    assert rc[[0]] is not rc[0]
    assert rc.direct_view("all") is rc.direct_view()


def test_s38_direct_views_come_from_index_and_view(rc: ipp.Client) -> None:
    assert rc.view(0) is rc[0]
    assert rc.view([0]) is rc[[0]]


def test_s39_the_repr_of_views(rc: ipp.Client) -> None:
    assert repr(rc[0]) == "<DirectView 0>"
    assert repr(rc[:]) == f"<DirectView [{','.join(map(str, rc.ids))}]>"


def test_s40_negative_indices_and_slices(rc: ipp.Client) -> None:
    assert rc[-1] is rc[rc.ids[-1]]
    assert rc[::2] is rc[rc.ids[::2]]


def test_s41_a_slice_is_evaluated_at_construction(rc: ipp.Client) -> None:
    view = rc[:]
    assert view.targets == rc.ids
    view.targets.append(99)  # a copy
    assert view.targets == rc.ids


def test_s42_execution_by_direct_view(rc: ipp.Client, dview: ipp.DirectView) -> None:
    pids = dview.apply_sync(os.getpid)
    assert len(set(pids)) == len(rc)


def test_s43_a_balanced_view_runs_on_exactly_one_engine(rc: ipp.Client, lview: ipp.LoadBalancedView) -> None:
    assert lview.apply_sync(os.getpid) in rc[:].apply_sync(os.getpid)
    for name in ("push", "pull", "scatter", "gather", "execute", "run", "update"):
        assert not hasattr(lview, name)
