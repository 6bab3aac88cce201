"""IPython's shell on the namespace of the engine. Importing this module imports IPython.

The shell is told where its edges are: what it displays goes to the task's client, what fails is raised as
the task's failure instead of being printed, cells have the names that their client gave them, and nothing is
read from or written to the history of the user who happens to run the engine.
"""

# mypy: allow-untyped-calls

from __future__ import annotations

import atexit
import os
import sys
import warnings
from collections.abc import Callable, Coroutine, Mapping
from types import ModuleType, TracebackType
from typing import Any, NoReturn

from IPython.core import page
from IPython.core.autocall import ExitAutocall
from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell
from traitlets import Type, default
from traitlets.config import Config

from enginery.engine.attaching import connect_info
from enginery.engine.event_loop import EventLoop
from enginery.engine.namespace import Namespace, keep_source
from enginery.engine.output import Show
from enginery.engine.user_code import call
from enginery.objects.displays import pack_display
from enginery.objects.failures import format_remote_traceback

Reply = dict[str, Any]
"""What ``Out[n]`` shows: `execution_count`, and `data` and `metadata` by MIME type."""

INLINE_BACKEND = "module://matplotlib_inline.backend_inline"


class _Compiler(CachingCompiler):
    """Names cells as their client does, and has tracebacks show them as they were written."""

    def __init__(self) -> None:
        super().__init__()
        self.upcoming = ""
        """The name of the cell that is compiled next; what is compiled inside of it has IPython's names."""

    def cache(self, transformed_code: str, number: int = 0, raw_code: str | None = None) -> str:
        name, self.upcoming = self.upcoming, ""
        if not name:
            return str(super().cache(transformed_code, number, raw_code))
        written = transformed_code if raw_code is None else raw_code
        is_line_by_line = len(written.splitlines()) == len(transformed_code.splitlines())
        keep_source(written if is_line_by_line else transformed_code, name)
        return name


class _DisplayHook(DisplayHook):
    """Takes what expressions are worth."""

    shell: EngineShell

    def update_user_ns(self, result: Any) -> None:
        self.shell.restore_histories()
        super().update_user_ns(result)

    def write_output_prompt(self) -> None:
        """The client writes it."""

    def write_format_data(
        self, format_dict: Mapping[str, Any], md_dict: Mapping[str, Any] | None = None
    ) -> None:
        self.shell.on_worth(dict(format_dict), dict(md_dict or {}))

    def log_output(self, format_dict: Mapping[str, Any]) -> None:
        """The client's record of the task has it; here it would only add up."""


class _DisplayPublisher(DisplayPublisher):
    """Sends what is displayed to the task's client."""

    shell: EngineShell

    def publish(
        self,
        data: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        source: object = None,
        *,
        transient: Mapping[str, Any] | None = None,
        update: bool = False,
        **_: object,
    ) -> None:
        self.shell.show("update_display" if update else "display_data", data, metadata, transient)

    def clear_output(self, wait: bool = False) -> None:
        self.shell.show("clear_output", {}, {}, {"wait": bool(wait)})


class _Exit(ExitAutocall):
    """`exit` and `quit`, which take a code here as in any script."""

    def __call__(self, code: object = None) -> NoReturn:
        raise SystemExit(code)


