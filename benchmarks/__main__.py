"""The command: interleaved rounds over all chosen systems, then the tables. See `scripts/bench --help`."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.catalogue import OURS, WORKLOADS
from benchmarks.harness import System, find_systems, measure_session
from benchmarks.machine import describe_machine
from benchmarks.page import write_figures
from benchmarks.report import Series, render_markdown

RESULTS = Path(__file__).parent / "results"

AllSeries = dict[str, dict[str, Series]]
"""Workload -> system -> series."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument(
        "--peers", nargs="*", metavar="NAME", help="measure the other systems too: all, or those named"
    )
    parser.add_argument("--only", nargs="+", metavar="WORKLOAD", help="workloads, by how their names begin")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--timeout", type=float, default=600, metavar="S", help="for one session")
    parser.add_argument("--list", action="store_true", help="show workloads and systems, measure nothing")
    parser.add_argument("--plots", type=Path, metavar="DIRECTORY", help="draw the curves, as SVG and PNG")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the figures on data into this page")
    parser.add_argument(
        "--again", type=Path, metavar="JSON", help="measure nothing: show, draw, write an earlier run"
    )
    options = parser.parse_args(arguments)
    # Said now, not after an hour of measuring.
    if options.plots and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plots needs matplotlib: pip install 'enginery[bench]'.")
    if options.page and not options.page.is_file():
        parser.error(f"--page needs a page with a block for figures; {options.page} is not there.")
    return options


def choose_systems(systems: dict[str, System], peers: Sequence[str] | None) -> list[System]:
    """Everything but the peers, and the peers asked for, as far as they are installed."""
    unknown = sorted(set(peers or ()) - systems.keys())
    if unknown:
        sys.exit(f"No system is called {', '.join(unknown)}; there are: {', '.join(systems)}.")
    chosen = []
    for system in systems.values():
        if system.peer and (peers is None or (peers and system.name not in peers)):
            continue
        if system.is_there():
            chosen.append(system)
        else:
            print(f"{system.name} is left out: {system.package} is not installed", file=sys.stderr)
    return chosen


def choose_workloads(only: Sequence[str] | None) -> list[str]:
    chosen = [name for name in WORKLOADS if only is None or name.startswith(tuple(only))]
    if not chosen:
        sys.exit(f"No workload begins with {' or '.join(only or ())}; there are: {', '.join(WORKLOADS)}.")
    return chosen


def record(results: AllSeries, system: str, answers: dict[str, Any], round_: int) -> None:
    """Append one session's answers; `round_` values stand before this one in each series."""
    for workload, answer in answers.items():
        series = results.setdefault(workload, {}).setdefault(system, Series())
        assert len(series.values) == round_
        series.values.append(answer.get("value"))
        if answer.get("note"):
            series.notes.add(answer["note"])
        if "error" in answer:
            series.errors.append(answer["error"].strip().rpartition("\n")[2])
            print(f"{system}, {workload}:\n{answer['error']}", file=sys.stderr)
        if "curve" in answer:
            series.curves.append(read_curve(answer["curve"]))


def read_curve(curve: dict[str, float]) -> dict[int, float]:
    """JSON has texts for keys."""
    return {int(size): value for size, value in curve.items()}


def run(options: argparse.Namespace) -> int:
    if options.list:
        show_workloads(choose_workloads(options.only))
        return 0
    if options.again:
        results, machine = load(options.again)
    else:
        results, machine = measure(options)
    rounds = max((len(series.values) for found in results.values() for series in found.values()), default=0)
    page = render_markdown(results, machine, rounds)
    if not options.again:
        save(results, machine, page)
    if options.plots:
        from benchmarks.plots import draw

        for path in draw(results, options.plots):
            print(f"drawn: {path}", file=sys.stderr)
    if options.page:
        write_figures(options.page, results, machine, rounds)
    print(page)
    return 1 if any(series.errors for found in results.values() if (series := found.get(OURS))) else 0


def show_workloads(workloads: Sequence[str]) -> None:
    systems = find_systems()
    for name in workloads:
        able = [system.name for system in systems.values() if name in system.workloads]
        print(f"{name:22}{WORKLOADS[name].title}\n{'':22}  {', '.join(able)}")


def measure(options: argparse.Namespace) -> tuple[AllSeries, dict[str, Any]]:
    """The rounds; (workload -> system -> series, the machine)."""
    # A run that is told to end takes its session along: `finally` runs for SystemExit, not for a signal.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    workloads = choose_workloads(options.only)
    chosen = choose_systems(find_systems(), options.peers)
    machine = describe_machine(system.package for system in chosen)
    results: AllSeries = {}
    for round_ in range(options.rounds):
        # Each round begins with another system, so that none always has the machine after the same one.
        turn = round_ % len(chosen)
        for system in [*chosen[turn:], *chosen[:turn]]:
            able = [name for name in workloads if name in system.workloads]
            if able:
                began = time.perf_counter()
                answers = measure_session(system.name, able, timeout_s=options.timeout)
                record(results, system.name, answers, round_)
                took_s = time.perf_counter() - began
                print(f"round {round_ + 1}/{options.rounds} {system.name}: {took_s:.1f} s", file=sys.stderr)
    order = [system.name for system in chosen]
    ordered = {
        workload: {name: results[workload][name] for name in order if name in results[workload]}
        for workload in workloads
        if workload in results
    }
    return ordered, machine


def save(results: AllSeries, machine: dict[str, Any], page: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    stem = time.strftime("%Y-%m-%dT%H%M%S")
    samples = {
        workload: {
            name: {**dataclasses.asdict(series), "notes": sorted(series.notes)}
            for name, series in found.items()
        }
        for workload, found in results.items()
    }
    data = {"machine": machine, "samples": samples}
    (RESULTS / f"{stem}.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"{stem}.md").write_text(page, encoding="utf-8")
    print(f"written to {RESULTS / stem}.json and .md", file=sys.stderr)


def load(path: Path) -> tuple[AllSeries, dict[str, Any]]:
    """What `save` wrote."""
    data = json.loads(path.read_text(encoding="utf-8"))
    results = {
        workload: {
            name: Series(
                values=series["values"],
                notes=set(series["notes"]),
                errors=series["errors"],
                curves=[read_curve(curve) for curve in series.get("curves", ())],
            )
            for name, series in found.items()
        }
        for workload, found in data["samples"].items()
    }
    return results, data["machine"]


if __name__ == "__main__":
    sys.exit(run(parse(None)))
