"""Most of what can go wrong is decided without a socket, so most tests need none."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT, dotted

WITHOUT_SOCKET = ("unit", "scenarios", "properties")
WITH_SOCKET = ("integration", "system")


def count_tests() -> Counter[str]:
    """How many tests pytest collects in each directory below tests/."""
    names = [name for name in (*WITHOUT_SOCKET, *WITH_SOCKET) if (ROOT / "tests" / name).is_dir()]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    answer = subprocess.run(
        [*command, *(f"tests/{name}" for name in names)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return Counter(line.split("/")[1] for line in answer.stdout.splitlines() if "::" in line)


def test_more_tests_without_a_socket_than_with() -> None:
    counted = count_tests()
    without = sum(counted[name] for name in WITHOUT_SOCKET)
    assert without > sum(counted[name] for name in WITH_SOCKET), dict(counted)


def files_without_socket() -> list[Path]:
    return sorted(path for name in WITHOUT_SOCKET for path in (ROOT / "tests" / name).rglob("*.py"))


@pytest.mark.parametrize("path", files_without_socket(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_unit_test_neither_sleeps_nor_opens_a_socket(path: Path) -> None:
    refused = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and dotted(node.func) in ("time.sleep", "sleep"):
            refused.append(f"line {node.lineno}: sleeps")
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            refused += [f"line {node.lineno}: imports {name}" for name in names if name in ("zmq", "socket")]
        elif isinstance(node, ast.ImportFrom) and node.module in ("zmq", "socket"):
            refused.append(f"line {node.lineno}: imports {node.module}")
    assert refused == []
