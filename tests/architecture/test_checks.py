"""The checks of this directory notice what they are for: each is shown a small tree that breaks its rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.architecture import test_forbidden_imports as forbidden
from tests.architecture import test_ranks as rank_rules
from tests.architecture import test_sizes as sizes
from tests.architecture.source_tree import (
    Module,
    PlanError,
    draw_graph,
    read_modules,
    read_picture,
    read_ranks,
    replace_picture,
)

PLAN = """
# A plan

## Ranks

| rank | rooms | what |
|---|---|---|
| 0 | `ids`, `registry` | words |
| 2 | `core` | decisions |
| 3 | `transport` | sockets |
| 4 | `client` `engine` | shells |
| 4 | `testing` | imports 0-3 |

## Import graph

Drawn by a test.

```text
core -> nothing
```

## A tour

```text
not the picture
```
"""
RANKS = {"ids": 0, "registry": 0, "core": 2, "transport": 3, "client": 4, "engine": 4, "testing": 4}

Write = Callable[[dict[str, str]], list[Module]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_tree(files: dict[str, str]) -> list[Module]:
        for name, text in files.items():
            path = tmp_path / "enginery" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return read_modules(tmp_path)

    return write_tree


def test_the_rank_table_is_read() -> None:
    assert read_ranks(PLAN) == RANKS


def test_a_plan_without_the_table_is_named() -> None:
    with pytest.raises(PlanError, match='no section "## Ranks"'):
        read_ranks("# nothing")


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("core/a.py", "from enginery.ids import X", ""),
        ("core/a.py", "from enginery.core.b import X", ""),
        ("core/a.py", "from . import b", ""),
        ("core/a.py", "from enginery import ids", ""),
        (
            "core/a.py",
            "def f():\n    import enginery.transport.b",
            "a.py:2: core imports transport; rank 2 imports only ranks below it, transport has 3",
        ),
        (
            "core/a.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..client import b",
            "a.py:3: core imports client; rank 2 imports only ranks below it, client has 4",
        ),
        (
            "client/a.py",
            "from enginery.engine.b import X",
            "a.py:1: client imports engine; rank 4 imports only ranks below it, engine has 4",
        ),
        (
            "client/a.py",
            "from enginery import Cluster",
            "a.py:1: client imports the front door; import the room that defines the name",
        ),
        ("client/a.py", "import enginery.testing.b", "a.py:1: client imports testing; only tests do"),
        ("client/a.py", "import enginery.odd", "a.py:1: client imports odd; `odd` is not in the rank table"),
        ("testing/a.py", "import enginery.transport.b", ""),
        (
            "testing/a.py",
            "import enginery.client.b",
            "a.py:1: testing imports client, rank 4; testing may import ranks 0 to 3",
        ),
        ("__init__.py", "from enginery.client.b import X", ""),
        ("__main__.py", "from enginery.client.b import X", ""),
    ],
)
def test_ranks(write: Write, path: str, text: str, expected: str) -> None:
    others = {f"{room}/b.py": "" for room in ("core", "transport", "client", "engine", "testing")}
    modules = write({**others, "ids.py": "", path: text})
    assert list(rank_rules.refused_by_rank(modules, RANKS)) == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("path", "text", "refused"),
    [
        ("registry.py", "import importlib\nimportlib.import_module(name)", False),
        ("client/a.py", "import importlib\nimportlib.import_module(name)", True),
        ("client/a.py", "__import__('enginery.cluster')", True),
        ("objects/a.py", "import_module(name)", False),
        ("objects/a.py", "import_module('enginery.cluster')", True),
        ("objects/a.py", "import_module(f'enginery.{name}')", True),
    ],
)
def test_imports_by_string(write: Write, path: str, text: str, refused: bool) -> None:
    assert len(list(rank_rules.refused_by_string(write({path: text})))) == refused


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("import heapq\nfrom collections import deque", 0),
        ("import time", 1),
        ("from os import path", 1),
        ("def f():\n    import logging, random", 2),
        ("import zmq", 1),
        ("def f():\n    open('x')", 1),
        ("async def f():\n    await g()", 2),
    ],
)
def test_the_core(write: Write, text: str, refused: int) -> None:
    assert len(list(forbidden.refused_in_core(write({"core/a.py": text})))) == refused


@pytest.mark.parametrize(
    ("path", "text", "refused"),
    [
        ("transport/a.py", "import zmq", 0),
        ("client/a.py", "import zmq.asyncio", 1),
        ("client/a.py", "def f():\n    from pickle import dumps", 1),
        ("transport/a.py", "from multiprocessing import shared_memory", 0),
        ("transport/a.py", "import multiprocessing.shared_memory", 1),
    ],
)
def test_rooms_of_packages(write: Write, path: str, text: str, refused: int) -> None:
    assert len(list(forbidden.refused_elsewhere(write({path: text})))) == refused


@pytest.mark.parametrize(
    ("path", "text", "refused"),
    [
        ("core/a.py", "import msgspec\nclass A(msgspec.Struct): ...", 0),
        ("core/a.py", "import msgspec\nmsgspec.msgpack.encode(1)", 1),
        ("engine/a.py", "import msgspec.msgpack", 1),
        ("engine/a.py", "from msgspec import json", 1),
        ("protocol/a.py", "import msgspec\nmsgspec.msgpack.encode(1)", 0),
    ],
)
def test_encoders(write: Write, path: str, text: str, refused: int) -> None:
    assert len(list(forbidden.refused_encoders(write({path: text})))) == refused


def test_prints(write: Write) -> None:
    modules = write({"cli/a.py": "print(1)", "core/a.py": "print(1)", "engine/a.py": "rich.print(1)"})
    assert [text.partition(":")[0] for text in forbidden.refused_prints(modules)] == ["a.py"]


def test_sizes_do_not_count_docstrings(write: Write) -> None:
    body = "".join(f"    x = {n}\n" for n in range(68))
    short = f'def short():\n    """One.\n\n    Two.\n    """\n{body}    return x\n'
    text = f"{short}\ndef long():\n    y = 1\n{body}    return x\n"
    modules = write({"core/a.py": text, "core/b.py": "x = 1\n" * 601})
    assert [line.partition(": ")[2] for line in sizes.too_long(modules)] == [
        "enginery.core.a.long has 71 lines; a function fits a screen",
        "601 lines; split it by subject",
    ]


def test_the_graph_is_drawn_and_replaced(write: Write) -> None:
    modules = write(
        {
            "__init__.py": "from enginery.client import a",
            "ids.py": "",
            "core/a.py": "import enginery.ids",
            "client/a.py": "from enginery.ids import X\nfrom enginery.core import a",
        }
    )
    graph = draw_graph(modules)
    assert graph == ["client -> core, ids", "core -> ids", "ids -> nothing"]
    assert read_picture(PLAN) == ["core -> nothing"]
    replaced = replace_picture(PLAN, graph)
    assert read_picture(replaced) == graph
    assert replaced.endswith(PLAN[PLAN.index("## A tour") :])
