"""Values that bring the data of their functions along."""

from __future__ import annotations

import pickle

import numpy

from enginery.objects.carried import Carried, call
from enginery.objects.packing import pack, unpack


def test_what_arrives_is_the_value() -> None:
    assert pickle.loads(pickle.dumps(Carried([1, 2]), protocol=5)) == [1, 2]


def test_buffers_leave_out_of_band() -> None:
    array = numpy.zeros(1 << 20, "u1")
    packed = pack(Carried({"a": array}))
    assert len(packed.inline) < 2_000
    assert numpy.array_equal(unpack(packed.inline, packed.buffers)["a"], array)


def test_functions_bring_their_data() -> None:
    offset = [40]
    carried = pickle.loads(pickle.dumps(Carried(lambda x: x + offset[0]), protocol=5))
    assert call(carried, 2) == 42
