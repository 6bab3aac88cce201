"""From samples to tables: medians, spreads, quotients pair by pair, budgets."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.catalogue import BUDGETS, OURS, WORKLOADS, Budget, Workload
from benchmarks.transfers import show_size


@dataclass
class Series:
    """One workload of one system: a value per round, None where it failed, and a curve if it has one."""

    values: list[float | None] = field(default_factory=list)
    notes: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    curves: list[dict[int, float]] = field(default_factory=list)

    @property
    def present(self) -> list[float]:
        return [value for value in self.values if value is not None]


Results = Mapping[str, Mapping[str, Series]]
"""Workload -> system -> series."""


@dataclass(frozen=True)
class Spread:
    """Median and extremes."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def spread_curve(series: Series) -> dict[int, Spread]:
    """Size in bytes -> spread over the rounds that came to this size."""
    sizes = sorted({size for curve in series.curves for size in curve})
    return {size: spread([curve[size] for curve in series.curves if size in curve]) for size in sizes}


def quotient(ours: Series, theirs: Series) -> Spread | None:
    """Ours divided by theirs, round by round; None if no round has both."""
    pairs = [
        mine / other
        for mine, other in zip(ours.values, theirs.values, strict=False)
        if mine is not None and other
    ]
    return spread(pairs) if pairs else None


def show(value: float, unit: str) -> str:
    """A figure with a unit that suits its size.

    >>> show(0.00051, "s"), show(1.234, "s"), show(21345.6, "/s"), show(14.25, "MB"), show(5, "")
    ('0.510 ms', '1.234 s', '21,346 /s', '14.2 MB', '5')
    >>> show(3.14159, "GB/s"), show(0.0042, "GB/s")
    ('3.14 GB/s', '4.20 MB/s')
    """
    if unit == "s":
        return f"{value:.3f} s" if value >= 0.1 else f"{value * 1e3:.{1 if value >= 0.01 else 3}f} ms"
    if unit == "MB":
        return f"{value:.1f} MB"
    if unit == "GB/s":
        return f"{value:.2f} GB/s" if value >= 0.1 else f"{value * 1e3:.2f} MB/s"
    if unit == "of best":
        return f"{value:.0%} of the best"
    return f"{value:,.0f} {unit}".rstrip()


def show_quotient(found: Spread | None) -> str:
    return "" if found is None else f"{found.median:.2f} ({found.low:.2f}–{found.high:.2f})"


def judge(budget: Budget, results: Results) -> tuple[str, bool] | None:
    """(what was measured, whether it is within the budget); None if it was not measured."""
    workload = WORKLOADS[budget.workload]
    systems = results.get(budget.workload, {})
    ours = systems.get(OURS, Series())
    if budget.beside:
        found = quotient(ours, systems.get(budget.beside, Series()))
        if found is None:
            return None
        value, text = found.median, f"{show_quotient(found)} × {budget.beside}"
    elif ours.present:
        value = spread(ours.present).median
        text = show(value, workload.unit)
    else:
        return None
    return text, value >= budget.limit if workload.higher_is_better else value <= budget.limit


def judge_all(results: Results) -> Iterator[tuple[Workload, str, str, str]]:
    """(workload, bound, what was measured, verdict) of every budget, as texts."""
    for budget in BUDGETS:
        workload = WORKLOADS[budget.workload]
        judged = judge(budget, results)
        sign = "≥" if workload.higher_is_better else "≤"
        bound = f"{budget.limit:g} × {budget.beside}" if budget.beside else show(budget.limit, workload.unit)
        text, verdict = (judged[0], "met" if judged[1] else "**missed**") if judged else ("", "not measured")
        yield workload, f"{sign} {bound}", text, verdict


def render_budgets(results: Results) -> list[str]:
    lines = ["| what | budget | measured | |", "|---|---|---|---|"]
    for workload, bound, text, verdict in judge_all(results):
        lines.append(f"| {workload.title} | {bound} | {text} | {verdict} |")
    return lines


def render_workload(workload: Workload, systems: Mapping[str, Series]) -> list[str]:
    ours = systems.get(OURS, Series())
    lines = [
        f"### {workload.name}",
        "",
        f"{workload.title}; {'higher' if workload.higher_is_better else 'lower'} is better",
        "",
        f"| system | median | lowest – highest | {OURS} ÷ system | |",
        "|---|--:|--:|--:|---|",
    ]
    for name, series in systems.items():
        note = "; ".join(sorted(series.notes))
        if series.errors:
            note = "; ".join(filter(None, [note, f"failed {len(series.errors)} times: {series.errors[-1]}"]))
        if not series.present:
            lines.append(f"| {name} | – | – | | {note} |")
            continue
        found = spread(series.present)
        pair = "" if name == OURS else show_quotient(quotient(ours, series))
        low, high = show(found.low, workload.unit), show(found.high, workload.unit)
        lines.append(f"| {name} | {show(found.median, workload.unit)} | {low} – {high} | {pair} | {note} |")
    return [*lines, "", *render_curves(workload, systems)]


def render_curves(workload: Workload, systems: Mapping[str, Series]) -> list[str]:
    """Medians, a line for each size; nothing for a workload without curves."""
    curves = {name: found for name, series in systems.items() if (found := spread_curve(series))}
    if not curves:
        return []
    lines = [f"| size | {' | '.join(curves)} |", f"|--:|{'--:|' * len(curves)}"]
    for size in sorted({size for found in curves.values() for size in found}):
        cells = [
            show(found[size].median, workload.unit) if size in found else "–" for found in curves.values()
        ]
        lines.append(f"| {show_size(size)} | {' | '.join(cells)} |")
    return [*lines, ""]


def render_markdown(results: Results, machine: Mapping[str, object], rounds: int) -> str:
    """The whole page."""
    lines = [
        "# Benchmark run",
        "",
        f"{rounds} interleaved rounds; each round runs every system once, in a fresh process, in turn. A",
        "quotient is taken within a round; shown: the median of the rounds, the lowest and the highest.",
        "",
        "; ".join(f"{name} {value}" for name, value in machine.items()),
        "",
        "## Budgets",
        "",
        *render_budgets(results),
        "",
        "## Figures",
        "",
    ]
    for workload in WORKLOADS.values():
        if workload.name in results:
            lines += render_workload(workload, results[workload.name])
    return "\n".join(lines)
