"""`import enginery`: names only, heavy rooms on first touch."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import enginery
from enginery import errors

ROOT = Path(__file__).resolve().parents[2]

HEAVY = ("zmq", "msgspec", "asyncio", "click", "rich", "IPython", "numpy", "cloudpickle", "tqdm", "psutil")


@pytest.mark.parametrize("name", enginery.__all__)
def test_every_name_is_there(name: str) -> None:
    home = enginery._ELSEWHERE.get(name, "enginery.errors")
    assert getattr(enginery, name) is getattr(sys.modules[home], name)
    assert name in dir(enginery)
    assert name in vars(enginery)  # the second touch costs nothing


def test_all_errors_of_users_are_names() -> None:
    public = {name for name, value in vars(errors).items() if isinstance(value, type) and name[0] != "_"}
    public = {name for name in public if issubclass(getattr(errors, name), errors.EngineryError)}
    assert public - set(enginery.__all__) == {"Verdict"}  # a base for the others, not for users


def test_what_type_checkers_see_is_what_there_is() -> None:
    tree = ast.parse(Path(enginery.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) == set(enginery.__all__)
    for name, module in seen.items():
        assert enginery._ELSEWHERE.get(name, "enginery.errors") == module


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'enginery' has no attribute 'Klient'"):
        enginery.Klient  # noqa: B018


def test_the_version_is_that_of_the_project() -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        assert tomllib.load(file)["project"]["version"] == enginery.__version__


@pytest.mark.parametrize("statement", ["import enginery", "from enginery.cli.main import main"])
def test_importing_it_imports_nothing_heavy(statement: str) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); {statement}; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not set(HEAVY) & set(output.split())
