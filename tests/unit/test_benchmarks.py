"""The benchmark's arithmetic: spreads, quotients, budgets, curves, tables, who takes part."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from benchmarks import transfers
from benchmarks.__main__ import choose_systems, choose_workloads, load, parse, record, run, save
from benchmarks.calls import Calls, greedy, layered, register_calls
from benchmarks.catalogue import BUDGETS, DATA, MEMCPY, OURS, RAW, RAY, WORKLOADS, Budget
from benchmarks.harness import Sample, System, find_systems, run_session, time_calls
from benchmarks.page import BEGIN, END, replace_block, write_figures
from benchmarks.plots import COLOURS, choose_colours, draw
from benchmarks.report import Series, Spread, judge, quotient, render_markdown, show, spread, spread_curve
from benchmarks.transfers import CURVE_SIZES, MEASURES, Moves, Transfer, register_moves, show_size, take
from benchmarks.workloads.bodies import held
from benchmarks.workloads.raw_python import Copies


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
        (3.14159, "GB/s", "3.14 GB/s"),
        (0.0042, "GB/s", "4.20 MB/s"),
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
    chosen = choose_workloads(["round", "import"])
    assert chosen == ["import", "round_trip_one", "round_trip_balanced", "round_trip_all"]
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


# ---------------------------------------------------------------- moving data


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves of two sizes."""
    monkeypatch.setattr(transfers, "CURVE_SIZES", (1024, 4096))
    monkeypatch.setattr(transfers, "FIGURE_SIZE", 1024)


def curves() -> dict[str, dict[str, Series]]:
    """A short run's curves."""
    return {
        "curve_push": {
            OURS: Series([2.0, 4.0], curves=[{1024: 0.001, 4096: 2.0}, {1024: 0.003, 4096: 4.0}]),
            MEMCPY: Series([9.0], curves=[{1024: 9.0}]),
        }
    }


def test_the_sizes_of_curves() -> None:
    assert CURVE_SIZES[0] == 1 << 10
    assert CURVE_SIZES[-1] == 1 << 30
    assert [show_size(size) for size in (512, 1 << 10, 4 << 20, 1 << 30)] == [
        "512 B",
        "1 KiB",
        "4 MiB",
        "1 GiB",
    ]


def test_each_workload_on_data_has_its_measure() -> None:
    assert [workload.name for workload in DATA] == list(MEASURES)


def test_what_an_engine_holds_changes_at_every_call() -> None:
    first = held(5000).copy()
    second = held(5000)
    assert [int(second[at] - first[at]) for at in (0, 1, 4096, 4097)] == [1, 0, 1, 0]
    assert held(5000) is second
    assert held(10).nbytes == 10
    assert held(5000) is not second


def test_every_push_has_new_content() -> None:
    pushed: list[tuple[int, int]] = []

    class Pushes(Moves):
        def push(self, array: Any) -> None:
            pushed.append((array.nbytes, int(array[0])))

    transfer = transfers.pushing(Pushes(), 100)
    for _ in range(3):
        transfer.before()
        transfer.move()
    assert pushed == [(100, 2), (100, 3), (100, 4)]


def test_only_the_move_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    steps: list[str] = []

    def step(name: str, seconds: float) -> None:
        nonlocal now_s
        now_s += seconds
        steps.append(name)

    monkeypatch.setattr(transfers.time, "perf_counter", lambda: now_s)
    transfer = Transfer(1, before=lambda: step("before", 7), move=lambda: step("move", 0.25))
    assert transfers.time_transfer(transfer, lambda: step("tidy", 9)) == 0.25
    # Three to warm up, then what fits into a second.
    assert steps == ["before", "move", "tidy"] * (3 + 4)


@pytest.mark.parametrize(("call_s", "measured"), [(0.0001, 300), (0.3, 4), (2.0, 3), (6.0, 2), (15.0, 1)])
def test_slow_calls_are_not_repeated_for_ever(
    monkeypatch: pytest.MonkeyPatch, call_s: float, measured: int
) -> None:
    made: list[int] = []

    def time_one(*_: object) -> float:
        made.append(1)
        return call_s

    monkeypatch.setattr(transfers, "_warm_up", lambda *_: None)
    monkeypatch.setattr(transfers, "_time_one", time_one)
    assert transfers.time_transfer(Transfer(1, lambda: None, lambda: None), lambda: None) == call_s
    assert len(made) == measured


