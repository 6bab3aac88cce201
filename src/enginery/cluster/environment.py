"""What the processes of a cluster inherit from the one that starts it."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

START_METHODS = ("fork", "spawn")
START_METHOD_VARIABLES = ("ENGINERY_START_METHOD", "ENGINERY_TEST_START_METHOD")
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])


def choose_start_method(given: str | None) -> str:
    """Return how a host starts processes: as given, as the environment says, or as the platform bears.

    Raises ValueError for anything but "fork" and "spawn".
    """
    source, wanted = "start_method", given
    for variable in START_METHOD_VARIABLES:
        if not wanted:
            source, wanted = variable, os.environ.get(variable)
    if not wanted:
        # Elsewhere system libraries start threads behind Python's back, and a forked child may hang.
        return "fork" if sys.platform == "linux" else "spawn"
    if wanted not in START_METHODS:
        raise ValueError(f"{source} is {wanted!r}; it can be 'fork' or 'spawn'")
    return wanted


def host_environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a host: this process's, changed, with an equal way to find modules.

    What this process can import, engines can: entries of `sys.path` that no new interpreter would have by
    itself (the script's directory, an editor's additions) are handed on in PYTHONPATH.
    """
    environment = {**os.environ, **(changes or {})}
    inherited = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    own = _path_of_this_process()
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*inherited, *own]))
    return environment


def _path_of_this_process() -> list[str]:
    usual = {os.path.realpath(path) for path in _usual_path()}
    # "" is the current directory, as interactive sessions have it.
    entries = [os.path.abspath(entry) for entry in sys.path]
    found = [entry for entry in entries if os.path.realpath(entry) not in usual]
    if os.path.realpath(_PACKAGE_ROOT) not in usual and _PACKAGE_ROOT not in found:
        found.append(_PACKAGE_ROOT)
    return found


def _usual_path() -> list[str]:
    """What every interpreter of this installation finds by itself, and where its commands lie."""
    paths = sysconfig.get_paths()
    version = f"python{sys.version_info.major}{sys.version_info.minor}"
    return [
        *(paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")),
        os.path.join(paths["stdlib"], "lib-dynload"),
        os.path.join(sys.base_prefix, sys.platlibdir, f"{version}.zip"),
        *site.getsitepackages(),
        *([site.getusersitepackages()] if site.ENABLE_USER_SITE else []),
    ]
