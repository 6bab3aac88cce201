"""Built functions: the least recently used ones go, by number and by bytes."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from enginery.engine import function_table
from enginery.engine.function_table import FunctionTable
from enginery.objects.arrays import writeable_arrivals
from enginery.objects.functions import PackedFunction, pack_function


def constant(array: Any) -> PackedFunction:
    return pack_function(functools.partial(len, array))


def test_the_function_that_was_not_used_for_the_longest_time_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_table, "FUNCTIONS_KEPT", 2)
    table = FunctionTable({})
    packed = [pack_function(function) for function in (abs, len, int)]
    for number in (0, 1, 0, 2):
        table.get(packed[number].blob_id, packed[number].data, writeable=False)
    assert [table.data(each.blob_id) is not None for each in packed] == [True, False, True]
    assert len(table) == 2
    with pytest.raises(LookupError):
        table.get(packed[1].blob_id, None, writeable=False)


def test_bytes_are_bounded_but_the_last_one_stays() -> None:
    table = FunctionTable({}, kept_bytes=1000)
    small = pack_function(abs)
    big = [constant(np.full(1000, number)) for number in (1, 2)]
    table.get(small.blob_id, small.data, writeable=False)
    assert table.total_bytes == len(small.data)
    for packed in big:
        assert table.get(packed.blob_id, packed.data, writeable=False).function() == 1000
        assert (len(table), table.total_bytes) == (1, len(packed.data))
    table.clear()
    assert (len(table), table.total_bytes) == (0, 0)


def test_writeable_ones_are_others() -> None:
    table = FunctionTable({})
    packed = constant(np.arange(3))
    plain = table.get(packed.blob_id, packed.data, writeable=False).function
    with writeable_arrivals():
        writeable = table.get(packed.blob_id, packed.data, writeable=True).function
    assert [each.args[0].flags.writeable for each in (plain, writeable)] == [False, True]  # type: ignore[attr-defined]
    assert len(table) == 2
