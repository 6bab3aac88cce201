"""What values become on their way: `serialize_object`, `can`, `register_serializer` and their like."""

from __future__ import annotations

import copy
import datetime
import decimal
import enum
import fractions
import functools
from collections import OrderedDict, deque, namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest

import enginery as ipp
from tests.system.api.held import from_main

Pair = namedtuple("Pair", "a b")


class Colour(enum.Enum):
    RED = 1


# ---------------------------------------------------------------- without a cluster


@pytest.mark.parametrize(
    "value",
    [None, 3, "text", b"bytes" * 1000, [1, {"k": (2, {3})}], Pair(1, [2]), Colour.RED, numpy.arange(5)],
    ids=lambda value: type(value).__name__,
)
def test_serialize_and_deserialize(value: Any) -> None:
    buffers = ipp.serialize_object(value)
    assert isinstance(buffers, list)
    assert all(isinstance(buffer, (bytes, memoryview)) for buffer in buffers)
    back, rest = ipp.deserialize_object([*buffers, b"rest", b"of it"])
    assert rest == [b"rest", b"of it"]
    assert numpy.array_equal(back, value) if isinstance(value, numpy.ndarray) else back == value
    assert len(ipp.serialize_object(value, buffer_threshold=1, item_threshold=1)) >= 1


def test_big_buffers_go_apart_at_any_depth() -> None:
    array = numpy.zeros(100_000)
    buffers = ipp.serialize_object({"a": [[(array,)]]})
    assert len(buffers) == 2
    assert memoryview(buffers[1]).nbytes == array.nbytes
    back, rest = ipp.deserialize_object(buffers)
    assert rest == []
    assert back["a"][0][0][0].flags.writeable is False
    with pytest.raises(ValueError, match="empty"):
        ipp.deserialize_object([])


def test_functions_get_the_namespace_as_globals() -> None:
    f = from_main("def f(x): return x + offset")
    (back, rest) = ipp.deserialize_object(ipp.serialize_object(f), {"offset": 10})
    assert (back(1), rest) == (11, [])


def test_apply_messages() -> None:
    f = from_main("def f(x, y=0): return x + y + offset")
    buffers = ipp.pack_apply_message(f, (1,), {"y": 2})
    for keep in (True, False):
        function, args, kwargs = ipp.unpack_apply_message(buffers, g={"offset": 100}, copy=keep)
        assert function(*args, **kwargs) == 103
        assert (args, kwargs) == ((1,), {"y": 2})
    function, args, kwargs = ipp.unpack_apply_message(ipp.pack_apply_message(max, [1, 5]))
    assert (function(*args), kwargs) == (5, {})


@pytest.mark.parametrize(
    "obj",
    [
        lambda: from_main("def f(x): return x * k"),
        lambda: functools.partial(from_main("def f(x, y): return x * y * k"), 2),
        lambda: numpy.arange(4),
        lambda: b"bytes",
        lambda: memoryview(b"view"),
        lambda: [1, 2],
        lambda: {"a": 1},
    ],
    ids=["function", "partial", "array", "bytes", "memoryview", "list", "dict"],
)
def test_can_and_uncan(obj: Callable[[], Any]) -> None:
    original = obj()
    back = ipp.uncan(copy.copy(ipp.can(original)), {"k": 3})
    if callable(original):
        assert back(5) in (15, 30)
    elif isinstance(original, numpy.ndarray):
        assert numpy.array_equal(back, original)
    else:
        assert (
            bytes(back) == bytes(original) if isinstance(original, (bytes, memoryview)) else back == original
        )


# ---------------------------------------------------------------- values, there and back

