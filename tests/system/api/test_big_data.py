"""Big data between real processes, with shared memory and without: once, read-only, or private."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest

import enginery as ipp
from enginery.core import ledger
from tests.system.api.held import Gate

CLUSTERS = {"shared": {"n": 2}, "frames": {"n": 2, "shared_memory_limit": 0}}
CONSTANT = np.arange(6_250_000.0)  # 50 MB
ITEMS = range(1000)


def begin_counting() -> None:
    """Count the bytes of all blobs that reach this engine."""
    from enginery.protocol.assembly import BlobCache

    if not hasattr(BlobCache, "counted"):
        put = BlobCache.put

        def counting(self: Any, blob: Any, data: Any, *, keep: bool) -> None:
            BlobCache.counted += memoryview(data).nbytes  # type: ignore[attr-defined]
            put(self, blob, data, keep=keep)

        BlobCache.put = counting  # type: ignore[method-assign]
    BlobCache.counted = 0  # type: ignore[attr-defined]


def counted() -> int:
    from enginery.protocol.assembly import BlobCache

    return int(BlobCache.counted)  # type: ignore[attr-defined]


def limit_cache(size_bytes: int) -> None:
    import gc

    from enginery.protocol.assembly import BlobCache

    for each in gc.get_objects():
        if isinstance(each, BlobCache):
            each._cache_bytes = size_bytes


def item_of(table: Any, item: int) -> float:
    return float(table[item])


def swapped(item: int, table: Any) -> float:
    return float(table[item])


@pytest.fixture
def counting(rc: ipp.Client) -> Iterator[None]:
    rc[:].apply_sync(begin_counting)
    yield
    for size_bytes in rc[:].apply_sync(counted):
        assert size_bytes <= 1.1 * CONSTANT.nbytes
    rc.free()


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("form", ["list", "repeat", "partial", "prepickled", "closure"])
@pytest.mark.parametrize("is_balanced", [True, False])
def test_a_map_sends_its_constant_once(rc: ipp.Client, form: str, is_balanced: bool) -> None:
    view = rc.load_balanced_view() if is_balanced else rc[:]
    table = CONSTANT
    found: list[float]
    if form == "partial":
        found = view.map_sync(functools.partial(item_of, CONSTANT), ITEMS)
    elif form == "closure":
        found = view.map_sync(lambda item: float(table[item]), ITEMS)
    else:
        constants: Any = {
            "list": [CONSTANT] * len(ITEMS),
            "repeat": itertools.repeat(CONSTANT),
            "prepickled": [ipp.PrePickled(CONSTANT)] * len(ITEMS),
        }[form]
        found = view.map_sync(item_of, constants, ITEMS)
    assert found == list(map(float, ITEMS))


@pytest.mark.usefixtures("counting")
def test_pushed_data_is_there_already(rc: ipp.Client, dview: ipp.DirectView) -> None:
    dview.push({"table": CONSTANT}, block=True)
    view = rc.load_balanced_view()
    assert view.map_sync(swapped, ITEMS, [ipp.Reference("table")] * len(ITEMS)) == list(map(float, ITEMS))


def test_a_blob_that_an_engine_has_lost_comes_again(rc: ipp.Client, dview: ipp.DirectView) -> None:
    dview.apply_sync(limit_cache, 1 << 20)
    try:
        tables = [np.full(500_000, float(number)) for number in range(4)]
        kept = [ipp.PrePickled(table) for table in tables]
        for _ in range(3):
            assert rc.load_balanced_view().map_sync(item_of, kept * 5, range(20)) == [0.0, 1.0, 2.0, 3.0] * 5
    finally:
        dview.apply_sync(limit_cache, 256 << 20)


# ---------------------------------------------------------------- read-only and writeable


def edit(value: Any) -> Any:
    array = value["nested"][0]
    array[0] = -1
    return array


@pytest.mark.parametrize("size", [3, 100_000, 2_000_000])
def test_received_arrays_are_read_only_and_the_error_names_the_flag(rc: ipp.Client, size: int) -> None:
    with pytest.raises(ValueError, match="assignment destination is read-only") as caught:
        rc[0].apply_sync(edit, {"nested": [np.arange(size)]})
    assert "with the flag writeable=True, for example:  view.set_flags(writeable=True)" in str(caught.value)
    result = rc[0].apply_sync(np.arange, size)
    with pytest.raises(ValueError, match="read-only"):
        result[0] = 1


@pytest.mark.parametrize("size", [3, 100_000, 2_000_000])
def test_writeable_arrays_are_private_in_both_directions(rc: ipp.Client, size: int) -> None:
    array = np.arange(size)
    view = rc.direct_view(writeable=True)
    first, second = view.apply_sync(edit, {"nested": [array]})
    assert [first[0], second[0], array[0]] == [-1, -1, 0]
    first[1] = 7
    assert [first[1], second[1]] == [7, 1]
    result = rc.apply(edit, ({"nested": [array]},), targets=0, block=True, writeable=True)
    result[:] = 5
    mapped = rc.load_balanced_view().map_sync(edit, [{"nested": [array]}] * 3, writeable=True)
    assert [each[0] for each in mapped] == [-1, -1, -1]
    mapped[0][1] = 9


def test_pushed_and_scattered_arrays_may_be_writeable(rc: ipp.Client, dview: ipp.DirectView) -> None:
    array = np.arange(200_000)
    dview.push({"a": array}, writeable=True, block=True)
    dview.scatter("part", array, writeable=True, block=True)
    dview.execute("a += 1; part *= 2", block=True)
    assert [each[-1] for each in dview["a"]] == [200_000, 200_000]
    gathered = dview.gather("part", block=True)
    assert gathered.tolist() == (2 * array).tolist()
    pulled = dview.pull("a", targets=0, writeable=True, block=True)
    pulled[0] = 100
    assert dview.pull("a[0]", targets=0, block=True) == 1
    assert array[0] == 0
    dview.push({"b": array}, block=True)
    with pytest.raises(ValueError, match="writeable=True"):
        dview.execute("b += 1", targets=0, block=True)


# ---------------------------------------------------------------- memory


def test_memory_of_all_processes(rc: ipp.Client, dview: ipp.DirectView) -> None:
    dview.push({"table": np.zeros(1_000_000)}, block=True)
    report = rc.memory()
    assert [each.process for each in report] == ["controller", "engine 0", "engine 1", "client"]
    engine = report["engine 0"]
    assert engine.objects[0] == ("table", "ndarray", 8_000_000)
    assert engine.named == sum(each.size_bytes for each in engine.objects)
    assert engine.pid == rc[0].apply_sync(os.getpid)
    assert all(each.resident > 1_000_000 for each in report)
    text = str(report)
    assert "engine 0: table (ndarray, 8.0 MB)" in text
    assert report.to_dict()["processes"][1]["objects"][0]["size_bytes"] == 8_000_000


def test_a_busy_engine_answers(rc: ipp.Client, gate: Gate) -> None:
    ar = gate.hold(rc[0])
    for report in (rc.memory(), rc.free(0)):
        assert report["engine 0"].resident > 0
        assert not report.silent
    assert not ar.done()
    gate.open()
    assert ar.get(timeout=30) == "through"


def test_free_gives_back_what_can_be_had_again(rc: ipp.Client, dview: ipp.DirectView) -> None:
    table = ipp.PrePickled(CONSTANT)
    view = rc.load_balanced_view()
    assert view.map_sync(item_of, [table] * 4, range(4)) == [0.0, 1.0, 2.0, 3.0]
    dview.push({"x": np.ones(1_000_000)}, block=True)
    before = rc.memory()
    assert before["controller"].blobs + before["controller"].results >= CONSTANT.nbytes
    after = rc.free()
    assert after["controller"].blobs < 1_000_000
    assert after["controller"].results == 0
    for name in ("engine 0", "engine 1"):
        assert after[name].blobs < 1_000_000
        assert after[name].named == 8_000_000
    assert after["client"].idle == 0
    assert view.map_sync(item_of, [table] * 4, range(4)) == [0.0, 1.0, 2.0, 3.0]
    rc.clear(block=True)
    assert rc.memory()["engine 0"].named == 0


def test_free_wants_engines_that_are_there(rc: ipp.Client) -> None:
    with pytest.raises(IndexError):
        rc.free(7)


# ---------------------------------------------------------------- very big


def limit_calls(limit_bytes: int) -> int:
    """What this process sends as one result at most, from now on; returns the limit before."""
    from enginery.engine import service

    before, service.CALL_LIMIT_BYTES = service.CALL_LIMIT_BYTES, limit_bytes
    return before


def test_what_is_too_large_is_refused_with_size_and_limit(
    rc: ipp.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.zeros(3_000_000, "u1")
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "CALL_LIMIT_BYTES", 1 << 20)
        for send in (
            lambda: rc[0].apply_async(len, array),
            lambda: rc[:].push({"a": array}),
            lambda: rc.load_balanced_view().map_async(len, [array]),
            lambda: rc[:].scatter("a", array),
        ):
            with pytest.raises(ipp.TooLarge, match=r"what this call sends has .* MiB; the limit is 1.0 MiB"):
                send()
    assert not rc.outstanding
    before = rc[0].apply_sync(limit_calls, 1 << 20)
    with pytest.raises(ipp.TooLarge, match=r"the result has 2.9 MiB; the limit is 1.0 MiB"):
        rc[0].apply_sync(last_is_set, 3_000_000)
    rc[0].apply_sync(limit_calls, before)
    assert len(rc[0].apply_sync(last_is_set, 3_000_000)) == 3_000_000


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_three_gibibytes_go_and_come(rc: ipp.Client) -> None:
    """More than 2 GiB is where sizes of 31 bits end, and system calls that write less than they were told."""
    size_bytes = 3 << 30
    if psutil.virtual_memory().available < 4 * size_bytes:  # caller, socket or segment, engine
        pytest.skip("not enough memory here")
    array = np.zeros(size_bytes, "u1")
    array[-1] = 7
    assert rc[0].apply_sync(lambda value: (value.nbytes, int(value[-1])), array) == (size_bytes, 7)
    del array
    rc.free()
    result = rc[0].apply_sync(last_is_set, size_bytes)
    assert (result.nbytes, result[-1]) == (size_bytes, 9)


def last_is_set(size_bytes: int) -> Any:
    array = np.zeros(size_bytes, "u1")
    array[-1] = 9
    return array
