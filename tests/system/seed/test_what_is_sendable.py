"""What is sendable: S12 to S21."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

import enginery as ipp
from tests.system.seed.held import each


def test_s12_anything_is_pickled(rc: ipp.Client) -> None:
    for value in (None, 1.5, {"a": (1, {2, 3})}, [b"x", "y"], complex(1, 2), Path("a"), Exception("e").args):
        assert rc[0].apply_sync(lambda x: x, value) == value


def test_s13_buffers_bytes_and_arrays(rc: ipp.Client) -> None:
    for value in (b"x" * 200_000, bytearray(b"y" * 200_000), b"", bytearray(b"z")):
        back = rc[0].apply_sync(lambda x: x, value)
        assert (type(back), back) == (type(value), value)
    data = b"m" * 200_000
    assert rc[0].apply_sync(lambda m: (m.nbytes, bytes(m[:2])), memoryview(data)) == (200_000, b"mm")


def test_s14_an_object_can_be_rebuilt_from_its_buffer(rc: ipp.Client) -> None:
    array = numpy.arange(100_000)
    total = rc[0].apply_sync(
        lambda m, dtype: int(__import__("numpy").frombuffer(m, dtype).sum()),
        memoryview(array),
        array.dtype.str,
    )
    assert total == int(array.sum())


class Signal:
    """A type that holds a buffer and has no pickling of its own worth having."""

    def __init__(self, samples: Any, rate: int) -> None:
        self.samples = samples
        self.rate = rate

    def __reduce__(self) -> Any:
        raise TypeError("only its serializer can send it")


def test_s15_reconstruction_is_extensible(rc: ipp.Client) -> None:
    ipp.register_serializer(Signal, lambda s: (s.samples, s.rate), lambda parts: Signal(*parts))
    signal = Signal(numpy.arange(200_000.0), 48_000)
    assert rc[0].apply_sync(lambda s: (s.rate, float(s.samples.sum())), signal) == (
        48_000,
        float(signal.samples.sum()),
    )
    assert rc[0].apply_sync(lambda nested: nested["k"][0].rate, {"k": [signal]}) == 48_000


def test_s16_interactive_functions_and_lambdas_are_sendable(rc: ipp.Client) -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("def f(x):\n    return x + 1\ng = lambda x: x * 2", space)
    assert rc[0].apply_sync(space["f"], 1) == 2
    assert rc[0].apply_sync(space["g"], 4) == 8


def make_echo(a: Any) -> Callable[[], Any]:
    def inner() -> Any:
        return a

    return inner


def test_s17_closures_travel(rc: ipp.Client) -> None:
    assert rc[0].apply_sync(make_echo(1)) == 1
    assert rc[0].apply_sync(make_echo([2, 3])) == [2, 3]


def interactive_space() -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "__main__"}
    source = "def g(b):\n    def inner():\n        return a_of_engine\n    return inner\n"
    exec(source, space)
    return space


def test_s18_free_names_are_the_engines(rc: ipp.Client, dview: ipp.DirectView) -> None:
    g1 = interactive_space()["g"](1)
    dview.push({"a_of_engine": 5}, block=True)
    assert dview.apply_sync(g1) == each(rc, 5)


def test_s19_the_outer_function_is_sendable(rc: ipp.Client) -> None:
    assert rc[0].apply_sync(lambda outer: outer(7)(), make_echo) == 7


def test_s20_a_missing_name_is_a_name_error_until_it_is_there(rc: ipp.Client, dview: ipp.DirectView) -> None:
    g1 = interactive_space()["g"](1)
    with pytest.raises(NameError, match="a_of_engine"):
        rc[0].apply_sync(g1)
    rc[0].push({"a_of_engine": 6}, block=True)
    assert rc[0].apply_sync(g1) == 6


def test_s21_apply_of_a_name_is_pull(rc: ipp.Client, dview: ipp.DirectView) -> None:
    dview.push({"a": 11}, block=True)
    space: dict[str, Any] = {"__name__": "__main__"}
    by_apply = dview.apply_sync(eval("lambda: a", space))
    assert by_apply == dview.pull("a", block=True) == each(rc, 11)
