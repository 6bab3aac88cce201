"""Answering to the name ``ipyparallel``, for libraries that import it.

A finder at the front of the import system's list gives the modules of this package for those of that name:
the same objects, so nothing exists twice. What has no counterpart here is not found, as any missing module.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from enginery import registry

FORMER = "ipyparallel"
OURS = "enginery"
VARIABLE = "ENGINERY_AS_IPYPARALLEL"
"""Set in the environment, every process that imports enginery answers to that name: engines inherit it."""


def install_as_ipyparallel(*views: Any) -> None:
    """Have ``import ipyparallel`` give this package: here, and on engines that are started from here later.

    Engines that run already are reached through `views`. An ipyparallel that is installed is out of reach
    then; modules that have imported it before keep what they have. Repeating it does nothing.

    >>> install_as_ipyparallel()                                        # doctest: +SKIP
    >>> import ipyparallel                                              # doctest: +SKIP
    >>> ipyparallel.Client is enginery.Client                           # doctest: +SKIP
    True
    """
    os.environ[VARIABLE] = "1"
    answer_to_former_name()
    for view in views:
        view.apply_sync(install_as_ipyparallel)


def answer_to_former_name() -> None:
    """The part of it that is for this process alone."""
    if any(isinstance(finder, FormerNameFinder) for finder in sys.meta_path):
        return
    for name in [name for name in sys.modules if name == FORMER or name.startswith(FORMER + ".")]:
        del sys.modules[name]
    sys.meta_path.insert(0, FormerNameFinder())


class FormerNameFinder(MetaPathFinder, Loader):
    """Finds ``ipyparallel.x`` in ``enginery.x``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != FORMER and not fullname.startswith(FORMER + "."):
            return None
        module = registry.find_module(OURS + fullname.removeprefix(FORMER))
        if module is None:
            raise ModuleNotFoundError(
                f"No module named {fullname!r}: enginery stands in for ipyparallel and has nothing for it; "
                "docs/migrating.md says what to use instead",
                name=fullname,
            )
        return ModuleSpec(fullname, self, is_package=hasattr(module, "__path__"))

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module = registry.find_module(OURS + spec.name.removeprefix(FORMER))
        assert module is not None
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # It has run, under its own name. The import system has just put the other one's spec into it.
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state
