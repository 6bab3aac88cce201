"""Source text, executed in the namespace: plainly as long as that does the same, then in IPython's shell.

A shell takes 70 ms and 7 MB to start, and 0.1 ms for a text that plain Python runs in 5 µs. So there is none
until something asks for it: a text that is not silent, that Python cannot compile, or that means something
else to a shell; a call of `get_ipython` or `display`; a task that imports IPython. From then on all texts run
in it. Where IPython is not installed, plain texts run all the same.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import keyword
import re
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from enginery.engine.event_loop import EventLoop
from enginery.engine.namespace import Namespace, keep_source
from enginery.engine.output import Show
from enginery.engine.user_code import call, uninterrupted

if TYPE_CHECKING:
    from enginery.engine.shell import EngineShell

Reply = dict[str, Any]
"""What ``Out[n]`` shows: `execution_count`, and `data` and `metadata` by MIME type."""

MISSING = (
    "it needs IPython, which is not installed where this engine runs: magics, !commands, top-level await and "
    "display are its work; `pip install ipython` there"
)
_FOR_A_SHELL = frozenset(
    {"In", "Out", "_ih", "_oh", "_dh", "exit", "quit", "__future__", "matplotlib", "pylab"}
)
"""Names that a shell provides, or that mean more to it than to `exec`."""
_FIRST_NAME = re.compile(r"\s*([^\W\d]\w*)")


class Execution:
    """Executes texts one after the other and numbers those that are not silent, failing ones too."""

    def __init__(self, namespace: Namespace, *, show: Show | None = None) -> None:
        self._namespace = namespace
        self._show: Show = show or (lambda kind, content: False)
        self._loop = EventLoop()
        self._shell: EngineShell | None = None
        self._plain_count = 0
        self._importing = _ImportWatch(self)

    def __repr__(self) -> str:
        return f"<Execution, {self.count} texts numbered, {'plain' if self._shell is None else 'in a shell'}>"

    @property
    def count(self) -> int:
        """Of the texts that were numbered."""
        return self._plain_count if self._shell is None else self._shell.execution_count - 1

    def run(self, text: str, filename: str, *, silent: bool) -> Reply | None:
        """Execute a text; what its last line is worth is in the reply, which silent ones do not have."""
        if self._shell is None and silent:
            code = self._compile_plain(text, filename)
            if code is not None:
                call(exec, (code, self._namespace))
                return None
        try:
            shell = self.shell()
        except ModuleNotFoundError as error:
            if error.name != "IPython":
                raise
        else:
            return shell.run_text(text, filename, silent=silent)
        return self._run_without(text, filename, silent=silent)

    @uninterrupted
    def shell(self) -> EngineShell:
        """The shell, started if need be. Raises ModuleNotFoundError if IPython is not installed."""
        if self._shell is None:
            self._importing.end()
            try:
                from enginery.engine.shell import make_shell
            except ModuleNotFoundError as error:
                if error.name is None or error.name.partition(".")[0] != "IPython":
                    raise
                raise ModuleNotFoundError(MISSING, name="IPython") from error
            self._take_back_names()
            self._shell = make_shell(self._namespace, show=self._show, loop=self._loop)
            self._shell.execution_count = self._plain_count + 1
        return self._shell

    def take_left_over(self) -> bool:
        """Whether texts that were run since this was asked last have left coroutines running."""
        return self._loop.take_left_over()

    def forget(self) -> list[Any]:
        """Let go of the values that a shell has numbered, from any thread; returns them."""
        return [] if self._shell is None else self._shell.forget()

    # ------------------------------------------------------------ the process

    def offer_shell(self) -> None:
        """Have tasks of all kinds find `get_ipython`, `display` and what they import from IPython at work.

        `display` is everybody's, as in IPython. `get_ipython` is the namespace's alone: libraries look for
        it to learn whether they run in a shell, and must not start one.
        """
        self._namespace["get_ipython"] = self._get_ipython
        builtins.display = self._display  # type: ignore[attr-defined]
        self._importing.begin()

    def close(self) -> None:
        """Take everything out of the process again."""
        self._importing.end()
        self._take_back_names()
        if self._shell is not None:
            self._shell.close()
            self._shell = None
        self._loop.close()

    def _take_back_names(self) -> None:
        if self._namespace.get("get_ipython") == self._get_ipython:
            del self._namespace["get_ipython"]
        if getattr(builtins, "display", None) == self._display:
            del builtins.display  # type: ignore[attr-defined]

    def _get_ipython(self) -> EngineShell:
        return self.shell()

    def _display(self, *objects: Any, **options: Any) -> Any:
        self.shell()
        display: Any = builtins.display  # type: ignore[attr-defined]
        return display(*objects, **options)  # which is IPython's by now

    # ------------------------------------------------------------ without a shell

    def _compile_plain(self, text: str, filename: str) -> CodeType | None:
        """The text's code, if a shell would do the same with it."""
        try:
            module = ast.parse(text, filename)
            code = compile(module, filename, "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
        if not _FOR_A_SHELL.isdisjoint(_names_in(code)):
            return None
        if len(module.body) == 1 and isinstance(module.body[0], ast.Expr) and self._may_be_magic(text):
            return None
        keep_source(text, filename)
        return code

    def _may_be_magic(self, text: str) -> bool:
        """Whether a line, such as ``ls -l``, begins with a name that is nobody's: perhaps a magic."""
        found = _FIRST_NAME.match(text)
        if found is None or keyword.iskeyword(name := found[1]):
            return False
        return name not in self._namespace and not hasattr(builtins, name)

    def _run_without(self, text: str, filename: str, *, silent: bool) -> Reply | None:
        """Execute plain Python where there is no IPython."""
        if not silent:
            self._plain_count += 1
        keep_source(text, filename)
        try:
            module = ast.parse(text, filename)
            last = module.body[-1] if module.body and not silent else None
            if isinstance(last, ast.Expr):
                del module.body[-1]
            code = compile(module, filename, "exec", dont_inherit=True)
            worth = (
                compile(ast.Expression(last.value), filename, "eval", dont_inherit=True)
                if isinstance(last, ast.Expr)
                else None
            )
        except SyntaxError as error:
            error.add_note(f"If this is more than plain Python, {MISSING}.")
            raise
        call(exec, (code, self._namespace))
        value = None if worth is None else call(eval, (worth, self._namespace))
        if silent:
            return None
        data = {} if value is None else {"text/plain": call(repr, (value,))}
        return {"execution_count": self._plain_count, "data": data, "metadata": {}}


def _names_in(code: CodeType) -> set[str]:
    """Names that the code and the functions in it ask for; of modules the first part."""
    names = {name.partition(".")[0] for name in code.co_names}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names_in(constant)
    return names


class _ImportWatch:
    """Starts the shell as soon as a task imports IPython: its `display` only works where there is one."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    def begin(self) -> None:
        if "IPython" not in sys.modules:
            sys.meta_path.insert(0, self)

    def end(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "IPython" or threading.current_thread() is not threading.main_thread():
            return None
        self.end()
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_start(module: ModuleType) -> None:
                execute(module)
                self._execution.shell()

            spec.loader.exec_module = execute_and_start  # type: ignore[method-assign]
        return spec
