"""A function of many arguments as one of a row of them: what `starmap` sends."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from enginery.objects.functions import function_name


class Starred:
    """Calls its function with the items of a row as arguments."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__name__ = function_name(function)

    def __repr__(self) -> str:
        return f"<Starred {self.__name__}>"

    def __call__(self, row: Iterable[Any]) -> Any:
        return self.function(*row)
