"""Survey the standard library: measure each of its source files, on all cores.

The input is real and every machine has it: about 1,800 files, a few of which do not parse (they are test
cases for the parser). Run it with `scripts/demo`, or `python examples/stdlib_survey/survey.py --help`.

What to look at, in `survey_in_parallel`: a table pushed to all engines, a map whose results come with a live
bar and whose failures do not stop the rest, and what each engine gathered meanwhile fetched at the end.
"""

from __future__ import annotations

import argparse
import ast
import os
import statistics
import sys
import sysconfig
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

# Data does not travel with functions: these names are looked up where `measure` and `survey_one` run. Each
# engine has its own, pushed to it at the beginning. The ones here serve the comparison with one process.
branches: tuple[type[ast.AST], ...] = (
    *(ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.TryStar, ast.Match, ast.With),
    *(ast.AsyncWith, ast.comprehension),
)
nested: tuple[type[ast.AST], ...] = (
    *(ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.TryStar, ast.Match, ast.With, ast.AsyncWith),
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda),
)
standard_modules: frozenset[str] = frozenset(sys.stdlib_module_names)
import_counts: Counter[str] = Counter()


@dataclass(frozen=True)
class FileReport:
    """What was measured in one file. Lengths are in lines, nesting in levels below the module's."""

    path: str
    lines: int
    functions: int
    branches: int
    nesting: int
    longest_function: str
    longest_function_lines: int
    imports: tuple[str, ...]


def measure(path: str) -> FileReport:
    """Measure one source file; raises SyntaxError if it does not parse."""
    source = Path(path).read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd escapes in other people's files
        try:
            tree = ast.parse(source, path)
        except ValueError as error:  # null bytes, in some versions of Python
            raise SyntaxError(f"{error} ({path})") from None
    functions: list[tuple[int, str]] = []
    branch_count = deepest = 0
    imports: set[str] = set()
    pending: list[tuple[ast.AST, int]] = [(tree, 0)]
    while pending:
        node, depth = pending.pop()
        deepest = max(deepest, depth)
        branch_count += isinstance(node, branches)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions.append(((node.end_lineno or node.lineno) - node.lineno + 1, node.name))
        elif isinstance(node, ast.Import):
            imports.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports.add(node.module.partition(".")[0])
        # `elif` is an `if` inside `else` to the parser, not to the reader.
        same_level = node.orelse[0] if isinstance(node, ast.If) and len(node.orelse) == 1 else None
        for child in ast.iter_child_nodes(node):
            pending.append((child, depth + (isinstance(child, nested) and child is not same_level)))
    longest_lines, longest = max(functions, default=(0, ""))
    lines = source.count(b"\n") + (not source.endswith(b"\n") and bool(source))
    return FileReport(
        path=path,
        lines=lines,
        functions=len(functions),
        branches=branch_count,
        nesting=deepest,
        longest_function=longest,
        longest_function_lines=longest_lines,
        imports=tuple(sorted(imports)),
    )


def survey_one(path: str) -> FileReport:
    """Measure one file, and count what it imports of the standard library in this process's own counter."""
    report = measure(path)
    import_counts.update(name for name in report.imports if name in standard_modules)
    return report


# ---------------------------------------------------------------- input


def find_sources() -> list[str]:
    """All sources of the running Python's standard library, its tests included, in a fixed order."""
    roots = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
    apart = {"site-packages", "dist-packages", "__pycache__"}
    found = {
        path
        for root in roots
        for path in root.rglob("*.py")
        if path.is_file() and not apart.intersection(path.relative_to(root).parts)
    }
    return sorted(map(str, found))


def has_broken_file(paths: Iterable[str]) -> bool:
    """Whether the test cases for the parser are there, by their names; some systems leave them out."""
    return any(Path(path).name.lower().startswith(("badsyntax", "bad_coding")) for path in paths)


def write_broken_file(directory: Path) -> str:
    """A file that does not parse, for systems that ship the standard library without its tests."""
    path = directory / "badsyntax_example.py"
    path.write_text("def unfinished(:\n", encoding="utf-8")
    return str(path)


# ---------------------------------------------------------------- the two ways


@dataclass(frozen=True)
class Survey:
    """Everything that one way of running found, and how long it took without starting up."""

    reports: list[FileReport]
    failures: list[tuple[str, BaseException]]
    imports: Counter[str]
    elapsed_s: float
    started_s: float = 0.0
    engines: int = 0


def sort_out(paths: Sequence[str], results: Iterable[FileReport | BaseException]) -> Survey:
    """Reports and failures apart; a failure keeps the path that it belongs to."""
    reports: list[FileReport] = []
    failures: list[tuple[str, BaseException]] = []
    for path, result in zip(paths, results, strict=True):
        if isinstance(result, BaseException):
            failures.append((path, result))
        else:
            reports.append(result)
    return Survey(reports, failures, Counter(), 0.0)


