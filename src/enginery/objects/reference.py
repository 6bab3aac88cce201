"""`Reference`: a name or an expression that stands for a value of the engine it arrives at."""

from __future__ import annotations

import functools
from types import CodeType
from typing import Any

from enginery.objects.arrival import Arrival, arriving


class Reference:
    """Stand for an expression that the engine evaluates in its namespace when the call arrives there.

    As a function, an argument, an item of a map, or inside of containers. A name that is missing there is a
    remote NameError. Raises TypeError unless given a string.

    >>> Reference("a")
    <Reference: 'a'>
    """

    __slots__ = ("name",)
    name: str

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a Reference is made of a name or an expression, a str, not of {name!r}")
        object.__setattr__(self, "name", name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Reference cannot be changed: make another one to set {name!r}")

    def __repr__(self) -> str:
        return f"<Reference: {self.name!r}>"

    def __eq__(self, other: object) -> bool:
        return self.name == other.name if type(other) is Reference else NotImplemented

    def __hash__(self) -> int:
        return hash((Reference, self.name))

    def __reduce__(self) -> tuple[Any, ...]:
        return make_reference, (self.name,)


@arriving
def make_reference(name: str, *, arrival: Arrival | None = None) -> Any:
    """The value on an engine, which evaluates what arrives; elsewhere the Reference."""
    if arrival is None or not arrival.evaluates:
        if arrival is not None:
            arrival.has_references = True
        return Reference(name)
    return evaluate(name, arrival.namespace)


def evaluate(name: str, namespace: dict[str, Any]) -> Any:
    return namespace[name] if name in namespace else eval(_compiled(name), namespace)


@functools.lru_cache(maxsize=256)
def _compiled(expression: str) -> CodeType:
    return compile(expression.strip(), "<Reference>", "eval")
