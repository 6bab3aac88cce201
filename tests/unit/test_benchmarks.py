"""The benchmark's arithmetic: spreads, quotients, budgets, tables, who takes part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.__main__ import choose_systems, choose_workloads, record
from benchmarks.catalogue import BUDGETS, OURS, RAW, WORKLOADS, Budget
from benchmarks.harness import Sample, System, find_systems, run_session, time_calls
from benchmarks.report import Series, Spread, judge, quotient, render_markdown, show, spread


def test_spread() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(median=2.0, low=1.0, high=3.0)


def test_quotients_pair_rounds_and_leave_out_failures() -> None:
    ours, theirs = Series([2.0, None, 9.0, 8.0]), Series([1.0, 5.0, 3.0, None])
    assert quotient(ours, theirs) == Spread(median=2.5, low=2.0, high=3.0)
    assert quotient(Series([None]), Series([1.0])) is None


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00051, "s", "0.510 ms"),
        (0.0512, "s", "51.2 ms"),
        (1.2345, "s", "1.234 s"),
        (21345.6, "/s", "21,346 /s"),
        (14.25, "MB", "14.2 MB"),
        (5, "", "5"),
    ],
)
def test_show(value: float, unit: str, text: str) -> None:
    assert show(value, unit) == text


def test_budgets_are_judged_in_the_right_direction() -> None:
    results = {
        "start_2": {OURS: Series([0.5, 0.7, 0.4])},
        "single_tasks": {OURS: Series([9_000.0])},
        "round_trip_one": {OURS: Series([3.0, 2.0]), RAW: Series([2.0, 2.0])},
    }
    assert judge(Budget("start_2", 0.6), results) == ("0.500 s", True)
    assert judge(Budget("single_tasks", 10_000), results) == ("9,000 /s", False)
    assert judge(Budget("round_trip_one", 2.0, beside=RAW), results) == (f"1.25 (1.00–1.50) × {RAW}", True)
    assert judge(Budget("import", 0.2), results) is None


def test_the_page_shows_figures_failures_and_budgets() -> None:
    results = {
        "single_tasks": {
            OURS: Series([20_000.0]),
            "other": Series([4_000.0], notes={"by hand"}),
            "broken": Series([None], errors=["ValueError: no"]),
        }
    }
    page = render_markdown(results, {"cores": 2}, rounds=1)
    for line in (
        "cores 2",
        "| 5,000 no-ops submitted one by one, all results taken | ≥ 10,000 /s | 20,000 /s | met |",
        "| enginery | 20,000 /s | 20,000 /s – 20,000 /s |  |  |",
        "| other | 4,000 /s | 4,000 /s – 4,000 /s | 5.00 (5.00–5.00) | by hand |",
        "| broken | – | – | | failed 1 times: ValueError: no |",
    ):
        assert line in page.splitlines()


def test_a_session_runs_alone_ones_first_and_goes_on_after_failures() -> None:
    steps: list[str] = []

    @contextmanager
    def session() -> Iterator[str]:
        steps.append("open")
        yield "it"
        steps.append("close")

    system = System("toy", session=session)
    system.measures("a")(lambda it: Sample(len(it), "note"))
    system.measures("b")(lambda it: 1 / 0)

    @system.measures_alone("c")
    def alone() -> float:
        steps.append("alone")
        return 3.0

    found = run_session(system, ["a", "b", "c", "unknown"])
    assert steps == ["alone", "open", "close"]
    assert found["a"] == {"value": 2, "note": "note"}
    assert found["b"]["error"].endswith("ZeroDivisionError: division by zero\n")
    assert found["c"] == {"value": 3.0, "note": ""}
    assert set(found) == {"a", "b", "c"}


def test_a_session_that_does_not_open_is_the_failure_of_its_workloads() -> None:
    @contextmanager
    def session() -> Iterator[None]:
        raise OSError("no room")
        yield

    system = System("toy", session=session)
    system.measures("a")(lambda _: 1.0)
    assert run_session(system, ["a"])["a"]["error"].endswith("OSError: no room\n")


def test_every_name_is_in_the_catalogue() -> None:
    systems = find_systems()
    assert {OURS, RAW} <= set(systems)
    for system in systems.values():
        assert system.workloads <= set(WORKLOADS), system.name
    assert systems[OURS].workloads == set(WORKLOADS)
    assert {budget.workload for budget in BUDGETS} <= set(WORKLOADS)


def test_who_takes_part() -> None:
    here, peer = System("here"), System("peer", peer=True)
    absent = System("absent", package="no_such_package_at_all")
    systems = {system.name: system for system in (here, peer, absent)}
    assert choose_systems(systems, None) == [here]
    assert choose_systems(systems, []) == [here, peer]
    assert choose_systems(systems, ["peer"]) == [here, peer]
    with pytest.raises(SystemExit, match="No system is called odd; there are: here, peer, absent"):
        choose_systems(systems, ["odd"])


def test_workloads_are_chosen_by_the_start_of_their_names() -> None:
    assert choose_workloads(["round", "import"]) == ["import", "round_trip_one", "round_trip_balanced"]
    assert choose_workloads(None) == list(WORKLOADS)
    with pytest.raises(SystemExit, match="No workload begins with odd"):
        choose_workloads(["odd"])


def test_answers_are_recorded_round_by_round(capsys: pytest.CaptureFixture[str]) -> None:
    results: dict[str, dict[str, Series]] = {}
    record(results, "toy", {"a": {"value": 1.0, "note": "n"}}, 0)
    record(results, "toy", {"a": {"error": "Traceback\nValueError: no"}}, 1)
    assert results["a"]["toy"] == Series([1.0, None], {"n"}, ["ValueError: no"])
    assert "toy, a:\nTraceback" in capsys.readouterr().err


def test_time_calls_is_a_median() -> None:
    calls: list[int] = []
    assert 0 <= time_calls(lambda: calls.append(1), warm_up=2, calls=3) < 1
    assert len(calls) == 5
