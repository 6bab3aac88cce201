"""Who may use what: the core decides and does nothing else; 0MQ, pickles and prints each have their rooms."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.source_tree import Module, calls, dotted, outer_imports, read_modules

PURE = {
    # All that `core/` may import from outside. It has no I/O, clock, thread, randomness or logging: time,
    # random numbers and ids are arguments, so nothing that fetches them is in this list.
    *("__future__", "abc", "array", "bisect", "collections", "contextlib", "copy", "dataclasses", "enum"),
    *("fractions", "functools", "heapq", "hmac", "itertools", "math", "msgspec", "numbers", "operator", "re"),
    *("statistics", "string", "struct", "textwrap", "types", "typing", "typing_extensions"),
}
IMPURE_CALLS = {"open", "print", "input", "breakpoint", "exec", "eval", "__import__"}

KEPT_IN = {
    # Package -> the only rooms that import it.
    "zmq": {"transport"},
    "mmap": {"transport"},
    "pickle": {"objects"},
    "cloudpickle": {"objects"},
    "dill": {"objects"},
    "sqlite3": {"controller"},
    "click": {"cli"},
    "IPython": {"engine", "frontends"},
}

ENCODES = {
    # Rooms with a format of their own. All others speak in records through `protocol.codec`.
    "protocol": "records on the wire",
    "objects": "payloads",
    "transport": "connection files",
    "controller": "the history",
    "host": "orders to the warm process",
    "cli": "-o json",
    "testing": "payloads of scripted tasks",
}


def refused_in_core(modules: list[Module]) -> Iterator[str]:
    core = [module for module in modules if module.room == "core"]
    for module, found, top in outer_imports(core):
        if top not in PURE:
            yield f"{module.where(found.line)}: core imports {found.target}; it should be handed that"
    for module in core:
        for name, call in calls(module):
            if name in IMPURE_CALLS:
                yield f"{module.where(call.lineno)}: core calls {name}(); it decides, shells act"
        for node in ast.walk(module.tree):
            if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
                yield f"{module.where(node.lineno)}: core awaits; it decides, shells act"


def refused_elsewhere(modules: list[Module]) -> Iterator[str]:
    for module, found, top in outer_imports(modules):
        if top in KEPT_IN and module.room not in KEPT_IN[top]:
            yield (
                f"{module.where(found.line)}: {module.room} imports {found.target}, "
                f"which is kept in {', '.join(sorted(KEPT_IN[top]))}"
            )
        if found.target == "multiprocessing.shared_memory":
            yield f"{module.where(found.line)}: an attaching process would unlink the segment"


def refused_encoders(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        if module.room in ENCODES:
            continue
        lines = [found.line for _, found, top in outer_imports([module]) if found.target in ENCODERS]
        lines += [
            node.lineno
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Attribute) and dotted(node) in ENCODERS
        ]
        lines += [
            node.lineno
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ImportFrom)
            and node.module == "msgspec"
            and any(f"msgspec.{alias.name}" in ENCODERS for alias in node.names)
        ]
        for line in lines:
            yield f"{module.where(line)}: {module.room} encodes by itself; use protocol.codec"


ENCODERS = {"msgspec.msgpack", "msgspec.json", "msgspec.yaml", "msgspec.toml"}


def refused_prints(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        if module.room == "cli":
            continue
        for name, call in calls(module):
            if name == "print":
                yield f"{module.where(call.lineno)}: {module.room} prints; only the command line does"


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    return read_modules()


def test_the_core_only_decides(modules: list[Module]) -> None:
    assert "\n".join(refused_in_core(modules)) == ""


def test_packages_stay_in_their_rooms(modules: list[Module]) -> None:
    assert "\n".join(refused_elsewhere(modules)) == ""


def test_records_are_encoded_by_the_codec(modules: list[Module]) -> None:
    assert "\n".join(refused_encoders(modules)) == ""


def test_only_the_command_line_prints(modules: list[Module]) -> None:
    assert "\n".join(refused_prints(modules)) == ""
