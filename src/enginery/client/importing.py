"""Import statements that hold here and on engines: `DirectView.sync_imports`.

Inside its `with` block, `__import__` is a function that lets statements of that block through and then has
the engines run the same statement. What a statement binds (``as``, ``from``) is not among the arguments of
`__import__`; it is read from the instructions that follow in the block's code.
"""

from __future__ import annotations

import builtins
import dis
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, FrameType, TracebackType
from typing import Any, NamedTuple, Self

Importer = Callable[..., Any]


class SyncImports:
    """Run the import statements of a `with` block on engines too, one after the other."""

    def __init__(self, run: Callable[[str], None], *, is_local: bool = True, is_quiet: bool = False) -> None:
        self._run = run
        self._is_local = is_local
        self._is_quiet = is_quiet
        self._frame: FrameType | None = None
        self._real: Importer = builtins.__import__
        self._hook: Importer = self._import
        self._absent: list[Absent] = []

    def __enter__(self) -> Self:
        if self._frame is not None:
            raise RuntimeError("this block is already entered; make another one with view.sync_imports()")
        self._frame = sys._getframe(1)
        self._real, self._hook = builtins.__import__, self._import
        builtins.__import__ = self._hook
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._frame = None  # a hook that somebody has wrapped meanwhile lets everything through from now on
        if builtins.__import__ is self._hook:
            builtins.__import__ = self._real
        for absent in self._absent:
            absent.is_sealed = True

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - the names of `__import__`'s own
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        frame = sys._getframe(1)
        if frame is not self._frame:  # a module's own imports, or another thread
            return self._real(name, globals, locals, fromlist, level)
        full = name
        if level:
            full = importlib.util.resolve_name("." * level + name, (globals or {}).get("__package__") or "")
        if self._is_local or full in sys.modules:
            found = self._real(name, globals, locals, fromlist, level)
        else:
            found = Absent(full if fromlist else full.partition(".")[0])
            self._absent.append(found)
        statement = read_statement(full, fromlist or (), frame.f_code, frame.f_lasti)
        if not self._is_quiet:
            sys.stdout.write(f"importing {statement.describe()} on engine(s)\n")
        self._run(str(statement))
        return found


class Absent:
    """Stands here for a module that only the engines have imported."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._members: dict[str, Absent] = {}
        self.is_sealed = False

    def __repr__(self) -> str:
        return f"<{self._name}, imported on the engines alone>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        if self.is_sealed:
            raise AttributeError(
                f"{self._name} was imported on the engines alone, by sync_imports(local=False), so it has no "
                f"{name!r} here; import it here as well"
            )
        return self._members.setdefault(name, Absent(f"{self._name}.{name}"))


class Statement(NamedTuple):
    """An import statement: ``import {what}`` or ``from {module} import {what}``."""

    what: str
    module: str = ""

    def __str__(self) -> str:
        return f"from {self.module} import {self.what}" if self.module else f"import {self.what}"

    def describe(self) -> str:
        return f"{self.what} from {self.module}" if self.module else self.what


def read_statement(name: str, fromlist: Sequence[str], code: CodeType, offset: int) -> Statement:
    """The import statement of a module whose instruction is at `offset` in the code of a block."""
    following = [each for each in dis.get_instructions(code) if each.offset >= offset]
    if not following or following[0].opname != "IMPORT_NAME" or "*" in fromlist:
        return Statement("*", name) if "*" in fromlist else Statement(name)  # `__import__("name")`, perhaps
    bound = [_first(each.argval) for each in following if each.opname.startswith("STORE_")]
    if fromlist:
        return Statement(", ".join(map(_renamed, fromlist, bound)), name)
    if "." in name and following[1].opname != "IMPORT_FROM":  # `import a.b` binds `a`
        return Statement(name)
    return Statement(_renamed(name, bound[0]))


def _renamed(name: str, bound: str) -> str:
    return name if name == bound else f"{name} as {bound}"


def _first(names: str | tuple[str, ...]) -> str:
    # Python 3.13 has instructions that store two variables, or store one and load one.
    return names if isinstance(names, str) else names[0]