class EngineShell(InteractiveShell):
    """The one shell of an engine process."""

    compile: _Compiler
    compiler_class = Type(_Compiler)
    displayhook_class = Type(_DisplayHook)
    display_pub_class = Type(_DisplayPublisher)

    def __init__(self, *, outlet: Show, loop: EventLoop, **parts: Any) -> None:
        self._outlet = outlet
        self._worth: tuple[dict[str, Any], dict[str, Any]] | None = None
        self._result: ExecutionResult | None = None  # of the task's text, not of those that it runs itself
        super().__init__(**parts)
        self._numbered: dict[int, Any] = self.user_ns["Out"]
        self._histories = {name: self.user_ns[name] for name in ("_ih", "_oh", "_dh", "In", "Out")}
        self.loop_runner = loop.run
        # `obj?` shows its page as a display; there is no terminal that could page.
        self.set_hook("show_in_pager", page.as_hook(page.display_page), 90)

    def init_virtualenv(self) -> None:
        """An engine has the path it was started with, before and after its first cell."""

    def enable_gui(self, gui: str | None = None) -> None:
        if gui not in (None, "inline"):
            raise NotImplementedError(f"an engine shows figures inline; it runs no event loop for {gui!r}")

    @default("exiter")
    def _exiter_default(self) -> ExitAutocall:
        return _Exit(self)

    def ask_exit(self) -> None:
        """`exit()` ends its task; engines are stopped by their cluster."""
        raise SystemExit

    # ------------------------------------------------------------ texts

    def run_text(self, text: str, filename: str, *, silent: bool) -> Reply | None:
        """Execute a cell; what it is worth is in the reply. Raises what it raises."""
        number = self.execution_count
        self._worth = None
        self.restore_histories()
        result = self._run(text, filename, silent=silent)
        error = result.error_in_exec if result.error_before_exec is None else result.error_before_exec
        if error is not None or silent:
            self._show_worth()
        if error is not None:
            try:
                raise error.with_traceback(_from_file(error.__traceback__, filename))
            finally:
                del error, result  # a cycle through the traceback would keep what the cell's frames hold
        if silent:
            return None
        data, metadata = self._take_worth() or ({}, {})
        return {"execution_count": number, "data": data, "metadata": metadata}

    def restore_histories(self) -> None:
        """Put back the names that IPython relies on, if the namespace was cleared."""
        if "_oh" not in self.user_ns:
            self.user_ns.update(self._histories)

    async def run_ast_nodes(self, *args: Any, **options: Any) -> bool:
        if self._result is None:
            self._result = self.displayhook.exec_result
        return bool(await super().run_ast_nodes(*args, **options))

    def _run(self, text: str, filename: str, *, silent: bool) -> ExecutionResult:
        result = None
        try:
            self.compile.upcoming = filename
            cell = self.transform_cell(text)
            coroutine = self.run_cell_async(
                text, store_history=not silent, silent=silent, transformed_cell=cell
            )
            run: Callable[..., ExecutionResult] = (
                self.loop_runner if self.should_run_async(text, transformed_cell=cell) else _run_at_once
            )
            result = call(run, (coroutine,))
            return result
        finally:
            self._result = self.displayhook.exec_result = None
            call(self.events.trigger, ("post_execute",))
            if not silent:
                call(self.events.trigger, ("post_run_cell", result))

    # ------------------------------------------------------------ what it shows

    def show(
        self,
        kind: str,
        data: Mapping[str, Any],
        metadata: Mapping[str, Any] | None,
        transient: Mapping[str, Any] | None,
    ) -> None:
        """Send a display of the caller's task; what is of none is for the log."""
        if not self._outlet(kind, pack_display(data, metadata, transient)):
            sys.stdout.write(f"{data.get('text/plain', '')}\n")  # which knows that this is for no task

    def on_worth(self, data: dict[str, Any], metadata: dict[str, Any]) -> None:
        """An expression has a value: the last one is the reply's, those before it are displays."""
        self._show_worth()
        pack_display(data, metadata)  # what cannot be sent is its task's failure, here as in a display
        self._worth = data, metadata

    def _take_worth(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        worth, self._worth = self._worth, None
        return worth

    def _show_worth(self) -> None:
        worth = self._take_worth()
        if worth is not None:
            self.show("execute_result", *worth, None)

    def showtraceback(self, exc_tuple: Any = None, *_: Any, **__: Any) -> None:
        """Print an error that is not the task's: of a hook, a formatter, a text that its own one runs."""
        error: BaseException | None = (exc_tuple or sys.exc_info())[1]
        result = self._result
        own = () if result is None else (result.error_in_exec, result.error_before_exec)
        if error is not None and not any(error is one for one in own):
            sys.stderr.write(f"{format_remote_traceback(error)}\n")

    def showsyntaxerror(self, *_: Any, **__: Any) -> None:
        if self._result is not None:  # else it is the task's text that does not parse
            self.showtraceback()

    def showindentationerror(self) -> None:
        self.showsyntaxerror()

    def _format_exception_for_storage(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {}  # kept for each cell that ever failed, and nobody asks for it here

    # ------------------------------------------------------------ its ends

    def forget(self) -> list[Any]:
        """Let go of the values that it has numbered, from any thread; returns them for the caller to drop."""
        hook, numbered = self.displayhook, self._numbered
        values = [*numbered.values(), hook._, hook.__, hook.___, self._worth]
        numbered.clear()
        hook._ = hook.__ = hook.___ = ""
        self.last_execution_result = None
        return values

    def close(self) -> None:
        atexit.unregister(self.atexit_operations)
        self.atexit_operations()
        self.clear_instance()


def make_shell(namespace: Namespace, *, show: Show, loop: EventLoop) -> EngineShell:
    """The shell of this process, on this namespace."""
    # Cells whose figures IPython is to show need not say so first, as in any notebook.
    os.environ.setdefault("MPLBACKEND", INLINE_BACKEND)
    warnings.filterwarnings("ignore", message="To exit: use 'exit'", category=UserWarning)
    main: ModuleType | None = sys.modules["__main__"]
    if main is None or vars(main) is not namespace:
        main = None
    config = Config()
    config.HistoryManager.enabled = False  # else it opens the user's history, with a thread for each engine
    config.InteractiveShell.colors = "nocolor"
    shell = EngineShell.instance(outlet=show, loop=loop, user_module=main, user_ns=namespace, config=config)
    shell.magics_manager.register_function(_show_connect_info, "line", "connect_info")
    return shell


def _show_connect_info(line: str) -> None:
    """``%connect_info``: how to attach to this engine, as ipykernel's magic of this name tells of kernels."""
    sys.stdout.write(connect_info())


def _run_at_once(coroutine: Coroutine[Any, Any, ExecutionResult]) -> ExecutionResult:
    """Run a cell that awaits nothing. Without a loop around it, it may run loops of its own."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("this text awaits something, and the shell took it for one that does not")


def _from_file(traceback: TracebackType | None, filename: str) -> TracebackType | None:
    """A traceback without the shell's frames above those of the cell."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename != filename:
        traceback = traceback.tb_next
    return traceback
