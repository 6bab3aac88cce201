"""A client's calls that wait for credit, oldest first, with what they hold.

Whoever takes a call out of the middle leaves its place to be passed over; places are cleared away when they
are the greater part of the queue, so that taking all calls out one by one costs each a few steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from enginery.core.submissions import Submission

Promise = TypeVar("Promise")


class CallQueue(Generic[Promise]):
    """Calls in the order in which they leave."""

    def __init__(self) -> None:
        self._calls: deque[Submission[Promise]] = deque()
        self._left: set[int] = set()  # by number: their places are still here
        self.size_bytes = 0

    def __repr__(self) -> str:
        return f"<CallQueue: {len(self)} calls, {self.size_bytes} bytes>"

    def __len__(self) -> int:
        return len(self._calls) - len(self._left)

    def __iter__(self) -> Iterator[Submission[Promise]]:
        return (call for call in self._calls if call.call.number not in self._left)

    def append(self, submission: Submission[Promise]) -> None:
        self._calls.append(submission)
        self.size_bytes += submission.size_bytes

    def pop(self) -> Submission[Promise]:
        """Take the first one out; raises IndexError if there is none."""
        submission = self._calls.popleft()
        while submission.call.number in self._left:
            self._left.remove(submission.call.number)
            submission = self._calls.popleft()
        self.size_bytes -= submission.size_bytes
        return submission

    def discard(self, submission: Submission[Promise]) -> None:
        """Take one out that is in the queue."""
        self._left.add(submission.call.number)
        self.size_bytes -= submission.size_bytes
        if 2 * len(self._left) > len(self._calls):
            self._calls = deque(self)
            self._left.clear()

    def put_back(self, submissions: Sequence[Submission[Promise]]) -> None:
        """Calls that are asked for go first, in order of their numbers, with those that are here already."""
        asked_for = list(submissions)
        while self and next(iter(self)).asked_for:
            asked_for.append(self.pop())
        asked_for.sort(key=lambda submission: submission.call.number, reverse=True)
        self._calls.extendleft(asked_for)
        self.size_bytes += sum(submission.size_bytes for submission in asked_for)

    def clear(self) -> None:
        self._calls.clear()
        self._left.clear()
        self.size_bytes = 0

    def check(self) -> None:
        """Assert every invariant."""
        numbers = [submission.call.number for submission in self._calls]
        assert len(set(numbers)) == len(numbers)
        assert self._left <= set(numbers)
        assert self.size_bytes == sum(submission.size_bytes for submission in self)
        for submission in self:
            assert not submission.sent
            assert not submission.copying
            assert not submission.accepted