def survey_in_one_process(paths: Sequence[str]) -> Survey:
    """The same work in a plain loop."""
    import_counts.clear()
    results: list[FileReport | BaseException] = []
    began = time.perf_counter()
    for path in paths:
        try:
            results.append(survey_one(path))
        except SyntaxError as error:
            results.append(error)
    elapsed_s = time.perf_counter() - began
    found = sort_out(paths, results)
    return Survey(found.reports, found.failures, Counter(import_counts), elapsed_s)


def survey_in_parallel(paths: Sequence[str], engines: int) -> Survey:
    """The same work on a local cluster."""
    import enginery as ipp

    began = time.perf_counter()
    with ipp.Cluster(n=engines) as rc:
        started_s = time.perf_counter() - began
        began = time.perf_counter()
        everywhere, balanced = rc[:], rc.load_balanced_view()
        everywhere.push({"branches": branches, "nested": nested}, block=True)
        everywhere.push({"standard_modules": standard_modules, "import_counts": Counter()}, block=True)
        results = balanced.map(survey_one, paths, progress=True, return_exceptions=True)
        found = sort_out(paths, results)
        imports: Counter[str] = sum(everywhere.pull("import_counts", block=True), Counter())
        elapsed_s = time.perf_counter() - began
    return Survey(found.reports, found.failures, imports, elapsed_s, started_s, engines)


# ---------------------------------------------------------------- the report


def render_report(survey: Survey, alone: Survey | None = None) -> RenderableType:
    """What was found, for a terminal; with the time of one process where it was measured."""
    reports = survey.reports
    totals = Table("files", "lines", "functions", "branches", "median functions a file", title="In all")
    totals.add_row(
        f"{len(reports):,}",
        f"{sum(report.lines for report in reports):,}",
        f"{sum(report.functions for report in reports):,}",
        f"{sum(report.branches for report in reports):,}",
        f"{statistics.median(report.functions for report in reports):g}" if reports else "-",
    )
    imported = Table("module", "imported by", title="Most imported", min_width=40)
    for name, count in survey.imports.most_common(5):
        imported.add_row(name, f"{count:,} files")
    broken = Table("file", "why", title=f"Files that do not parse: {len(survey.failures)}", min_width=40)
    for path, error in survey.failures:
        broken.add_row(Text(short(path)), Text(str(error).partition("\n")[0]))
    return Group(totals, render_extremes(reports), imported, broken, Text(describe_speed(survey, alone)))


def render_extremes(reports: Sequence[FileReport], count: int = 3) -> Table:
    """The files with the longest functions, the deepest nesting, the most branches."""
    table = Table("", "file", "", title="The most of each")
    columns: dict[str, Callable[[FileReport], tuple[int, str]]] = {
        "longest function": lambda report: (
            report.longest_function_lines,
            f"lines: {report.longest_function}",
        ),
        "deepest nesting": lambda report: (report.nesting, "levels"),
        "most branches": lambda report: (report.branches, "branches"),
    }
    for title, look in columns.items():
        for report in sorted(reports, key=look, reverse=True)[:count]:
            size, unit = look(report)
            table.add_row(title, Text(short(report.path)), Text(f"{size:,} {unit}"))
            title = ""
    return table


def describe_speed(survey: Survey, alone: Survey | None) -> str:
    """How long it took, as sentences."""
    text = (
        f"{survey.engines} engines started in {survey.started_s:.2f} s "
        f"and surveyed the library in {survey.elapsed_s:.2f} s."
    )
    if alone is None:
        return text
    same = "the same" if alone.reports == survey.reports and alone.imports == survey.imports else "ANOTHER"
    factor = alone.elapsed_s / survey.elapsed_s
    return (
        f"{text}\nOne process took {alone.elapsed_s:.2f} s and came to {same} result.\n"
        f"The engines were {factor:.2f} times as fast as one process."
    )


def short(path: str) -> str:
    """The end of a path, enough to know the file by."""
    return "/".join(Path(path).parts[-3:])


def count_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Survey the standard library's sources on all cores.")
    parser.add_argument("-n", type=int, default=count_cores(), help="engines (default: as many as cores)")
    parser.add_argument("--limit", type=int, help="take only the first LIMIT files")
    parser.add_argument("--no-comparison", action="store_true", help="leave out the run in one process")
    options = parser.parse_args(arguments)

    console = Console()
    with ExitStack() as stack:
        paths = find_sources()[: options.limit]
        if not has_broken_file(paths):
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            paths.append(write_broken_file(Path(directory)))
        console.print(f"{len(paths):,} source files of Python {sys.version.split()[0]}, {options.n} engines")
        survey = survey_in_parallel(paths, options.n)
        # Afterwards, so that it is this run that profits from files that are in memory by now.
        alone = None if options.no_comparison else survey_in_one_process(paths)
        console.print(render_report(survey, alone))
    return 0 if alone is None or alone.reports == survey.reports else 1


if __name__ == "__main__":
    sys.exit(main())
