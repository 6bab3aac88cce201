"""Sequences cut into one part for each engine, and put together again: scatter and gather, `@parallel`. Pure.

`dist` says how: ``"b"``, contiguous blocks, or ``"r"``, dealt out in turn like cards.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from enginery.client.partition import split_evenly

DISTRIBUTIONS = ("b", "r")
_NOTHING = object()


def check_distribution(dist: Any) -> None:
    if dist not in DISTRIBUTIONS:
        raise ValueError(f"dist is 'b' (blocks) or 'r' (in turn), not {dist!r}")


def sliceable(items: Any) -> Any:
    """The items in a form whose slices are parts of them: their own, or a list.

    Raises TypeError for what cannot be iterated over.
    """
    if isinstance(items, range):
        return items
    try:
        items[0:0]
        len(items)
    except (TypeError, KeyError, IndexError, AttributeError):  # sets, deques, dictionaries, iterators
        try:
            return list(items)
        except TypeError:
            raise TypeError(
                f"a sequence is needed, not {items!r} ({type(items).__name__}), which cannot be iterated over"
            ) from None
    return items


def cut(items: Any, count: int, dist: str = "b") -> list[Any]:
    """So many parts of a sequence, their sizes differing by one at most; a `range` gives lists.

    >>> cut(range(5), 3), cut("abcde", 2, "r"), cut([1], 2)
    ([[0, 1], [2, 3], [4]], ['ace', 'bd'], [[1], []])
    """
    check_distribution(dist)
    items = sliceable(items)
    if dist == "r":
        parts = [items[number::count] for number in range(count)]
    else:
        parts = [items[part.start : part.stop] for part in split_evenly(len(items), count)]
        parts += [items[0:0]] * (count - len(parts))
    return [list(part) for part in parts] if isinstance(items, range) else parts


def join(parts: Sequence[Any], dist: str = "b") -> Any:
    """One sequence of all parts: an array if they are arrays, else a list.

    What is no sequence (a number, a dictionary, a set) counts as one item.

    >>> join([[0, 1], (2, 3), 4]), join(["ace", "bd"], "r")
    ([0, 1, 2, 3, 4], ['a', 'b', 'c', 'd', 'e'])
    """
    check_distribution(dist)
    numpy = sys.modules.get("numpy")
    if numpy is not None and parts and all(isinstance(part, numpy.ndarray) and part.ndim for part in parts):
        return _join_arrays(numpy, parts, dist)
    rows = [items_of(part) for part in parts]
    return list(itertools.chain.from_iterable(rows)) if dist == "b" else _deal(rows)


def items_of(part: Any) -> Iterable[Any]:
    """The items of a part."""
    numpy = sys.modules.get("numpy")
    is_array = numpy is not None and isinstance(part, numpy.ndarray) and part.ndim > 0
    return part if is_array or isinstance(part, Sequence) else (part,)


def _join_arrays(numpy: Any, parts: Sequence[Any], dist: str) -> Any:
    is_masked = "numpy.ma" in sys.modules and any(isinstance(part, numpy.ma.MaskedArray) for part in parts)
    whole = (numpy.ma if is_masked else numpy).concatenate(parts)
    if dist == "b":
        return whole
    ends = list(itertools.accumulate(map(len, parts)))
    return whole[_deal([range(end - len(part), end) for part, end in zip(parts, ends, strict=True)])]


def _deal(rows: Sequence[Iterable[Any]]) -> list[Any]:
    """One item of each row in turn, until all are used up."""
    turns = itertools.zip_longest(*rows, fillvalue=_NOTHING)
    return [item for turn in turns for item in turn if item is not _NOTHING]
