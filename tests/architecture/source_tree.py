"""Reads the package's sources and what ARCHITECTURE.md says of them; imports and runs nothing of either.

*Room*: the first name below `enginery`, a package (`core`) or a module (`ids`). The front door is
`enginery/__init__.py`, with `enginery/__main__.py` beside it: it may import every room,
no room may import it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src"
PACKAGE = "enginery"
FRONT_DOOR = "the front door"

_FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Import:
    """One module named by an import statement, wherever in the file it stands."""

    target: str
    line: int


@dataclass(frozen=True)
class Module:
    """One source file."""

    name: str
    path: Path
    tree: ast.Module
    text: str

    @property
    def room(self) -> str:
        return room_of(self.name)

    def where(self, line: int) -> str:
        return f"{self.path.name if ROOT not in self.path.parents else self.path.relative_to(ROOT)}:{line}"


def room_of(name: str) -> str:
    """The room of a module of the package, by its dotted name.

    >>> room_of("enginery.core.tasks"), room_of("enginery.ids"), room_of("enginery")
    ('core', 'ids', 'the front door')
    """
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__main__" else FRONT_DOOR


def read_modules(sources: Path = SOURCES) -> list[Module]:
    """All modules of the package, in the order of their paths."""
    modules = []
    for path in sorted((sources / PACKAGE).rglob("*.py")):
        parts = path.relative_to(sources).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        modules.append(Module(name, path, ast.parse(text, str(path)), text))
    return modules


def imports_of(module: Module, known: set[str]) -> Iterator[Import]:
    """Every import of a module, inside functions and under TYPE_CHECKING too.

    `from a import b` counts as `a.b` where that is a module (one of `known`), else as `a`.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield Import(full if full in known else base, node.lineno)


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    is_package = module.path.name == "__init__.py"
    parts = module.name.split(".")
    base = parts[: len(parts) - node.level + is_package]
    return ".".join([*base, *([node.module] if node.module else [])])


def inner_imports(modules: list[Module]) -> Iterator[tuple[Module, Import, str]]:
    """(module, import, room imported) for every import of the package by itself."""
    known = {module.name for module in modules}
    for module in modules:
        for found in imports_of(module, known):
            if found.target == PACKAGE or found.target.startswith(PACKAGE + "."):
                yield module, found, room_of(found.target)


def outer_imports(modules: list[Module]) -> Iterator[tuple[Module, Import, str]]:
    """(module, import, top-level name) for every import of somebody else's module."""
    known = {module.name for module in modules}
    for module in modules:
        for found in imports_of(module, known):
            top = found.target.partition(".")[0]
            if top != PACKAGE:
                yield module, found, top


def calls(module: Module) -> Iterator[tuple[str, ast.Call]]:
    """(dotted name as written, call) for every call of a plain or dotted name."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and (name := dotted(node.func)):
            yield name, node


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an expression that is only names and attributes, else the empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := dotted(node.value)):
        return f"{base}.{node.attr}"
    return ""


# ---------------------------------------------------------------- ARCHITECTURE.md


class PlanError(AssertionError):
    """ARCHITECTURE.md does not say what the tests look for there."""


def read_plan(path: Path = ROOT / "ARCHITECTURE.md") -> str:
    if not path.exists():
        raise PlanError(f"{path.name} is missing: it holds the rank table and the import graph")
    return path.read_text(encoding="utf-8")


def section(plan: str, heading: str) -> str:
    """The text under `## heading`, up to the next heading of that level."""
    found = re.search(rf"^## {re.escape(heading)}[ \t]*$\n(.*?)(?=^## |\Z)", plan, re.MULTILINE | re.DOTALL)
    if found is None:
        raise PlanError(f'ARCHITECTURE.md has no section "## {heading}"')
    return found[1]


def read_ranks(plan: str) -> dict[str, int]:
    """Room -> rank, from the table `| rank | rooms | what |` under "## Ranks"."""
    ranks: dict[str, int] = {}
    for line in section(plan, "Ranks").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.lstrip().startswith("|") or len(cells) < 3 or not cells[0].isdecimal():
            continue
        for room in re.findall(r"`(\w+)`", cells[1]):
            if room in ranks:
                raise PlanError(f"the rank table names `{room}` twice")
            ranks[room] = int(cells[0])
    if not ranks:
        raise PlanError(
            'the table under "## Ranks" in ARCHITECTURE.md has no rows | rank | `room` … | what |'
        )
    return ranks


def draw_graph(modules: list[Module]) -> list[str]:
    """The import graph between rooms, one sorted line a room: `core -> errors, ids`."""
    graph: dict[str, set[str]] = {module.room: set() for module in modules if module.room != FRONT_DOOR}
    for module, _, room in inner_imports(modules):
        if module.room != FRONT_DOOR and room not in (module.room, FRONT_DOOR):
            graph[module.room].add(room)
    return [f"{room} -> {', '.join(sorted(graph[room])) or 'nothing'}" for room in sorted(graph)]


def read_picture(plan: str, heading: str = "Import graph") -> list[str]:
    """The lines of the fenced block under a heading."""
    found = _FENCE.search(section(plan, heading))
    if found is None:
        raise PlanError(f'ARCHITECTURE.md has no fenced block under "## {heading}"')
    return found[1].splitlines()


def replace_picture(plan: str, lines: list[str], heading: str = "Import graph") -> str:
    """The plan with another picture in its fenced block."""
    read_picture(plan, heading)
    old = section(plan, heading)
    start = plan.index(old, plan.index(f"## {heading}"))
    block = "```text\n" + "".join(line + "\n" for line in lines) + "```"
    return plan[:start] + _FENCE.sub(lambda _: block, old, count=1) + plan[start + len(old) :]