VALUES: dict[str, Any] = {
    "datetime": datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC),
    "decimal": decimal.Decimal("1.5"),
    "fraction": fractions.Fraction(1, 3),
    "enum": Colour.RED,
    "namedtuple": Pair(1, [2, 3]),
    "deque": deque([1, 2], 5),
    "ordered": OrderedDict(b=1, a=2),
    "nested": {"a": [1, (2, {3, 4}), frozenset({5})], None: {}},
    "surrogate": "\ud800 and \0",
    "big int": 1 << 300,
    "class": Pair,
    "ellipsis": ...,
    "range": range(3),
    "slice": slice(1, 2),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_come_back_equal(rc: ipp.Client, name: str) -> None:
    value = VALUES[name]

    def echo(x: Any) -> Any:
        return x

    assert rc[0].apply_sync(echo, value) == value
    assert rc[0].apply_sync(echo, [{"deep": value}]) == [{"deep": value}]
    rc[0].push({"value": value}, block=True)
    assert rc[0]["value"] == value
    assert rc.load_balanced_view().map_sync(echo, [value, value]) == [value, value]
    rc.clear(block=True)


@pytest.mark.parametrize("size", [0, 1, 100, 20_000, 300_000])
@pytest.mark.parametrize("kind", ["f8", "i2", "?", "S3", "M8[s]", "c16"])
def test_arrays_of_every_size_and_kind(rc: ipp.Client, size: int, kind: str) -> None:
    array = numpy.zeros(size, kind)
    back, writeable = rc[0].apply_sync(lambda a: (a, a.flags.writeable), array)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert numpy.array_equal(back, array)
    assert not back.flags.writeable
    assert not writeable


def test_arrays_of_odd_layouts(rc: ipp.Client) -> None:
    base = numpy.arange(24.0).reshape(2, 3, 4)
    record = numpy.zeros(3, [("a", "i4"), ("b", "f8", (2,))])
    objects = numpy.array([{"a": 1}, None, "x"], dtype=object)
    for array in (
        base.T,
        base[:, ::2],
        numpy.asfortranarray(base[0]),
        record,
        objects,
        numpy.float64(3),
        base[:0],
    ):
        back = rc[0].apply_sync(lambda a: a, array)
        assert numpy.array_equal(back, array)
        assert back.dtype == array.dtype


def test_equal_objects_stay_one_object(rc: ipp.Client) -> None:
    shared = [1]
    assert rc[0].apply_sync(lambda a, b: a is b, shared, shared) is True
    cycle: list[Any] = []
    cycle.append(cycle)
    back = rc[0].apply_sync(lambda c: c, cycle)
    assert back[0] is back


def test_buffers_arrive_as_what_they_were(rc: ipp.Client) -> None:
    kinds = rc[0].apply_sync(
        lambda *values: [type(value).__name__ for value in values],
        b"x" * 10, b"x" * 200_000, bytearray(10), bytearray(200_000), memoryview(b"x" * 200_000), "text",
    )  # fmt: skip
    assert kinds == ["bytes", "bytes", "bytearray", "bytearray", "memoryview", "str"]


# ---------------------------------------------------------------- own types


class Canvas:
    """A type that refuses to be pickled by itself."""

    def __init__(self, pixels: Any) -> None:
        self.pixels = pixels

    def __reduce__(self) -> Any:
        raise TypeError("a Canvas does not pickle")


class CannedCanvas:
    def __init__(self, canvas: Canvas) -> None:
        self.pixels = canvas.pixels


@pytest.fixture
def canned(rc: ipp.Client) -> Iterator[None]:
    ipp.can_map[Canvas] = CannedCanvas
    ipp.uncan_map[CannedCanvas] = lambda canned, g: Canvas(canned.pixels)
    yield
    del ipp.can_map[Canvas]
    del ipp.uncan_map[CannedCanvas]


