"""Targets, as users write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from enginery.client.views.targets import as_list, describe, normalise
from enginery.errors import NoEnginesRegistered
from enginery.ids import EngineId

IDS = tuple(map(EngineId, (0, 1, 4, 7)))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("all", "all"),
        (None, "all"),
        (4, 4),
        (-1, 7),
        (np.int64(1), 1),
        ([4, 0], (4, 0)),
        ((0, -1), (0, 7)),
        (range(2), (0, 1)),
        (np.array([1, 4]), (1, 4)),
        (slice(None), (0, 1, 4, 7)),
        (slice(1, 3), (1, 4)),
        (slice(None, None, 2), (0, 4)),
    ],
)
def test_all_forms(given: Any, expected: Any) -> None:
    assert normalise(given, IDS) == expected


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (99, IndexError, "there is no engine 99; the engines are [0, 1, 4, 7]"),
        (-5, IndexError, "there is no engine -5: there are 4 engines, [0, 1, 4, 7]"),
        ([0, 2], IndexError, "there is no engine 2; the engines are [0, 1, 4, 7]"),
        (slice(9, None), IndexError, "[9:] selects none of the engines [0, 1, 4, 7]"),
        ([], IndexError, "an empty list of engines cannot be a target"),
        (1.5, TypeError, "targets must be an engine id, a list of them, a slice or 'all', not 1.5 (float)"),
        (True, TypeError, "targets must be an engine id, a list of them, a slice or 'all', not True (bool)"),
        (
            "some",
            TypeError,
            "targets must be an engine id, a list of them, a slice or 'all', not 'some' (str)",
        ),
        (
            [0, "1"],
            TypeError,
            "targets must be an engine id, a list of them, a slice or 'all', not '1' (str)",
        ),
    ],
)
def test_bad_ones_are_told_what_was_expected(given: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        normalise(given, IDS)
    assert str(caught.value) == text


@pytest.mark.parametrize("given", [0, -1, [0], slice(None), range(2)])
def test_without_engines(given: Any) -> None:
    with pytest.raises(NoEnginesRegistered):
        normalise(given, ())
    assert normalise("all", ()) == "all"


def test_a_wrong_type_is_a_wrong_type_without_engines_too() -> None:
    with pytest.raises(TypeError):
        normalise(1.5, ())


def test_how_users_see_them() -> None:
    assert as_list(normalise([0, 1], IDS)) == [0, 1]
    assert describe(normalise([0, 1], IDS)) == "[0,1]"
    assert describe(normalise(4, IDS)) == "4"
    many = tuple(map(EngineId, range(40)))
    assert describe(many) == "[0,1,2,3,4,5,6,7,8,9,10,11,12,13,...,39]"
