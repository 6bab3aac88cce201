"""`import enginery`: names only, heavy rooms on first touch."""

import ast
import importlib
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
    block = next(node for node in tree.body if isinstance(node, ast.If))  # if TYPE_CHECKING
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) == set(enginery.__all__)
    for name, module in seen.items():
        assert enginery._ELSEWHERE.get(name, "enginery.errors") == module


IPYPARALLEL = (
    # All that `dir(ipyparallel)` shows of version 9, names with an underscore left out.
    *("ALL_COMPLETED", "AlreadyDisplayedError", "AsyncHubResult", "AsyncMapResult", "AsyncResult"),
    *("BroadcastView", "Client", "Cluster", "ClusterManager", "CompositeError", "Dependency"),
    *("DependencyTimeout", "DirectView", "EngineError", "FIRST_COMPLETED", "FIRST_EXCEPTION"),
    *("IPythonError", "ImpossibleDependency", "InvalidDependency", "KernelError", "LoadBalancedView"),
    *("MultipleInstanceError", "NoEnginesRegistered", "ParallelFunction", "PrePickled", "Reference"),
    *("RemoteError", "RemoteFunction", "TaskAborted", "TaskRejectError", "TaskTimeout", "TimeoutError"),
    *("UnmetDependency", "ViewExecutor", "bind_kernel", "builtins", "can", "can_map", "client", "cluster"),
    *("collect_exceptions", "controller", "depend", "dependent", "deserialize_object", "error"),
    *("interactive", "load_jupyter_server_extension", "os", "pack_apply_message", "parallel"),
    *("register_joblib_backend", "remote", "require", "serialize", "serialize_object", "sys", "traceback"),
    *("traitlets", "uncan", "uncan_map", "unpack_apply_message", "unwrap_exception", "use_cloudpickle"),
    *("use_dill", "use_pickle", "util", "version_info", "wrap_exception"),
)
LEAKED = {"builtins", "os", "sys", "traceback"}
"""Modules of the standard library that ipyparallel imports and does not hide."""

OLD_PATHS = {
    "client.asyncresult": ("AsyncResult", "AsyncMapResult", "AsyncHubResult", "FIRST_EXCEPTION"),
    "client.client": ("Client",),
    "client.magics": ("ParallelMagics",),
    "client.remotefunction": ("ParallelFunction", "RemoteFunction", "parallel", "remote"),
    "client.view": ("BroadcastView", "DirectView", "LazyMapIterator", "LoadBalancedView", "ViewExecutor"),
    "cluster": ("Cluster", "ClusterManager", "clean_cluster_files"),
    "cluster.cluster": ("Cluster", "ClusterManager", "clean_cluster_files"),
    "cluster.launcher": ("LauncherError", "NotRunning", "ProcessStateError", "UnknownStatus"),
    "controller.dependency": ("Dependency", "depend", "dependent", "require"),
    "datapub": ("publish_data",),
    "error": ("CompositeError", "RemoteError", "TimeoutError", "collect_exceptions", "wrap_exception"),
    "serialize": ("PrePickled", "Reference", "can", "can_map", "serialize_object", "use_dill"),
    "util": ("interactive",),
}


def names_absent_by(heading: str) -> str:
    """What the first column of a table in docs/migrating.md names; each name has something beside it."""
    text = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
    (body,) = (part.partition("\n")[2] for part in text.split("\n## ") if part.startswith(heading))
    rows = [line.strip("|").split(" | ") for line in body.splitlines() if line.startswith("| ")]
    assert all(len(row) == 2 and row[1].strip() for row in rows)
    return "\n".join(row[0].partition(" but for ")[0] for row in rows)


@pytest.mark.parametrize("name", [name for name in IPYPARALLEL if name not in LEAKED])
def test_every_name_of_ipyparallel_is_here_or_refused_with_a_replacement(name: str) -> None:
    absent = f"`{name}`" in names_absent_by("Not yet") + names_absent_by("Not here")
    assert hasattr(enginery, name) != absent
    assert (name in dir(enginery)) != absent


@pytest.mark.parametrize("path", OLD_PATHS)
def test_old_module_paths_lead_to_the_same_objects(path: str) -> None:
    module = importlib.import_module(f"enginery.{path}")
    for name in OLD_PATHS[path]:
        assert getattr(module, name) is getattr(enginery, name, getattr(module, name))
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        module.Nothing  # noqa: B018


def test_all_of_an_old_path_can_be_imported() -> None:
    for path in ("error", "serialize", "datapub", "util", "client.view", "cluster.launcher"):
        module = importlib.import_module(f"enginery.{path}")
        assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'enginery' has no attribute 'Klient'"):
        enginery.Klient  # noqa: B018


def test_the_version_is_that_of_the_project() -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        assert tomllib.load(file)["project"]["version"] == enginery.__version__
    assert ".".join(map(str, enginery.version_info)) == enginery.__version__


@pytest.mark.parametrize("statement", ["import enginery", "from enginery.cli.main import main"])
def test_importing_it_imports_nothing_heavy(statement: str) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); {statement}; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not set(HEAVY) & set(output.split())
