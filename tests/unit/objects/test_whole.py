"""Values as one byte string: read like all others, whatever their size."""

from __future__ import annotations

from typing import Any

import pytest

from enginery.objects.packing import unpack
from enginery.objects.whole import pack_whole


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        "text",
        {"nested": [bytes(10), (1, 2)]},
        b"x" * 1_000_000,
        [bytearray(300_000), b"y" * 300_000],
        list(range(100_000)),
    ],
)
def test_what_goes_in_comes_out(value: Any) -> None:
    whole = pack_whole(value)
    assert type(whole) is bytes
    assert unpack(whole) == value


def test_arrays() -> None:
    numpy = pytest.importorskip("numpy")
    for size in (10, 1_000_000):
        array = numpy.arange(size)
        found = unpack(pack_whole({"a": array}))["a"]
        assert (found == array).all()
        assert found.dtype == array.dtype


def test_what_cannot_be_pickled() -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        pack_whole(i for i in range(3))
