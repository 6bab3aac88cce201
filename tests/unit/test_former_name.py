"""Answering to the name `ipyparallel`, each in an interpreter of its own."""

import os
import subprocess
import sys
from pathlib import Path

from enginery.former_name import VARIABLE

SOURCES = str(Path(__file__).resolve().parents[2] / "src")


def run(code: str, **variables: str) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": SOURCES, **variables}
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.stderr == ""
    return result.stdout.split("\n")[:-1]


def test_modules_are_the_same_objects_and_keep_their_own_names() -> None:
    code = """
import enginery
enginery.install_as_ipyparallel()
enginery.install_as_ipyparallel()
import ipyparallel, ipyparallel.error, enginery.error
from ipyparallel.cluster.cluster import ClusterManager
print(ipyparallel is enginery, ipyparallel.error is enginery.error, ClusterManager is enginery.ClusterManager)
print(enginery.__spec__.name, enginery.error.__spec__.name, ipyparallel.__name__)
import importlib.util
print(importlib.util.find_spec("json").name)
"""
    assert run(code) == ["True True True", "enginery enginery.error enginery", "json"]


def test_what_has_no_counterpart_is_not_found() -> None:
    code = """
import enginery
enginery.install_as_ipyparallel()
try:
    import ipyparallel.apps.ipclusterapp
except ModuleNotFoundError as error:
    print(error)
"""
    (line,) = run(code)
    assert line.startswith("No module named 'ipyparallel.apps': enginery stands in for ipyparallel")


def test_processes_that_inherit_the_environment_answer_too() -> None:
    code = "import enginery, ipyparallel; print(ipyparallel is enginery)"
    assert run(code, **{VARIABLE: "1"}) == ["True"]


def test_an_ipyparallel_that_was_imported_before_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "ipyparallel.py").write_text("mine = True")
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
import ipyparallel as before, enginery
enginery.install_as_ipyparallel()
import ipyparallel
print(before.mine, ipyparallel is enginery)
"""
    assert run(code) == ["True True"]


def test_views_are_asked_to_do_the_same() -> None:
    code = """
import enginery
class View:
    def apply_sync(self, function):
        print(function is enginery.install_as_ipyparallel)
enginery.install_as_ipyparallel(View())
"""
    assert run(code) == ["True"]
