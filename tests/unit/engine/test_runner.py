"""Tasks of all kinds without a connection: values, failures, refusals, and what stays on the engine."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from enginery.engine.interrupts import StopRunning
from enginery.engine.outcome import Outcome
from enginery.engine.runner import Runner
from enginery.errors import RemoteError, UnmetDependency
from enginery.ids import BlobId, EngineId
from enginery.objects.arrays import READ_ONLY_NOTE
from enginery.objects.failures import unpack_failure
from enginery.objects.functions import pack_function
from enginery.objects.packing import pack, pack_call, unpack
from enginery.protocol.messages import Kind, Status

NO_FUNCTION = BlobId(b"")


class Bench:
    """A runner, spoken to as a client would."""

    def __init__(self) -> None:
        self.namespace: dict[str, Any] = {"__name__": "__main__"}
        self.runner = Runner(self.namespace, engine=EngineId(3), key="k")

    def call(self, function: Callable[..., Any], *args: Any, writeable: bool = False) -> Outcome:
        packed, arguments = pack_function(function), pack_call(args, {})
        return self.runner.run(
            Kind.CALL,
            packed.blob_id,
            packed.data,
            arguments.inline,
            arguments.buffers,
            writeable=writeable,
        )

    def map(self, function: Callable[..., Any], *columns: list[Any]) -> Outcome:
        packed, payload = pack_function(function), pack(columns)
        return self.runner.run(Kind.MAP, packed.blob_id, packed.data, payload.inline, payload.buffers)

    def execute(self, *payload: Any) -> Outcome:
        return self.plain(Kind.EXECUTE, payload)

    def plain(self, kind: Kind, value: Any) -> Outcome:
        return self.runner.run(kind, NO_FUNCTION, None, pack(value).inline, ())


@pytest.fixture
def bench() -> Iterator[Bench]:
    before = sys.modules["__main__"]
    bench = Bench()
    yield bench
    bench.runner.close()
    sys.modules["__main__"] = before


def value_of(outcome: Outcome) -> Any:
    assert outcome.status is Status.OK
    assert (outcome.error, outcome.error_types) == ("", ())
    return unpack(outcome.packed.inline, outcome.packed.buffers)


def error_of(outcome: Outcome) -> RemoteError:
    return unpack_failure(outcome.packed.inline, outcome.packed.buffers)


# ---------------------------------------------------------------- failures


def test_what_is_told_of_a_failed_call(bench: Bench) -> None:
    outcome = bench.call(int, "ten")
    assert outcome.status is Status.ERROR
    assert outcome.error == "ValueError: invalid literal for int() with base 10: 'ten'"
    assert outcome.error_types == ("builtins.ValueError", "builtins.Exception", "builtins.BaseException")
    assert isinstance(error_of(outcome), ValueError)


@pytest.mark.parametrize("kind", [Kind.EXECUTE, Kind.PUSH, Kind.PULL])
def test_what_is_told_of_other_kinds(bench: Bench, kind: Kind) -> None:
    payload = {Kind.EXECUTE: ("1 / 0", "<x>"), Kind.PUSH: {"a.b": 1}, Kind.PULL: (["a"], True)}[kind]
    outcome = bench.plain(kind, payload)
    assert outcome.status is Status.ERROR
    assert outcome.error == ("ZeroDivisionError: division by zero" if kind is Kind.EXECUTE else NO_A)
    assert outcome.error_types[-2:] == ("builtins.Exception", "builtins.BaseException")


NO_A = "NameError: name 'a' is not defined"


def fail_differently(x: int) -> int:
    if x == 2:
        raise KeyError("two")
    if x > 2:
        raise ValueError(f"is {x}")
    return -x


def test_a_map_is_told_by_its_first_failed_row_and_the_types_of_all(bench: Bench) -> None:
    outcome = bench.map(fail_differently, [1, 2, 3, 1, 4])
    assert outcome.status is Status.ERROR
    assert outcome.error == "KeyError: 'two'"
    assert outcome.error_types == (
        "builtins.KeyError",
        "builtins.LookupError",
        "builtins.Exception",
        "builtins.BaseException",
        "builtins.ValueError",
    )
    values, failures = unpack(outcome.packed.inline, outcome.packed.buffers)
    assert values == [-1, None, None, -1, None]
    assert [row for row, *_ in failures] == [1, 2, 4]
    assert str(unpack_failure(failures[2][1], failures[2][2:])).startswith("ValueError(is 4)")


def test_a_row_that_cannot_be_pickled_counts_where_it_stands(bench: Bench) -> None:
    def make(x: int) -> Any:
        if x == 2:
            raise ValueError("two")
        return (i for i in range(x)) if x == 1 else x

    outcome = bench.map(make, [0, 1, 2])
    assert outcome.error == "TypeError: cannot pickle 'generator' object"
    assert {"builtins.ValueError", "builtins.TypeError"} < set(outcome.error_types)
    values, failures = unpack(outcome.packed.inline, outcome.packed.buffers)
    assert (values, [row for row, *_ in failures]) == ([0, None, None], [1, 2])


def test_a_map_without_failures(bench: Bench) -> None:
    assert value_of(bench.map(fail_differently, [0, 1])) == ([0, -1], [])


# ---------------------------------------------------------------- refusals


def refuse(x: int = 0) -> int:
    if x == 1:
        raise UnmetDependency("no such card here")
    return x


def test_a_refusal_is_no_failure(bench: Bench) -> None:
    outcome = bench.call(refuse, 1)
    assert outcome.status is Status.UNMET
    assert outcome.error == "UnmetDependency: no such card here"
    assert "enginery.errors.UnmetDependency" in outcome.error_types
    error = error_of(outcome)
    assert isinstance(error, UnmetDependency)
    assert (error.evalue, error.engine) == ("no such card here", 3)


def test_a_refused_row_refuses_the_whole_map(bench: Bench) -> None:
    outcome = bench.map(refuse, [0, 1, 2])
    assert outcome.status is Status.UNMET
    assert isinstance(error_of(outcome), UnmetDependency)


def test_a_refusal_that_the_task_has_caught_is_none(bench: Bench) -> None:
    def task() -> str:
        try:
            refuse(1)
        except UnmetDependency as error:
            return error.evalue
        return ""

    assert value_of(bench.call(task)) == "no such card here"


# ---------------------------------------------------------------- executing


def test_silent_texts_have_no_result(bench: Bench) -> None:
    assert value_of(bench.execute("a = 1\na", "<x>")) is None
    assert value_of(bench.execute("a", "<x>", True)) is None
    assert bench.namespace["a"] == 1


def test_others_say_what_their_last_line_is_worth(bench: Bench) -> None:
    bench.execute("a = 1", "<x>")
    replies = [value_of(bench.execute(text, "<x>", False)) for text in ("a", "b = 2")]
    assert replies == [
        {"execution_count": 1, "data": {"text/plain": "1"}, "metadata": {}},
        {"execution_count": 2, "data": {}, "metadata": {}},
    ]


@pytest.mark.parametrize("text", ["raise SystemExit(3)", "import sys; sys.exit(3)"])
def test_an_exit_ends_the_task_alone(bench: Bench, text: str) -> None:
    outcome = bench.execute(text, "<x>")
    assert (outcome.status, outcome.error) == (Status.ERROR, "SystemExit: 3")
    error = error_of(outcome)
    assert type(error) is RemoteError
    assert error.ename == "SystemExit"
    assert isinstance(error.__cause__, SystemExit)


def test_the_end_of_the_engine_is_nobodys_failure(bench: Bench) -> None:
    bench.namespace["StopRunning"] = StopRunning
    with pytest.raises(StopRunning):
        bench.execute("raise StopRunning", "<x>")


@pytest.mark.parametrize("text", ["a = 0\n1 / a", "await g(0)", "a b"])
@pytest.mark.parametrize("silent", [True, False])
def test_the_traceback_of_a_text_has_its_lines_alone(bench: Bench, text: str, silent: bool) -> None:
    bench.execute("async def g(x): return 1 / x", "<g>")
    shown = error_of(bench.execute(text, "<x>", silent)).traceback
    assert shown.removeprefix("Traceback (most recent call last):\n").startswith('  File "<x>", line')
    assert text.splitlines()[-1] in shown
    assert "engine" not in shown
    assert "IPython" not in shown


def test_what_a_failed_cell_has_queued_does_not_run(bench: Bench) -> None:
    def statuses(*tasks: tuple[str, bool, str]) -> list[Status]:
        return [bench.execute(text, "<x>", silent, cell).status for text, silent, cell in tasks]

    fine = [("a = 1", False, "c1"), ("a = 2", True, "c1")]
    assert statuses(("1 / 0", True, "c1"), *fine) == [Status.ERROR, Status.OK, Status.OK], "it was silent"
    assert statuses(("1 / 0", False, "c1"), *fine) == [Status.ERROR, Status.ABORTED, Status.ABORTED]
    assert statuses(("a = 3", False, "c2"), ("a = 4", False, "")) == [Status.OK, Status.OK]
    assert statuses(("1 / 0", False, ""), ("a = 5", False, "")) == [Status.ERROR, Status.OK]
    outcome = bench.execute("a = 6", "<x>", False, "c1")
    assert (outcome.packed.inline, outcome.packed.buffers, outcome.error) == (b"", (), "")
    assert bench.namespace["a"] == 5


def test_values_that_a_shell_has_numbered_are_cleared_too(bench: Bench) -> None:
    bench.execute("[5]", "<x>", False)
    assert [5] in bench.runner.clear()
    assert value_of(bench.execute("Out", "<x>", False))["data"] == {"text/plain": "{}"}


# ---------------------------------------------------------------- what stays


def test_functions_stay_until_they_are_forgotten(bench: Bench) -> None:
    packed = pack_function(abs)
    assert bench.runner.function_data(packed.blob_id) is None
    bench.call(abs, -1)
    assert bench.runner.function_data(packed.blob_id) == packed.data
    bench.runner.forget_functions()
    assert bench.runner.function_data(packed.blob_id) is None


# ---------------------------------------------------------------- arrays that may be changed


def double_in_place(array: Any) -> Any:
    array *= 2
    return array


def test_arrays_arrive_read_only_unless_writeable(bench: Bench) -> None:
    array = np.arange(3)
    failure = error_of(bench.call(double_in_place, array))
    assert failure.ename == "ValueError"
    assert "writeable=True" in str(failure)
    assert failure.__notes__ == [READ_ONLY_NOTE]
    assert value_of(bench.call(double_in_place, array, writeable=True)).tolist() == [0, 2, 4]
    assert array.tolist() == [0, 1, 2]
    outcome = bench.map(lambda row: double_in_place(row[0]), [[array], [array]])
    ((_, inline, *buffers), _) = unpack(outcome.packed.inline, outcome.packed.buffers)[1]
    assert unpack_failure(inline, buffers).__notes__ == [READ_ONLY_NOTE]


def test_pushed_arrays_may_be_changed_if_writeable(bench: Bench) -> None:
    packed = pack({"a": np.arange(3), "b": [np.arange(100_000)]})
    for writeable in (True, False):
        bench.runner.run(Kind.PUSH, NO_FUNCTION, None, packed.inline, packed.buffers, writeable=writeable)
        flags = bench.namespace["a"].flags, bench.namespace["b"][0].flags
        assert [each.writeable for each in flags] == [writeable, writeable]


def test_arrays_of_a_function_are_writeable_for_its_writeable_calls_alone(bench: Bench) -> None:
    function = functools.partial(double_in_place, np.ones(2))
    assert value_of(bench.call(function, writeable=True)).tolist() == [2, 2]
    assert error_of(bench.call(function)).ename == "ValueError"


def test_clear(bench: Bench) -> None:
    bench.execute("a = [1]\ndef f(): return a", "<x>")
    removed = bench.runner.clear()
    assert len(removed) == 2
    assert [1] in removed
    assert set(bench.namespace) <= {"__name__", "__builtins__"}
    assert bench.runner.clear() == []
    bench.execute("b = 2", "<x>")
    assert value_of(bench.plain(Kind.PULL, (["b"], True))) == 2


def test_a_running_task_keeps_the_code_that_came_along(bench: Bench) -> None:
    """And gives it back in the end, so that nothing of it is left."""
    client = sys.modules["__main__"] = ModuleType("__main__")
    text = "def code(): return 5\ndef task():\n    clear()\n    return code(), 'data' in globals()"
    exec(text, vars(client))
    for _ in range(2):
        bench.namespace.update(data=1, clear=bench.runner.clear)
        assert value_of(bench.call(client.task)) == (5, False)
        assert set(bench.namespace) <= {"__name__", "__builtins__"}