def test_received_arrays_are_looked_at() -> None:
    class Short(Copies):
        def pull(self) -> Any:
            return super().pull()[1:]

        def scatter_gather(self, array: Any) -> Any:
            return array[::-1].copy()

    with pytest.raises(ValueError, match="received 1,023 bytes, not 1,024"):
        transfers.time_transfer(transfers.pulling(Short(None), 1024), lambda: None)
    with pytest.raises(ValueError, match="what was gathered is not what was scattered"):
        transfers.scattering(Short(None), 1024)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["curve_push", "curve_pull", "curve_argument"])
def test_a_curve(name: str) -> None:
    sample = take(Copies(None), MEASURES[name])
    assert list(sample.curve) == [1024, 4096]
    assert sample.value == sample.curve[1024] > 0
    assert sample.note == ""


def test_bandwidth_counts_the_bytes_of_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "time_transfer", lambda *_: 0.5)
    sample = transfers.bandwidth(1_000_000, times=2)(Copies(None), transfers.pushing)
    assert sample.value == pytest.approx(2 * 1_000_000 / 0.5 / 1e9)


@pytest.mark.usefixtures("small")
def test_a_curve_ends_where_calls_fail(capsys: pytest.CaptureFixture[str]) -> None:
    class Bounded(Copies):
        notes: ClassVar = {"push": "by hand"}
        bound = 1024

        def push(self, array: Any) -> None:
            if array.nbytes > self.bound:
                raise OSError("no room")

    sample = take(Bounded(None), MEASURES["curve_push"])
    assert (list(sample.curve), sample.note) == ([1024], "by hand; failed at 4 KiB")
    assert "no room" in capsys.readouterr().err
    Bounded.bound = 0
    with pytest.raises(OSError, match="no room"):
        take(Bounded(None), MEASURES["curve_push"])


@pytest.mark.usefixtures("small")
def test_a_curve_ends_before_calls_become_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "time_transfer", lambda *_: 6.0)
    sample = take(Copies(None), MEASURES["curve_push"])
    assert (list(sample.curve), sample.note) == ([1024], "too slow beyond 1 KiB")


@pytest.mark.usefixtures("small")
def test_a_curve_comes_through_a_session_and_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def session() -> Iterator[None]:
        yield

    system = System(OURS, session=session)
    register_moves(system, Copies, only=["curve_pull"])
    results: dict[str, dict[str, Series]] = {}
    record(results, OURS, run_session(system, ["curve_pull"]), 0)
    assert list(results["curve_pull"][OURS].curves[0]) == [1024, 4096]
    monkeypatch.setattr("benchmarks.__main__.RESULTS", tmp_path)
    save(results, {"cores": 2}, "the page")
    (saved,) = tmp_path.glob("*.json")
    assert load(saved) == (results, {"cores": 2})
    capsys.readouterr()

    assert run(parse(["--again", str(saved)])) == 0
    assert "cores 2" in capsys.readouterr().out
    assert list(tmp_path.glob("*.json")) == [saved]


def test_curves_are_spread_over_the_rounds_and_shown() -> None:
    results = curves()
    assert spread_curve(results["curve_push"][OURS]) == {
        1024: Spread(0.002, 0.001, 0.003),
        4096: Spread(3.0, 2.0, 4.0),
    }
    lines = render_markdown(results, {}, rounds=2).splitlines()
    at = lines.index(f"| size | {OURS} | {MEMCPY} |")
    assert lines[at + 2 : at + 4] == [
        "| 1 KiB | 2.00 MB/s | 9.00 GB/s |",
        "| 4 KiB | 3.00 GB/s | – |",
    ]


def test_budgets_of_data() -> None:
    results = {
        "push_128": {OURS: Series([4.0]), RAY: Series([0.8])},
        "argument_16": {OURS: Series([0.006])},
    }
    assert judge(Budget("push_128", 4.0, beside=RAY), results) == ("5.00 (5.00–5.00) × Ray", True)
    assert judge(Budget("push_128", 3.0), results) == ("4.00 GB/s", True)
    assert judge(Budget("argument_16", 0.005), results) == ("6.000 ms", False)


