"""``%autopx``: cells go to the engines instead of being run here.

All ways to run a cell meet in the shell's `run_cell_async`, in a terminal and in a kernel. There the cell is
replaced by a call of the cell magic, so its history, its number and its errors stay those of any cell.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_FOR_HERE = re.compile(r"\s*%%?(?:px|autopx|result)\w*")
"""Cells that begin with a magic of ours: engines do not have them."""


class CellRedirection:
    """Sends what is typed to a cell magic, while it is on."""

    def __init__(self, shell: Any, magic_name: str) -> None:
        self._shell = shell
        self._magic_name = magic_name
        self._original: Any = None
        self._is_paused = False

    def __repr__(self) -> str:
        return f"<CellRedirection to %%{self._magic_name}: {'on' if self.is_on else 'off'}>"

    @property
    def is_on(self) -> bool:
        return _redirection_of(self._shell) is self

    def start(self) -> None:
        """Redirect all further cells; what another one has redirected until now comes here."""
        other = _redirection_of(self._shell)
        if other is not None:
            other.stop()
        self._original = original = self._shell.run_cell_async

        @functools.wraps(original)  # kernels look at its signature
        async def run_cell_async(
            raw_cell: str, store_history: bool = False, silent: bool = False, *rest: Any, **more: Any
        ) -> Any:
            if not (silent or self._is_paused or _FOR_HERE.match(raw_cell)):
                # A cell that does not parse here may be one there.
                more["preprocessing_exc_tuple"] = None
                more["transformed_cell"] = (
                    f"get_ipython().run_cell_magic({self._magic_name!r}, '', {raw_cell!r})\n"
                )
            return await original(raw_cell, store_history, silent, *rest, **more)

        run_cell_async.redirection = self  # type: ignore[attr-defined]
        self._shell.run_cell_async = run_cell_async

    def stop(self) -> None:
        """Have cells run here again."""
        if not self.is_on:
            return
        if getattr(self._original, "__func__", None) is type(self._shell).run_cell_async:
            del self._shell.run_cell_async
        else:
            self._shell.run_cell_async = self._original  # of who had replaced it before

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Cells run inside of the block run here."""
        before, self._is_paused = self._is_paused, True
        try:
            yield
        finally:
            self._is_paused = before


def _redirection_of(shell: Any) -> CellRedirection | None:
    return getattr(shell.run_cell_async, "redirection", None)
