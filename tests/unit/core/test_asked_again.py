"""Calls that are to come again, and which of them is the first."""

from __future__ import annotations

import random

from enginery.core.asked_again import GONE_KEPT, AskedAgain


def test_the_lowest_is_known_in_any_order() -> None:
    chance = random.Random(1)
    asked, numbers = AskedAgain(), set[int]()
    for _ in range(5000):
        some = [chance.randrange(100)]
        if chance.random() < 0.5:
            asked.add(some)
            numbers.update(some)
        else:
            asked.discard(some)
            numbers.difference_update(some)
        probe = chance.randrange(100)
        assert asked.has_below(probe) == any(number < probe for number in numbers)
        assert len(asked) == len(numbers)
    assert repr(asked) == f"<AskedAgain: {len(numbers)} calls>"


def test_one_that_never_comes_does_not_keep_the_others() -> None:
    asked = AskedAgain()
    asked.add([1])
    for number in range(2, 10 * GONE_KEPT):
        asked.add([number])
        asked.discard([number])
        assert asked.has_below(number)
    assert len(asked._heap) <= 2 + GONE_KEPT