def test_the_figures_of_a_page_are_replaced_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"# Title\n\n{BEGIN} --peers -->\nold\n{END}\n\nrest\n", encoding="utf-8")
    results = {"push_128": {OURS: Series([4.0]), "other": Series([2.0], notes={"by hand"})}}
    for _ in range(2):
        write_figures(page, results, {"cores": 2}, rounds=3)
    lines = page.read_text(encoding="utf-8").splitlines()
    assert lines[:3] == ["# Title", "", f"{BEGIN} --peers -->"]
    assert lines[-3:] == [END, "", "rest"]
    assert "old" not in lines
    assert "Median of 3 interleaved rounds, every system in a fresh process each time. cores 2." in lines
    assert f"| {OURS} | 4.00 GB/s |  |  |" in lines
    assert "| other | 2.00 GB/s | 2.00 (2.00–2.00) | by hand |" in lines
    assert f"| {WORKLOADS['push_128'].title} ≥ 3.00 GB/s | 4.00 GB/s | met |" in lines


def test_a_page_without_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="no block for figures"):
        replace_block("# Title\n", "figures")


def test_the_documentation_has_its_block() -> None:
    page = Path(__file__).parents[2] / "docs" / "performance.md"
    assert "figures\n\n" + END in replace_block(page.read_text(encoding="utf-8"), "figures")


def test_what_cannot_be_written_is_said_before_measuring(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(["--page", str(tmp_path / "no.md")])
    assert "is not there" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SystemExit):
        parse(["--plots", str(tmp_path)])
    assert "--plots needs matplotlib" in capsys.readouterr().err


def test_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    written = draw(curves() | {"push_128": {OURS: Series([4.0])}}, tmp_path / "pictures")
    assert [path.name for path in written] == ["curve_push.svg", "curve_push.png"]
    first = written[0].read_bytes()
    for text in (OURS, MEMCPY, "GB/s", "push to both engines"):
        assert text.encode() in first
    assert written[1].read_bytes().startswith(b"\x89PNG")
    draw(curves(), tmp_path / "pictures")
    assert written[0].read_bytes() == first


def test_a_system_has_one_colour_in_all_pictures() -> None:
    drawn = Series([1.0], curves=[{1024: 1.0}])
    results = {
        "curve_push": {"a": drawn, OURS: drawn, MEMCPY: drawn},
        "curve_pull": {"b": drawn, "a": drawn, OURS: drawn},
        "push_128": {"not drawn": Series([1.0])},
    }
    expected = {MEMCPY: "#666666", OURS: COLOURS[0], "a": COLOURS[1], "b": COLOURS[2]}
    assert choose_colours(results) == expected


# ---------------------------------------------------------------- calls


@pytest.mark.parametrize(
    ("durations", "places", "ends"),
    [([3.0, 1.0, 1.0, 1.0], 2, 3.0), ([1.0] * 4, 2, 2.0), ([5.0], 3, 5.0), ([], 2, 0.0)],
)
def test_the_best_possible_time(durations: list[float], places: int, ends: float) -> None:
    assert greedy(durations, places) == ends


class Here(Calls):
    """Calls in this process, one after the other."""

    items = 10
    tasks = 5
    notes: ClassVar = {"map": "by hand", "map_long": "by foot"}

    def __init__(self, session: Any) -> None:
        self.session = session

    def one(self, function: Any, *args: Any) -> Any:
        return function(*args)

    def submit(self, function: Any, *args: Any) -> Any:
        return function(*args)

    def values(self, submitted: Any) -> Any:
        return submitted[: self.session]

    def map(self, function: Any, items: Any) -> Any:
        return [function(item) for item in items]


def test_a_system_takes_part_where_it_has_the_methods() -> None:
    system = System("here")
    register_calls(system, Here)
    assert system.workloads == {
        *("round_trip_one", "single_tasks", "map_default", "map_short", "map_long", "map_skewed", "output")
    }
    found = system.inside["map_default"](None)
    assert isinstance(found, Sample)
    assert (found.note, found.value > 0) == ("by hand", True)


def test_values_that_are_missing_are_noticed() -> None:
    system = System("here")
    register_calls(system, Here, only=["single_tasks"])
    assert system.inside["single_tasks"](5).value > 0  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="4 values came, not 5"):
        system.inside["single_tasks"](4)


def test_a_graph_has_layers() -> None:
    seen: list[tuple[Any, int]] = []

    def submit(before: Any, number: int) -> str:
        seen.append((before, number))
        return f"call {len(seen)}"

    assert layered(submit, 2, 2, last=None) == (["call 3", "call 4"], 4)
    assert seen == [(None, 0), (None, 1), (["call 1", "call 2"], 0), (["call 1", "call 2"], 1)]
