"""Tasks that wait for tasks of their own, on the engines that they keep: with real processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import enginery as ipp
from tests.system.api.held import Gate, until_begun, wait_at
from tests.system.shared import until

PATIENCE_S = 30.0


@pytest.fixture(scope="module", params=[1, 2, 4])
def any_rc(request: pytest.FixtureRequest) -> Iterator[ipp.Client]:
    with ipp.Cluster(n=request.param) as rc:
        yield rc


@pytest.fixture(scope="module")
def rc() -> Iterator[ipp.Client]:
    with ipp.Cluster(n=2) as rc:
        yield rc


@pytest.fixture(autouse=True)
def engines_go_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nothing is left of what has waited."""
    yield
    for name in {"rc", "any_rc"} & set(request.fixturenames):
        client: ipp.Client = request.getfixturevalue(name)
        until(lambda: client.queue_status()["unassigned"] == 0)  # noqa: B023
        assert client[:].apply_async(abs, -1).get(timeout=PATIENCE_S) == [1] * len(client)
        said = client[:].execute("print('next')")
        said.wait_for_output(PATIENCE_S)
        assert said.stdout == ["next\n"] * len(client)


def square(number: int) -> int:
    print("square of", number)
    return number * number


def total(numbers: list[int]) -> int:
    print("begin")
    view = ipp.get_client().load_balanced_view()
    found = sum(view.map_sync(square, numbers, chunksize=2))
    print("end")
    return found


def fibonacci(number: int) -> int:
    if number < 2:
        return number
    view = ipp.get_client().load_balanced_view()
    results = [view.apply_async(fibonacci, number - 1), view.apply_async(fibonacci, number - 2)]
    return sum(result.get() for result in results)


def test_each_engine_maps_over_all_and_each_keeps_its_output(any_rc: ipp.Client) -> None:
    count = len(any_rc)
    result = any_rc[:].apply_async(total, list(range(10)))
    assert result.get(timeout=PATIENCE_S) == [285] * count
    assert result.wait_for_output(PATIENCE_S)
    assert result.stdout == ["begin\nend\n"] * count


def test_each_engine_maps_over_all_by_name(any_rc: ipp.Client) -> None:
    """What one engine addresses to another, in which a task waits too, runs on top of that."""

    def direct_total(numbers: list[int]) -> int:
        return sum(ipp.get_client()[:].map_sync(square, numbers))

    count = len(any_rc)
    assert any_rc[:].apply_async(direct_total, list(range(10))).get(timeout=PATIENCE_S) == [285] * count

    def restricted_total(numbers: list[int]) -> int:
        client = ipp.get_client()
        others = [client.load_balanced_view(targets=[engine]) for engine in client.ids]
        return sum(sum(view.map_sync(square, numbers)) for view in others)

    result = any_rc[:].apply_async(restricted_total, [1, 2, 3])
    assert result.get(timeout=PATIENCE_S) == [14 * count] * count


def test_tasks_that_make_tasks_that_make_tasks(any_rc: ipp.Client) -> None:
    view = any_rc.load_balanced_view()
    results = [view.apply_async(fibonacci, number) for number in (7, 8, 0, 5)]
    assert [result.get(timeout=PATIENCE_S) for result in results] == [13, 21, 0, 5]


def test_calls_to_engines_by_name_and_to_the_own_one(rc: ipp.Client) -> None:
    def ask(engine: int) -> list[int]:
        client = ipp.get_client()
        return [os.getpid(), client[engine].apply_sync(os.getpid), *client[:].apply_sync(os.getpid)]

    pids = rc[:].apply_sync(os.getpid)
    for engine in (0, 1):
        assert rc[0].apply_async(ask, engine).get(timeout=PATIENCE_S) == [pids[0], pids[engine], *pids]


def test_what_waits_in_the_queue_is_not_run_inside(rc: ipp.Client) -> None:
    """Neither what the engine has been given already, nor what is addressed to it."""

    def order() -> list[str]:
        import __main__

        __main__.order = ["outer"]
        ipp.get_client()[0].apply_sync(note, "inner")
        __main__.order.append("outer again")
        return __main__.order

    def note(word: str) -> None:
        import __main__

        __main__.order.append(word)

    first = rc[0].apply_async(order)
    others = [rc[0].apply_async(note, "other") for _ in range(3)]
    assert first.get(timeout=PATIENCE_S) == ["outer", "inner", "outer again"]
    assert [other.get(timeout=PATIENCE_S) for other in others] == [None] * 3
    assert rc[0].pull("order", block=True) == ["outer", "inner", "outer again", *["other"] * 3]


