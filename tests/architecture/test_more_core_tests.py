"""Most of what can go wrong is decided without a socket, so most tests need none."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT, dotted

WITHOUT_SOCKET = ("unit", "scenarios", "properties")
WITH_SOCKET = ("integration", "system")
_SLEEP = re.compile(r"\bsleep\((?!0\))")


def count_tests(*rooms: str) -> int:
    """How many test functions are written in these directories below tests/."""
    paths = [path for room in rooms for path in (ROOT / "tests" / room).rglob("test_*.py")]
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    return sum(isinstance(node, ast.FunctionDef) and node.name.startswith("test_") for node in nodes)


def test_more_tests_without_a_socket_than_with() -> None:
    assert count_tests(*WITHOUT_SOCKET) > count_tests(*WITH_SOCKET) > 0


def files_without_socket() -> list[Path]:
    return sorted(path for name in WITHOUT_SOCKET for path in (ROOT / "tests" / name).rglob("*.py"))


@pytest.mark.parametrize("path", files_without_socket(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_unit_test_neither_sleeps_nor_opens_a_socket(path: Path) -> None:
    refused = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and dotted(node.func) in ("time.sleep", "sleep"):
            refused.append(f"line {node.lineno}: sleeps")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _SLEEP.search(node.value):
            refused.append(f"line {node.lineno}: has a program that sleeps")
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            refused += [f"line {node.lineno}: imports {name}" for name in names if name in ("zmq", "socket")]
        elif isinstance(node, ast.ImportFrom) and node.module in ("zmq", "socket"):
            refused.append(f"line {node.lineno}: imports {node.module}")
    assert refused == []
