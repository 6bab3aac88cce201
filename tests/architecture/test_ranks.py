"""A module imports only from rooms of a lower rank, or from its own: the table is in ARCHITECTURE.md.

Imports inside functions and under TYPE_CHECKING count. What a room offers on behalf of a higher one is found
by name in `enginery.registry`; everywhere else an import by string is refused, or it would be the way around.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.source_tree import (
    FRONT_DOOR,
    PACKAGE,
    Module,
    calls,
    inner_imports,
    read_modules,
    read_plan,
    read_ranks,
)

TESTING_UP_TO = 3
"""`testing` imports ranks 0 to 3, and no room imports it."""

REGISTRY = "enginery.registry"

BY_USERS_NAME = {
    # These import what *users* name, to rebuild what travels by reference. A constant is refused here too.
    "enginery.objects": "modules and classes that travel by reference",
    "enginery.engine": "modules that @require names, the start-up code of an engine",
    "enginery.host": "modules that the warm process is asked to import before it forks",
}


def refused_by_rank(modules: list[Module], ranks: dict[str, int]) -> Iterator[str]:
    """A sentence for each import that the table does not allow."""
    for module, found, room in inner_imports(modules):
        if module.room in (FRONT_DOOR, room):
            continue
        where = f"{module.where(found.line)}: {module.room} imports {room}"
        if room == FRONT_DOOR:
            yield f"{where}; import the room that defines the name"
        elif room == "testing":
            yield f"{where}; only tests do"
        elif module.room not in ranks or room not in ranks:
            missing = module.room if module.room not in ranks else room
            yield f"{where}; `{missing}` is not in the rank table"
        elif module.room == "testing":
            if ranks[room] > TESTING_UP_TO:
                yield f"{where}, rank {ranks[room]}; testing may import ranks 0 to {TESTING_UP_TO}"
        elif ranks[room] >= ranks[module.room]:
            yield f"{where}; rank {ranks[module.room]} imports only ranks below it, {room} has {ranks[room]}"


def refused_by_string(modules: list[Module]) -> Iterator[str]:
    """A sentence for each import by string that is not the registry's."""
    for module in modules:
        if module.name == REGISTRY:
            continue
        for name, call in calls(module):
            if name.rpartition(".")[2] not in ("import_module", "__import__"):
                continue
            argument = call.args[0] if call.args else None
            allowed = any(module.name == at or module.name.startswith(at + ".") for at in BY_USERS_NAME)
            if not allowed or isinstance(argument, ast.Constant | ast.JoinedStr | ast.BinOp):
                where = module.where(call.lineno)
                yield f"{where}: {module.room} imports by string; register the name in {REGISTRY}"


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    return read_modules()


def test_imports_go_down(modules: list[Module]) -> None:
    assert "\n".join(refused_by_rank(modules, read_ranks(read_plan()))) == ""


def test_every_room_has_a_rank(modules: list[Module]) -> None:
    ranks = read_ranks(read_plan())
    assert {module.room for module in modules} - {FRONT_DOOR} - set(ranks) == set()


def test_only_the_registry_imports_by_string(modules: list[Module]) -> None:
    assert "\n".join(refused_by_string(modules)) == ""


def test_the_package_was_found(modules: list[Module]) -> None:
    assert {f"{PACKAGE}.ids", f"{PACKAGE}.protocol.messages"} <= {module.name for module in modules}
