"""Exceptions as dictionaries, and back."""

import doctest

import pytest

from enginery.errors import CompositeError, RemoteError
from enginery.objects import plain_failures
from enginery.objects.plain_failures import collect_exceptions, unwrap_exception, wrap_exception


def wrapped() -> dict[str, object]:
    try:
        raise ValueError("too small")
    except ValueError:
        return wrap_exception({"engine_id": 3})


def test_what_is_handled_becomes_a_dictionary_and_a_remote_error() -> None:
    content = wrapped()
    assert {key: content[key] for key in ("status", "ename", "evalue", "engine_info")} == {
        "status": "error",
        "ename": "ValueError",
        "evalue": "too small",
        "engine_info": {"engine_id": 3},
    }
    error = unwrap_exception(content)
    assert (error.ename, error.evalue, error.engine) == ("ValueError", "too small", 3)
    assert error.traceback.splitlines() == content["traceback"]
    assert error.traceback.endswith("ValueError: too small")


def test_outside_a_handler_there_is_nothing_to_wrap() -> None:
    with pytest.raises(RuntimeError, match="and there is none"):
        wrap_exception()


def test_what_describes_no_exception() -> None:
    with pytest.raises(KeyError, match="traceback"):
        unwrap_exception({})


def test_results_without_errors_pass() -> None:
    results = {0: 1, 1: ValueError("a value")}
    assert collect_exceptions(results) is results
    assert collect_exceptions([]) == []


def test_errors_are_raised_together_and_groups_are_opened() -> None:
    one, two = RemoteError("KeyError", "a"), RemoteError("ValueError", "b")
    with pytest.raises(CompositeError, match="3 of the calls of 'push' have failed") as caught:
        collect_exceptions([1, one, CompositeError("both", [one, two])], "push")
    assert caught.value.exceptions == (one, one, two)


def test_the_examples_in_docstrings() -> None:
    assert doctest.testmod(plain_failures).failed == 0
