"""The figures in the documentation: a block between two marks that the command writes, and nobody's hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.catalogue import DATA, OURS, Workload
from benchmarks.report import Results, Series, judge_all, quotient, render_curves, show, show_quotient, spread

BEGIN = "<!-- figures: written by scripts/bench"
END = "<!-- end of figures -->"


def write_figures(page: Path, results: Results, machine: Mapping[str, object], rounds: int) -> None:
    """Put the figures on data into the page, in place of those before."""
    text = page.read_text(encoding="utf-8")
    page.write_text(replace_block(text, render_figures(results, machine, rounds)), encoding="utf-8")


def replace_block(text: str, block: str) -> str:
    """The text with another block between its marks."""
    begin = text.find(BEGIN)
    end = text.find(END)
    if not 0 <= begin < end:
        raise ValueError(f"The page has no block for figures, from a line {BEGIN!r}... to {END!r}.")
    first_line_end = text.index("\n", begin) + 1
    return f"{text[:first_line_end]}\n{block.strip()}\n\n{text[end:]}"


def render_figures(results: Results, machine: Mapping[str, object], rounds: int) -> str:
    """Where and how, a table of all systems with their notes, and the budgets."""
    measured = [workload for workload in DATA if workload.name in results]
    lines = [
        f"Median of {rounds} interleaved rounds, every system in a fresh process each time. "
        + "; ".join(f"{name} {value}" for name, value in machine.items())
        + ".",
        "",
    ]
    for workload in measured:
        better = "higher" if workload.higher_is_better else "lower"
        lines += [f"**{workload.title}** ({better} is better)", ""]
        lines += [*render_systems(workload, results[workload.name]), ""]
        lines += render_curves(workload, results[workload.name])
    lines += ["| budget | measured | |", "|---|---|---|"]
    for what, bound, text, verdict in judge_all(results):
        if what in measured:
            lines.append(f"| {what.title} {bound} | {text} | {verdict} |")
    return "\n".join(lines)


def render_systems(workload: Workload, systems: Mapping[str, Series]) -> list[str]:
    ours = systems.get(OURS, Series())
    lines = [f"| system | median | {OURS} ÷ system | |", "|---|--:|--:|---|"]
    for name, series in systems.items():
        median = show(spread(series.present).median, workload.unit) if series.present else "failed"
        pair = "" if name == OURS else show_quotient(quotient(ours, series))
        lines.append(f"| {name} | {median} | {pair} | {'; '.join(sorted(series.notes))} |")
    return lines