def test_errors_go_to_the_task_that_waits(rc: ipp.Client) -> None:
    def divide(number: int) -> float:
        return 1 / number

    def careful() -> str:
        try:
            ipp.get_client().load_balanced_view().apply_sync(divide, 0)
        except ZeroDivisionError as error:
            return type(error).__name__
        return "nothing"

    def careless() -> float:
        return ipp.get_client()[0].apply_sync(divide, 0)

    assert rc[0].apply_async(careful).get(timeout=PATIENCE_S) == "ZeroDivisionError"
    with pytest.raises(ZeroDivisionError):
        rc[0].apply_async(careless).get(timeout=PATIENCE_S)


def test_who_is_cancelled_takes_its_children_along(rc: ipp.Client, gate: Gate) -> None:
    def wait_for_children(path: str) -> None:
        print("begun")
        ipp.get_client()[:].apply_sync(wait_at, path)

    outer = rc[0].apply_async(wait_for_children, gate.path)
    until_begun(outer)
    until(lambda: sum(rc.queue_status(e)["queue"] for e in (0, 1)) == 3)
    assert outer.cancel()
    with pytest.raises(ipp.TaskCancelled, match=outer.msg_ids[0]):
        outer.get(timeout=PATIENCE_S)
    assert outer.status == "cancelled" or outer.metadata["status"] == "cancelled"
    until(lambda: sum(rc.queue_status(e)["queue"] for e in (0, 1)) == 0)


def test_a_child_that_is_cancelled_ends_alone(rc: ipp.Client, gate: Gate) -> None:
    def wait_for_child(path: str) -> str:
        child = ipp.get_client()[0].apply_async(wait_at, path)
        print(child.msg_ids[0])
        try:
            child.get()
        except ipp.TaskCancelled:
            return "cancelled"
        return "not"

    outer = rc[0].apply_async(wait_for_child, gate.path)
    until(lambda: "-" in outer.stdout)
    child = rc.get_result(outer.stdout.strip(), block=False)
    until(lambda: "begun" in child.stdout)
    child.cancel()
    assert outer.get(timeout=PATIENCE_S) == "cancelled"


def test_a_limit_goes_on_while_its_task_waits(rc: ipp.Client, gate: Gate) -> None:
    def wait_for_other(path: str) -> None:
        ipp.get_client()[1].apply_sync(wait_at, path)

    limited = rc.direct_view(0, time_limit=0.5)
    with pytest.raises(ipp.TimeLimitExceeded):
        limited.apply_async(wait_for_other, gate.path).get(timeout=PATIENCE_S)
    gate.open()


def test_too_deep(rc: ipp.Client) -> None:
    def dig(depth: int) -> int:
        return 0 if depth == 0 else 1 + ipp.get_client()[0].apply_sync(dig, depth - 1)

    assert rc[0].apply_async(dig, 15).get(timeout=PATIENCE_S) == 15
    with pytest.raises(ipp.NestedTooDeep):
        rc[0].apply_async(dig, 40).get(timeout=PATIENCE_S)


def test_a_wait_in_a_thread_keeps_the_engine_from_nothing_but_what_the_task_does(rc: ipp.Client) -> None:
    def in_a_thread() -> int:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(ipp.get_client()[1].apply_sync, square, 7).result()

    assert rc[0].apply_async(in_a_thread).get(timeout=PATIENCE_S) == 49


def test_with_a_limit_of_time_of_its_own(rc: ipp.Client, gate: Gate) -> None:
    def impatient(path: str) -> str:
        try:
            ipp.get_client()[1].apply_async(wait_at, path).get(timeout=0.2)
        except TimeoutError:
            return "no longer"
        return "through"

    assert rc[0].apply_async(impatient, gate.path).get(timeout=PATIENCE_S) == "no longer"
    gate.open()


def test_outside_of_engines() -> None:
    with pytest.raises(RuntimeError, match="this process is no engine"):
        ipp.get_client()


def test_an_engine_that_dies_with_all_that_waits_in_it() -> None:
    def dig_and_die(depth: int) -> None:
        if depth == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        ipp.get_client()[0].apply_sync(dig_and_die, depth - 1)

    with ipp.Cluster(n=2) as rc:
        with pytest.raises(ipp.error.EngineError):
            rc[0].apply_async(dig_and_die, 3).get(timeout=PATIENCE_S)
        assert rc.load_balanced_view().apply_async(total, [1, 2, 3]).get(timeout=PATIENCE_S) == 14


def test_the_controller_is_started_again_meanwhile(tmp_path: Path) -> None:
    from enginery.transport.connection_file import load

    def count(path: str) -> int:
        print("begun")
        values = ipp.get_client()[:].apply_sync(wait_at, path, 3)
        return sum(ipp.get_client().load_balanced_view().map_sync(square, values))

    gate = Gate(tmp_path / "gate")
    with ipp.Cluster(n=2, restart=True) as rc:
        result = rc[:].apply_async(count, gate.path)
        until_begun(result)
        before = load(rc.connection_file).controller_pid
        os.kill(before, signal.SIGKILL)
        until(lambda: load(rc.connection_file).controller_pid != before)
        gate.open()
        assert result.get(timeout=PATIENCE_S) == [18, 18]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Any]:
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()