def test_an_entry_of_can_map_is_honoured_everywhere(rc: ipp.Client, canned: None) -> None:
    def teach(kind: Any, canner: Any) -> None:
        import enginery as ipp

        ipp.can_map[kind] = canner
        ipp.uncan_map[canner] = lambda canned, g: kind(canned.pixels)

    rc[:].apply_sync(teach, Canvas, CannedCanvas)
    canvas = Canvas([1, 2, 3])
    assert rc[0].apply_sync(lambda c: c.pixels, canvas) == [1, 2, 3]
    assert rc[0].apply_sync(lambda cs: cs["k"][0].pixels, {"k": [canvas]}) == [1, 2, 3]
    rc[0].push({"c": canvas}, block=True)
    assert rc[0]["c.pixels"] == [1, 2, 3]
    back = rc[0]["c"]
    assert isinstance(back, Canvas)
    assert back.pixels == [1, 2, 3]
    assert ipp.uncan(ipp.can(canvas)).pixels == [1, 2, 3]
    rc.clear(block=True)


def test_can_map_is_for_exactly_that_type(rc: ipp.Client, canned: None) -> None:
    class Sketch(Canvas):
        pass

    with pytest.raises(TypeError, match="does not pickle"):
        rc[0].apply_async(len, Sketch([]))


class Wave:
    def __init__(self, samples: Any) -> None:
        self.samples = samples

    def __reduce__(self) -> Any:
        raise TypeError("a Wave does not pickle")


def test_registered_types_travel_both_ways(rc: ipp.Client) -> None:
    ipp.register_serializer(Wave, lambda wave: wave.samples, Wave)
    wave = Wave(numpy.arange(50_000.0))
    view = rc[:]
    assert view.apply_sync(lambda w: float(w.samples[-1]), wave) == [49_999.0] * 2
    back = rc[0].apply_sync(lambda w: {"back": [type(w)(w.samples[:3] * 2)]}, wave)
    assert back["back"][0].samples.tolist() == [0, 2, 4]
    view["w"] = wave
    assert [w.samples.size for w in view["w"]] == [50_000] * 2
    assert rc.load_balanced_view().map_sync(lambda w: w.samples.size, [wave] * 3) == [50_000] * 3
    rc.clear(block=True)
    for bad in (("no type", len, len), (Wave, 3, len), (Wave, len, None), (list, len, len)):
        with pytest.raises(TypeError, match="register_serializer"):
            ipp.register_serializer(*bad)


# ---------------------------------------------------------------- plain exceptions


def test_wrap_unwrap_and_collect() -> None:
    try:
        int("x")
    except ValueError:
        content = ipp.wrap_exception({"engine_id": 3})
    assert (content["status"], content["ename"]) == ("error", "ValueError")
    error = ipp.unwrap_exception(content)
    assert type(error) is ipp.RemoteError
    assert error.ename == "ValueError"
    assert error.engine_info == {"engine_id": 3}
    assert "int(" in error.traceback
    assert ipp.collect_exceptions([1, 2]) == [1, 2]
    assert ipp.collect_exceptions({"a": 1}, "apply") == {"a": 1}
    with pytest.raises(ipp.CompositeError, match="apply") as caught:
        ipp.collect_exceptions([1, error], "apply")
    assert caught.value.elist[0][0] == "ValueError"
    with pytest.raises(RuntimeError, match="being handled"):
        ipp.wrap_exception()


def test_former_module_paths() -> None:
    import enginery.client.asyncresult
    import enginery.client.client
    import enginery.client.remotefunction
    import enginery.client.view
    import enginery.cluster.cluster
    import enginery.controller.dependency
    import enginery.serialize

    assert enginery.client.client.Client is ipp.Client
    assert enginery.client.view.DirectView is ipp.DirectView
    assert enginery.client.asyncresult.AsyncResult is ipp.AsyncResult
    assert enginery.client.remotefunction.RemoteFunction is ipp.RemoteFunction
    assert enginery.cluster.cluster.Cluster is ipp.Cluster
    assert enginery.controller.dependency.Dependency is ipp.Dependency
    assert enginery.serialize.serialize_object is ipp.serialize_object
