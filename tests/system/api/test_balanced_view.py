"""`LoadBalancedView`, member by member, on 1, 2 and 4 engines."""

from __future__ import annotations

import itertools
import operator
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import enginery as ipp
from tests.system.api.held import ONE_TWO_FOUR, PATIENCE_S, Gate, from_main, until_begun, wait_at

CLUSTERS = ONE_TWO_FOUR


def count_runs(path: str) -> int:
    """A task that leaves a mark; returns how often it has run."""
    with open(path, "a") as file:
        file.write("x")
    return os.path.getsize(path)


def fail_until(path: str, runs: int) -> int:
    """Fail until the task has run so often."""
    with open(path, "a") as file:
        file.write("x")
    found = os.path.getsize(path)
    if found < runs:
        raise OSError(f"run {found}")
    return found


# ---------------------------------------------------------------- what it has not


def test_it_has_no_names_of_engines(lview: ipp.LoadBalancedView) -> None:
    for name in ("push", "pull", "get", "scatter", "gather", "execute", "run", "update", "clear"):
        assert not hasattr(lview, name)
    with pytest.raises(TypeError):
        _ = lview["a"]  # type: ignore[index]
    with pytest.raises(TypeError):
        lview["a"] = 1  # type: ignore[index]


# ---------------------------------------------------------------- where calls run


def test_a_call_runs_on_exactly_one_engine(rc: ipp.Client, lview: ipp.LoadBalancedView) -> None:
    ar = lview.apply_async(os.getpid)
    pid = ar.get(timeout=PATIENCE_S)
    assert pid == rc[ar.engine_id].apply_sync(os.getpid)
    assert len(ar.msg_ids) == 1


def test_all_engines_are_used(rc: ipp.Client, lview: ipp.LoadBalancedView, gate: Gate) -> None:
    held = [lview.apply_async(wait_at, gate.path) for _ in rc.ids]
    until_begun(*held)
    gate.open()
    rc.wait(held, PATIENCE_S)
    assert sorted(ar.engine_id for ar in held) == rc.ids


