"""Data movement: S44 to S50."""

from __future__ import annotations

import numpy
import pytest

import enginery as ipp
from tests.system.seed.held import each


def test_s44_dictionary_access(rc: ipp.Client, dview: ipp.DirectView) -> None:
    dview["a"] = ["foo", "bar"]
    assert dview["a"] == each(rc, ["foo", "bar"])
    assert dview.get("a") == each(rc, ["foo", "bar"])
    dview.update({"b": 3})
    assert dview["b + 1"] == each(rc, 4)
    assert dview["a[0].upper()"] == each(rc, "FOO")


def test_s45_scatter_splits_into_contiguous_parts(rc: ipp.Client, dview: ipp.DirectView) -> None:
    assert dview.scatter("a", range(16), block=True) == each(rc, None)
    part = 16 // len(rc)
    assert dview["a"] == [list(range(start, start + part)) for start in range(0, 16, part)]
    dview.scatter("b", range(10), dist="r", block=True)
    assert dview["b"] == [list(range(start, 10, len(rc))) for start in range(len(rc))]
    dview.scatter("c", rc.ids, flatten=True, block=True)
    assert dview["c"] == rc.ids


def test_s46_gather_keeps_the_order(rc: ipp.Client, dview: ipp.DirectView) -> None:
    for sequence in (list(range(17)), list("a sentence"), []):
        dview.scatter("a", sequence, block=True)
        assert dview.gather("a", block=True) == sequence
    array = numpy.arange(30.0).reshape(10, 3)
    dview.scatter("a", array, block=True)
    assert numpy.array_equal(dview.gather("a", block=True), array)


def test_s47_movement_is_between_client_and_engines(rc: ipp.Client, dview: ipp.DirectView) -> None:
    dview.scatter("a", range(8), block=True)
    dview.execute("a = [x * x for x in a]", block=True)
    assert dview.gather("a", block=True) == [x * x for x in range(8)]


def test_s48_push(rc: ipp.Client, dview: ipp.DirectView) -> None:
    assert dview.push({"a": 1, "b": [2]}, block=True) == each(rc, None)
    assert dview["(a, b)"] == each(rc, (1, [2]))
    with pytest.raises(TypeError):
        dview.push([("a", 1)])


def test_s49_pull(rc: ipp.Client, dview: ipp.DirectView) -> None:
    dview.push({"a": 1, "b": 2}, block=True)
    assert dview.pull("a", block=True) == each(rc, 1)
    assert dview.pull(["a", "b"], block=True) == each(rc, [1, 2])
    assert rc[0].pull(("b", "a"), block=True) == [2, 1]
    with pytest.raises(ipp.RemoteError, match="nothing_of_that_name"):
        rc[0].pull("nothing_of_that_name", block=True)
    with pytest.raises(TypeError):
        dview.pull(3)


def test_s50_references(rc: ipp.Client, dview: ipp.DirectView) -> None:
    dview.execute("a = 7\ndef f(x, y=0):\n    return x + y", block=True)
    reference = ipp.Reference("a")
    assert dview.apply_sync(lambda x: x, reference) == each(rc, 7)
    assert dview.apply_sync(lambda x=0: x, x=ipp.Reference("a * 2")) == each(rc, 14)
    assert dview.apply_sync(ipp.Reference("f"), 1, y=reference) == each(rc, 8)
    assert rc[0].apply_sync(lambda d: d["k"][0], {"k": [reference]}) == 7
    assert rc.load_balanced_view().map_sync(lambda x: x, [reference] * 3) == [7, 7, 7]
    with pytest.raises(NameError):
        rc[0].apply_sync(lambda x: x, ipp.Reference("not_there"))
    with pytest.raises(TypeError):
        ipp.Reference(3)
