"""`register_serializer`, `PrePickled`, and entries in `can_map`: what users say of how things travel."""

from __future__ import annotations

import fractions
import pickle
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import numpy as np
import pytest

from enginery.ids import content_id
from enginery.objects import extensions
from enginery.objects.canning import CannedObject, can_map
from enginery.objects.functions import FunctionCache, build, pack_function
from enginery.objects.packing import SMALL_BUFFER_BYTES, pack, pack_call, unpack, unpack_call
from enginery.objects.prepickled import PrePickled, kept_id
from enginery.objects.serializers import accompanied, register_serializer
from tests.unit.objects.test_functions import Engine, notebook


class Box:
    def __init__(self, data: Any) -> None:
        self.data = data
        self.how = "made"


class Small(Box):
    pass


class Refuses(Box):
    def __reduce__(self) -> Any:
        raise RuntimeError("I stay here")


def unbox(structure: Any) -> Box:
    box = Box(structure)
    box.how = "rebuilt"
    return box


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers ends with it."""
    before = dict(can_map)
    for name in ("_registered", "_announced"):
        monkeypatch.setattr(extensions, name, {})
    monkeypatch.setattr(extensions, "_is_stale", True)
    yield
    can_map.clear()
    can_map.update(before)
    monkeypatch.undo()
    extensions._is_stale = True


def round_trip(value: Any, namespace: dict[str, Any] | None = None) -> Any:
    return unpack(*pack(value), namespace=namespace)


# ---------------------------------------------------------------- registered types


def test_a_registered_type_travels_at_any_depth_without_copies() -> None:
    register_serializer(Box, lambda box: {"buffers": [box.data]}, lambda got: unbox(got["buffers"][0]))
    array = np.arange(20_000.0)
    packed = pack_call(([{"deep": (Box(array),)}],), {"k": Box(b"b")})
    assert [buffer.nbytes for buffer in packed.buffers] == [160_000]
    assert np.shares_memory(np.frombuffer(packed.buffers[0]), array)
    args, kwargs, _ = unpack_call(*packed)
    box = args[0][0]["deep"][0]
    assert (type(box), box.how, kwargs["k"].how, kwargs["k"].data) == (Box, "rebuilt", "rebuilt", b"b")
    assert box.data.tolist() == array.tolist()
    assert not box.data.flags.writeable


def test_it_counts_for_exactly_that_type() -> None:
    register_serializer(Box, lambda box: box.data, unbox)
    assert [box.how for box in round_trip([Box(1), Small(2)])] == ["rebuilt", "made"]


def test_two_names_of_one_object_arrive_as_one() -> None:
    register_serializer(Box, lambda box: box.data, unbox)
    box = Box(1)
    first, second = round_trip([box, box])
    assert first is second


def test_it_counts_in_closures_and_for_functions_that_were_packed_before() -> None:
    cache = FunctionCache()
    cell = notebook("def f():\n    return 1")
    before = cache.pack(cell.f)
    assert cache.pack(cell.f) is before
    register_serializer(Box, lambda box: box.data, unbox)
    assert cache.pack(cell.f).blob_id != before.blob_id
    box = Box(3)
    engine = Engine()
    assert build(pack_function(lambda: box.how).data, engine.names).call(engine.table) == "rebuilt"


def test_registering_again_replaces() -> None:
    register_serializer(Refuses, lambda box: 1, lambda got: got)
    assert round_trip([Refuses(0)]) == [1]
    register_serializer(Refuses, lambda box: 2, lambda got: got)
    assert round_trip([Refuses(0)]) == [2]


def test_functions_of_a_serializer_bring_their_helpers() -> None:
    cell = notebook(
        "import math\ndef double(x):\n    return 2 * x\n"
        "def reduce(box):\n    return [math.floor(double(x)) for x in box.data]\n"
    )
    register_serializer(Box, cell.reduce, unbox)
    assert round_trip([Box([1.5])])[0].data == [3]


def test_a_pull_can_bring_the_registrations() -> None:
    assert accompanied(("a", 1)) == ("a", 1)
    register_serializer(fractions.Fraction, lambda f: (1, 2), lambda got: fractions.Fraction(*got))
    brings = accompanied(("a", 1))
    assert type(brings) is not tuple
    assert round_trip(brings) == ("a", 1)
    assert b"load_serializer" in pack(brings).inline


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((1, len, len), "wants a type, not 1"),
        ((Box, 1, len), "wants a function for reduce, not 1"),
        ((Box, len, None), "wants a function for rebuild, not None"),
        ((dict, len, len), "dict: built-in values of this type always travel as they are"),
    ],
)
def test_what_cannot_be_registered(arguments: tuple[Any, ...], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        register_serializer(*arguments)
    assert round_trip({"a": [Box(1)]})["a"][0].how == "made"


# ---------------------------------------------------------------- can_map


class CannedBox(CannedObject):
    def __init__(self, box: Box) -> None:
        self.data = box.data

    def get_object(self, g: dict[str, Any] | None = None) -> Any:
        box = unbox(self.data)
        box.how = f"uncanned in {(g or {}).get('place')}"
        return box


@pytest.mark.parametrize("key", [Box, f"{__name__}.Box"])
def test_an_entry_of_can_map_is_honoured_for_exactly_that_type(key: Any) -> None:
    can_map[key] = CannedBox
    boxes, other = round_trip([{"deep": (Box(1),)}, Small(2)], {"place": "engine"})
    assert boxes["deep"][0].how == "uncanned in engine"
    assert other.how == "made"
    args, kwargs, _ = unpack_call(*pack_call((Box(1),), {"k": [Box(2)]}), namespace={"place": "engine"})
    assert (args[0].how, kwargs["k"][0].data) == ("uncanned in engine", 2)
    del can_map[key]
    assert round_trip([Box(1)])[0].how == "made"


def test_a_canned_copy_of_the_object_itself() -> None:
    can_map[Box] = lambda box: CannedObject(box, keys=["data"])
    add = 5
    back = round_trip([Box(lambda x: x + add), Box(Box(1))])
    assert back[0].data(1) == 6
    assert (back[1].data.data, back[1].data.how) == (1, "made")


def test_functions_and_classes_may_have_entries_too() -> None:
    seen: list[Any] = []
    can_map[FunctionType] = lambda f: seen.append(f) or f.__name__
    can_map[type] = lambda cls: cls.__name__
    cell = notebook("def f():\n    return 1\nclass Here:\n    pass")
    assert round_trip([cell.f, unbox, (cell.Here, Box)]) == ["f", unbox, ("Here", Box)]
    assert seen == [cell.f]


def test_a_name_waits_until_its_module_is_there() -> None:
    can_map["enginery_test_absent.Box"] = CannedBox
    assert round_trip([Box(1)])[0].how == "made"


@pytest.mark.parametrize(
    ("key", "text"), [(list, "list: built-in values"), (3, "types and dotted names, not 3")]
)
def test_entries_that_cannot_be_honoured_are_refused(key: Any, text: str) -> None:
    can_map[key] = CannedBox
    with pytest.raises(TypeError, match=text):
        pack([Box(1)])


def test_the_default_entries_leave_the_table_empty() -> None:
    assert extensions.reducers() == {}
    assert extensions.reducers() is extensions.reducers()


# ---------------------------------------------------------------- PrePickled


class Counts:
    pickled = 0

    def __reduce__(self) -> Any:
        Counts.pickled += 1
        return Counts, ()


def test_it_is_pickled_once_and_arrives_as_the_object() -> None:
    Counts.pickled = 0
    value = PrePickled(Counts())
    for _ in range(3):
        args, kwargs, _ = unpack_call(*pack_call((value, [value]), {"k": {"deep": value}}))
        assert [type(x) for x in (args[0], args[1][0], kwargs["k"]["deep"])] == [Counts] * 3
    assert Counts.pickled == 1


def test_later_changes_are_not_seen() -> None:
    items, array = [1], np.zeros(SMALL_BUFFER_BYTES)
    value = PrePickled((items, array))
    items.append(2)
    array[:] = 1
    (back, zeros) = round_trip([value])[0]
    assert (back, zeros.max()) == ([1], 0)
    assert not zeros.flags.writeable


def test_big_buffers_have_the_same_id_each_time() -> None:
    array = np.arange(SMALL_BUFFER_BYTES)
    value = PrePickled({"a": array})
    ids = [[kept_id(buffer) for buffer in pack_call((value, i), {}).buffers] for i in range(2)]
    assert ids == [[content_id((array.tobytes(),))]] * 2
    assert [kept_id(buffer) for buffer in pack([array]).buffers] == [None]
    assert pack(value).buffers[0].obj is pack(value).buffers[0].obj


def test_functions_in_it_get_the_engines_names() -> None:
    cell = notebook("def tool(x):\n    return x + a\ndef f(x):\n    return [tool(x)][0]")
    value = PrePickled(cell.f)
    engine = Engine(a=10)
    assert engine.run(lambda g: g(1), value) == 11
    built = build(FunctionCache().pack(value).data, engine.names)
    assert built.call(engine.table, (2,)) == 12
    assert FunctionCache().pack(value).name == "f"


def test_its_looks_and_errors() -> None:
    assert repr(PrePickled([1, 2])) == f"<PrePickled list, {len(pickle.dumps([1, 2], 5))} bytes>"
    with pytest.raises(TypeError, match="generator"):
        PrePickled(x for x in ())
