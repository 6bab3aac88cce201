"""`use_cloudpickle`, `use_dill`, `use_pickle`: whose data a function sees."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from enginery.objects.functions import FunctionCache, build
from enginery.objects.libraries import in_use, use_cloudpickle, use_dill, use_pickle
from enginery.objects.packing import pack, pack_call, unpack_call, unpack_to_stay
from enginery.objects.prepickled import PrePickled
from enginery.objects.reference import Reference
from tests.unit.objects.test_functions import Engine, notebook


@pytest.fixture(autouse=True)
def own_rule() -> Iterator[None]:
    yield
    use_pickle()


def use(library: str) -> None:
    if library == "dill":
        pytest.importorskip("dill")
        use_dill()
    else:
        use_cloudpickle()
    assert in_use() == library


def scaled() -> Any:
    return notebook("a = 1\ndef double(x):\n    return 2 * x\ndef f(x):\n    return double(x) + a")


@pytest.mark.parametrize("library", ["cloudpickle", "dill"])
def test_functions_carry_the_clients_data_and_then_not_again(library: str) -> None:
    cell, engine, cache = scaled(), Engine(a=100), FunctionCache()
    ours = cache.pack(cell.f)
    assert build(ours.data, engine.names).call(engine.table, (1,)) == 102
    use(library)
    theirs = cache.pack(cell.f)
    assert theirs.blob_id != ours.blob_id
    assert theirs.name == "f"
    assert build(theirs.data, engine.names).call(engine.table, (1,)) == 3
    cell.session["a"] = 5
    assert build(cache.pack(cell.f).data, engine.names).call(engine.table, (1,)) == 7
    use_pickle()
    assert in_use() == ""
    assert build(cache.pack(cell.f).data, engine.names).call(engine.table, (1,)) == 102


@pytest.mark.parametrize("library", ["cloudpickle", "dill"])
def test_so_do_functions_among_arguments_and_pushes(library: str) -> None:
    cell, engine = scaled(), Engine(a=100)
    use(library)
    args, kwargs, _ = unpack_call(*pack_call((cell.f,), {"k": [PrePickled(cell.f)]}), namespace=engine.names)
    assert (args[0](1), kwargs["k"][0](1)) == (3, 3)
    pushed, companions = unpack_to_stay(*pack({"f": cell.f}), namespace=engine.names)
    assert pushed["f"](1) == 3
    assert not companions


@pytest.mark.parametrize("library", ["cloudpickle", "dill"])
def test_all_else_is_the_same(library: str) -> None:
    use(library)
    array = np.arange(20_000)
    packed = pack_call(([lambda: 1, array, Reference("a")],), {})
    assert [buffer.nbytes for buffer in packed.buffers] == [array.nbytes]
    (f, back, seven), *_ = unpack_call(*packed, namespace={"a": 7}).args
    assert (f(), seven, back.tolist()) == (1, 7, array.tolist())
    assert not back.flags.writeable
    engine = Engine(g=len)
    assert build(FunctionCache().pack(Reference("g")).data, engine.names).call(engine.table, ("ab",)) == 2
    assert build(FunctionCache().pack(len).data, engine.names).function is len


def test_dill_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dill", None)
    with pytest.raises(ImportError, match=r"use_dill\(\) needs the package dill, here and on the engines"):
        use_dill()
    assert in_use() == ""
