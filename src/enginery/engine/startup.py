"""What an engine does before its first task: files and text of the user's, in the namespace.

The files that IPython runs in each of the user's shells come first, if they are asked for; then source text,
then a script. Text may have magics, as any that is executed, and so may IPython's files that end in
``.ipy``; all others are Python files.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from enginery.engine.namespace import Namespace
from enginery.engine.user_code import call
from enginery.ids import EngineId
from enginery.protocol.specs import EngineSpec

ENGINE_VARIABLE = "ENGINERY_ENGINE_ID"
CLIENT_FILE_VARIABLE = "ENGINERY_CONNECTION_FILE"


class StartupFailed(Exception):
    """Ends an engine that is not what its user wanted."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__(reason)
        self.reason = reason


def tell_surroundings(engine: EngineId, client_file: str) -> None:
    """Tell user code, and what it starts, which engine of which cluster this is."""
    os.environ[ENGINE_VARIABLE] = str(engine)
    os.environ.pop(CLIENT_FILE_VARIABLE, None)  # of a cluster that started this one from a task
    if client_file:
        os.environ[CLIENT_FILE_VARIABLE] = client_file


def run_startup(spec: EngineSpec, namespace: Namespace, execute: Callable[[str, str], object]) -> None:
    """Execute what the spec names. Raises whatever that raises, or that IPython is not installed."""
    for file in ipython_files() if spec.run_startup else ():
        if file.suffix == ".ipy":
            execute(file.read_text(encoding="utf-8"), str(file))
        else:
            _run_file(file, namespace)
    if spec.startup_code:
        execute(spec.startup_code, "<startup>")
    if spec.startup_script:
        _run_file(Path(spec.startup_script).expanduser(), namespace)


def ipython_files() -> list[Path]:
    """IPython's own startup files, those of its default profile, in the order in which it runs them."""
    from IPython.paths import get_ipython_dir

    directory = Path(get_ipython_dir()) / "profile_default" / "startup"
    return sorted((*directory.glob("*.py"), *directory.glob("*.ipy")))


def _run_file(path: Path, namespace: Namespace) -> None:
    source = path.read_bytes()  # bytes, because the script says itself how it is encoded
    namespace["__file__"] = str(path)
    try:
        call(exec, (compile(source, str(path), "exec", dont_inherit=True), namespace))
    finally:
        namespace.pop("__file__", None)
