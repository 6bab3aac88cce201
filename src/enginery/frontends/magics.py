"""``%px``, ``%%px``, ``%pxresult``, ``%pxconfig``, ``%autopx``: IPython's cells on engines.

Each view that is activated has magics of its own, named with its suffix. What ``%pxconfig`` sets belongs to
the magics, not to the view: that may be somebody else's too.
"""

# mypy: allow-untyped-calls

from __future__ import annotations

import sys
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, magics_class, no_var_expand
from IPython.core.magic_arguments import parse_argstring

from enginery.client.flags import flag_names
from enginery.client.results.async_result import AsyncResult
from enginery.client.views.direct import DirectView
from enginery.errors import AlreadyDisplayedError, ClientClosed
from enginery.frontends.options import (
    FOLD,
    KEEP,
    LOCAL,
    OUTPUT,
    SETTINGS,
    Settings,
    default_settings,
    split_line,
    takes,
)
from enginery.frontends.redirection import CellRedirection
from enginery.frontends.waiting import BlockingWait, failure_of

_PX_OPTIONS = [*SETTINGS, *OUTPUT, *KEEP, *LOCAL]


@magics_class
class ParallelMagics(Magics):
    """Run what is typed on the engines of a view.

    >>> ParallelMagics(get_ipython(), rc[:], suffix="_all")             # doctest: +SKIP
    """

    view: DirectView
    """Where cells run; ``%pxconfig --targets`` picks another one."""
    settings: Settings
    last_result: AsyncResult | None
    """Of the last cell."""

    def __init__(self, shell: Any, view: DirectView, suffix: str = "") -> None:
        super().__init__(shell)
        self.view = view
        self.suffix = suffix
        self.settings = default_settings()
        self.last_result = None
        self._redirection = CellRedirection(shell, f"px{suffix}")
        lines = {"px": self.px, "pxresult": self.result, "pxconfig": self.pxconfig, "autopx": self.autopx}
        self.magics = {
            "line": {f"{name}{suffix}": method for name, method in lines.items()},
            "cell": {f"px{suffix}": self.cell_px},
        }
        if not suffix:
            self.magics["line"]["result"] = self.result

    def __repr__(self) -> str:
        return f"<ParallelMagics %px{self.suffix} on {self.view!r}>"

    @property
    def is_of_closed_client(self) -> bool:
        """Whether its client has left its cluster, so that nothing can be run any more."""
        try:
            _ = self.view.client.session
        except ClientClosed:
            return True
        return False

    def retire(self) -> None:
        """Others are registered in its place."""
        self._redirection.stop()
        configurables: list[Any] = self.shell.configurables  # type: ignore[union-attr]
        if self in configurables:
            configurables.remove(self)

    # ------------------------------------------------------------ the magics

    @no_var_expand
    def px(self, line: str) -> AsyncResult | None:
        """Run a line on the engines. The long options of ``%%px`` may stand before it.

        ::

            In [1]: %px import os; os.getpid()
            Out[0:1]: 4711
            Out[1:1]: 4712

            In [2]: %px --targets 0 %timeit sum(range(100))
        """
        options, code = split_line(line, _PX_OPTIONS)
        if not code:
            raise UsageError(f"%px{self.suffix} needs a line to run on the engines")
        return self._run(code, self._parse(self.cell_px, options))

    @takes("px", *_PX_OPTIONS)
    def cell_px(self, line: str, cell: str) -> AsyncResult | None:
        """Run a cell on the engines.

        ::

            In [3]: %%px --targets ::2
               ...: import os
               ...: print(os.getpid())
            [stdout:0] 4711
            [stdout:2] 4713
        """
        return self._run(cell, self._parse(self.cell_px, line))

    @takes("pxresult", *OUTPUT, *FOLD)
    def result(self, line: str) -> None:
        """Wait for the last cell that was run on the engines, and show what it has shown.

        ::

            In [4]: %px --noblock os.getpid()
            In [5]: %pxresult
            Out[0:4]: 4711
            Out[1:4]: 4712
        """
        options = self._parse(self.result, line)
        if self.last_result is None:
            raise UsageError(f"there is no result yet; run something with %px{self.suffix} first")
        self._keep(self.last_result, options.out)
        self._show(self.last_result, self.settings.changed_by(options), options.groupby)

    @takes("pxconfig", *SETTINGS)
    def pxconfig(self, line: str) -> None:
        """Set how cells are run from now on.

        ::

            In [6]: %pxconfig --noblock --targets 0,1
        """
        options = self._parse(self.pxconfig, line)
        if options.targets is not None:
            self.view = self._view_of(options.targets)
        self.settings = self.settings.changed_by(options)

    def autopx(self, line: str) -> None:
        """Run all cells on the engines from now on; again: run them here.

        Cells that begin with one of these magics still are for here.
        """
        if line.strip():
            raise UsageError(f"%autopx{self.suffix} has no options; set them with %pxconfig{self.suffix}")
        is_on = self._redirection.is_on
        if is_on:
            self._redirection.stop()
        else:
            self._redirection.start()
        sys.stdout.write(f"%autopx{self.suffix} {'disabled' if is_on else 'enabled'}\n")

    # ------------------------------------------------------------ inside

    def _parse(self, method: Any, line: str) -> Any:
        return parse_argstring(method, line)

    def _view_of(self, targets: Any) -> DirectView:
        flags = {name: getattr(self.view, name) for name in flag_names(is_balanced=False)}
        return self.view.client.direct_view(targets, **flags)

    def _run(self, code: str, options: Any) -> AsyncResult | None:
        view = self.view if options.targets is None else self._view_of(options.targets)
        settings = self.settings.changed_by(options)
        block = view.block if settings.block is None else settings.block
        if settings.verbose:
            how = "Parallel" if block else "Async parallel"
            sys.stdout.write(f"{how} execution on engine(s): {view.targets}\n")
        result = self.last_result = view.execute(code, silent=False, block=False, keep=options.keep)
        self._keep(result, options.out)
        local = self._run_here(code) if options.local else None
        if not block:
            return result
        # Who asks for an order wants to see it, which needs the end; unless told otherwise.
        stream = settings.stream and (options.groupby is None or options.stream is True)
        BlockingWait(result, settings, view.client, stream=stream).run()
        if stream:
            result.display_outputs(options.groupby or "type", result_only=True, fold=settings.fold)
            failure = failure_of(result)
            if failure is not None:
                raise AlreadyDisplayedError(failure)
        else:
            self._show(result, settings, options.groupby)
        if local is not None:
            raise AlreadyDisplayedError(local)
        return None

    def _show(self, result: AsyncResult, settings: Settings, groupby: str | None) -> None:
        result.display_outputs(groupby or "type", fold=settings.fold)
        failure = failure_of(result)
        if failure is not None:
            raise failure

    def _keep(self, result: AsyncResult, name: str | None) -> None:
        if name is not None:
            assert self.shell is not None
            self.shell.user_ns[name] = result

    def _run_here(self, cell: str) -> BaseException | None:
        """Run a cell in this process, too; its error, which the shell has shown."""
        assert self.shell is not None
        with self._redirection.paused():
            done = self.shell.run_cell(cell)
        error: BaseException | None = done.error_before_exec or done.error_in_exec
        return error
