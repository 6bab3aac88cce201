"""The blocks of README.md and of docs/ run as printed: those of a page one after the other, in one directory.

* ```python: a script that must end well. A ```text block directly after it is exactly what it prints.
* ```console: the lines after `$ ` are commands, run by bash; what is shown below them is not compared.
* A block after a line `<!-- not run: why -->` is left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(<!-- not run: [^\n]*-->\n)?```(\w+)\n(.*?)^```$(?:\n+```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    printed: str | None


def read_blocks(text: str) -> list[Block]:
    """What is to be run, in order.

    >>> read_blocks("```console\\n$ ls\\na  b\\n```\\n")
    [Block(language='console', text='ls\\n', printed=None)]
    """
    blocks = []
    for skipped, language, body, printed in BLOCK.findall(text):
        if skipped or language not in ("python", "console"):
            continue
        if language == "console":
            lines = [line[2:] for line in body.splitlines() if line.startswith("$ ")]
            body = "".join(line + "\n" for line in lines)
        blocks.append(Block(language, body, printed or None))
    return blocks


def run(block: Block, directory: Path) -> str:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")])),
    }
    if block.language == "python":
        script = directory / "block.py"
        script.write_text(block.text, encoding="utf-8")
        command = [sys.executable, "-W", "error", str(script)]
    else:
        command = ["bash", "-euo", "pipefail", "-c", block.text]
    answer = subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, f"{block.text}\n--- said\n{answer.stdout}{answer.stderr}"
    return answer.stdout


@pytest.mark.timeout(240)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_runs_as_printed(page: Path, tmp_path: Path) -> None:
    blocks = read_blocks(page.read_text(encoding="utf-8"))
    assert blocks or page.name != "README.md", "README.md has no block to run"
    for block in blocks:
        printed = run(block, tmp_path)
        if block.printed is not None:
            assert printed == block.printed


def test_blocks_are_found(tmp_path: Path) -> None:
    text = "\n".join(
        [
            "```python",
            "print(1)",
            "```",
            "",
            "```text",
            "1",
            "```",
            "```toml",
            "x = 1",
            "```",
            "<!-- not run: needs a network -->",
            "```console",
            "$ pip install enginery",
            "```",
            "```console",
            "$ echo a",
            "a",
            "$ echo b",
            "```",
        ]
    )
    blocks = read_blocks(text)
    assert blocks == [Block("python", "print(1)\n", "1\n"), Block("console", "echo a\necho b\n", None)]
    assert [run(block, tmp_path) for block in blocks] == ["1\n", "a\nb\n"]


def test_a_block_that_fails_is_shown(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError: division by zero"):
        run(Block("python", "1 / 0\n", None), tmp_path)
