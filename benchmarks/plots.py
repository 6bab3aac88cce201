"""Bandwidth against size as pictures, an SVG and a PNG for each curve. Needs matplotlib, imported to draw."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.catalogue import MEMCPY, OURS, WORKLOADS
from benchmarks.report import Results, Series, spread_curve
from benchmarks.transfers import CURVE_SIZES, show_size

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Told apart by colour-blind readers as well; ours is the first."""

STYLE: dict[Any, Any] = {"svg.hashsalt": "enginery", "svg.fonttype": "none", "font.size": 10}
"""The salt makes the ids in the files, and so the files, depend on the figures alone."""


def draw(results: Results, directory: Path) -> list[Path]:
    """Draw every curve among the results; the files written."""
    import matplotlib.figure

    directory.mkdir(parents=True, exist_ok=True)
    written = []
    colours = choose_colours(results)
    with matplotlib.rc_context(STYLE):
        for workload, systems in results.items():
            with_curves = {name: series for name, series in systems.items() if any(series.curves)}
            if not with_curves:
                continue
            figure = matplotlib.figure.Figure(figsize=(7.2, 4.4), layout="constrained")
            fill(figure.add_subplot(), WORKLOADS[workload].title.partition(";")[0], with_curves, colours)
            for ending, metadata in (("svg", {"Date": None}), ("png", {})):
                path = directory / f"{workload}.{ending}"
                figure.savefig(path, metadata=metadata, dpi=150)
                written.append(path)
    return written


def fill(axes: Any, title: str, systems: Mapping[str, Series], colours: Mapping[str, str]) -> None:
    """Medians as lines, lowest to highest as a shade behind them."""
    for name, series in systems.items():
        found = spread_curve(series)
        sizes = sorted(found)
        medians, lows, highs = zip(
            *((found[size].median, found[size].low, found[size].high) for size in sizes), strict=True
        )
        line = {"linestyle": "--"} if name == MEMCPY else {"marker": "o", "markersize": 4}
        width = 2.4 if name == OURS else 1.4
        axes.plot(sizes, medians, label=name, color=colours[name], linewidth=width, **line)
        axes.fill_between(sizes, lows, highs, color=colours[name], alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(CURVE_SIZES[::2], [show_size(size) for size in CURVE_SIZES[::2]])
    axes.set_title(title)
    axes.set_xlabel("size of the array")
    axes.set_ylabel("GB/s")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)


def choose_colours(results: Results) -> dict[str, str]:
    """Grey for the limit; a system has the same colour in every picture."""
    drawn = [name for systems in results.values() for name, series in systems.items() if any(series.curves)]
    others = [name for name in dict.fromkeys(drawn) if name not in {OURS, MEMCPY}]
    return {MEMCPY: "#666666"} | {name: COLOURS[at % len(COLOURS)] for at, name in enumerate([OURS, *others])}