def test_targets_restrict_the_choice(rc: ipp.Client) -> None:
    last = rc.ids[-1]
    for targets in (last, [last], rc.ids[-1:], slice(-1, None)):
        view = rc.load_balanced_view(targets)
        assert view.targets == [last]
        results = [view.apply_async(os.getpid) for _ in range(3)]
        assert {ar.get(timeout=PATIENCE_S) for ar in results} == {rc[last].apply_sync(os.getpid)}
    half = rc.load_balanced_view(rc.ids[: max(1, len(rc) // 2)])
    found = half.map_sync(lambda _: __import__("os").getpid(), range(12))
    assert set(found) <= set(rc[half.targets].apply_sync(os.getpid))


# ---------------------------------------------------------------- map


@pytest.mark.parametrize("items", [0, 1, 3, 10, 1000, 1001, 5000])
def test_maps_of_every_length(lview: ipp.LoadBalancedView, items: int) -> None:
    ar = lview.map_async(abs, range(-items, 0))
    assert ar.get(timeout=PATIENCE_S) == list(range(items, 0, -1))
    assert len(ar) == ar.progress == items
    if items <= 1000:
        assert len(ar.msg_ids) == items
    else:
        assert len(ar.msg_ids) < items


@pytest.mark.parametrize("chunksize", [1, 2, 3, 7, 10, 100])
def test_a_chunksize_is_obeyed_exactly(lview: ipp.LoadBalancedView, chunksize: int) -> None:
    ar = lview.map_async(abs, range(-10, 0), chunksize=chunksize)
    assert ar.get(timeout=PATIENCE_S) == list(range(10, 0, -1))
    assert len(ar.msg_ids) == len(ar.metadata) == -(-10 // chunksize)
    assert len(ar) == 10


@pytest.mark.parametrize("chunksize", [None, 1, 4, 100])
def test_failures_count_items_in_every_case(lview: ipp.LoadBalancedView, chunksize: int | None) -> None:
    ar = lview.map_async(operator.truediv, [1] * 6, [1, 0, 2, 0, 4, 5], chunksize=chunksize)
    with pytest.raises(ipp.CompositeError, match="2 of 6 items") as caught:
        ar.get(timeout=PATIENCE_S)
    assert len(caught.value.exceptions) == 2
    partial = ar.partial()
    assert partial.values == [1.0, None, 0.5, None, 0.25, 0.2]
    assert sorted(partial.failed) == [1, 3]
    assert partial.missing == []
    values = lview.map_sync(
        operator.truediv, [1] * 6, [1, 0, 2, 0, 4, 5], chunksize=chunksize, return_exceptions=True
    )
    assert [isinstance(value, ZeroDivisionError) for value in values] == [
        False,
        True,
        False,
        True,
        False,
        False,
    ]


def test_results_come_as_they_arrive(
    lview: ipp.LoadBalancedView, rc: ipp.Client, gates: Callable[[], Gate]
) -> None:
    first, second = gates(), gates()
    second.open()
    view = lview if len(rc) > 1 else None
    if view is None:
        pytest.skip("one engine has one order")
    paths = [first.path, second.path, second.path]
    unordered = view.map_async(wait_at, paths, [0, 1, 2], ordered=False, chunksize=1)
    found = iter(unordered)
    assert {next(found), next(found)} == {1, 2}
    ordered = view.map_async(wait_at, paths, [0, 1, 2], chunksize=1)
    until = ordered._session.wait_until(lambda: len(ordered.msg_ids) == 3, PATIENCE_S)
    assert until
    first.open()
    assert next(found) == 0
    assert list(ordered) == [0, 1, 2]
    assert unordered.get(timeout=PATIENCE_S) == [0, 1, 2]  # the whole is in order


def test_an_iterator_is_read_only_so_far_ahead(lview: ipp.LoadBalancedView) -> None:
    read: list[int] = []

    def inputs() -> Iterator[int]:
        for number in itertools.count():
            read.append(number)
            yield number

    ar = lview.map_async(abs, inputs(), buffersize=5)
    results = iter(ar)
    assert [next(results) for _ in range(12)] == list(range(12))
    assert len(read) <= 12 + 5 + 1
    with pytest.raises(TypeError, match="length"):
        len(ar)
    assert ar.cancel() is True


@pytest.mark.parametrize(
    ("keywords", "error"),
    [
        ({"chunksize": 0}, ValueError),
        ({"chunksize": -1}, ValueError),
        ({"chunksize": 1.5}, TypeError),
        ({"chunksize": "2"}, TypeError),
        ({"buffersize": 0}, ValueError),
        ({"buffersize": "x"}, TypeError),
        ({"targets": [0]}, TypeError),
    ],
)
def test_keywords_that_a_map_cannot_have(
    lview: ipp.LoadBalancedView, keywords: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        lview.map_async(abs, [1, 2], **keywords)


def test_threads_can_map_at_once(lview: ipp.LoadBalancedView) -> None:
    found: dict[int, list[int]] = {}

    def work(base: int) -> None:
        found[base] = lview.map_sync(operator.add, range(200), [base] * 200)

    threads = [threading.Thread(target=work, args=(base,)) for base in (1000, 2000, 3000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert found == {base: list(range(base, base + 200)) for base in (1000, 2000, 3000)}


# ---------------------------------------------------------------- after


def test_after_accepts_whatever_names_tasks(lview: ipp.LoadBalancedView) -> None:
    one, two = lview.apply_async(pow, 2, 2), lview.map_async(abs, [1, 2])
    for after in (
        one,
        one.msg_ids,
        one.msg_ids[0],
        [one, two],
        {*one.msg_ids, *two.msg_ids},
        (one, *two.msg_ids),
        ipp.Dependency([one, two]),
        ipp.Dependency([one, two]).as_dict(),
        [ipp.Dependency(one), two.msg_ids],
        [],
        "",
    ):
        if after == "":
            with pytest.raises(ValueError):
                lview.set_flags(after=after)
            continue
        with lview.temp_flags(after=after):
            assert lview.apply_async(pow, 3, 2).get(timeout=PATIENCE_S) == 9


def test_after_waits(lview: ipp.LoadBalancedView, rc: ipp.Client, gate: Gate, tmp_path: Path) -> None:
    held = gate.hold(lview)
    mark = str(tmp_path / "mark")
    with lview.temp_flags(after=held):
        later = [lview.apply_async(count_runs, mark), lview.apply_async(count_runs, mark)]
    chained = rc.apply(count_runs, (mark,), after=later)
    assert rc.queue_status()["unassigned"] == 3
    assert not os.path.exists(mark)
    gate.open()
    assert chained.get(timeout=PATIENCE_S) == 3
    assert later[0].metadata.after == held.msg_ids
    assert all(ar.started >= held.completed for ar in later)


def outcome_of(ar: ipp.AsyncResult) -> str:
    """``"run"``, or the name of the verdict."""
    error = ar.exception(timeout=PATIENCE_S)
    return "run" if error is None else type(error).__name__


@pytest.mark.parametrize("in_advance", [True, False], ids=["ended before", "ending later"])
@pytest.mark.parametrize("all_of", [True, False], ids=["all", "any"])
@pytest.mark.parametrize(("success", "failure"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("ends", ["good good", "good bad", "bad bad"])
def test_the_table_of_dependencies(
    lview: ipp.LoadBalancedView,
    rc: ipp.Client,
    gate: Gate,
    *,
    ends: str,
    success: bool,
    failure: bool,
    all_of: bool,
    in_advance: bool,
) -> None:
    if in_advance:
        gate.open()
    functions = {"good": from_main(HELD_GOOD), "bad": from_main(HELD_BAD)}
    tasks = [rc.load_balanced_view().apply_async(functions[end], gate.path) for end in ends.split()]
    if in_advance:
        rc.wait(tasks, PATIENCE_S)
    dependency = ipp.Dependency(tasks, all=all_of, success=success, failure=failure)
    dependent = rc.apply(pow, (2, 2), after=dependency)
    gate.open()
    counts = [success if end == "good" else failure for end in ends.split()]
    expected = "run" if (all(counts) if all_of else any(counts)) else "ImpossibleDependency"
    assert outcome_of(dependent) == expected


HELD_GOOD = "def f(path):\n    import fcntl\n    with open(path) as file: fcntl.flock(file, fcntl.LOCK_SH)\n"
HELD_BAD = HELD_GOOD + "    raise LookupError\n"


def test_the_same_dependency_checked_here() -> None:
    ids = {"3fa9c01b-1", "3fa9c01b-2"}
    for all_of, success, failure in itertools.product((True, False), (True, False), (True, False)):
        if not (success or failure):
            with pytest.raises(ValueError, match="nothing meets it"):
                ipp.Dependency(ids, all_of, success, failure)
            continue
        dependency = ipp.Dependency(ids, all_of, success, failure)
        assert dependency == ids
        assert dependency.as_dict() == {
            "dependencies": sorted(ids),
            "all": all_of,
            "success": success,
            "failure": failure,
        }
        assert dependency.check(ids if success else set(), ids if failure else set()) is True
        assert dependency.check(set(), set()) is False
        assert dependency.unreachable(set(), set()) is False
        wrong = (set() if success else ids, set() if failure else ids)
        assert dependency.unreachable(*wrong) is (not (success and failure))
    for bad in (3, [3], None, [None]):
        with pytest.raises(TypeError):
            ipp.Dependency(bad)


# ---------------------------------------------------------------- follow


def test_follow_runs_where_the_others_ran(rc: ipp.Client, lview: ipp.LoadBalancedView) -> None:
    anchors = [rc.apply(os.getpid, targets=[engine], balanced=True) for engine in rc.ids]
    pids = [ar.get(timeout=PATIENCE_S) for ar in anchors]
    for ar, pid in zip(anchors, pids, strict=True):
        assert rc.apply(os.getpid, follow=ar).get(timeout=PATIENCE_S) == pid
        assert rc.apply(os.getpid, follow=ar.msg_ids, after=anchors).get(timeout=PATIENCE_S) == pid
    some = ipp.Dependency(anchors, all=False)
    assert rc.apply(os.getpid, follow=some).get(timeout=PATIENCE_S) in pids


def test_follow_of_two_places_at_once_is_impossible(rc: ipp.Client) -> None:
    if len(rc) < 2:
        pytest.skip("there is one place")
    anchors = [rc.apply(os.getpid, targets=[engine], balanced=True) for engine in (0, 1)]
    rc.wait(anchors, PATIENCE_S)
    with pytest.raises(ipp.ImpossibleDependency):
        rc.apply(os.getpid, follow=anchors).get(timeout=PATIENCE_S)
    with pytest.raises(ipp.ImpossibleDependency):
        rc.apply(os.getpid, follow=anchors[0], targets=[1], balanced=True).get(timeout=PATIENCE_S)


# ---------------------------------------------------------------- timeout


def test_timeout_is_a_dependency_timeout(rc: ipp.Client, gate: Gate) -> None:
    held = gate.hold(rc.load_balanced_view())
    for keyword in ("after", "follow"):
        late = rc.apply(pow, (1, 1), timeout=0.02, **{keyword: held})
        with pytest.raises(ipp.DependencyTimeout) as caught:
            late.get(timeout=PATIENCE_S)
        assert isinstance(caught.value, ipp.TaskTimeout)
        assert isinstance(caught.value, ipp.ImpossibleDependency)
        assert isinstance(caught.value, ipp.RemoteError)
        assert caught.value.ename == "TaskTimeout"
        assert late.metadata.status == "error"
    patient = [rc.apply(pow, (1, 1), after=held, timeout=value) for value in (-1, None, 1000)]
    gate.open()
    assert [ar.get(timeout=PATIENCE_S) for ar in patient] == [1, 1, 1]


def test_a_task_after_one_that_timed_out_is_impossible(rc: ipp.Client, gate: Gate) -> None:
    held = gate.hold(rc.load_balanced_view())
    late = rc.apply(pow, (1, 1), after=held, timeout=0.02)
    after_it = rc.apply(pow, (1, 1), after=late)
    with pytest.raises(ipp.ImpossibleDependency):
        after_it.get(timeout=PATIENCE_S)


# ---------------------------------------------------------------- retries


def test_retries_after_exceptions(rc: ipp.Client, lview: ipp.LoadBalancedView, tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    assert rc.apply(fail_until, (mark, 3), retries=5, block=True) == 3
    with pytest.raises(OSError, match="run 3"):
        rc.apply(fail_until, (str(tmp_path / "other"), 9), retries=2, block=True)
    assert os.path.getsize(tmp_path / "other") == 3
    with lview.temp_flags(retries=5):
        marks = [str(tmp_path / f"map {n}") for n in range(4)]
        assert lview.map_sync(fail_until, marks, [2] * 4) == [2] * 4


def test_retry_on_narrows(rc: ipp.Client, tmp_path: Path) -> None:
    for number, (retry_on, runs) in enumerate(
        [(OSError, 3), ((OSError, ValueError), 3), (ValueError, 1), ((), 1)]
    ):
        mark = str(tmp_path / f"mark {number}")
        with pytest.raises(OSError, match="run"):
            rc.apply(fail_until, (mark, 9), retries=2, retry_on=retry_on, block=True)
        assert os.path.getsize(mark) == runs


def test_retries_beyond_the_engines_need_no_new_engine(rc: ipp.Client, tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    assert rc.apply(fail_until, (mark, 9), retries=20, block=True) == 9


# ---------------------------------------------------------------- functions with conditions


def test_a_condition_finds_its_engine(rc: ipp.Client, dview: ipp.DirectView) -> None:
    last = rc.ids[-1]
    dview.push({"fit": False}, block=True)
    rc[last].push({"fit": True}, block=True)
    where = ipp.depend(from_main("def f(wanted): return fit is wanted"), True)(os.getpid)
    found = rc.load_balanced_view().map_sync(lambda n: n, range(3))
    assert found == [0, 1, 2]
    results = [rc.load_balanced_view().apply_async(where) for _ in range(4)]
    assert {ar.get(timeout=PATIENCE_S) for ar in results} == {rc[last].apply_sync(os.getpid)}


def test_a_condition_that_no_engine_meets(rc: ipp.Client, lview: ipp.LoadBalancedView) -> None:
    never = ipp.depend(lambda: False)(os.getpid)
    with pytest.raises(ipp.ImpossibleDependency) as caught:
        lview.apply_async(never).get(timeout=PATIENCE_S)
    assert caught.value.ename == "ImpossibleDependency"
    with pytest.raises(ipp.ImpossibleDependency):
        lview.map_async(ipp.depend(lambda: False)(abs), [1]).get(timeout=PATIENCE_S)
