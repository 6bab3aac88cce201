"""What is there of a result that need not be complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Partial:
    """Hold the values that have come so far, in the order of the call.

    `values` has None in the positions of those that are `missing`, a list of positions, or have `failed`, a
    dictionary of errors by position.

    >>> Partial([1, None, None], missing=[1], failed={2: ValueError("no")})
    <Partial: 1 of 3 values, 1 missing, 1 failed>
    """

    values: Sequence[Any]
    missing: Sequence[int]
    failed: Mapping[int, Exception]

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        found = len(self.values) - len(self.missing) - len(self.failed)
        return (
            f"<Partial: {found} of {len(self.values)} values, {len(self.missing)} missing, "
            f"{len(self.failed)} failed>"
        )
