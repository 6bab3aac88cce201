"""The low level that works by itself: `can`, `uncan`, lists of buffers, `interactive`."""

from __future__ import annotations

import functools
import pickle
from types import CellType
from typing import Any

import numpy as np
import pytest

from enginery.objects import canning
from enginery.objects.canning import (
    CannedArray,
    CannedBytes,
    CannedCell,
    CannedClass,
    CannedFunction,
    CannedMemoryView,
    CannedObject,
    CannedPartial,
    can,
    interactive,
    uncan,
    uncan_map,
)
from enginery.objects.functions import build, pack_function
from enginery.objects.lowlevel import (
    deserialize_object,
    pack_apply_message,
    serialize_object,
    unpack_apply_message,
)
from enginery.objects.packing import pack, unpack
from enginery.objects.reference import Reference
from tests.unit.objects.test_functions import Engine, notebook


def carried(value: Any, protocol: int, g: dict[str, Any] | None = None) -> Any:
    return uncan(pickle.loads(pickle.dumps(can(value), protocol)), g)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_canned_objects_survive_any_pickle(protocol: int) -> None:
    n = 3
    assert carried(lambda x: x + n + a, protocol, {"a": 10})(1) == 14  # type: ignore[name-defined]  # noqa: F821
    assert carried(functools.partial(pow, 2), protocol)(3) == 8
    assert carried(b"abc", protocol) == b"abc"
    assert carried(memoryview(b"abc"), protocol).tobytes() == b"abc"
    assert carried(CellType(5), protocol).cell_contents == 5
    array = carried(np.arange(20_000), protocol)
    assert array.sum() == np.arange(20_000).sum()
    assert not array.flags.writeable


def test_each_kind_has_its_class() -> None:
    cell = notebook("class Box:\n    x = 1\ndef f():\n    return 1")
    kinds: dict[type, Any] = {
        CannedFunction: cell.f,
        CannedPartial: functools.partial(cell.f),
        CannedClass: cell.Box,
        CannedArray: np.zeros(2),
        CannedBytes: b"",
        CannedMemoryView: memoryview(b""),
        CannedCell: CellType(1),
    }
    for kind, value in kinds.items():
        canned = can(value)
        assert type(canned) is kind
        assert isinstance(canned, CannedObject)
    assert [can(value) for value in (1, "a", [cell.f], None, dict)] == [1, "a", [cell.f], None, dict]
    assert carried(cell.Box, 5).x == 1


@pytest.mark.parametrize("kind", [CannedFunction, CannedPartial, CannedClass, CannedCell, CannedBytes])
def test_what_is_of_another_kind_is_refused(kind: Any) -> None:
    with pytest.raises(TypeError, match="was to be canned, not 1"):
        kind(1)


def test_keys_and_hook_of_a_canned_object() -> None:
    class Plain:
        pass

    plain = Plain()
    plain.f = lambda: b  # type: ignore[attr-defined, name-defined]  # noqa: F821
    plain.x = 1  # type: ignore[attr-defined]
    canned = CannedObject(plain, keys=["f"], hook=lambda obj, g: setattr(obj, "hooked", g["b"]))
    back = canned.get_object({"b": 2})
    assert (back.f(), back.x, back.hooked) == (2, 1, 2)
    assert back is not plain


def test_containers_are_uncanned_and_others_left_alone() -> None:
    canned = {"a": [can(b"x")], "b": (can(b"y"), 1)}
    assert uncan(canned) == {"a": [b"x"], "b": (b"y", 1)}
    assert uncan(5) == 5
    assert canning.uncan_dict(canning.can_dict({"k": b"z"})) == {"k": b"z"}
    assert canning.uncan_sequence(canning.can_sequence([b"z", 1])) == [b"z", 1]


def test_an_entry_of_uncan_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(uncan_map, complex, lambda canned, g: (canned.real, g["k"]))
    assert uncan([1j + 2], {"k": 3}) == [(2.0, 3)]


# ---------------------------------------------------------------- lists of buffers


@pytest.mark.parametrize("value", [None, 1, [1, "a"], {"k": np.arange(5)}, np.arange(50_000), b"x" * 300_000])
def test_objects_as_buffers(value: Any) -> None:
    buffers = serialize_object(value, buffer_threshold=10, item_threshold=2)
    rest_before = [b"more", b"still more"]
    back, rest = deserialize_object([*buffers, *rest_before])
    assert rest == rest_before
    assert pickle.dumps(back) == pickle.dumps(value)


def test_a_big_array_is_not_copied() -> None:
    array = np.arange(50_000)
    buffers = serialize_object([array])
    assert len(buffers) == 2
    assert np.shares_memory(np.frombuffer(buffers[1], array.dtype), array)


def test_nothing_is_no_object() -> None:
    with pytest.raises(ValueError, match="nothing to deserialize"):
        deserialize_object([])
    with pytest.raises(pickle.UnpicklingError):
        deserialize_object([b""])


@pytest.mark.parametrize("copy", [True, False])
def test_calls_as_buffers(copy: bool) -> None:
    cell = notebook("def tool(x):\n    return x.sum() + a\ndef f(x, *, k):\n    return tool(x) + k")
    array = np.arange(20_000)
    buffers = pack_apply_message(cell.f, [array], {"k": Reference("k")})
    f, args, kwargs = unpack_apply_message(buffers, {"a": 1, "k": 2}, copy=copy)
    assert f(*args, **kwargs) == array.sum() + 3
    assert np.shares_memory(args[0], array) is not copy
    assert unpack_apply_message(pack_apply_message(len, ("ab",)))[1:] == (("ab",), {})
    with pytest.raises(TypeError, match="argument 0, of type generator, cannot be sent"):
        pack_apply_message(len, ((x for x in ()),))


# ---------------------------------------------------------------- interactive


LIMIT = 5


def limited(x: int, *, by: int = 1) -> int:
    """Return the smaller one."""
    return min(x, LIMIT) * by


def test_an_interactive_function_uses_the_namespace_of_the_engine() -> None:
    engine = Engine(LIMIT=2)
    assert build(pack_function(limited).data, engine.names).function is limited
    made = interactive(limited)
    assert (made.__module__, made.__name__, made.__doc__) == ("__main__", "limited", limited.__doc__)
    assert limited.__module__ == __name__
    assert build(pack_function(made).data, engine.names).call(engine.table, (9,), {"by": 3}) == 6


def test_an_interactive_class_travels_by_value() -> None:
    class Box:
        x = 1

    assert interactive(Box) is Box
    assert Box.__module__ == "__main__"
    assert unpack(*pack([Box()]))[0].x == 1
