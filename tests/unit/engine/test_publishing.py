"""`publish_data` and `report`: what they refuse, and what others can read of what they send."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import pytest

from enginery.engine.output import OutputCollector, Value
from enginery.engine.progress import ProgressMeter
from enginery.engine.publishing import (
    NAME_LIMIT,
    VALUE_LIMIT_BYTES,
    Outlet,
    publish_data,
    publish_through,
    report,
)
from enginery.engine.threads import TaskThreads
from enginery.errors import TooLarge
from enginery.ids import TaskId
from enginery.objects.packing import unpack
from enginery.objects.whole import pack_whole
from enginery.protocol.messages import Report

TASK = TaskId(1)


@pytest.fixture
def output() -> Iterator[OutputCollector]:
    threads = TaskThreads()
    output = OutputCollector(lambda: None, threads)
    publish_through(Outlet(output, ProgressMeter(lambda: None, threads)))
    output.begin(TASK)
    yield output
    publish_through(None)


def published(output: OutputCollector) -> dict[str, Any]:
    return {value.name: unpack(value.payload) for value in output.take() if isinstance(value, Value)}


def test_values_of_all_sizes_are_what_they_were_then(output: OutputCollector) -> None:
    changing = [1, 2]
    values = {"a": 1, "é": changing, "big": b"x" * 900_000, "None": None, "nested": {"b": bytearray(300_000)}}
    publish_data(values)
    changing.append(3)
    assert published(output) == {**values, "é": [1, 2]}


def test_arrays(output: OutputCollector) -> None:
    numpy = pytest.importorskip("numpy")
    publish_data({"small": numpy.arange(3), "large": numpy.arange(100_000)})
    found = published(output)
    assert found["small"].tolist() == [0, 1, 2]
    assert found["large"].sum() == 4_999_950_000


def test_functions_of_the_namespace(output: OutputCollector) -> None:
    publish_data({"f": lambda x: x + 1})
    assert published(output)["f"](1) == 2


def test_a_value_above_the_limit_is_refused_and_so_are_its_neighbours(output: OutputCollector) -> None:
    with pytest.raises(TooLarge) as caught:
        publish_data({"a": 1, "b": b"x" * VALUE_LIMIT_BYTES})
    assert str(caught.value) == "the value published as 'b' has 1.0 MiB; the limit is 1.0 MiB"
    assert caught.value.size_bytes > VALUE_LIMIT_BYTES
    assert output.take() == []
    publish_data({"b": b"x" * (VALUE_LIMIT_BYTES - 1000)})
    assert len(published(output)["b"]) == VALUE_LIMIT_BYTES - 1000


def test_what_is_no_dictionary_of_names(output: OutputCollector) -> None:
    with pytest.raises(TypeError, match="takes a dictionary of names and values, not list"):
        publish_data([("a", 1)])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the names under which values are published are texts, not int"):
        publish_data({"a": 1, 2: 3})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=f"a name has at most {NAME_LIMIT} characters, not {NAME_LIMIT + 1}"):
        publish_data({"a" * (NAME_LIMIT + 1): 1})
    with pytest.raises(TypeError, match="cannot pickle"):
        publish_data({"a": 1, "lock": threading.Lock()})
    assert output.take() == []
    publish_data({"x\udcff": 1})
    assert published(output) == {"x\\udcff": 1}


def test_outside_of_a_task(output: OutputCollector) -> None:
    output.end()
    with pytest.raises(RuntimeError, match="this thread's task has ended"):
        publish_data({"a": 1})
    publish_through(None)
    with pytest.raises(RuntimeError, match="works inside a task of an engine only: this process runs none"):
        publish_data({"a": 1})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_child_is_no_engine(output: OutputCollector) -> None:
    child = os.fork()
    if child == 0:
        try:
            publish_data({"a": 1})
        except RuntimeError:
            os._exit(3)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def test_a_thread_publishes_for_its_own_task_while_that_runs() -> None:
    threads = TaskThreads()
    output = OutputCollector(lambda: None, threads)
    publish_through(Outlet(output, ProgressMeter(lambda: None, threads)))
    unfollow = threads.follow()
    try:
        output.begin(TASK)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(publish_data, {"a": 1}).result(10)
            assert output.take() == [Value(TASK, "a", pack_whole(1))]
            output.end()
            output.take()
            output.begin(TaskId(2))
            with pytest.raises(RuntimeError, match="this thread's task has ended"):
                pool.submit(publish_data, {"a": 2}).result(10)
            assert output.take() == []
    finally:
        unfollow()
        publish_through(None)


# ---------------------------------------------------------------- report


@pytest.fixture
def meter() -> Iterator[ProgressMeter]:
    threads = TaskThreads()
    meter = ProgressMeter(lambda: None, threads)
    publish_through(Outlet(OutputCollector(lambda: None, threads), meter))
    threads.begin(TASK)
    meter.begin(TASK, 1)
    yield meter
    publish_through(None)


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ((), Report()),
        ((0.3,), Report(0.3)),
        ((0.3, "epoch 3"), Report(0.3, "epoch 3")),
        ((None, "loading"), Report(None, "loading")),
        ((1,), Report(1.0)),
        ((True,), Report(1.0)),
        ((Fraction(1, 4),), Report(0.25)),
        ((-0.1,), Report(0.0)),
        ((1.0000001,), Report(1.0)),
        ((float("inf"),), Report(1.0)),
        ((float("nan"), "lost"), Report(None, "lost")),
        ((None, "two\nlines\tand \x1b[31mred\x07 "), Report(None, "two lines and  [31mred")),
        ((None, "\udcff"), Report(None, "\\udcff")),
        ((None, "é" * 1000), Report(None, "é" * 200)),
    ],
)
def test_a_report_is_bounded_and_clean(meter: ProgressMeter, said: Any, heard: Report) -> None:
    report(*said)
    assert meter.end().report == heard


@pytest.mark.parametrize("fraction", ["0.3", "loading", b"1", [0.3], 1j])
def test_what_is_no_fraction(meter: ProgressMeter, fraction: Any) -> None:
    with pytest.raises(TypeError, match=r"a number from 0 to 1, or None, not .*: report\(None, 'loading'\)"):
        report(fraction)
    with pytest.raises(TypeError, match="the text of a report is a text, not int"):
        report(0.3, 3)  # type: ignore[arg-type]
    assert meter.end().report is None


def test_the_last_report_counts_and_belongs_to_its_task(meter: ProgressMeter) -> None:
    report(0.1, "one")
    report(0.2)
    assert meter.end().report == Report(0.2)
    report(0.3, "nobody's")
    meter.begin(TaskId(2), 1)
    report(0.4, "the main thread runs another task by its own account")
    assert meter.end().report is None


def test_a_report_outside_of_tasks_does_nothing() -> None:
    publish_through(None)
    report(0.5, "somewhere")
    with pytest.raises(TypeError):
        report("half")  # type: ignore[arg-type]
