"""The queue of calls: first in, first out, whoever is taken out of the middle."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginery.core.call_queue import CallQueue
from enginery.core.submissions import Submission
from enginery.ids import BlobId
from enginery.protocol.messages import Call, Kind, TaskOptions

OPTIONS = TaskOptions(Kind.CALL, BlobId(b"f"))


def call(number: int, size_bytes: int = 1) -> Submission[str]:
    return Submission(OPTIONS, Call(number, b"", (), (), 0), (), ["promise"], size_bytes)


def numbers(queue: CallQueue[str]) -> list[int]:
    return [submission.call.number for submission in queue]


def test_the_oldest_leaves_first() -> None:
    queue: CallQueue[str] = CallQueue()
    for number in (1, 2, 3):
        queue.append(call(number, 10))
    assert (len(queue), queue.size_bytes) == (3, 30)
    assert [queue.pop().call.number for _ in range(3)] == [1, 2, 3]
    assert (len(queue), queue.size_bytes) == (0, 0)
    with pytest.raises(IndexError):
        queue.pop()


def test_what_is_asked_for_goes_first_in_order() -> None:
    queue: CallQueue[str] = CallQueue()
    queue.append(call(9))
    for number in (5, 3, 4):
        asked = call(number)
        asked.asked_for = True
        queue.put_back([asked])
    assert numbers(queue) == [3, 4, 5, 9]
    queue.check()


class CountingQueue(CallQueue[str]):
    """Counts the places that it looks at."""

    looked_at = 0

    def __iter__(self) -> Any:
        for submission in super().__iter__():
            self.looked_at += 1
            yield submission


def test_taking_all_out_one_by_one_costs_each_a_few_steps() -> None:
    queue, calls = CountingQueue(), [call(number) for number in range(4_000)]
    for one in calls:
        queue.append(one)
    for one in calls:
        queue.discard(one)
    assert (len(queue), queue.size_bytes) == (0, 0)
    assert queue.looked_at <= 2 * len(calls)


@given(st.lists(st.sampled_from(["append", "pop", "discard first", "discard last", "put back"]), max_size=60))
def test_it_is_a_list(steps: list[str]) -> None:
    queue: CallQueue[str] = CallQueue()
    model: list[Submission[str]] = []
    for number, step in enumerate(steps, 1):
        if step == "append":
            model.append(call(number, number))
            queue.append(model[-1])
        elif model and step == "pop":
            assert queue.pop() is model.pop(0)
        elif model and step.startswith("discard"):
            queue.discard(model.pop(0 if step.endswith("first") else -1))
        elif step == "put back":
            asked = call(number)
            asked.asked_for = True
            asked_for = [one for one in model if one.asked_for]
            model = [*asked_for, asked, *model[len(asked_for) :]]
            queue.put_back([asked])
        queue.check()
        assert list(queue) == model
        assert queue.size_bytes == sum(one.size_bytes for one in model)
