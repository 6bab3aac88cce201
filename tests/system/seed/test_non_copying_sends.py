"""Non-copying sends, arrays and tracking: S1 to S11."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import enginery as ipp
from tests.system.seed.held import PATIENCE_S, busy


def setter(a: Any) -> Any:
    a[0] = 1
    return a


def copying_setter(a: Any) -> Any:
    """Only copy read-only arrays."""
    if not a.flags.writeable:
        a = a.copy()
    a[0] = 1
    return a


SIZES = [2, 2_000, 300_000]


def test_s1_arrays_as_arguments_arrive_whole(rc: ipp.Client) -> None:
    for size in SIZES:
        array = numpy.arange(float(size))
        assert rc[0].apply_sync(lambda a: (a.shape, float(a.sum())), array) == ((size,), float(array.sum()))


def test_s2_data_movement_methods_send_arrays_alike(rc: ipp.Client, dview: ipp.DirectView) -> None:
    array = numpy.arange(300_000.0)
    dview["a"] = array
    dview.push({"b": array}, block=True)
    dview.scatter("c", array, block=True)
    for name in ("a", "b"):
        assert all(numpy.array_equal(found, array) for found in dview[name])
    assert numpy.array_equal(dview.gather("c", block=True), array)


def test_s3_a_send_returns_at_once(rc: ipp.Client) -> None:
    held, let_go = busy(rc)
    try:
        ar = rc[0].apply_async(len, numpy.zeros(300_000))
        assert not ar.done()
    finally:
        let_go()
    assert ar.get(timeout=PATIENCE_S) == 300_000
    assert held.get(timeout=PATIENCE_S) == "done"


@pytest.mark.parametrize("size", SIZES)
def test_s4_arrays_on_an_engine_are_read_only(rc: ipp.Client, size: int) -> None:
    assert rc[0].apply_sync(lambda a: a.flags.writeable, numpy.zeros(size)) is False


@pytest.mark.parametrize("size", SIZES)
def test_s5_result_arrays_are_read_only(rc: ipp.Client, size: int) -> None:
    array = rc[0].apply_sync(lambda n: __import__("numpy").ones(n), size)
    assert array.flags.writeable is False
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 2


@pytest.mark.parametrize("size", SIZES)
def test_s6_writing_into_a_received_array_is_a_remote_error(rc: ipp.Client, size: int) -> None:
    with pytest.raises(ipp.RemoteError) as caught:
        rc[0].apply_sync(setter, numpy.zeros(size))
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).startswith("ValueError(assignment destination is read-only")
    assert "in setter" in caught.value.traceback


def test_s7_the_writeable_flag_tells_the_truth(rc: ipp.Client) -> None:
    array = rc[0].apply_sync(copying_setter, numpy.zeros(2))
    assert array.tolist() == [1.0, 0.0]
    assert array.flags.writeable is False


def test_s8_track_is_a_flag_of_views_and_of_apply(rc: ipp.Client) -> None:
    view = rc[0]
    assert view.track is False
    with view.temp_flags(track=True):
        assert view.track is True
        assert view.apply_async(len, numpy.zeros(10)).get() == 10
    assert view.track is False
    assert rc.apply(len, (numpy.zeros(10),), track=True, targets=0, block=True) == 10


def test_s9_sent_is_true_once_the_buffers_are_free(rc: ipp.Client) -> None:
    ar = rc[0].apply_async(len, numpy.zeros(300_000))
    ar.get(timeout=PATIENCE_S)
    assert ar.sent is True


def test_s10_wait_on_send_blocks_until_sent(rc: ipp.Client) -> None:
    ar = rc[0].apply_async(len, numpy.zeros(300_000))
    ar.wait_on_send()
    assert ar.sent
    ar.wait_for_send(timeout=0)


def test_s11_the_tracking_session(rc: ipp.Client) -> None:
    view = rc.direct_view([0], block=False)
    array = numpy.random.random((1024, 1024))
    view.track = True
    ar = view.apply_async(lambda x: 2 * x, array)
    assert ar.sent is False
    ar.wait_on_send()
    assert ar.sent is True
    kept = array.copy()
    array[:] = 0  # safe now
    assert numpy.array_equal(ar.get(timeout=PATIENCE_S)[0], 2 * kept)
