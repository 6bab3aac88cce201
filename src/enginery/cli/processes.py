"""Entries of the processes of a cluster, each started with a spec: ``host NAME --spec -`` and the like.

A spec is JSON, on the command line or, with ``-``, one line of standard input. Here the rooms of one rank
meet: a host is handed what it forks as values.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from enginery import registry
from enginery.observe.logs import set_up_logging
from enginery.protocol.specs import ControllerSpec, EngineSpec, HostSpec

if TYPE_CHECKING:
    from enginery.host.entries import Entries


def run(arguments: Sequence[str]) -> int:
    """Run the process that ``ROLE [NAME] --spec JSON`` describes; return its exit code.

    Raises SystemExit with a sentence for anything else.
    """
    role, *rest = arguments
    if role not in _ROLES or "--spec" not in rest[:-1]:
        raise SystemExit(f"enginery: --spec goes with one of {', '.join(_ROLES)} and has a value")
    set_up_logging()
    return _ROLES[role](_read_spec(rest[rest.index("--spec") + 1]))


def entries() -> Entries:
    """What a host forks; imports all of it, so that forked processes need not."""
    import enginery.controller.main
    import enginery.engine.main  # noqa: F401
    from enginery.host.entries import Entries

    return Entries(controller=_become_controller, engine=_become_engine)


def _become_controller(spec: ControllerSpec) -> int:
    from enginery.controller.main import run_controller
    from enginery.host.files import read_keys

    return run_controller(spec, version=registry.find("__version__"), keys=read_keys(spec.directory))


def _become_engine(spec: EngineSpec) -> int:
    from enginery.engine.main import run_engine

    if spec.log:  # what goes to standard error is taken for output of its tasks
        set_up_logging(path=spec.log)
    return run_engine(spec, version=registry.find("__version__"))


def _run_host(spec: str) -> int:
    from enginery.host.main import run_host

    return run_host(msgspec.json.decode(spec, type=HostSpec), entries())


def _run_controller(spec: str) -> int:
    return _become_controller(msgspec.json.decode(spec, type=ControllerSpec))


def _run_engine(spec: str) -> int:
    return _become_engine(msgspec.json.decode(spec, type=EngineSpec))


_ROLES: dict[str, Callable[[str], int]] = {
    "host": _run_host,
    "controller": _run_controller,
    "engine": _run_engine,
}


def _read_spec(given: str) -> str:
    if given != "-":
        return given
    spec = sys.stdin.readline()
    # Nothing else is read from there, and what is forked later must not hold the pipe.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return spec
