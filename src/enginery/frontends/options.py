"""The options of the magics: what they are, and how what a user types is read.

`Settings` are those that stay, set with ``%pxconfig`` and changed for one cell by the options of ``%%px``.
"""

# mypy: allow-untyped-calls

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeVar

from IPython.core.error import UsageError
from IPython.core.magic_arguments import argument, magic_arguments

from enginery.client.orders import signal_number
from enginery.client.results.display import GROUPINGS

PROGRESS_AFTER_S = 2.0
_NONINTERACTIVE = ("ENGINERY_NONINTERACTIVE", "IPP_NONINTERACTIVE")
_NO = frozenset({"", "0", "false", "no"})

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Settings:
    """How cells are run, unless they say otherwise."""

    block: bool | None = None
    """Whether a cell is waited for; None is what its view does."""
    stream: bool = True
    progress_after_s: float = PROGRESS_AFTER_S
    """When a bar appears, negative for never."""
    signal_on_interrupt: int = 2
    """The number of the signal that Ctrl-C sends to the engines, 0 for none."""
    verbose: bool = False
    fold: bool = True
    """Whether what several engines show alike is shown once."""

    def changed_by(self, options: Namespace) -> Settings:
        """These settings, but for what was said in options."""
        given = {field.name: getattr(options, field.name, None) for field in fields(self)}
        return replace(self, **{name: value for name, value in given.items() if value is not None})


def default_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """What is set at first: no live output and no bar where nobody looks at the screen."""
    if any(environment.get(name, "").lower() not in _NO for name in _NONINTERACTIVE):
        return Settings(stream=False, progress_after_s=-1.0)
    return Settings()


# ---------------------------------------------------------------- reading


def read_targets(text: str) -> Any:
    """Targets as they are typed: ``all``, an id, ids with commas, a slice; as views take them.

    >>> read_targets("all"), read_targets("-1"), read_targets("0,2"), read_targets("::2")
    ('all', -1, [0, 2], slice(None, None, 2))
    """
    text = text.strip()
    if text == "all":
        return text
    try:
        if ":" in text:
            return slice(*(int(part) if part.strip() else None for part in text.strip("[]").split(":")))
        if "," in text or text.startswith("["):
            return [int(part) for part in text.strip("[]()").split(",") if part.strip()]
        return int(text)
    except (ValueError, TypeError):
        raise UsageError(
            f"targets are an engine's id, ids with commas such as 0,2, a slice such as ::2, or all; "
            f"not {text!r}"
        ) from None


def _read_signal(text: str) -> int:
    try:
        return signal_number(int(text) if text.isdecimal() else text)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _read_name(text: str) -> str:
    if not text.isidentifier():
        raise UsageError(f"--out needs the name of a variable, not {text!r}")
    return text


# ---------------------------------------------------------------- the options


class Option(NamedTuple):
    """The arguments of argparse's `add_argument`."""

    names: tuple[str, ...]
    keywords: dict[str, Any]

    @property
    def has_value(self) -> bool:
        return "action" not in self.keywords


def _option(*names: str, **keywords: Any) -> Option:
    return Option(names, keywords)


def _switch(dest: str, names: dict[bool, tuple[str, ...]], texts: dict[bool, str]) -> list[Option]:
    return [
        _option(*names[is_on], dest=dest, default=None, action="store_const", const=is_on, help=texts[is_on])
        for is_on in (True, False)
    ]


BLOCK = _switch(
    "block",
    {True: ("-b", "--block"), False: ("-a", "--noblock")},
    {True: "wait for the engines", False: "return an AsyncResult at once"},
)
STREAM = _switch(
    "stream",
    {True: ("--stream",), False: ("--no-stream",)},
    {True: "show output while it comes", False: "show output when all engines have ended"},
)
FOLD = _switch(
    "fold",
    {True: ("--fold",), False: ("--no-fold",)},
    {True: "show once what several engines show alike", False: "show what each engine shows"},
)
VERBOSE = _switch(
    "verbose",
    {True: ("--verbose",), False: ("--no-verbose",)},
    {True: "say on which engines each cell runs", False: "do not say it"},
)

SETTINGS = [
    *BLOCK,
    _option("-t", "--targets", type=read_targets, help="the engines: 0, or 0,2, or ::2, or all"),
    *STREAM,
    _option(
        "--progress-after",
        dest="progress_after_s",
        type=float,
        metavar="SECONDS",
        help="show a progress bar after so many seconds; 0 at once, -1 never",
    ),
    _option(
        "--signal-on-interrupt",
        type=_read_signal,
        metavar="SIGNAL",
        help="what Ctrl-C does to the engines that are waited for: SIGINT, the default, interrupts what they "
        "run; other signals are sent; 0 for nothing",
    ),
    *FOLD,
    *VERBOSE,
]

OUTPUT = [
    _option("-o", "--out", type=_read_name, metavar="NAME", help="keep the AsyncResult under this name"),
    _option(
        "--group-outputs",
        dest="groupby",
        choices=GROUPINGS,
        help="show all of a type together, or all of an engine, or first the first displays of all engines",
    ),
    _option("-e", dest="groupby", action="store_const", const="engine", help="--group-outputs=engine"),
    _option("-r", dest="groupby", action="store_const", const="order", help="--group-outputs=order"),
]

KEEP = [_option("--keep", action="store_true", help="run it on engines that come later too, first of all")]

LOCAL = [_option("--local", action="store_true", help="run the cell here too")]


def takes(name: str, *options: Option) -> Callable[[_Function], _Function]:
    """Have a method be the magic of that name, with these options."""

    def decorate(method: _Function) -> _Function:
        found: Any = method
        for option in reversed(options):
            found = argument(*option.names, **option.keywords)(found)
        decorated: _Function = magic_arguments(name)(found)
        return decorated

    return decorate


_LEADING = re.compile(r"\s*(--[a-z][a-z-]*)(?:(=\S*)|(?=\s)|$)")
_VALUE = re.compile(r"\s+\S+")


def split_line(line: str, options: list[Option]) -> tuple[str, str]:
    """A line's leading long options, and the rest, which is code.

    >>> split_line("--targets 0 --no-stream  print(1 --2)", SETTINGS)
    ('--targets 0 --no-stream', 'print(1 --2)')
    >>> split_line("--a", SETTINGS)
    ('', '--a')
    """
    known = {name: option for option in options for name in option.names}
    end = 0
    while (found := _LEADING.match(line, end)) is not None and found[1] in known:
        end = found.end()
        if known[found[1]].has_value and found[2] is None:
            value = _VALUE.match(line, end)
            end = len(line) if value is None else value.end()
    return line[:end].strip(), line[end:].strip()
