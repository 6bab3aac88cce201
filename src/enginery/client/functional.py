"""Functions that run on engines when they are called: `remote` and `parallel`, and what they make."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from enginery.client.numbers import check_whole
from enginery.client.parts import check_distribution, sliceable
from enginery.client.views.view import View, check_callable
from enginery.objects.functions import function_name


def remote(
    view: View, block: bool | None = None, **flags: Any
) -> Callable[[Callable[..., Any]], RemoteFunction]:
    """Decorate a function so that calling it is `apply` on a view.

    `block` and the flags are those of the view unless given. Raises KeyError for an unknown flag.

    >>> @remote(rc[:], block=True)                                      # doctest: +SKIP
    ... def getpid(): return os.getpid()
    """
    _check_view(view)
    view.read_flags(flags)
    return lambda function: RemoteFunction(view, function, block, **flags)


def parallel(
    view: View, dist: str = "b", block: bool | None = None, ordered: bool = True, **flags: Any
) -> Callable[[Callable[..., Any]], ParallelFunction]:
    """Decorate a function so that calling it cuts its arguments into parts, one call for each.

    See `ParallelFunction` for the keywords.

    >>> @parallel(rc[:], block=True)                                    # doctest: +SKIP
    ... def squares(part): return [x**2 for x in part]
    >>> squares(range(5))                                               # doctest: +SKIP
    [0, 1, 4, 9, 16]
    """
    _check_view(view)
    check_distribution(dist)
    return lambda function: ParallelFunction(view, function, dist, block, ordered=ordered, **flags)


class RemoteFunction:
    """A function whose calls run on a view: what `remote` makes.

    Calling it gives the value, or an AsyncResult unless blocking. `func` is the function itself.
    """

    __name__: str
    __signature__: inspect.Signature

    def __init__(self, view: View, f: Callable[..., Any], block: bool | None = None, **flags: Any) -> None:
        _check_view(view)
        check_callable(f)
        view.read_flags(flags)
        self.view = view
        self.func = f
        self.block = block
        self.flags = flags
        _look_like(self, f)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {function_name(self.func)} on {self.view!r}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.view.apply_with(self.func, args, kwargs, block=self.block, **self.flags)


class ParallelFunction(RemoteFunction):
    """A function that is called once for each part of its arguments: what `parallel` makes.

    The arguments are sequences of equal length. On a DirectView there is one part for each engine, on a
    LoadBalancedView one for every `chunksize` items, by default 1. What the calls return is joined to one
    sequence; unless blocking, that is an AsyncMapResult. `dist` is ``"b"`` for contiguous parts or ``"r"``
    for items dealt out in turn. `map` calls the function once for each item instead.
    """

    def __init__(  # noqa: PLR0917 - old code passes them by position
        self,
        view: View,
        f: Callable[..., Any],
        dist: str = "b",
        block: bool | None = None,
        chunksize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        **flags: Any,
    ) -> None:
        super().__init__(view, f, block, **flags)
        check_distribution(dist)
        if chunksize is not None:
            check_whole("chunksize", chunksize, smallest=1)
        self.dist = dist
        self.chunksize = chunksize
        self.ordered = ordered
        self.return_exceptions = return_exceptions

    def __call__(self, *sequences: Any, **kwargs: Any) -> Any:
        """Call the function once for each part of the sequences.

        Raises TypeError for keywords, ValueError for sequences of unequal length.
        """
        if kwargs:
            raise TypeError(
                f"{function_name(self.func)} is called with sequences alone, not with {sorted(kwargs)}: "
                "keywords cannot be cut into parts"
            )
        if not sequences:
            raise TypeError(f"{function_name(self.func)} needs at least one sequence")
        columns = [sliceable(sequence) for sequence in sequences]
        lengths = sorted(set(map(len, columns)))
        if len(lengths) > 1:
            raise ValueError(f"all sequences must have the same length; they have {lengths}")
        if not lengths[0]:
            return []
        return self.view.apply_parts(
            self.func,
            columns,
            dist=self.dist,
            chunksize=self.chunksize,
            ordered=self.ordered,
            return_exceptions=self.return_exceptions,
            block=self.block,
            **self.flags,
        )

    def map(self, *sequences: Iterable[Any]) -> Any:
        """Call the function for each item of the sequences, to the end of the shortest."""
        keywords: dict[str, Any] = {"return_exceptions": self.return_exceptions, **self.flags}
        if self.view.balanced:
            keywords |= {"ordered": self.ordered, "chunksize": self.chunksize}
        return self.view.map(self.func, *sequences, block=self.block, **keywords)


def _check_view(view: Any) -> None:
    if not isinstance(view, View):
        raise TypeError(
            f"a view is needed to say where the function runs, not {view!r} ({type(view).__name__})"
        )


def _look_like(wrapper: RemoteFunction, f: Any) -> None:
    """Give a wrapper the name, signature and text of its function."""
    functools.update_wrapper(wrapper, f, updated=())
    wrapper.__name__ = function_name(f)
    wrapper.__doc__ = f"{type(wrapper).__name__} wrapping:\n{getattr(f, '__doc__', None) or ''}"
    try:
        wrapper.__signature__ = inspect.signature(f)
    except (TypeError, ValueError):
        pass  # builtins have none, and neither has a Reference
