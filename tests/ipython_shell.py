"""A shell of IPython's in this process, which leaves nothing of itself behind."""

from __future__ import annotations

import atexit
import builtins
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config


@contextmanager
def interactive_shell(directory: Path) -> Iterator[Any]:
    """The one shell of this process; it keeps its files in that directory, and no history."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ENGINERY_NONINTERACTIVE", "IPP_NONINTERACTIVE"):
            patch.delenv(name, raising=False)
        patch.setenv("IPYTHONDIR", str(directory / "ipython"))
        patch.setattr(builtins, "display", None, raising=False)
        patch.delattr(builtins, "_", raising=False)  # a doctest leaves one, which a shell would respect
        patch.setitem(sys.modules, "__main__", sys.modules["__main__"])
        config = Config()
        config.HistoryManager.enabled = False
        config.InteractiveShell.colors = "nocolor"
        shell = InteractiveShell.instance(config=config)
        try:
            yield shell
        finally:
            atexit.unregister(shell.atexit_operations)
            shell.atexit_operations()
            shell.clear_instance()
