"""What the controller is told of a failure: one line, and the classes to retry on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from enginery.engine.outcome import LINE_LIMIT, TYPE_LIMIT, TYPES_LIMIT, error_line, error_types, failed
from enginery.errors import ImpossibleDependency, RemoteError, UnmetDependency
from enginery.objects.packing import Packed
from enginery.protocol.messages import Status


class Broken(Exception):
    def __str__(self) -> str:
        raise OSError("no text")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("bad value"), "ValueError: bad value"),
        (ValueError("two\n  lines\tand\r\nmore"), "ValueError: two lines and more"),
        (KeyError("k"), "KeyError: 'k'"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(3), "SystemExit: 3"),
        (ValueError("ends with:"), "ValueError: ends with:"),
        (Broken(), "Broken (no text: OSError)"),
        (RemoteError("NameError", "no x", "a long\ntraceback"), "NameError: no x"),
        (ValueError("x\udcff"), "ValueError: x\\udcff"),
    ],
)
def test_class_and_message_in_one_line(error: BaseException, line: str) -> None:
    assert error_line(error) == line


def test_a_long_message_is_cut() -> None:
    assert error_line(ValueError("x" * 100_000)) == "ValueError: " + "x" * (LINE_LIMIT - 12)
    assert len(error_line(ValueError("\udcff" * 5000))) == LINE_LIMIT


def test_types_are_the_class_and_its_bases() -> None:
    class Nested(json.JSONDecodeError, KeyError):
        pass

    assert error_types(Nested("m", "doc", 0)) == (
        f"{__name__}.test_types_are_the_class_and_its_bases.<locals>.Nested",
        "json.decoder.JSONDecodeError",
        "builtins.ValueError",
        "builtins.KeyError",
        "builtins.LookupError",
        "builtins.Exception",
        "builtins.BaseException",
    )


def test_types_of_any_make_fit_into_a_record() -> None:
    cls: Any = Exception
    for _ in range(2 * TYPES_LIMIT):
        cls = type("x" * 1000, (cls,), {"__module__": "m\udcff"})
    types = error_types(cls())
    assert len(types) == TYPES_LIMIT
    assert max(map(len, types)) == TYPE_LIMIT
    "".join(types).encode()


def test_a_metaclass_that_objects() -> None:
    class Meta(type):
        @property
        def __module__(cls) -> str:
            raise OSError

    error = Meta("Odd", (Exception,), {})()
    assert error_types(error)[0] == "(no name)"
    assert error_types(error)[1:] == ("builtins.Exception", "builtins.BaseException")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError(), Status.ERROR),
        (UnmetDependency(), Status.UNMET),
        (type("Own", (UnmetDependency,), {})("not here"), Status.UNMET),
        (ImpossibleDependency("of another task"), Status.ERROR),
    ],
)
def test_who_says_that_this_engine_is_not_fit(error: Exception, status: Status) -> None:
    outcome = failed(error, Packed(b"p"))
    assert (outcome.status, outcome.packed) == (status, Packed(b"p"))
    assert outcome.error == error_line(error)
    assert outcome.error_types == error_types(error)
