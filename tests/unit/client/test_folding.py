"""What engines show alike is shown once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from enginery.client.results.execute_reply import ExecuteReply
from enginery.client.results.folding import Held, Share, engine_list, fold, prompt_of
from enginery.client.results.metadata import Metadata


def reply(engine: int, count: int, **data: Any) -> ExecuteReply:
    return ExecuteReply(
        {"execution_count": count, "data": data, "metadata": {}}, describe=lambda: Metadata(engine_id=engine)
    )


def engines(groups: list[list[Share]]) -> list[list[int | None]]:
    return [[share.engine for share in alike] for alike in groups]


def test_in_the_order_of_the_first_of_each() -> None:
    texts = ["b", "a", "b", "a", "c"]
    groups = fold(Share(number, [("stdout", text)]) for number, text in enumerate(texts))
    assert engines(groups) == [[0, 2], [1, 3], [4]]


def test_all_items_have_to_be_alike() -> None:
    one: Sequence[Any] = [("stdout", "x"), ("stderr", "y")]
    assert engines(fold([Share(0, one), Share(1, one[:1]), Share(2, one[::-1]), Share(3, list(one))])) == [
        [0, 3],
        [1],
        [2],
    ]


def test_who_shows_nothing_is_left_out() -> None:
    assert fold([Share(0, []), Share(1, ())]) == []


def test_values_are_alike_whatever_their_numbers() -> None:
    shares = [
        Share(0, [("result", reply(0, 5, text="1"))]),
        Share(1, [("result", reply(1, 4, text="1"))]),
        Share(2, [("result", reply(2, 5, text="2"))]),
    ]
    assert engines(fold(shares)) == [[0, 1], [2]]


def test_the_prompt_of_several() -> None:
    assert prompt_of([reply(0, 3)]) == "Out[0:3]:"
    assert prompt_of([reply(engine, 3) for engine in range(4)]) == "Out[0-3:3]:"
    assert prompt_of([reply(0, 3), reply(1, 4), reply(2, 3)]) == "Out[0,2:3;1:4]:"


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([0], "0"), ([3, 0, 1, 2], "0-3"), ([7, 0, 1], "0,1,7"), ([None], ""), ([None, 2], "2")],
)
def test_lists_of_engines(numbers: list[int | None], text: str) -> None:
    assert engine_list(numbers) == text


def test_what_is_held_is_shown_by_kind_and_engine() -> None:
    held = Held()
    assert not held
    held.add("outputs", 1, {"data": 1})
    for engine in (2, 0, None):
        held.add("stdout", engine, "a\n")
        held.add("stdout", engine, "b\n")
    held.add("stdout", 1, "a\n")
    assert held
    assert repr(held) == "<Held of 4 engines>"
    shown: list[tuple[list[int | None], Any]] = []
    held.flush(lambda alike: shown.append(([share.engine for share in alike], alike[0].items)))
    assert shown == [
        ([0, 2, None], [("stdout", "a\nb\n")]),
        ([1], [("stdout", "a\n")]),
        ([1], [("outputs", [{"data": 1}])]),
    ]
    assert not held
