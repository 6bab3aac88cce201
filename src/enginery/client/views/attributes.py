"""Flags as attributes of views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

if TYPE_CHECKING:
    from enginery.client.views.view import View

Value = TypeVar("Value")


class FlagAttribute(Generic[Value]):
    """A flag of a view; setting it is `View.set_flags`."""

    def __init__(self, doc: str) -> None:
        self.__doc__ = doc
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, view: None, owner: type, /) -> Self: ...
    @overload
    def __get__(self, view: View, owner: type, /) -> Value: ...
    def __get__(self, view: View | None, owner: type, /) -> Any:
        return self if view is None else view._flags.show(self._name)

    def __set__(self, view: View, value: Any) -> None:
        view.set_flags(**{self._name: value})
