"""Small enough to hold: no file above 600 lines, no function above 70 lines of code."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.architecture.source_tree import Module, read_modules

FILE_LINES = 600
FUNCTION_LINES = 70

LONG_FOR_A_REASON: dict[str, str] = {
    # "enginery.module" or "enginery.module.Class.function": why splitting it would make it harder to read.
}


def function_sizes(module: Module) -> Iterator[tuple[str, int, int]]:
    """(full name, line, lines of code) of every function; its docstring is not counted."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, int, int]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{prefix}.{child.name}"
                yield name, child.lineno, _lines(child)
                yield from walk(child, name)
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}.{child.name}")
            else:
                yield from walk(child, prefix)

    return walk(module.tree, module.name)


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    total = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is not None:
        total -= (first.end_lineno or first.lineno) - first.lineno + 1
    return total


def too_long(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        lines = len(module.text.splitlines())
        if lines > FILE_LINES and module.name not in LONG_FOR_A_REASON:
            yield f"{module.where(1)}: {lines} lines; split it by subject"
        for name, line, size in function_sizes(module):
            if size > FUNCTION_LINES and name not in LONG_FOR_A_REASON:
                yield f"{module.where(line)}: {name} has {size} lines; a function fits a screen"


def test_files_and_functions_are_small() -> None:
    assert "\n".join(too_long(read_modules())) == ""


def test_no_reason_outlives_its_code() -> None:
    modules = read_modules()
    present = {module.name for module in modules}
    present |= {name for module in modules for name, _, _ in function_sizes(module)}
    assert set(LONG_FOR_A_REASON) - present == set()
